"""Augmentation that rotates and scales the heart's dipole (vectorcardiogram) and projects it back onto the leads."""

from __future__ import annotations

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax import leads
from ecgjax.errors import chosen
from ecgjax.settings.bounds import AtLeastOne, between


def rotation(angles: Array) -> Array:
    """Returns rotation matrices R = R_z R_y R_x.

    Args:
        angles: Angles about X, Y and Z, `f32[..., 3]`, in radians.

    Returns:
        Rotation matrices, `f32[..., 3, 3]`.
    """
    (sx, sy, sz), (cx, cy, cz) = (jnp.moveaxis(f(angles), -1, 0) for f in (jnp.sin, jnp.cos))
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def vcg(
    key: Array,
    ecg: Array,
    *,
    max_angle_deg: Annotated[float, between(0, 180)] = 45.0,
    max_scale: AtLeastOne = 1.5,
    invert: bool = True,
    matrix: str = "dower",
) -> Array:
    """Rotates and scales the heart's dipole, and projects the change back onto the leads (3KG).

    The leads x become x + D (S R − I) D⁺ x, where D⁺ maps leads to the dipole, R rotates, S scales, and D maps the
    dipole to leads. This residual form keeps the part of the signal that no dipole explains, and without rotation and
    scaling it is the identity, bit for bit.

    Args:
        key: Random key of this row and view.
        ecg: Stored leads, `f32[time, 8]`, in any unit.
        max_angle_deg: Greatest angle of a rotation about each axis, in degrees; each angle is U(−max, max).
        max_scale: Greatest factor of the scaling along each axis, at least 1; each factor is U(1, max).
        invert: Whether the three factors are inverted with probability ½, so that the dipole shrinks as often as it
            grows.
        matrix: Name of the matrices between dipole and leads, `"dower"` or `"kors"` (`ecgjax.leads.DIPOLE_MATRICES`).

    Returns:
        The stored leads of the changed dipole, `f32[time, 8]`, in the unit of `ecg`.

    Raises:
        ConfigError: The matrix is unknown.

    References:
        Gopal et al., 3KG: Contrastive learning of 12-lead electrocardiograms using physiologically-inspired
        augmentations, ML4H 2021 (arXiv 2106.04452).
    """
    matrices = chosen(leads.DIPOLE_MATRICES, matrix, setting="config.augment.vcg.matrix")
    key_angle, key_scale, key_invert = jax.random.split(key, 3)
    limit = jnp.float32(max_angle_deg * jnp.pi / 180)
    angles = limit * jax.random.uniform(key_angle, (3,), jnp.float32, -1.0, 1.0)
    scale = jax.random.uniform(key_scale, (3,), jnp.float32, 1.0, max_scale)
    if invert:
        scale = jnp.where(jax.random.bernoulli(key_invert), 1 / scale, scale)
    change = scale[:, None] * rotation(angles) - jnp.eye(3, dtype=jnp.float32)
    to_leads, to_dipole = (jnp.asarray(part, jnp.float32) for part in matrices)
    mixing = _product(_product(to_leads, change), to_dipole)
    return ecg + _product(ecg, mixing.T)


def _product(a: Array, b: Array) -> Array:
    """Returns `a @ b` as a sum of outer products in a fixed order.

    A matrix product chooses its order of summation by the batch's shape, so that a row's views would depend on the
    other rows of the batch in the last bit. With at most eight terms this sum fuses into one pass over memory, in full
    float32 on every device.
    """
    return functools.reduce(jnp.add, [a[:, k, None] * b[None, k, :] for k in range(a.shape[1])])
