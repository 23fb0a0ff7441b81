"""What a recipe does to samples: filters, then another rate; and what both need to know beside a window.

A window's samples are filtered and resampled with rows on both sides of it, so that they are those of the whole
recording: exactly where nothing is filtered, to a millionth where something is.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import scipy.ndimage
import scipy.signal

from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.signals.window import rate_ratio

# Narrow enough to leave the QRS alone: 50/30 Hz wide.
_NOTCH_QUALITY = 30.0

_BASELINE_WINDOWS_S = (0.2, 0.6)

# Time constants after which a filter has forgotten all but a millionth.
_TIME_CONSTANTS = 14

# The anti-alias filter of `scipy.signal.resample_poly` reaches ten samples of the lower rate to each side.
_REACH_OF_RESAMPLING = 10


def margin(recipe: SignalRecipe, *, sampling_rate_hz: float, ratio: Fraction) -> int:
    """Returns how many rows on each side of a window its filters and resampling look at.

    Args:
        recipe: which filters.
        sampling_rate_hz: rate of the rows.
        ratio: stored rate over that.
    """
    # Slowest poles: of the high-pass at its corner over √2, of the low-pass at .38 of its corner, of the notch at half
    # its width.
    seconds = 0.0
    if recipe.highpass_hz is not None:
        seconds += _TIME_CONSTANTS / (math.sqrt(2) * math.pi * recipe.highpass_hz)
    if recipe.lowpass_hz is not None:
        seconds += _TIME_CONSTANTS / (0.38 * 2 * math.pi * recipe.lowpass_hz)
    if recipe.notch_hz is not None:
        seconds += _TIME_CONSTANTS * _NOTCH_QUALITY / (math.pi * recipe.notch_hz)
    if recipe.baseline == "median":
        seconds += sum(_BASELINE_WINDOWS_S)
    # Two rows more than resampling reaches, so that the outermost may be moved (`lay_end`).
    resampling = 0 if ratio == 1 else math.ceil(_REACH_OF_RESAMPLING * max(Fraction(1), 1 / ratio)) + 2
    return math.ceil(seconds * sampling_rate_hz) + resampling


def hold_finite(millivolts: np.ndarray, own: slice) -> None:
    """Puts in place of each sample that is not finite the last one that is, seen from a window outwards.

    What lies outside of the window is no reason to refuse it.

    Args:
        millivolts: `f64[time, lead]`, changed in place.
        own: rows of the window, all finite.
    """
    for outwards in (millivolts[own.start :: -1], millivolts[own.stop - 1 :]):
        bad = ~np.isfinite(outwards)
        if bad.any():
            last_good = np.maximum.accumulate(np.where(bad, 0, np.arange(len(outwards))[:, None]), axis=0)
            outwards[...] = np.take_along_axis(outwards, last_good, axis=0)


def lay_end(millivolts: np.ndarray, other_end: np.ndarray, *, distance: int, begins: bool) -> None:
    """Moves the outermost row on one side, so that the line through both ends has the slope of the whole recording's.

    Resampling goes on beyond the ends along that line, and where rows begin or end with their recording, that shows. No
    stored sample depends on the row that is moved.

    Args:
        millivolts: `f64[time, lead]`, changed in place.
        other_end: `f64[lead]`, the recording's row at its other end; one that is not finite moves nothing.
        distance: rows from one end of the recording to the other.
        begins: whether it is the first row here that is the recording's, and not the last.
    """
    if np.isfinite(other_end).all():
        near, moved = (0, -1) if begins else (-1, 0)
        share = (len(millivolts) - 1) / distance
        millivolts[moved] = millivolts[near] + (other_end - millivolts[near]) * share


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
    ratio = rate_ratio(source_rate_hz, target_rate_hz, source=source)
    # 'line' extends by the straight line through both ends; zeros would ring wherever the baseline is off zero.
    return scipy.signal.resample_poly(signal, ratio.numerator, ratio.denominator, axis=0, padtype="line")
