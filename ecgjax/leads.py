"""Lead algebra: twelve leads from the eight stored ones, and the dipole (VCG) seen through them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from ecgjax.errors import ConfigError

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

#: Kors 1990, leads to VCG: rows X Y Z, columns I II V1…V6, found by regression on recorded VCGs.
KORS = np.array(
    [
        [0.38, -0.07, -0.13, 0.05, -0.01, 0.14, 0.06, 0.54],
        [-0.07, 0.93, 0.06, -0.02, -0.05, 0.06, -0.17, 0.13],
        [0.11, -0.23, -0.43, -0.06, -0.14, -0.20, -0.11, 0.31],
    ]
)

#: The leads as a least-squares fit to the Kors VCG of PTB-XL records: it explains 86 % of their energy, where the
#: pseudo-inverse of `KORS` explains 46 %.
KORS_FORWARD = np.array(
    [
        [0.74, -0.23, 0.08],
        [0.15, 1.01, -0.06],
        [-0.38, -0.27, -0.88],
        [0.37, -0.96, -1.81],
        [0.79, -0.34, -1.69],
        [1.08, 0.14, -0.97],
        [1.11, 0.13, -0.19],
        [0.83, 0.26, 0.13],
    ]
)

#: Name → from the VCG to the stored leads, `[8, 3]`, and from the leads to the VCG, `[3, 8]`.
DIPOLE_MATRICES: Mapping[str, tuple[np.ndarray, np.ndarray]] = {
    "dower": (DOWER, DOWER_PINV),
    "kors": (KORS_FORWARD, KORS),
}

#: Linear map from the stored leads I II V1…V6 to I II III aVR aVL aVF V1…V6 (Einthoven, Goldberger).
TWELVE_FROM_EIGHT = np.zeros((12, 8))
TWELVE_FROM_EIGHT[[0, 1], [0, 1]] = 1.0
TWELVE_FROM_EIGHT[2, :2] = (-1.0, 1.0)
TWELVE_FROM_EIGHT[3, :2] = (-0.5, -0.5)
TWELVE_FROM_EIGHT[4, :2] = (1.0, -0.5)
TWELVE_FROM_EIGHT[5, :2] = (-0.5, 1.0)
TWELVE_FROM_EIGHT[np.arange(6, 12), np.arange(2, 8)] = 1.0


#: One stored step, 1 µV, in mV.
MILLIVOLTS = 1e-3


def millivolts(stored: Array) -> Array:
    """Casts stored samples, `int16[..., lead]` in µV, to `f32[..., lead]` in mV."""
    return stored.astype(jnp.float32) * jnp.float32(MILLIVOLTS)


def twelve_leads(ecg: Array) -> Array:
    """Derives I II III aVR aVL aVF V1…V6 from I II V1…V6.

    Args:
        ecg: `f32[..., 8]`, any unit, leads in stored order.

    Returns:
        `f32[..., 12]`. III = II − I, aVR = −(I+II)/2, aVL = I − II/2, aVF = II − I/2, the rest copied bit for bit.
    """
    return _twelve([ecg[..., lead, None] for lead in range(8)])


def _twelve(stored: Sequence[Array]) -> Array:
    """`f32[..., 12]` from the eight stored leads, `f32[..., 1]` each.

    A sum of outer products: a concatenation of slices would keep all that the compiler fuses with it from being
    vectorised on a CPU. Products with 0, ±1 and ±½ are exact, so the result is that of the formulas.
    """
    matrix = jnp.asarray(TWELVE_FROM_EIGHT, jnp.float32)
    columns = [matrix[:, lead].reshape((1,) * (stored[0].ndim - 1) + (12,)) for lead in range(8)]
    return functools.reduce(jnp.add, [ecg * column for ecg, column in zip(stored, columns, strict=True)])


def restore_limb_algebra(ecg: Array) -> Array:
    """Derives III, aVR, aVL and aVF anew from I and II, of which noise on each lead has made them independent.

    Args:
        ecg: `f32[..., 12]`, any unit, leads I II III aVR aVL aVF V1…V6.

    Returns:
        `f32[..., 12]`.
    """
    return _twelve([ecg[..., lead, None] for lead in (0, 1, *range(6, 12))])


def derive(ecg: Array, num_leads: int) -> Array:
    """The leads that an encoder takes.

    Args:
        ecg: `f32[..., 8]`, leads in stored order.
        num_leads: 12, or 8 to keep the stored leads.

    Returns:
        `f32[..., num_leads]`.

    Raises:
        ConfigError: another number of leads.
    """
    if num_leads not in (8, 12):
        raise ConfigError(f"config.encoder.num_leads={num_leads} is not possible: the stored leads give 8 or 12")
    return twelve_leads(ecg) if num_leads == 12 else ecg


def prepare(signal: Array, *, num_leads: int = 12) -> Array:
    """What an encoder sees of a stored recording when nothing is augmented.

    Args:
        signal: `int16[..., time, 8]`, µV.
        num_leads: 12, or 8 to keep the stored leads.

    Returns:
        `f32[..., time, num_leads]`, mV.

    Raises:
        ConfigError: another number of leads.
    """
    return derive(millivolts(signal), num_leads)
