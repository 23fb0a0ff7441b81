"""THE definition of a stored ECG: its leads, unit, type and feature names.

Everything before this module turns somebody's file into an `EcgRecord`; everything after it reads int16 arrays
of exactly this layout. Nothing else in the project may define leads, units or feature names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping

import numpy as np

#: The eight independent leads, in stored order. III, aVR, aVL and aVF follow from I and II exactly.
STORED_LEADS: tuple[str, ...] = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")

#: The twelve standard leads in the order clinicians list them.
STANDARD_LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

#: One least significant bit of a stored sample is one microvolt.
MICROVOLTS_PER_MILLIVOLT = 1000

#: Version of the stored layout; a reader refuses data sets of another one.
LAYOUT_VERSION = 2

#: Bytes of the signature by which near-duplicates are found (`signature.py`); here, so that training need not load the
#: signal processing that makes it.
SIGNATURE_BYTES = 192

#: Another version, other signatures: those of two versions must not be compared.
SIGNATURE_VERSION = 1

#: Samples of the envelope by which copies with another order of leads are told from other records (`order_free.py`).
ENVELOPE_SAMPLES = 256

#: Entry of an envelope where the recording has ended.
NO_SAMPLE = -128

#: As `SIGNATURE_VERSION`, of envelopes and order-free signatures.
ORDER_FREE_VERSION = 1

MALE, FEMALE, SEX_UNKNOWN = 0, 1, -1

#: Words for them.
SEX_NAMES: Mapping[int, str] = {MALE: "male", FEMALE: "female", SEX_UNKNOWN: "unknown"}

#: Fold number of a record whose data set assigns none.
NO_FOLD = -1

#: Value of a multi-label task's class where the record has no label of that task at all.
LABEL_MISSING = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalFormat:
    """Rate and length that all records of one data set share.

    Attributes:
        sampling_rate_hz: samples per second.
        num_samples: stored samples per lead (shorter recordings are padded, see `EcgRecord.valid_start`).
    """

    sampling_rate_hz: int
    num_samples: int

    @property
    def shape(self) -> tuple[int, int]:
        """`(time, lead)` of a stored signal."""
        return (self.num_samples, len(STORED_LEADS))

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sampling_rate_hz


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSchema:
    """Names of what a data set says about its records.

    Attributes:
        scalars: names of scalar labels and measurements (float32, NaN where missing), such as `"lvef"`.
        tasks: multi-label tasks, each with its class names in column order.
        units: unit of a scalar where it has one, such as `{"lvef": "%"}`.
    """

    scalars: tuple[str, ...] = ()
    tasks: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remark:
    """Something about a record that was stored all the same, such as an age that could not be read.

    Attributes:
        reason: stable slug by which remarks are counted, such as `"unknown_age"`.
        message: what is wrong and what was done, in plain words, with the source's name.
        value: what the source says, by which remarks of one reason are counted apart; empty where that tells nothing.
    """

    reason: str
    message: str
    value: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EcgRecord:
    """One recording in canonical form.

    Attributes:
        record_id: unique within its data set; names the source file in messages.
        patient_id: who it was recorded from; records of one patient are never split nor set against each other.
        signal: `int16[time, lead]`, µV, leads in the order of `STORED_LEADS`.
        valid_start: first sample that was recorded and not padded.
        valid_samples: number of recorded samples from `valid_start` on.
        recording_id: recording that it is a piece of, by its own id; empty for a recording that is one record.
        recording_seconds: length of the recording, of which the record can be a part; NaN where unknown.
        start_seconds: where in the recording its first recorded sample lies; NaN where unknown.
        age_years: NaN where unknown.
        sex: `MALE`, `FEMALE` or `SEX_UNKNOWN`.
        fold: the data set's official fold, or `NO_FOLD`.
        report: free text, in the data set's own language, or empty.
        scalars: value of every name in the data set's `LabelSchema.scalars`; NaN where missing.
        tasks: `int8[classes]` of 0, 1 for every name in `LabelSchema.tasks`, or all `LABEL_MISSING`.
        remarks: what a build tells of it; they are counted and listed, and are no part of what is stored.
        origin: what decides its scale (`origins.py`), for the build alone: it is not stored.
    """

    record_id: str
    patient_id: str
    signal: np.ndarray
    valid_start: int
    valid_samples: int
    recording_id: str = ""
    recording_seconds: float = math.nan
    start_seconds: float = math.nan
    age_years: float = math.nan
    sex: int = SEX_UNKNOWN
    fold: int = NO_FOLD
    report: str = ""
    scalars: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tasks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    origin: str = ""


def content_hash(signal: np.ndarray) -> bytes:
    """Returns the 16-byte BLAKE2b digest of a stored signal: equal signals, equal digests, whatever their ids.

    Args:
        signal: `int16[time, lead]`, µV.
    """
    if signal.dtype != np.int16:
        raise TypeError(f"content_hash takes the stored int16 signal, got {signal.dtype}")
    shape = "x".join(map(str, signal.shape)).encode()
    return hashlib.blake2b(
        np.ascontiguousarray(signal).astype("<i2", copy=False).data, digest_size=16, key=shape
    ).digest()
