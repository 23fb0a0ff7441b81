"""What two views share besides the heart: a nearest neighbour on it alone matches them, unless views hide it."""

import numpy as np
import pytest

from tests.support import shortcuts
from tests.support.shortcuts import RECIPES, matched_by_noise, matched_by_rr, sequence_distance, simulated, two_views

NUM = 64


@pytest.fixture(scope="module")
def recordings():
    return simulated(NUM)


def test_views_by_crop_alone_are_matched_by_noise_floor_and_often_by_beat_timing(recordings):
    views = two_views(recordings, *RECIPES["`random_crop`"])
    assert matched_by_noise(*views) > 0.9
    assert matched_by_rr(*views) > 0.4


def test_views_of_other_beats_at_other_speed_noise_and_band_are_matched_by_neither(recordings):
    views = two_views(recordings, *RECIPES["segments, `stretched_crop`, `noise_floor`, `lowpass`"])
    assert views.shape == (2, NUM, 1125, 8)
    # By chance one of 64 is matched.
    assert matched_by_noise(*views) < 0.2
    assert matched_by_rr(*views) < 0.2


def test_sequences_are_laid_over_each_other_where_they_agree():
    a = np.array([0.8, 0.9, 1.0, 1.1, 0.7])
    assert sequence_distance(a, a[1:4]) == 0
    assert sequence_distance(a[1:4], a) == 0
    assert sequence_distance(a[:4], np.append(a[1:], 2.0)) == 0
    np.testing.assert_allclose(sequence_distance(a, a * 1.1), np.log(1.1))
    assert sequence_distance(a, a[:0]) == np.inf
    assert shortcuts.top1(np.array([[0, 1], [0, 1]])) == 0.5
