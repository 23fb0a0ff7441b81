"""Augmentations on the accelerator, keyed by (seed, step, global row).

`Views` applies them in the one order that keeps their meaning: crop, rotate the dipole on the stored leads, derive the
other leads, add noise, and only then mask. Formulas and defaults: 3KG (Gopal et al. 2021, arXiv 2106.04452) for `vcg`,
Dade et al. 2026 for `time_mask`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax import leads
from ecgjax.errors import ConfigError
from ecgjax.keys import split_rows


def rotation(angles: Array) -> Array:
    """Rotation matrices R = R_z R_y R_x.

    Args:
        angles: `f32[..., 3]`, radians about X, Y, Z.

    Returns:
        `f32[..., 3, 3]`.
    """
    (sx, sy, sz), (cx, cy, cz) = (jnp.moveaxis(f(angles), -1, 0) for f in (jnp.sin, jnp.cos))
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


class Recorded(NamedTuple):
    """Which samples of a stored recording were recorded; the others are padding.

    Attributes:
        start: first recorded sample, `i32[]` (or `i32[batch]`).
        samples: number of recorded samples from there on, of the same shape.
    """

    start: Array
    samples: Array


def random_crop(key: Array, ecg: Array, *, recorded: Recorded | None = None, ratio: float = 0.5) -> Array:
    """Cuts out a contiguous part of a fixed length at a random place, all leads together.

    Without it the two views of a recording share every beat's place in time, and an encoder can tell recordings apart
    by that alone. The part lies inside what was recorded where that is long enough, and covers it where it is not: a
    place drawn over the padding as well would give views of little but zeros.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`.
        recorded: of this row; None where all of it was recorded.
        ratio: the part's share of the time, rounded to whole samples, at least one.

    Returns:
        `f32[round(ratio · time), lead]`.
    """
    length = min(len(ecg), max(1, round(ratio * len(ecg))))
    last = len(ecg) - length
    # The part's start where it begins with the recorded samples, and where it ends with them; which of the two comes
    # first depends on which is longer.
    begins, ends = (0, last) if recorded is None else (recorded.start, recorded.start + recorded.samples - length)
    low, high = jnp.clip(jnp.minimum(begins, ends), 0, last), jnp.clip(jnp.maximum(begins, ends), 0, last)
    return jax.lax.dynamic_slice_in_dim(ecg, jax.random.randint(key, (), low, high + 1), length)


def vcg(key: Array, ecg: Array, *, max_angle_deg: float = 45.0, max_scale: float = 1.5, invert: bool = True) -> Array:
    """Rotates and scales the heart's dipole as the leads see it (3KG).

    The residual form x + D (S R − I) D⁺ x keeps what a dipole does not explain, and is the identity, bit for bit, at
    zero strength. D is Dower's matrix.

    Args:
        key: of this row and view.
        ecg: `f32[time, 8]`, stored leads, any unit.
        max_angle_deg: each axis turns by U(−max, max) degrees.
        max_scale: each axis is scaled by U(1, max), at least 1.
        invert: with probability ½ the three scales are inverted.

    Returns:
        `f32[time, 8]`.
    """
    key_angle, key_scale, key_invert = jax.random.split(key, 3)
    limit = jnp.float32(max_angle_deg * jnp.pi / 180)
    angles = limit * jax.random.uniform(key_angle, (3,), jnp.float32, -1.0, 1.0)
    scale = jax.random.uniform(key_scale, (3,), jnp.float32, 1.0, max_scale)
    if invert:
        scale = jnp.where(jax.random.bernoulli(key_invert), 1 / scale, scale)
    change = scale[:, None] * rotation(angles) - jnp.eye(3, dtype=jnp.float32)
    dower, pinv = jnp.asarray(leads.DOWER, jnp.float32), jnp.asarray(leads.DOWER_PINV, jnp.float32)
    mixing = _product(_product(dower, change), pinv)
    return ecg + _product(ecg, mixing.T)


def _product(a: Array, b: Array) -> Array:
    """`a @ b` as a sum of outer products in a fixed order.

    A matrix product picks its summation by the batch's shape, so that a row's views would depend on its batch-mates
    in the last bit. With at most eight terms this fuses into one pass over memory, in full float32 on every device.
    """
    return functools.reduce(jnp.add, [a[:, k, None] * b[None, k, :] for k in range(a.shape[1])])


def gaussian_noise(key: Array, ecg: Array, *, max_sigma_mv: float = 0.05) -> Array:
    """Adds white noise of a standard deviation U(0, max) that the row's leads share.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`, mV.
        max_sigma_mv: mV.

    Returns:
        `f32[time, lead]`.
    """
    key_sigma, key_noise = jax.random.split(key)
    sigma = jax.random.uniform(key_sigma, (), jnp.float32, 0.0, max_sigma_mv)
    return ecg + sigma * jax.random.normal(key_noise, ecg.shape, jnp.float32)


def time_mask(key: Array, ecg: Array, *, ratio: float = 0.5) -> Array:
    """Zeroes, in each lead, its own contiguous window, which wraps around the end (Dade et al. 2026).

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`.
        ratio: the window's share of the time, rounded to whole samples.

    Returns:
        `f32[time, lead]`.
    """
    num_samples, num_leads = ecg.shape
    start = jax.random.randint(key, (1, num_leads), 0, num_samples)
    since = jnp.mod(jnp.arange(num_samples)[:, None] - start, num_samples)
    return jnp.where(since < round(ratio * num_samples), jnp.float32(0), ecg)


#: What acts before the leads are derived, and what acts after, each in the order in which it is applied.
ON_STORED_LEADS = {"random_crop": random_crop, "vcg": vcg}
ON_ALL_LEADS = {"gaussian_noise": gaussian_noise, "time_mask": time_mask}


def prepare(signal: Array, *, num_leads: int = 12) -> Array:
    """What an encoder sees of a stored recording when nothing is augmented.

    Args:
        signal: `int16[..., time, 8]`, µV.
        num_leads: 12, or 8 to keep the stored leads.

    Returns:
        `f32[..., time, num_leads]`, mV.
    """
    return _derive(leads.millivolts(signal), num_leads)


class Views:
    """Augmented views of stored recordings, as configured.

    Args:
        augment: name → settings, the names being those of `ON_STORED_LEADS` and `ON_ALL_LEADS` and the settings their
            arguments; `enabled: False` among them switches one off. The order is this module's, not the mapping's.
        num_views: views of each recording; without any augmentation they are identical.
        num_leads: 12 or 8.

    Raises:
        ConfigError: an unknown augmentation or setting, or another number of leads.
    """

    def __init__(self, augment: Mapping[str, Mapping[str, Any]], *, num_views: int = 2, num_leads: int = 12):
        known = [*ON_STORED_LEADS, *ON_ALL_LEADS]
        if unknown := set(augment) - set(known):
            raise ConfigError(f"config.augment has unknown entries {sorted(unknown)}; there are: {known}")
        self.settings = {
            name: {key: value for key, value in augment[name].items() if key != "enabled"}
            for name in known
            if name in augment and augment[name].get("enabled", True)
        }
        for name, settings in self.settings.items():
            arguments = inspect.signature({**ON_STORED_LEADS, **ON_ALL_LEADS}[name]).parameters
            settable = [argument for argument in arguments if argument not in ("key", "ecg", "recorded")]
            if unknown := set(settings) - set(settable):
                raise ConfigError(f"config.augment.{name} has no settings {sorted(unknown)}; there are: {settable}")
        self.num_views, self.num_leads = num_views, num_leads

    def __call__(self, keys: Array, signal: Array, *, recorded: Recorded | None = None) -> Array:
        """Draws the views.

        Args:
            keys: `key[batch]`, see `ecgjax.keys.row_keys`.
            signal: `int16[batch, time, 8]`, µV.
            recorded: which samples of each row are no padding, `i32[batch]`; None where none is.

        Returns:
            `f32[batch, num_views, time, num_leads]`, mV; the time is that of the crop, where there is one.
        """
        ecg = leads.millivolts(signal)
        return jax.vmap(lambda row, x, part: jax.vmap(lambda key: self._one(key, x, part))(row))(
            split_rows(keys, self.num_views), ecg, recorded
        )

    def _one(self, key: Array, ecg: Array, recorded: Recorded | None) -> Array:
        # Every augmentation has its own key, so that switching one off leaves the others' draws as they were.
        keys = dict(
            zip(
                [*ON_STORED_LEADS, *ON_ALL_LEADS],
                jax.random.split(key, len(ON_STORED_LEADS) + len(ON_ALL_LEADS)),
                strict=True,
            )
        )
        for name, function in ON_STORED_LEADS.items():
            if name in self.settings:
                placed = {"recorded": recorded} if name == "random_crop" else {}
                ecg = function(keys[name], ecg, **placed, **self.settings[name])
        ecg = _derive(ecg, self.num_leads)
        for name, function in ON_ALL_LEADS.items():
            if name in self.settings:
                ecg = function(keys[name], ecg, **self.settings[name])
        return ecg


def _derive(ecg: Array, num_leads: int) -> Array:
    if num_leads not in (8, 12):
        raise ConfigError(f"config.encoder.num_leads={num_leads} is not possible: the stored leads give 8 or 12")
    return leads.twelve_leads(ecg) if num_leads == 12 else ecg
