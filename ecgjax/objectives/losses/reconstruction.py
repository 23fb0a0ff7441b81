"""Errors of a signal reconstructed from its masked view: over all of it, and about the R peaks.

References:
    Maghsoodi et al., PhysioCLR, 2025 (arXiv 2509.08116).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

#: Reach of the error about each R peak, to both sides, in seconds.
PEAK_REACH_S = 0.05

# Lowest standard deviation that signals are divided by, in mV: that of a silent signal is 0.
_SILENCE = 1e-6


class Reconstruction(NamedTuple):
    """Weights of the reconstruction's errors beside the objective; .2 and .1 are those of PhysioCLR.

    Attributes:
        weight: Weight of the mean square error.
        peak_weight: Weight of the mean square error about R peaks.
    """

    weight: float = 0.2
    peak_weight: float = 0.1


class SquaredErrors(NamedTuple):
    """Squared errors of each signal, kept as sums so that parts of a batch can be added up.

    Attributes:
        whole: Mean square error, `f32[signals]`.
        at_peaks: Sum of square errors about the R peaks over all leads, `f32[signals]`.
        peak_samples: Number of samples that `at_peaks` sums over, `f32[signals]`.
    """

    whole: Array
    at_peaks: Array
    peak_samples: Array


def squared_errors(found: Array, target: Array, peaks: Array, *, rate_hz: float) -> SquaredErrors:
    """Compares reconstructions with signals in units of each signal's own standard deviation over time and leads.

    In mV a few recordings of high voltage would make up the loss. Besides, encoders that normalise their first layer by
    recording, as PhysioCLR's does, cannot reconstruct the amplitude.

    Args:
        found: Reconstructed signals, `f32[signals, time, lead]`.
        target: Signals before they were masked, `f32[signals, time, lead]`.
        peaks: R peaks of the targets, `bool[signals, time]`.
        rate_hz: Samples per second.

    Returns:
        The errors, in units of the signals' variance.
    """
    centred = target - target.mean(1, keepdims=True)
    deviation = jnp.sqrt((centred * centred).mean((1, 2), keepdims=True))
    square = (found - centred / jnp.maximum(deviation, jnp.float32(_SILENCE))) ** 2
    reach = max(1, round(PEAK_REACH_S * rate_hz))
    near = jax.lax.reduce_window(
        peaks.astype(jnp.float32), jnp.float32(0), jax.lax.max, (1, 2 * reach + 1), (1, 1), "SAME"
    )
    return SquaredErrors(
        whole=square.mean((1, 2)),
        at_peaks=(square * near[:, :, None]).sum((1, 2)),
        peak_samples=near.sum(1) * square.shape[2],
    )


def mean_errors(errors: SquaredErrors, *, valid: Array) -> tuple[Array, Array]:
    """Returns the mean square error of the valid signals, and that about their R peaks, each `f32[]`; 0 without any.

    Args:
        errors: Errors of the signals of the global batch.
        valid: Signals that hold a recording, `bool[signals]`; the others do not count.
    """
    weight = valid.astype(jnp.float32)
    whole = (weight * errors.whole).sum() / jnp.maximum(weight.sum(), 1.0)
    at_peaks = (weight * errors.at_peaks).sum() / jnp.maximum((weight * errors.peak_samples).sum(), 1.0)
    return whole, at_peaks
