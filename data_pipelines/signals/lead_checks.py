"""Checks whether leads are a plausible ECG; everything that is stored has passed.

The checks look only at what is kept of a recording, before and after it was filtered and resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STORED_LEADS
from data_pipelines.system.counted import named

#: A lead that moves less than this over all that is kept is flat; it is a quarter of one small box (0.1 mV).
FLAT_LEAD_MV = 0.025

#: The largest lead of an ECG moves at least this much; below it the unit or gain is wrong, such as µV taken for mV.
SMALLEST_AMPLITUDE_MV = 0.1

#: Einthoven's and Goldberger's identities hold within this for 95 % of samples. Sources that round each lead to
#: 4.88 µV are off by up to 11 µV (CODE-15), single clipped samples by millivolts; swapped or inverted limb leads
#: are off by the size of a QRS for longer than 5 % of the time.
EINTHOVEN_TOLERANCE_MV = 0.025
EINTHOVEN_QUANTILE = 0.95

#: Rates below this lose too much of the QRS; the slowest published 12-lead sets have exactly this rate.
LOWEST_SOURCE_RATE_HZ = 100
HIGHEST_SOURCE_RATE_HZ = 1e5

_FLAT_LEAD_UV = FLAT_LEAD_MV * MICROVOLTS_PER_MILLIVOLT
_SMALLEST_AMPLITUDE_UV = SMALLEST_AMPLITUDE_MV * MICROVOLTS_PER_MILLIVOLT

#: Ratio of the largest to the smallest size (span, deviation or largest sample) of any lead up to which leads count as
#: each scaled to one size: leads of a heart never agree so closely. The nearest of 939 real recordings differ by 1.16.
SAME_SIZE = 1.0005

# Two seconds are four time constants of a high-pass at .5 Hz; three fifths of a short recording are left at least.
_ENDS_S, _ENDS_SHARE = 2.0, 0.2

# A larger factor is no wrong gain: the fit merely made two leads vanish.
_LARGEST_GAIN_ERROR = 20.0


def check_timing(num_samples: int, *, sampling_rate_hz: float, min_seconds: float, source: str) -> None:
    """Raises `RecordError` unless a recording has a plausible rate and is long enough.

    Args:
        num_samples: Length of each lead.
        sampling_rate_hz: Rate of the leads.
        min_seconds: Length of the shortest recording accepted, in seconds.
        source: Name of the recording for messages.

    Raises:
        RecordError: The rate is out of range (`wrong_rate`), or the recording is too short (`too_short`).
    """
    if not LOWEST_SOURCE_RATE_HZ <= sampling_rate_hz < HIGHEST_SOURCE_RATE_HZ:
        message = f"{source}: sampled at {sampling_rate_hz:g} Hz; a 12-lead ECG has at least {LOWEST_SOURCE_RATE_HZ} Hz"
        raise RecordError(message, reason="wrong_rate")
    if (seconds := num_samples / sampling_rate_hz) < min_seconds:
        message = f"{source}: {seconds:.6g} s long, at least {min_seconds:g} s are asked for (--min_seconds)"
        raise RecordError(message, reason="too_short")


def check_leads(leads: Mapping[str, np.ndarray], *, source: str) -> None:
    """Raises `RecordError` unless these leads are a plausible 12-lead (or 8-lead) ECG.

    Args:
        leads: `f64[time]` in mV by standard lead name, at least `STORED_LEADS`: what is kept of a recording.
        source: Name of the recording for messages.

    Raises:
        RecordError: A check fails. The reason is `nan`, `flat_lead`, `wrong_unit`, `broken_gain` or `einthoven`.
    """
    for lead, values in leads.items():
        if num_bad := int(np.count_nonzero(~np.isfinite(values))):
            raise RecordError(
                f"{source}: lead {lead} has {num_bad} of {len(values)} samples that are NaN or infinite; "
                "repair or leave out the recording",
                reason="nan",
            )
    amplitudes = {lead: float(np.ptp(leads[lead])) for lead in STORED_LEADS}
    largest = max(amplitudes, key=amplitudes.__getitem__)
    if 0 < amplitudes[largest] < SMALLEST_AMPLITUDE_MV:
        raise RecordError(
            f"{source}: the largest lead ({largest}) spans {amplitudes[largest] * 1e3:.3g} µV, too little for an "
            "ECG; its unit or gain must be wrong",
            reason="wrong_unit",
        )
    if flat := [lead for lead, amplitude in amplitudes.items() if amplitude < FLAT_LEAD_MV]:
        which = named(flat, "lead", "is flat (moves", "are flat (move")
        message = f"{source}: {which} less than {FLAT_LEAD_MV * 1e3:g} µV): not connected"
        raise RecordError(message, reason="flat_lead")
    _check_einthoven(leads, source)
    _check_sizes(leads, source)


def _check_sizes(leads: Mapping[str, np.ndarray], source: str) -> None:
    """Raises `RecordError` (`broken_gain`) for leads each scaled to one size, so that their sizes in mV are lost.

    Einthoven's check finds this only where there is a lead III.
    """
    stored = [leads[lead] for lead in STORED_LEADS]
    if np.array_equal(stored[0], stored[1]):
        return  # One signal in all leads (mains, a calibration pulse) has one size.
    for name, size_of in _SIZES.items():
        first = size_of(stored[0])
        # One other lead nearly always differs; the rest is measured only where it does not.
        if not _is_same(first, size_of(stored[-1])):
            continue
        if all(_is_same(first, size_of(lead)) for lead in stored[1:-1]):
            raise RecordError(
                f"{source}: all leads have one {name} ({first:.4g} mV): each was scaled by itself, and its size in mV "
                "is lost; take the recording before that, or its gains from its source",
                reason="broken_gain",
            )


def _is_same(one: float, other: float) -> bool:
    return max(one, other) <= SAME_SIZE * min(one, other)


_SIZES: Mapping[str, Callable[[np.ndarray], float]] = {
    "span": lambda lead: float(np.ptp(lead)),
    "standard deviation": lambda lead: float(np.std(lead)),
    "largest sample": lambda lead: float(np.abs(lead).max()),
}


def check_stored(microvolts: np.ndarray, *, sampling_rate_hz: int, is_filtered: bool, source: str) -> None:
    """Raises `RecordError` unless every lead still carries a signal after filtering and resampling.

    Args:
        microvolts: `int16[time, lead]`, the recorded samples of what would be stored.
        sampling_rate_hz: Rate of these samples.
        is_filtered: Whether they were filtered. A filter's start leaves traces even of a straight line, so the ends are
            then left out of the check.
        source: Name of the recording for messages.

    Raises:
        RecordError: A lead is flat (`flat_lead`).
    """
    ends = int(min(_ENDS_S * sampling_rate_hz, _ENDS_SHARE * len(microvolts))) if is_filtered else 0
    inner = microvolts[ends : len(microvolts) - ends]
    spans = inner.max(axis=0).astype(np.int32) - inner.min(axis=0)
    flat = [lead for lead, span in zip(STORED_LEADS, spans, strict=True) if span < _FLAT_LEAD_UV]
    done = "once filtered and resampled by the recipe"
    if flat:
        raise RecordError(
            f"{source}: {named(flat, 'lead', 'moves', 'move')} less than {_FLAT_LEAD_UV:g} µV {done}: there was "
            "nothing in it but drift or noise",
            reason="flat_lead",
        )
    if spans.max() < _SMALLEST_AMPLITUDE_UV:
        raise RecordError(
            f"{source}: no lead spans more than {spans.max()} µV {done}, too little for an ECG: there was nothing but "
            "drift or noise",
            reason="flat_lead",
        )


def _check_einthoven(leads: Mapping[str, np.ndarray], source: str) -> None:
    one, two = leads["I"], leads["II"]
    derived = {
        "III": ("II - I", two - one),
        "aVR": ("-(I + II)/2", -(one + two) / 2),
        "aVL": ("I - II/2", one - two / 2),
        "aVF": ("II - I/2", two - one / 2),
    }
    for lead, (formula, expected) in derived.items():
        if lead not in leads or _agree(leads[lead], expected):
            continue
        if gains := _gains_that_agree(one, two, leads[lead], coefficients=_COEFFICIENTS[lead]):
            raise RecordError(
                f"{source}: lead {lead} is {formula} only once lead II is multiplied by {gains['II']:.3g} and {lead} "
                f"by {gains['derived']:.3g}, relative to lead I: the header's gains are wrong; correct them",
                reason="broken_gain",
            )
        residual = float(np.quantile(np.abs(leads[lead] - expected), EINTHOVEN_QUANTILE))
        raise RecordError(
            f"{source}: lead {lead} is not {formula}: 5 % of samples are off by more than {residual * 1e3:.0f} µV "
            f"({EINTHOVEN_TOLERANCE_MV * 1e3:g} allowed); limb leads are swapped or misnamed, or their gain "
            "or zero is wrong",
            reason="einthoven",
        )


# These are the factors of leads I and II in each derived lead.
_COEFFICIENTS = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


def _agree(lead: np.ndarray, expected: np.ndarray) -> bool:
    return float(np.quantile(np.abs(lead - expected), EINTHOVEN_QUANTILE)) <= EINTHOVEN_TOLERANCE_MV


def _gains_that_agree(
    one: np.ndarray, two: np.ndarray, derived: np.ndarray, *, coefficients: tuple[float, float]
) -> dict[str, float] | None:
    """Returns positive factors of II and of a derived lead, relative to I, with which Einthoven's identity holds.

    They are named `II` and `derived`; the result is None where there are no such factors.

    Swapped or inverted leads have no such factors: one would be negative, or the identity would still be off.

    Args:
        one: Lead I, `[time]`.
        two: Lead II, `[time]`.
        derived: Lead that Einthoven's identity derives from I and II, `[time]`.
        coefficients: Factors of I and of II whose sum is the derived lead.
    """
    # The system derived · g_derived − b · II · g_two = a · I is solved by least squares.
    of_one, of_two = coefficients
    system = np.stack([derived, -of_two * two], axis=1)
    (g_derived, g_two), *_ = np.linalg.lstsq(system, of_one * one)
    if not all(1 / _LARGEST_GAIN_ERROR < gain < _LARGEST_GAIN_ERROR for gain in (g_derived, g_two)):
        return None
    if not _agree(derived * g_derived, of_one * one + of_two * two * g_two):
        return None
    return {"II": float(g_two), "derived": float(g_derived)}
