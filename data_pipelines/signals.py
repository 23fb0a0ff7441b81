"""From a recording as its file has it to the stored signal: units, checks, then what the recipe says, as int16 µV.

The checks run in a fixed order and the first that fails names the reason. All thresholds are constants of this
module, so that two builds of one source by one recipe store the same records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import scipy.ndimage
import scipy.signal

from data_pipelines.errors import RecordError
from data_pipelines.lead_names import lead_columns
from data_pipelines.quality import STORED_LIMIT_UV
from data_pipelines.readers.recording import Recording
from data_pipelines.recipe import SignalRecipe
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STORED_LEADS

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

#: A lead with a larger share of its samples beyond what can be stored is refused; below it they are clipped, and
#: counted by `quality.clipped_samples`.
MOST_CLIPPED = 0.01

# Factors beyond this are no wrong gain but two leads fitted away.
_LARGEST_GAIN_ERROR = 20.0

# Narrow enough to leave the QRS alone: 50/30 Hz wide.
_NOTCH_QUALITY = 30.0

_BASELINE_WINDOWS_S = (0.2, 0.6)


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


def stored_signal(recording: Recording, *, recipe: SignalRecipe) -> StoredSignal:
    """Turns a recording into the stored form, or says why it cannot be.

    Args:
        recording: any channels, unit and rate.
        recipe: what is done to it.

    Returns:
        The stored signal. Samples beyond ±32.767 mV are stored as that limit as long as they are fewer than
        `MOST_CLIPPED` of a lead.

    Raises:
        RecordError: `missing_lead`, `duplicate_lead`, `wrong_unit`, `nan`, `wrong_rate`, `too_short`, `flat_lead`,
            `broken_gain`, `einthoven` or `out_of_range`.
    """
    columns = lead_columns(recording.channels, source=recording.source)
    leads = {
        lead: recording.signal[:, column] * _millivolts_per_unit(recording, column) for lead, column in columns.items()
    }
    check_leads(
        leads,
        sampling_rate_hz=recording.sampling_rate_hz,
        min_seconds=recipe.min_seconds,
        source=recording.source,
    )
    millivolts = np.stack([leads[lead] for lead in STORED_LEADS], axis=1)
    millivolts = filtered(millivolts, sampling_rate_hz=recording.sampling_rate_hz, recipe=recipe)
    millivolts = resample(
        millivolts,
        source_rate_hz=recording.sampling_rate_hz,
        target_rate_hz=recipe.sampling_rate_hz,
        source=recording.source,
    )
    return _placed(_microvolts(millivolts, recording.source), recipe)


def _placed(microvolts: np.ndarray, recipe: SignalRecipe) -> StoredSignal:
    """Cuts or pads to the stored length."""
    length = recipe.signal_format.num_samples
    surplus = len(microvolts) - length
    if surplus >= 0:
        first = surplus // 2 if recipe.cut == "center" else 0
        return StoredSignal(signal=microvolts[first : first + length], valid_start=0, valid_samples=length)
    start = -surplus // 2 if recipe.pad == "both" else 0
    padded = np.zeros(recipe.signal_format.shape, np.int16)
    padded[start : start + len(microvolts)] = microvolts
    return StoredSignal(signal=padded, valid_start=start, valid_samples=len(microvolts))


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
            f"{source}: {seconds:.6g} s long, at least {min_seconds:g} s are asked for (--min_seconds)",
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
        if lead not in leads or _agree(leads[lead], expected):
            continue
        gains = _gains_that_agree(one, two, leads[lead], coefficients=_COEFFICIENTS[lead])
        if gains:
            raise RecordError(
                f"{source}: lead {lead} is {formula} only once lead II is multiplied by {gains['II']:.3g} and {lead} "
                f"by {gains['derived']:.3g}, relative to lead I: the header's gains are wrong; correct them",
                reason="broken_gain",
            )
        residual = float(np.quantile(np.abs(leads[lead] - expected), EINTHOVEN_QUANTILE))
        raise RecordError(
            f"{source}: lead {lead} is not {formula}: 5 % of samples are off by more than {residual * 1e3:.0f} µV "
            f"({EINTHOVEN_TOLERANCE_MV * 1e3:g} allowed); limb leads are swapped or misnamed",
            reason="einthoven",
        )


# What I and II are multiplied by in each derived lead.
_COEFFICIENTS = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


def _agree(lead: np.ndarray, expected: np.ndarray) -> bool:
    return float(np.quantile(np.abs(lead - expected), EINTHOVEN_QUANTILE)) <= EINTHOVEN_TOLERANCE_MV


def _gains_that_agree(
    one: np.ndarray, two: np.ndarray, derived: np.ndarray, *, coefficients: tuple[float, float]
) -> dict[str, float] | None:
    """Finds positive factors of II and a derived lead, relative to I, with which Einthoven's identity holds.

    Swapped or inverted leads have none: their factor would be negative, or the identity would still be off.
    """
    # derived · g_derived − b · II · g_two = a · I, by least squares.
    of_one, of_two = coefficients
    system = np.stack([derived, -of_two * two], axis=1)
    (g_derived, g_two), *_ = np.linalg.lstsq(system, of_one * one)
    if not all(1 / _LARGEST_GAIN_ERROR < gain < _LARGEST_GAIN_ERROR for gain in (g_derived, g_two)):
        return None
    if not _agree(derived * g_derived, of_one * one + of_two * two * g_two):
        return None
    return {"II": float(g_two), "derived": float(g_derived)}


def filtered(millivolts: np.ndarray, *, sampling_rate_hz: float, recipe: SignalRecipe) -> np.ndarray:
    """Applies a recipe's notch, high-pass, low-pass and baseline removal, all with zero phase.

    Args:
        millivolts: `f64[time, lead]` at the source's rate.
        sampling_rate_hz: that rate.
        recipe: which filters; a corner at or above half of the source's rate has nothing to take out.

    Returns:
        `f64[time, lead]`; `millivolts` itself where the recipe has no filter.
    """
    nyquist = sampling_rate_hz / 2
    if recipe.notch_hz is not None and recipe.notch_hz < nyquist:
        taps = scipy.signal.iirnotch(recipe.notch_hz, _NOTCH_QUALITY, fs=sampling_rate_hz)
        millivolts = scipy.signal.filtfilt(*taps, millivolts, axis=0)
    if recipe.highpass_hz is not None:
        sections = scipy.signal.butter(2, recipe.highpass_hz, "highpass", fs=sampling_rate_hz, output="sos")
        millivolts = scipy.signal.sosfiltfilt(sections, millivolts, axis=0)
    if recipe.lowpass_hz is not None and recipe.lowpass_hz < nyquist:
        sections = scipy.signal.butter(4, recipe.lowpass_hz, "lowpass", fs=sampling_rate_hz, output="sos")
        millivolts = scipy.signal.sosfiltfilt(sections, millivolts, axis=0)
    if recipe.baseline == "median":
        baseline = millivolts
        for seconds in _BASELINE_WINDOWS_S:
            width = 2 * round(seconds * sampling_rate_hz / 2) + 1
            baseline = scipy.ndimage.median_filter(baseline, size=(width, 1), mode="nearest")
        millivolts = millivolts - baseline
    return millivolts


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
    beyond = np.abs(microvolts) > STORED_LIMIT_UV
    worst = int(beyond.sum(axis=0).argmax())
    share = float(beyond[:, worst].mean())
    if share > MOST_CLIPPED:
        raise RecordError(
            f"{source}: {share:.1%} of lead {STORED_LEADS[worst]} lie beyond ±{STORED_LIMIT_UV / 1e3:g} mV, up to "
            f"{np.abs(microvolts[:, worst]).max() / 1e3:.6g} mV; a wrong unit or gain, or nothing but artefact",
            reason="out_of_range",
        )
    return np.clip(microvolts, -STORED_LIMIT_UV, STORED_LIMIT_UV).astype(np.int16)
