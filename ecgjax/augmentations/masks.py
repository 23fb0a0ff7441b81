"""Masks that hide parts of a recording from an encoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.settings.bounds import BelowOne


def time_mask(key: Array, ecg: Array, *, ratio: BelowOne = 0.5) -> Array:
    """Zeroes a contiguous window in each lead, at a place drawn for each lead; the window wraps around the end.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`.
        ratio: Share of the time that the masked window takes, rounded to whole samples.

    Returns:
        The masked recording, `f32[time, lead]`.

    References:
        Dade et al., Contrastive pretraining on one million ECGs, Heart Rhythm O2, 2026.
    """
    num_samples, num_leads = ecg.shape
    start = jax.random.randint(key, (1, num_leads), 0, num_samples)
    # A window that wraps around hides every sample equally often; one that is clipped would spare the ends.
    since = jnp.mod(jnp.arange(num_samples)[:, None] - start, num_samples)
    return jnp.where(since < round(ratio * num_samples), jnp.float32(0), ecg)


def lead_mask(key: Array, ecg: Array, *, drop_rate: BelowOne = 0.5) -> Array:
    """Zeroes whole leads, each by a separate draw, but never all of them.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`.
        drop_rate: Probability that a lead is masked; where all would be, one of them, any with equal chance, stays.

    Returns:
        The masked recording, `f32[time, lead]`.

    References:
        Oh et al., Lead-agnostic self-supervised learning for local and global representations of electrocardiogram,
        CHIL 2022 (arXiv 2203.06889): random lead masking.
    """
    draw = jax.random.uniform(key, (ecg.shape[1],), jnp.float32)
    keep = (draw >= drop_rate) | (jnp.arange(draw.shape[0]) == jnp.argmax(draw))
    return jnp.where(keep[None, :], ecg, jnp.float32(0))
