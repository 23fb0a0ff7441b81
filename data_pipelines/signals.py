"""From a recording as its file has it to the stored signal: units, quality checks, rate, length, int16 µV.

The checks run in a fixed order and the first that fails names the reason. All thresholds are constants of this
module, so that two builds of one source store the same records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import scipy.signal

from data_pipelines.errors import RecordError
from data_pipelines.lead_names import lead_columns
from data_pipelines.readers.recording import Recording
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STORED_LEADS, SignalFormat

#: Millivolts per unit, by the unit's spelling in lower case (µ is U+00B5 in files, μ U+03BC is its Greek twin).
MILLIVOLTS_PER_UNIT = {"mv": 1.0, "millivolt": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "microvolt": 1e-3, "v": 1e3}

#: A lead that moves less than this over the whole recording is flat: a quarter of one small box (0.1 mV).
FLAT_LEAD_MV = 0.025

#: The largest lead of an ECG moves at least this much; below it the unit or gain is wrong (µV taken for mV, …).
SMALLEST_AMPLITUDE_MV = 0.1

#: Einthoven's and Goldberger's identities hold within this for 95 % of samples. Sources that round each lead to
#: 4.88 µV are off by up to 11 µV (CODE-15), single clipped samples by millivolts; swapped or inverted limb leads
#: are off by the size of a QRS for longer than 5 % of the time.
EINTHOVEN_TOLERANCE_MV = 0.025
EINTHOVEN_QUANTILE = 0.95

#: Rates below this lose too much of the QRS; the slowest published 12-lead sets have it.
LOWEST_SOURCE_RATE_HZ = 100

_MICROVOLT_RANGE = np.iinfo(np.int16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredSignal:
    """A signal ready to store.

    Attributes:
        signal: `int16[time, lead]`, µV, leads in the order of `STORED_LEADS`, zero where padded.
        valid_start: first recorded sample.
        valid_samples: number of recorded samples from there on.
    """

    signal: np.ndarray
    valid_start: int
    valid_samples: int


def stored_signal(recording: Recording, *, signal_format: SignalFormat, min_seconds: float) -> StoredSignal:
    """Turns a recording into the stored form, or says why it cannot be.

    Args:
        recording: any channels, unit and rate.
        signal_format: rate and length of the data set. Longer recordings are cut to their first samples, shorter
            ones are followed by zeros.
        min_seconds: recordings shorter than this are refused.

    Returns:
        The stored signal.

    Raises:
        RecordError: `missing_lead`, `duplicate_lead`, `wrong_unit`, `nan`, `wrong_rate`, `too_short`, `flat_lead`,
            `einthoven` or `out_of_range`.
    """
    columns = lead_columns(recording.channels, source=recording.source)
    leads = {
        lead: recording.signal[:, column] * _millivolts_per_unit(recording, column) for lead, column in columns.items()
    }
    check_leads(leads, sampling_rate_hz=recording.sampling_rate_hz, min_seconds=min_seconds, source=recording.source)
    millivolts = resample(
        np.stack([leads[lead] for lead in STORED_LEADS], axis=1),
        source_rate_hz=recording.sampling_rate_hz,
        target_rate_hz=signal_format.sampling_rate_hz,
        source=recording.source,
    )[: signal_format.num_samples]
    microvolts = _microvolts(millivolts, recording.source)
    padded = np.zeros(signal_format.shape, np.int16)
    padded[: len(microvolts)] = microvolts
    return StoredSignal(signal=padded, valid_start=0, valid_samples=len(microvolts))


def check_leads(leads: Mapping[str, np.ndarray], *, sampling_rate_hz: float, min_seconds: float, source: str) -> None:
    """Raises `RecordError` unless these leads are a plausible 12-lead (or 8-lead) ECG.

    Args:
        leads: `f64[time]` in mV by standard lead name, at least `STORED_LEADS`.
        sampling_rate_hz: their rate.
        min_seconds: shortest recording accepted.
        source: what to name in messages.

    Raises:
        RecordError: `nan`, `wrong_rate`, `too_short`, `flat_lead`, `wrong_unit` or `einthoven`.
    """
    for lead, values in leads.items():
        if num_bad := int(np.count_nonzero(~np.isfinite(values))):
            raise RecordError(
                f"{source}: lead {lead} has {num_bad} of {len(values)} samples that are NaN or infinite; "
                "repair or leave out the recording",
                reason="nan",
            )
    if not LOWEST_SOURCE_RATE_HZ <= sampling_rate_hz < 1e5:
        raise RecordError(
            f"{source}: sampled at {sampling_rate_hz:g} Hz; a 12-lead ECG has at least {LOWEST_SOURCE_RATE_HZ} Hz",
            reason="wrong_rate",
        )
    seconds = len(leads["I"]) / sampling_rate_hz
    if seconds < min_seconds:
        raise RecordError(
            f"{source}: {seconds:.2f} s long, at least {min_seconds:g} s are asked for (--min_seconds)",
            reason="too_short",
        )
    amplitudes = {lead: float(np.ptp(leads[lead])) for lead in STORED_LEADS}
    largest = max(amplitudes, key=amplitudes.__getitem__)
    if 0 < amplitudes[largest] < SMALLEST_AMPLITUDE_MV:
        raise RecordError(
            f"{source}: the largest lead ({largest}) spans {amplitudes[largest] * 1e3:.3g} µV, too little for an "
            "ECG; its unit or gain must be wrong",
            reason="wrong_unit",
        )
    flat = [lead for lead, amplitude in amplitudes.items() if amplitude < FLAT_LEAD_MV]
    if flat:
        raise RecordError(
            f"{source}: lead {', '.join(flat)} is flat (moves less than {FLAT_LEAD_MV * 1e3:g} µV): not connected",
            reason="flat_lead",
        )
    _check_einthoven(leads, source)


def _check_einthoven(leads: Mapping[str, np.ndarray], source: str) -> None:
    one, two = leads["I"], leads["II"]
    derived = {
        "III": ("II - I", two - one),
        "aVR": ("-(I + II)/2", -(one + two) / 2),
        "aVL": ("I - II/2", one - two / 2),
        "aVF": ("II - I/2", two - one / 2),
    }
    for lead, (formula, expected) in derived.items():
        if lead not in leads:
            continue
        residual = float(np.quantile(np.abs(leads[lead] - expected), EINTHOVEN_QUANTILE))
        if residual > EINTHOVEN_TOLERANCE_MV:
            raise RecordError(
                f"{source}: lead {lead} is not {formula}: 5 % of samples are off by more than {residual * 1e3:.0f} µV "
                f"({EINTHOVEN_TOLERANCE_MV * 1e3:g} allowed); limb leads are swapped or misnamed, or gains are wrong",
                reason="einthoven",
            )


def resample(signal: np.ndarray, *, source_rate_hz: float, target_rate_hz: int, source: str) -> np.ndarray:
    """Changes the rate by polyphase filtering, with an anti-alias filter below the lower Nyquist frequency.

    Args:
        signal: `f64[time, lead]`.
        source_rate_hz: its rate; the ratio of the two must be a fraction of integers below 10,000.
        target_rate_hz: the rate wanted; above the source's is interpolation, and adds no information.
        source: what to name in messages.

    Returns:
        `f64[ceil(time · target / source), lead]`; `signal` itself when the rates are equal.

    Raises:
        RecordError: `wrong_rate`, when the ratio is no such fraction.
    """
    if source_rate_hz == target_rate_hz:
        return signal
    ratio = (Fraction(target_rate_hz) / Fraction(source_rate_hz)).limit_denominator(10_000)
    if abs(float(ratio) * source_rate_hz / target_rate_hz - 1) > 1e-6 or ratio.numerator >= 10_000:
        raise RecordError(
            f"{source}: {source_rate_hz!r} Hz does not resample to {target_rate_hz} Hz by a ratio of integers below "
            "10,000; correct the rate in the header or choose another --target_rate_hz",
            reason="wrong_rate",
        )
    # 'line' extends by the straight line through both ends; zeros would ring wherever the baseline is off zero.
    return scipy.signal.resample_poly(signal, ratio.numerator, ratio.denominator, axis=0, padtype="line")


def _millivolts_per_unit(recording: Recording, column: int) -> float:
    unit = recording.units[column].strip()
    factor = MILLIVOLTS_PER_UNIT.get(unit.lower())
    if factor is None:
        raise RecordError(
            f"{recording.source}: lead {recording.channels[column]} is in '{unit}', which is no voltage; "
            "known units are mV, µV (uV) and V",
            reason="wrong_unit",
        )
    return factor


def _microvolts(millivolts: np.ndarray, source: str) -> np.ndarray:
    microvolts = np.rint(millivolts * MICROVOLTS_PER_MILLIVOLT)
    largest = np.unravel_index(np.argmax(np.abs(microvolts)), microvolts.shape)
    if not _MICROVOLT_RANGE.min <= microvolts[largest] <= _MICROVOLT_RANGE.max:
        raise RecordError(
            f"{source}: lead {STORED_LEADS[largest[1]]} reaches {microvolts[largest] / 1e3:.6g} mV at sample "
            f"{largest[0]}; ±32.767 mV can be stored. An artefact, or a wrong unit or gain",
            reason="out_of_range",
        )
    return microvolts.astype(np.int16)
