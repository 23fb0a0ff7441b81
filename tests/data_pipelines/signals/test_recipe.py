"""Recipes: what they do to a signal, beside SciPy's own, and what a user is told about impossible ones."""

import math

import numpy as np
import pytest
import scipy.signal

from data_pipelines.errors import DataError
from data_pipelines.recording import Recording
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.signals.conversion import stored_signal
from data_pipelines.signals.quality import QualityFlag, quality_flags
from data_pipelines.signals.recipe import RECIPES, SignalRecipe
from tests.support.fixtures import twelve_lead_mv

STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]
RECIPE = SignalRecipe(name="test", version=1, sampling_rate_hz=500)


def recording(signal, rate=500.0):
    return Recording(
        source="x", signal=signal, sampling_rate_hz=rate, channels=STANDARD_LEADS, units=("mV",) * len(STANDARD_LEADS)
    )


def with_tone(frequency_hz, amplitude_mv, rate=500):
    """Twelve leads with a tone added to I, II (the same in each, so that Einthoven's identities hold) and V1 … V6."""
    seconds = np.arange(10 * rate) / rate
    tone = amplitude_mv * np.sin(2 * np.pi * frequency_hz * seconds)[:, None]
    of_lead = np.array([1, 1, 0, -1, 0.5, 0.5] + [1] * 6)
    return twelve_lead_mv(), tone * of_lead


def amplitude_of(signal_uv, frequency_hz, rate=500):
    seconds = np.arange(len(signal_uv)) / rate
    inner = slice(rate, -rate)
    basis = np.exp(-2j * np.pi * frequency_hz * seconds)[inner, None]
    return 2 * np.abs((signal_uv[inner] * basis).mean(axis=0))


@pytest.mark.parametrize(
    ("changes", "frequency_hz", "left"),
    [
        ({"notch_hz": 50.0}, 50.0, 0.02),
        ({"lowpass_hz": 40.0}, 120.0, 0.001),
        ({"highpass_hz": 0.5}, 0.05, 0.01),
        ({"baseline": "median"}, 0.1, 0.05),
    ],
)
def test_a_filter_takes_out_what_it_is_for_and_leaves_the_rest(changes, frequency_hz, left):
    clean, tone = with_tone(frequency_hz, 0.5)
    recipe = RECIPE.changed(**changes)
    difference = (
        stored_signal(recording(clean + tone), recipe=recipe).signal.astype(float)
        - stored_signal(recording(clean), recipe=recipe).signal
    )
    assert (np.abs(amplitude_of(difference, frequency_hz)) < 500 * left + 1).all()
    untouched, other = with_tone(10.0, 0.5)
    passed = (
        stored_signal(recording(untouched + other), recipe=recipe.changed(baseline="keep")).signal.astype(float)
        - stored_signal(recording(untouched), recipe=recipe.changed(baseline="keep")).signal
    )
    np.testing.assert_allclose(amplitude_of(passed, 10.0), 500, rtol=0.02)


def test_filters_are_scipys_in_the_stated_order():
    signal = twelve_lead_mv()
    recipe = RECIPE.changed(notch_hz=60.0, highpass_hz=0.5, lowpass_hz=40.0, sampling_rate_hz=250)
    expected = scipy.signal.filtfilt(*scipy.signal.iirnotch(60, 30, fs=500), signal, axis=0)
    expected = scipy.signal.sosfiltfilt(scipy.signal.butter(2, 0.5, "high", fs=500, output="sos"), expected, axis=0)
    expected = scipy.signal.sosfiltfilt(scipy.signal.butter(4, 40, "low", fs=500, output="sos"), expected, axis=0)
    expected = scipy.signal.resample_poly(expected, 1, 2, axis=0, padtype="line")[:, STORED_COLUMNS]
    stored = stored_signal(recording(signal), recipe=recipe).signal
    np.testing.assert_array_equal(stored, np.rint(expected * 1000))


