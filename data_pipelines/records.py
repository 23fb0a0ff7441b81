"""THE definition of a stored ECG: its leads, unit, type and feature names.

Modules that come before this one in a build turn files of many kinds into an `EcgRecord`; those that come after it read
int16 arrays of exactly this layout. Nothing else in the project may define leads, units or feature names.
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

#: Size in bytes of the signature by which near-duplicates are found (`signature.py`). It is defined here, so that
#: training need not load the signal processing that makes signatures.
SIGNATURE_BYTES = 192

#: Version of the signatures; those of two versions must not be compared.
SIGNATURE_VERSION = 1

#: Number of samples of the envelope by which copies with another order of leads are found (`order_free.py`).
ENVELOPE_SAMPLES = 256

#: Entry of an envelope where the recording has ended.
NO_SAMPLE = -128

#: Version of envelopes and order-free signatures; those of two versions must not be compared.
ORDER_FREE_VERSION = 1

MALE, FEMALE, SEX_UNKNOWN = 0, 1, -1

#: Names of the codes of sex.
SEX_NAMES: Mapping[int, str] = {MALE: "male", FEMALE: "female", SEX_UNKNOWN: "unknown"}

#: Fold number of a record whose data set assigns none.
NO_FOLD = -1

#: Value of a multi-label task's class where the record has no label of that task at all.
LABEL_MISSING = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalFormat:
    """Rate and length that all records of one data set share.

    Attributes:
        sampling_rate_hz: Samples per second.
        num_samples: Number of stored samples of each lead (shorter recordings are padded, see `EcgRecord.valid_start`).
    """

    sampling_rate_hz: int
    num_samples: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape `(time, lead)` of a stored signal."""
        return (self.num_samples, len(STORED_LEADS))

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sampling_rate_hz


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSchema:
    """Names of the labels that a data set gives its records.

    Attributes:
        scalars: Names of scalar labels and measurements (float32, NaN where missing), such as `"lvef"`.
        tasks: Multi-label tasks, each with its class names in column order.
        units: Units of the scalars that have one, such as `{"lvef": "%"}`.
    """

    scalars: tuple[str, ...] = ()
    tasks: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remark:
    """Note about a record that was stored in spite of a fault, such as an age that could not be read.

    Attributes:
        reason: Stable slug by which remarks are counted, such as `"unknown_age"`.
        message: Description of what is wrong and what was done, in plain words, with the source's name.
        value: Value in the source, by which remarks of one reason are counted apart; empty where it tells nothing.
    """

    reason: str
    message: str
    value: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EcgRecord:
    """One recording in canonical form.

    Attributes:
        record_id: Id that is unique within the data set, and names the source file in messages.
        patient_id: Id of the patient; records of one patient are never split nor set against each other.
        signal: `int16[time, lead]`, µV, leads in the order of `STORED_LEADS`.
        valid_start: Position of the first sample that was recorded and not padded.
        valid_samples: Number of recorded samples from `valid_start` on.
        recording_id: Id of the recording that the record is a piece of; empty where the record is the whole recording.
        recording_seconds: Length of the recording, of which the record can be a part; NaN where unknown.
        start_seconds: Time of the record's first recorded sample within the recording; NaN where unknown.
        age_years: Age of the patient; NaN where unknown.
        sex: Sex of the patient: `MALE`, `FEMALE` or `SEX_UNKNOWN`.
        fold: Official fold of the data set, or `NO_FOLD`.
        report: Free text, in the data set's own language, or empty.
        scalars: Value of every name in the data set's `LabelSchema.scalars`; NaN where missing.
        tasks: `int8[classes]` of 0, 1 for every name in `LabelSchema.tasks`, or all `LABEL_MISSING`.
        remarks: Remarks that a build counts and lists; they are not stored with the record.
        origin: Origin that decides the scale (`origins.py`), for the build alone: it is not stored.
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
    """Returns the 16-byte BLAKE2b digest of a stored signal, which is the same for equal signals, whatever their ids.

    Args:
        signal: `int16[time, lead]`, µV.
    """
    if signal.dtype != np.int16:
        raise TypeError(f"content_hash takes the stored int16 signal, got {signal.dtype}")
    shape = "x".join(map(str, signal.shape)).encode()
    data = np.ascontiguousarray(signal).astype("<i2", copy=False).data
    return hashlib.blake2b(data, digest_size=16, key=shape).digest()
