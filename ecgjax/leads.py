"""Lead algebra: twelve leads from the eight stored ones, and the dipole (VCG) seen through them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

#: Dower 1980: rows are the stored leads I II V1…V6, columns X Y Z (+Z posterior). Maps a VCG to leads.
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

#: Its pseudo-inverse, leads to VCG: Edenbrandt & Pahlm's (1988) inverse Dower matrix to 5e-4.
DOWER_PINV = np.linalg.pinv(DOWER)

#: Linear map from the stored leads I II V1…V6 to I II III aVR aVL aVF V1…V6 (Einthoven, Goldberger).
TWELVE_FROM_EIGHT = np.zeros((12, 8))
TWELVE_FROM_EIGHT[[0, 1], [0, 1]] = 1.0
TWELVE_FROM_EIGHT[2, :2] = (-1.0, 1.0)
TWELVE_FROM_EIGHT[3, :2] = (-0.5, -0.5)
TWELVE_FROM_EIGHT[4, :2] = (1.0, -0.5)
TWELVE_FROM_EIGHT[5, :2] = (-0.5, 1.0)
TWELVE_FROM_EIGHT[np.arange(6, 12), np.arange(2, 8)] = 1.0


def millivolts(stored: Array) -> Array:
    """Casts stored samples, `int16[..., lead]` in µV, to `f32[..., lead]` in mV."""
    return stored.astype(jnp.float32) * jnp.float32(1e-3)


def twelve_leads(ecg: Array) -> Array:
    """Derives I II III aVR aVL aVF V1…V6 from I II V1…V6.

    Args:
        ecg: `f32[..., 8]`, any unit, leads in stored order.

    Returns:
        `f32[..., 12]`. III = II − I, aVR = −(I+II)/2, aVL = I − II/2, aVF = II − I/2, the rest copied bit for bit.
    """
    one, two = ecg[..., 0:1], ecg[..., 1:2]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return jnp.concatenate([*limb, ecg[..., 2:]], axis=-1)
