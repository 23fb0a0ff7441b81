"""Noise of electrodes, muscles, mains and breathing, added to the leads that an encoder sees.

Defaults of all but white noise are those of fairseq-signals (Oh et al., CHIL 2022), the code of the lead-agnostic
self-supervised method, in mV.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.augmentations.draws import between, normals, sometimes
from ecgjax.errors import ConfigError
from ecgjax.settings.bounds import Count, Positive, Probability, Share, ZeroOrMore


def gaussian_noise(key: Array, ecg: Array, *, min_sigma_mv: ZeroOrMore = 0.01, max_sigma_mv: ZeroOrMore = 0.1) -> Array:
    """Adds white noise of a standard deviation U(min, max) that the row's leads share.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`, mV.
        min_sigma_mv: mV.
        max_sigma_mv: mV.

    Returns:
        `f32[time, lead]`.
    """
    key_sigma, key_noise = jax.random.split(key)
    sigma = between(key_sigma, min_sigma_mv, max_sigma_mv)
    return ecg + sigma * normals(key_noise, ecg.shape)


def emg(key: Array, ecg: Array, *, max_amplitude_mv: ZeroOrMore = 0.5, p: Probability = 1.0) -> Array:
    """Adds muscle noise: white, of a standard deviation U(0, max) of each lead's own.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`, mV.
        max_amplitude_mv: largest standard deviation, mV.
        p: chance that it acts.

    Returns:
        `f32[time, lead]`.
    """
    key_sigma, key_noise, key_p = jax.random.split(key, 3)
    sigma = jax.random.uniform(key_sigma, (1, ecg.shape[1]), jnp.float32, 0.0, max_amplitude_mv)
    return sometimes(key_p, ecg + sigma * normals(key_noise, ecg.shape), ecg, p=p)


def powerline(
    key: Array,
    ecg: Array,
    *,
    rate_hz: float,
    max_amplitude_mv: ZeroOrMore = 0.5,
    mains_hz: tuple[Positive, ...] = (50.0, 60.0),
    p: Probability = 1.0,
) -> Array:
    """Adds mains hum: a cosine of amplitude U(0, max) and any phase, the same in all leads.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`, mV.
        rate_hz: samples per second.
        max_amplitude_mv: mV.
        mains_hz: one of these frequencies, each with equal chance.
        p: chance that it acts.

    Returns:
        `f32[time, lead]`.

    Raises:
        ConfigError: samples are too far apart for one of the frequencies.
    """
    if not mains_hz or max(mains_hz) >= rate_hz / 2:
        raise ConfigError(
            f"config.augment.powerline.mains_hz={mains_hz} must be below half the sampling rate, here {rate_hz / 2:g} "
            "Hz, and not empty: recorders remove what is above. Disable config.augment.powerline, or use data of a "
            "higher rate"
        )
    key_draw, key_p = jax.random.split(key)
    amplitude, which, phase = jax.random.uniform(key_draw, (3,), jnp.float32)
    hertz = jnp.asarray(mains_hz, jnp.float32)[jnp.floor(which * len(mains_hz)).astype(jnp.int32)]
    hum = max_amplitude_mv * amplitude * _cosine(hertz, phase, len(ecg), rate_hz)
    return sometimes(key_p, ecg + hum[:, None], ecg, p=p)


def baseline_wander(
    key: Array,
    ecg: Array,
    *,
    rate_hz: float,
    max_amplitude_mv: ZeroOrMore = 0.5,
    min_hz: ZeroOrMore = 0.01,
    max_hz: Positive = 0.2,
    num_waves: Count = 3,
    lead_spread: ZeroOrMore = 0.5,
    p: Probability = 1.0,
) -> Array:
    """Adds slow waves, as of breathing and moving electrodes, that each lead sees with a gain of its own.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`, mV.
        rate_hz: samples per second.
        max_amplitude_mv: each wave's amplitude is U(0, max) mV.
        min_hz: each wave's frequency is U(min, max).
        max_hz: Hz.
        num_waves: cosines, each of any phase.
        lead_spread: a lead's gain is N(1, spread²).
        p: chance that it acts.

    Returns:
        `f32[time, lead]`.

    Raises:
        ConfigError: `min_hz` exceeds `max_hz`.
    """
    if min_hz > max_hz:
        raise ConfigError(f"config.augment.baseline_wander.min_hz={min_hz!r} exceeds max_hz={max_hz!r}; swap them")
    key_draw, key_gain, key_p = jax.random.split(key, 3)
    amplitude, hertz, phase = jax.random.uniform(key_draw, (3, num_waves), jnp.float32)
    amplitude, hertz = max_amplitude_mv * amplitude, min_hz + (max_hz - min_hz) * hertz
    waves = [amplitude[k] * _cosine(hertz[k], phase[k], len(ecg), rate_hz) for k in range(num_waves)]
    wander = sum(waves[1:], waves[0])
    gain = 1 + lead_spread * jax.random.normal(key_gain, (ecg.shape[1],), jnp.float32)
    return sometimes(key_p, ecg + wander[:, None] * gain[None, :], ecg, p=p)


def baseline_shift(
    key: Array, ecg: Array, *, max_shift_mv: ZeroOrMore = 0.25, ratio: Share = 0.2, p: Probability = 1.0
) -> Array:
    """Moves the baseline of one segment by U(0, max), up in some leads and down in others.

    The published code subtracts the shift from ±1 mV where it says to multiply; here it is ±U(0, max).

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`, mV.
        max_shift_mv: mV; all leads share the size, each has its own sign.
        ratio: the segment's mean share of the time; its length is normal about that with a fifth of it as spread.
        p: chance that it acts.

    Returns:
        `f32[time, lead]`.
    """
    key_draw, key_length, key_p = jax.random.split(key, 3)
    num_samples, num_leads = ecg.shape
    draw = jax.random.uniform(key_draw, (2 + num_leads,), jnp.float32)
    shift, sign = max_shift_mv * draw[0], jnp.where(draw[2:] < 0.5, -1.0, 1.0)
    length = ratio * num_samples * (1 + 0.2 * jax.random.normal(key_length, (), jnp.float32))
    length = jnp.clip(length, 0, num_samples)
    start = jnp.floor((num_samples - length) * draw[1])
    since = jnp.arange(num_samples, dtype=jnp.float32) - start
    inside = (since >= 0) & (since < jnp.round(length))
    return sometimes(key_p, ecg + jnp.where(inside, shift, 0)[:, None] * sign[None, :], ecg, p=p)


def _cosine(hertz: Array, phase: Array, num_samples: int, rate_hz: float) -> Array:
    """`f32[num_samples]`, a cosine of amplitude 1 whose phase is a share of its period."""
    turn = jnp.arange(num_samples, dtype=jnp.float32) * (hertz / rate_hz) + phase
    # Whole turns go before the cosine: float32 has no room for them beside the fraction that matters.
    return jnp.cos(jnp.float32(2 * jnp.pi) * (turn - jnp.floor(turn)))
