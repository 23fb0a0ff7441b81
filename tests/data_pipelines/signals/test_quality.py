"""Quality flags find what they are named after, and nothing in a clean signal."""

import numpy as np
import pytest

from data_pipelines.signals.quality import QualityFlag, clipped_samples, flag_names, quality_flags

RATE = 250
NOISE = np.random.default_rng(0).normal(size=(2500, 8))


def clean():
    """A smooth 8-lead signal with a sharp wave a second, µV."""
    seconds = np.arange(2500) / RATE
    beat = 1000 * np.exp(-0.5 * (((seconds % 1.0) - 0.5) / 0.012) ** 2) + 50 * np.sin(2 * np.pi * seconds)
    return np.outer(beat, [1, 1.5, -0.5, 0.8, 1, 1.2, 1, 0.7])


def flags(signal, start=0, length=2500):
    stored = np.clip(np.rint(signal), -32767, 32767).astype(np.int16)
    return quality_flags(stored, sampling_rate_hz=RATE, valid_start=start, valid_samples=length)


def test_a_clean_signal_has_none():
    assert flags(clean()) == QualityFlag(0)
    assert flags(clean() + 5000) == QualityFlag(0)  # an offset is none of them


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda x: x + np.eye(8)[3] * 900 * np.sin(np.arange(2500) / 2500 * 4 * np.pi)[:, None], QualityFlag.WANDER),
        (lambda x: x + 80 * NOISE * np.eye(8)[5], QualityFlag.NOISE),
        (lambda x: x + (np.arange(2500) == 700)[:, None] * 9000.0 * np.eye(8)[0], QualityFlag.ARTEFACT),
        (lambda x: np.where((np.arange(2500)[:, None] // 200 == 3) & (np.arange(8) == 6), 20.0, x), QualityFlag.STUCK),
    ],
    ids=["wander", "noise", "artefact", "stuck"],
)
def test_each_flag_in_one_lead(spoil, expected):
    assert flags(spoil(clean())) & expected


def test_a_stretch_just_short_of_half_a_second_is_not_stuck():
    signal = clean() + 3 * NOISE
    for length, stuck in ((124, False), (125, True)):
        signal_with = signal.copy()
        signal_with[300 : 300 + length, 2] = 17
        assert bool(flags(signal_with) & QualityFlag.STUCK) is stuck


def test_clipping_is_flagged_and_counted():
    signal = np.zeros((100, 8), np.int16)
    signal[3, 1], signal[4, 1], signal[5, 1] = 32767, -32767, -32768
    assert clipped_samples(signal) == 3
    loud = clean()
    loud[10] = 1e6
    assert flags(loud) & QualityFlag.CLIPPED


def test_only_what_was_recorded_is_judged():
    signal = np.zeros((2500, 8))
    signal[250:2250] = clean()[250:2250]
    assert flags(signal, 250, 2000) == QualityFlag.PADDED
    assert flags(signal) == QualityFlag.STUCK


def test_names_of_flags():
    assert flag_names(QualityFlag.PADDED | QualityFlag.NOISE) == ("padded", "noise")
    assert flag_names(0) == ()
