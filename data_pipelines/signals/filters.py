"""Applies the filters and the resampling of a recipe, and computes how many rows both need on each side of a window.

A window's samples are filtered and resampled with rows on both sides of it, so that they equal those of the whole
recording: exactly where nothing is filtered, to a millionth where something is.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import scipy  # Its parts are imported where they are first asked for: that of signals takes a second.

from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.signals.window import rate_ratio

# The notch is 50/30 Hz wide at 50 Hz, which is narrow enough to leave the QRS alone.
_NOTCH_QUALITY = 30.0

_BASELINE_WINDOWS_S = (0.2, 0.6)

# After so many time constants, a filter's response has decayed to a millionth.
_TIME_CONSTANTS = 14

# The anti-alias filter of `scipy.signal.resample_poly` reaches ten samples of the lower rate to each side.
_REACH_OF_RESAMPLING = 10


def margin(recipe: SignalRecipe, *, sampling_rate_hz: float, ratio: Fraction) -> int:
    """Returns the number of rows on each side of a window that its filters and its resampling depend on.

    Args:
        recipe: Recipe that names the filters.
        sampling_rate_hz: Rate of the rows.
        ratio: Stored rate divided by the rate of the rows.
    """
    # The slowest poles decide: that of the high-pass lies at its corner over √2, that of the low-pass at .38 of its
    # corner, that of the notch at half its width.
    seconds = 0.0
    if recipe.highpass_hz is not None:
        seconds += _TIME_CONSTANTS / (math.sqrt(2) * math.pi * recipe.highpass_hz)
    if recipe.lowpass_hz is not None:
        seconds += _TIME_CONSTANTS / (0.38 * 2 * math.pi * recipe.lowpass_hz)
    if recipe.notch_hz is not None:
        seconds += _TIME_CONSTANTS * _NOTCH_QUALITY / (math.pi * recipe.notch_hz)
    if recipe.baseline == "median":
        seconds += sum(_BASELINE_WINDOWS_S)
    # These are two rows more than resampling reaches, so that the outermost may be moved (`lay_end`).
    resampling = 0 if ratio == 1 else math.ceil(_REACH_OF_RESAMPLING * max(Fraction(1), 1 / ratio)) + 2
    return math.ceil(seconds * sampling_rate_hz) + resampling


def hold_finite(millivolts: np.ndarray, own: slice) -> None:
    """Replaces each sample that is not finite by the nearest finite one of its lead on the window's side.

    Samples outside of the window are no reason to refuse it.

    Args:
        millivolts: `f64[time, lead]`, changed in place.
        own: Rows of the window, all of which are finite.
    """
    for outwards in (millivolts[own.start :: -1], millivolts[own.stop - 1 :]):
        bad = ~np.isfinite(outwards)
        if bad.any():
            last_good = np.maximum.accumulate(np.where(bad, 0, np.arange(len(outwards))[:, None]), axis=0)
            outwards[...] = np.take_along_axis(outwards, last_good, axis=0)


def lay_end(millivolts: np.ndarray, other_end: np.ndarray, *, distance: int, begins: bool) -> None:
    """Moves the outermost row on one side, so that the line through both ends has the slope of the whole recording's.

    Resampling continues the samples beyond the ends along that line, which has an effect where the rows begin or end
    with their recording. No stored sample depends on the row that is moved.

    Args:
        millivolts: `f64[time, lead]`, changed in place.
        other_end: `f64[lead]`, the recording's row at its other end; one that is not finite moves nothing.
        distance: Number of rows from one end of the recording to the other.
        begins: Whether the first row here is the recording's first, rather than the last row its last.
    """
    if np.isfinite(other_end).all():
        near, moved = (0, -1) if begins else (-1, 0)
        share = (len(millivolts) - 1) / distance
        millivolts[moved] = millivolts[near] + (other_end - millivolts[near]) * share


def filtered(millivolts: np.ndarray, *, sampling_rate_hz: float, recipe: SignalRecipe) -> np.ndarray:
    """Applies a recipe's notch, high-pass, low-pass and baseline removal, all with zero phase.

    Args:
        millivolts: `f64[time, lead]` at the source's rate.
        sampling_rate_hz: Rate of the source.
        recipe: Recipe that names the filters; a notch or a low-pass corner at or above half of the source's rate has no
            effect.

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
        source_rate_hz: Rate of `signal`; its ratio to the target's must be a fraction of integers below 10,000.
        target_rate_hz: Rate wanted; one above the source's means interpolation, which adds no information.
        source: Name of the recording for messages.

    Returns:
        `f64[ceil(time · target / source), lead]`; `signal` itself when the rates are equal.

    Raises:
        RecordError: The ratio is no such fraction (`wrong_rate`).
    """
    if source_rate_hz == target_rate_hz:
        return signal
    ratio = rate_ratio(source_rate_hz, target_rate_hz, source=source)
    # 'line' extends by the straight line through both ends; zeros would ring wherever the baseline is not zero.
    return scipy.signal.resample_poly(signal, ratio.numerator, ratio.denominator, axis=0, padtype="line")
