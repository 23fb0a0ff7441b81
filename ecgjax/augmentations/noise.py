"""Noise of electrodes, muscles, mains and breathing, added to the leads that an encoder sees.

Defaults of all but white noise (`gaussian_noise`, `noise_floor`) are those of fairseq-signals (Oh et al., CHIL 2022),
the code of the lead-agnostic self-supervised method, in mV.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.augmentations.draws import between, log_between, normals, sometimes
from ecgjax.errors import ConfigError
from ecgjax.settings.bounds import AtLeastOne, Count, Positive, Probability, Share, ZeroOrMore


def gaussian_noise(key: Array, ecg: Array, *, min_sigma_mv: ZeroOrMore = 0.01, max_sigma_mv: ZeroOrMore = 0.1) -> Array:
    """Adds white noise of a standard deviation U(min, max) that the row's leads share.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, in mV.
        min_sigma_mv: Lowest standard deviation of the noise, in mV.
        max_sigma_mv: Greatest standard deviation of the noise, in mV; the deviation is U(min, max).

    Returns:
        The noisy recording, `f32[time, lead]`.
    """
    key_sigma, key_noise = jax.random.split(key)
    sigma = between(key_sigma, min_sigma_mv, max_sigma_mv)
    return ecg + sigma * normals(key_noise, ecg.shape)


def noise_floor(
    key: Array,
    ecg: Array,
    *,
    min_sigma_mv: Positive = 0.005,
    max_sigma_mv: Positive = 0.1,
    max_lead_ratio: AtLeastOne = 2.0,
    p: Probability = 1.0,
) -> Array:
    """Adds white noise whose level is log-uniform, so that a recording has another noise floor in every view.

    Evenly drawn levels are mostly far above a recorder's own. Of these, each doubling comes as often as the next, from
    the least that electrodes, skin and amplifiers leave (5 to 50 µV) to twice the most.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, in mV.
        min_sigma_mv: Lowest standard deviation of the row's noise, in mV.
        max_sigma_mv: Greatest standard deviation of the row's noise, in mV.
        max_lead_ratio: Greatest factor by which a lead's deviation is above or below the row's; the factor is
            log-uniform, drawn for each lead.
        p: Probability that the augmentation acts.

    Returns:
        The noisy recording, `f32[time, lead]`.

    Raises:
        ConfigError: `min_sigma_mv` exceeds `max_sigma_mv`.
    """
    if min_sigma_mv > max_sigma_mv:
        raise ConfigError(
            f"config.augment.noise_floor.min_sigma_mv={min_sigma_mv!r} exceeds max_sigma_mv={max_sigma_mv!r}; swap them"
        )
    key_row, key_leads, key_noise, key_p = jax.random.split(key, 4)
    ratio = log_between(key_leads, 1 / max_lead_ratio, max_lead_ratio, (1, ecg.shape[1]))
    sigma = log_between(key_row, min_sigma_mv, max_sigma_mv) * ratio
    return sometimes(key_p, ecg + sigma * normals(key_noise, ecg.shape), ecg, p=p)


def emg(key: Array, ecg: Array, *, max_amplitude_mv: ZeroOrMore = 0.5, p: Probability = 1.0) -> Array:
    """Adds muscle noise: white noise of a standard deviation U(0, max), drawn for each lead.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, in mV.
        max_amplitude_mv: Greatest standard deviation of the noise, in mV; the deviation is U(0, max), drawn for each
            lead.
        p: Probability that the augmentation acts.

    Returns:
        The noisy recording, `f32[time, lead]`.
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
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, in mV.
        rate_hz: Sampling rate, in samples per second.
        max_amplitude_mv: Greatest amplitude of the hum, in mV; the amplitude is U(0, max).
        mains_hz: Mains frequencies, in Hz, of which one is drawn, each with equal chance.
        p: Probability that the augmentation acts.

    Returns:
        The noisy recording, `f32[time, lead]`.

    Raises:
        ConfigError: A frequency is half the sampling rate or more, or there is no frequency.
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
    """Adds slow waves, such as those of breathing and moving electrodes, with another gain in each lead.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, in mV.
        rate_hz: Sampling rate, in samples per second.
        max_amplitude_mv: Greatest amplitude of each wave, in mV; the amplitude is U(0, max).
        min_hz: Lowest frequency of a wave, in Hz.
        max_hz: Greatest frequency of a wave, in Hz; the frequency is U(min, max).
        num_waves: Number of cosine waves that are added up, each with a random phase.
        lead_spread: Standard deviation of the leads' gains about 1.
        p: Probability that the augmentation acts.

    Returns:
        The recording with a wandering baseline, `f32[time, lead]`.

    Raises:
        ConfigError: `min_hz` exceeds `max_hz`.
    """
    if min_hz > max_hz:
        raise ConfigError(f"config.augment.baseline_wander.min_hz={min_hz!r} exceeds max_hz={max_hz!r}; swap them")
    key_draw, key_gain, key_p = jax.random.split(key, 3)
    amplitude, hertz, phase = jax.random.uniform(key_draw, (3, num_waves), jnp.float32)
    amplitude, hertz = max_amplitude_mv * amplitude, min_hz + (max_hz - min_hz) * hertz
    waves = [amplitude[k] * _cosine(hertz[k], phase[k], len(ecg), rate_hz) for k in range(num_waves)]
    # Python adds the waves one by one: the order of a sum over an axis is the compiler's, and may follow the batch.
    wander = sum(waves[1:], waves[0])
    gain = 1 + lead_spread * jax.random.normal(key_gain, (ecg.shape[1],), jnp.float32)
    return sometimes(key_p, ecg + wander[:, None] * gain[None, :], ecg, p=p)


def baseline_shift(
    key: Array, ecg: Array, *, max_shift_mv: ZeroOrMore = 0.25, ratio: Share = 0.2, p: Probability = 1.0
) -> Array:
    """Moves the baseline of one segment by U(0, max), up in some leads and down in others.

    Fairseq-signals subtracts the shift from ±1 mV where it says that it multiplies; here the shift is ±U(0, max).

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, in mV.
        max_shift_mv: Greatest shift, in mV; all leads share the size U(0, max), and each has its own sign.
        ratio: Mean share of the time that the shifted segment takes; its length is normal about that, with a fifth of
            it as deviation.
        p: Probability that the augmentation acts.

    Returns:
        The recording with a shifted segment, `f32[time, lead]`.
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
    """Returns a cosine of amplitude 1, `f32[num_samples]`; its phase is given as a share of the period."""
    turn = jnp.arange(num_samples, dtype=jnp.float32) * (hertz / rate_hz) + phase
    # Whole turns are taken off before the cosine: float32 has no digits for them beside the fraction that matters.
    return jnp.cos(jnp.float32(2 * jnp.pi) * (turn - jnp.floor(turn)))
