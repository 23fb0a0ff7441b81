"""Derives the twelve standard leads from the eight stored ones in NumPy, for figures and checks on the host."""

from __future__ import annotations

import numpy as np


def twelve_leads(ecg: np.ndarray) -> np.ndarray:
    """Derives I II III aVR aVL aVF V1…V6 from I II V1…V6 (Einthoven, Goldberger).

    Whole microvolts come out exactly, halves included.

    Args:
        ecg: `float[..., 8]`, any unit, leads in the order of `records.STORED_LEADS`.

    Returns:
        `float[..., 12]`, leads in the order of `records.STANDARD_LEADS`, of the type given.

    Raises:
        TypeError: The array is not floating point; sums of stored `int16` would overflow and lose their halves.
        ValueError: The last axis is not 8 long.
    """
    if not np.issubdtype(ecg.dtype, np.floating):
        raise TypeError(f"twelve_leads takes floating point, got {ecg.dtype}; convert the stored samples first")
    if ecg.shape[-1:] != (8,):
        raise ValueError(f"twelve_leads takes 8 leads in the last axis, got shape {ecg.shape}")
    one, two = ecg[..., 0:1], ecg[..., 1:2]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.concatenate([*limb, ecg[..., 2:]], axis=-1)
