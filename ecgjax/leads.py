"""Twelve leads from the eight stored ones, and the matrices of the heart's dipole, the vectorcardiogram (VCG)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from ecgjax.errors import ConfigError

#: Matrix of Dower 1980 from a VCG to leads: rows are the stored leads I II V1…V6, columns X Y Z (+Z posterior).
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

#: Pseudo-inverse of `DOWER`, from leads to VCG: it equals Edenbrandt & Pahlm's (1988) inverse Dower matrix to 5e-4.
DOWER_PINV = np.linalg.pinv(DOWER)

#: Matrix of Kors 1990 from leads to VCG: rows X Y Z, columns I II V1…V6, fitted by regression on recorded VCGs.
KORS = np.array(
    [
        [0.38, -0.07, -0.13, 0.05, -0.01, 0.14, 0.06, 0.54],
        [-0.07, 0.93, 0.06, -0.02, -0.05, 0.06, -0.17, 0.13],
        [0.11, -0.23, -0.43, -0.06, -0.14, -0.20, -0.11, 0.31],
    ]
)

#: Matrix from the Kors VCG to leads, by least squares on PTB-XL records: it explains 86 % of the leads' energy, where
#: the pseudo-inverse of `KORS` explains 46 %.
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

#: Matrices by name, each from the VCG to the stored leads, `[8, 3]`, and from the leads to the VCG, `[3, 8]`.
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


#: Millivolts of one step of stored samples, which is 1 µV.
MILLIVOLTS = 1e-3


def millivolts(stored: Array) -> Array:
    """Casts stored samples, `int16[..., lead]` in µV, to `f32[..., lead]` in mV."""
    return stored.astype(jnp.float32) * jnp.float32(MILLIVOLTS)


def twelve_leads(ecg: Array) -> Array:
    """Derives I II III aVR aVL aVF V1…V6 from I II V1…V6.

    Args:
        ecg: Eight leads in stored order, `f32[..., 8]`, in any unit.

    Returns:
        Twelve leads, `f32[..., 12]`: III = II − I, aVR = −(I+II)/2, aVL = I − II/2, aVF = II − I/2, and the others
        copied bit for bit.
    """
    return _twelve([ecg[..., lead, None] for lead in range(8)])


def _twelve(stored: Sequence[Array]) -> Array:
    """Returns twelve leads, `f32[..., 12]`, from the eight stored ones, `f32[..., 1]` each.

    They are a sum of outer products, because a concatenation of slices would keep everything that the compiler fuses
    with it from being vectorised on a CPU. Products with 0, ±1 and ±½ are exact, so the result equals the formulas.
    """
    matrix = jnp.asarray(TWELVE_FROM_EIGHT, jnp.float32)
    columns = [matrix[:, lead].reshape((1,) * (stored[0].ndim - 1) + (12,)) for lead in range(8)]
    return functools.reduce(jnp.add, [ecg * column for ecg, column in zip(stored, columns, strict=True)])


def restore_limb_algebra(ecg: Array) -> Array:
    """Derives III, aVR, aVL and aVF again from I and II, after noise on each lead has made them independent.

    Args:
        ecg: Leads I II III aVR aVL aVF V1…V6, `f32[..., 12]`, in any unit.

    Returns:
        Consistent leads, `f32[..., 12]`.
    """
    return _twelve([ecg[..., lead, None] for lead in (0, 1, *range(6, 12))])


def derive(ecg: Array, num_leads: int) -> Array:
    """Returns the leads that an encoder takes.

    Args:
        ecg: Eight leads in stored order, `f32[..., 8]`.
        num_leads: Number of leads: 12, or 8 to keep the stored leads.

    Returns:
        Leads, `f32[..., num_leads]`.

    Raises:
        ConfigError: The number of leads is neither 8 nor 12.
    """
    if num_leads not in (8, 12):
        raise ConfigError(f"config.encoder.num_leads={num_leads} is not possible: the stored leads give 8 or 12")
    return twelve_leads(ecg) if num_leads == 12 else ecg


def prepare(signal: Array, *, num_leads: int = 12) -> Array:
    """Returns the input of an encoder for a stored recording without augmentation.

    Args:
        signal: Stored recording, `int16[..., time, 8]`, in µV.
        num_leads: Number of leads: 12, or 8 to keep the stored leads.

    Returns:
        Leads in mV, `f32[..., time, num_leads]`.

    Raises:
        ConfigError: The number of leads is neither 8 nor 12.
    """
    return derive(millivolts(signal), num_leads)