def test_median_baseline_is_two_running_medians():
    signal = twelve_lead_mv() + np.linspace(0, 1, 5000)[:, None] * np.array([1, 1, 0, -1, 0.5, 0.5] + [1] * 6)
    stored = stored_signal(recording(signal), recipe=RECIPE.changed(baseline="median")).signal
    lead = signal[:, 1]
    for width in (101, 301):
        padded = np.pad(lead, width // 2, mode="edge")
        lead = np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
    np.testing.assert_array_equal(stored[:, 1], np.rint((signal[:, 1] - lead) * 1000))


@pytest.mark.parametrize(
    ("seconds", "changes", "first", "valid"),
    [
        (12, {}, 0, (0, 5000)),
        (12, {"cut": "center"}, 500, (0, 5000)),
        (7, {}, 0, (0, 3500)),
        (7, {"pad": "both"}, 0, (750, 3500)),
        (10, {"cut": "center", "pad": "both"}, 0, (0, 5000)),
    ],
)
def test_cut_and_pad(seconds, changes, first, valid):
    signal = twelve_lead_mv(seconds=seconds)
    stored = stored_signal(recording(signal), recipe=RECIPE.changed(**changes))
    assert (stored.valid_start, stored.valid_samples) == valid
    start, length = valid
    expected = np.zeros((5000, 8))
    expected[start : start + length] = np.rint(signal[first : first + length, STORED_COLUMNS] * 1000)
    np.testing.assert_array_equal(stored.signal, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 1.001, "sampling_rate_hz": 250}, "is 250.25 samples, a whole number"),
        ({"seconds": 0.5}, "--seconds=0.5: at least 1 s are needed"),
        ({"seconds": math.inf}, "--seconds=inf: at least 1 s"),
        ({"min_seconds": 0.5}, "--min_seconds=0.5: at least 1 s"),
        ({"min_seconds": math.nan}, "--min_seconds=nan: at least 1 s"),
        ({"baseline": "spline"}, "--baseline=spline: choose one of keep, median"),
        ({"cut": "end"}, "--cut=end: choose one of start, center"),
        ({"pad": "start"}, "--pad=start: choose one of end, both"),
        ({"lowpass_hz": 250.0}, "--lowpass_hz=250: must lie between 0.01 and 250 Hz"),
        ({"notch_hz": -50.0}, "--notch_hz=-50: must lie between"),
        ({"highpass_hz": 40.0, "lowpass_hz": 30.0}, "--highpass_hz=40 is not below --lowpass_hz=30"),
    ],
)
def test_impossible_recipes(changes, message):
    with pytest.raises(DataError, match=message):
        RECIPE.changed(**changes)


@pytest.mark.parametrize(("seconds", "rate", "samples"), [(2.3, 100, 230), (1.1, 400, 440), (4.1, 100, 410)])
def test_lengths_in_tenths_of_a_second(seconds, rate, samples):
    assert RECIPE.changed(seconds=seconds, sampling_rate_hz=rate).signal_format.num_samples == samples


@pytest.mark.parametrize("rate", [250, 257, 360, 1000])
def test_the_shortest_recording_that_is_taken_can_be_judged(rate):
    recipe = RECIPE.changed(min_seconds=1.0, sampling_rate_hz=250, highpass_hz=0.5, baseline="median")
    stored = stored_signal(recording(twelve_lead_mv(seconds=1, rate=rate), rate=rate), recipe=recipe)
    assert stored.valid_samples == 250
    flags = quality_flags(stored.signal, sampling_rate_hz=250, valid_start=0, valid_samples=250)
    assert QualityFlag.PADDED in flags


def test_a_changed_recipe_is_called_otherwise():
    plain = RECIPES["plain"]
    assert plain.changed() is plain
    assert plain.changed(notch_hz=None, seconds=10.0) is plain
    assert plain.changed(notch_hz=50.0, cut="center").name == "plain(cut=center,notch_hz=50.0)"
    assert all(recipe.name == name for name, recipe in RECIPES.items())
