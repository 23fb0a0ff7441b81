"""Filters of recorders, drawn anew for every view."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ecgjax.augmentations.draws import levels_between, sometimes
from ecgjax.errors import ConfigError
from ecgjax.settings.bounds import Positive, Probability

#: Seconds that the filter reaches to each side: cutoffs from 15 Hz on have their edge where they say.
_REACH_S = 0.05


def lowpass(
    key: Array, ecg: Array, *, rate_hz: float, min_hz: Positive = 25.0, max_hz: Positive = 100.0, p: Probability = 1.0
) -> Array:
    """Filters all leads by one low-pass, whose cutoff is log-uniform between two frequencies.

    Recorders differ in the band that they keep (40 Hz in monitor mode, 150 Hz in diagnostic mode), and with it in the
    colour of their noise and in the sharpness of QRS, by which two views of a recording can be matched.

    The filter is a windowed sinc that reaches over 50 ms to each side (Hamming window): it has no phase, leaves a
    constant as it is, and has half the amplitude at its cutoff, but for cutoffs below 15 Hz: so short a filter has its
    edge at 9 Hz at the lowest. A cutoff from half the sampling rate on changes nothing. Beyond the ends the first and
    the last sample are repeated.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`.
        rate_hz: Sampling rate, in samples per second.
        min_hz: Lowest cutoff, in Hz.
        max_hz: Greatest cutoff, in Hz.
        p: Probability that the augmentation acts.

    Returns:
        The filtered recording, `f32[time, lead]`.

    Raises:
        ConfigError: `min_hz` exceeds `max_hz`.
    """
    if min_hz > max_hz:
        raise ConfigError(f"config.augment.lowpass.min_hz={min_hz!r} exceeds max_hz={max_hz!r}; swap them")
    key_draw, key_p = jax.random.split(key)
    bank = jnp.asarray(_bank(min_hz, max_hz, rate_hz), jnp.float32)
    taps = bank[jax.random.randint(key_draw, (), 0, len(bank), jnp.int32)]
    reach = len(taps) - 1
    padded = jnp.pad(ecg, ((reach, reach), (0, 0)), mode="edge")
    # Shifted copies are added one by one: the order of a convolution's sum is the compiler's, and may follow the batch.
    filtered = taps[0] * ecg
    for lag in range(1, reach + 1):
        before, after = padded[reach - lag :][: len(ecg)], padded[reach + lag :][: len(ecg)]
        filtered = filtered + taps[lag] * (before + after)
    return sometimes(key_p, filtered, ecg, p=p)


@functools.cache
def _bank(min_hz: float, max_hz: float, rate_hz: float) -> np.ndarray:
    """Returns the middle and one side of a filter for every cutoff that may be drawn, `f64[cutoffs, 1 + reach]`."""
    lag = np.arange(max(1, round(_REACH_S * rate_hz)) + 1)
    cutoff = levels_between(min_hz, max_hz)[:, None] / rate_hz
    window = 0.54 + 0.46 * np.cos(np.pi * lag / lag[-1])
    taps = np.where(cutoff < 0.5, 2 * cutoff * np.sinc(2 * cutoff * lag) * window, lag == 0)
    return taps / (taps[:, :1] + 2 * taps[:, 1:].sum(1, keepdims=True))
