"""Simulated recordings beside a model: of any rate and length that encoders take."""

import numpy as np
import pytest

from ecgjax.export.sample_file import sample_signals


@pytest.mark.parametrize(("rate", "samples"), [(250, 2500), (100, 197), (30, 600), (5000, 2000), (50, 5000), (360, 1)])
def test_a_sample_has_the_length_that_is_asked_for(rate, samples):
    signals = sample_signals(sampling_rate_hz=rate, num_samples=samples)
    assert (signals.dtype, signals.shape) == (np.int16, (3, samples, 8))
    if samples > 100:
        assert (np.ptp(signals, axis=1) > 50).all()
        assert not np.array_equal(signals[0], signals[1])


def test_a_sample_is_the_same_every_time():
    one, other = (sample_signals(sampling_rate_hz=100, num_samples=300) for _ in range(2))
    np.testing.assert_array_equal(one, other)
