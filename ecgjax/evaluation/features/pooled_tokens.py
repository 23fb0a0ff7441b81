"""Features pooled from the tokens of a frozen encoder: means and deviations over time, of each lead or over leads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ecgjax import encoders
from ecgjax.evaluation.features.frozen_encoder import Encoder
from ecgjax.leads import prepare


def _mean_over_leads(moments: np.ndarray) -> np.ndarray:
    return moments[:, :, 0].mean(axis=1)


def _mean_and_deviation(moments: np.ndarray) -> np.ndarray:
    return moments.mean(axis=1).reshape(len(moments), -1)


def _mean_of_every_lead(moments: np.ndarray) -> np.ndarray:
    return moments[:, :, 0].reshape(len(moments), -1)


_POOLS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": _mean_over_leads,
    "mean_deviation": _mean_and_deviation,
    "lead_mean": _mean_of_every_lead,
}

#: Readouts that are features pooled from tokens.
POOLED = tuple(_POOLS)


def moments(tokens: Array, mask: Array, *, leads: int) -> Array:
    """Returns mean and standard deviation over time of the tokens of every lead, `f32[batch, leads, 2, dim]`.

    Args:
        tokens: Tokens, `f32[batch, tokens, dim]`; with several leads all places of the first, then of the second.
        mask: Mask of the tokens that stand for a part of the recording, `bool[batch, tokens]`; others count for
            nothing. Mean and deviation of no token are 0.
        leads: Number of leads that tokens see one by one; 1 where each token sees all leads.
    """
    batch, number, dim = tokens.shape
    of_leads = (batch, leads, number // leads)
    kept = mask.reshape(*of_leads, 1)
    count = jnp.maximum(jnp.sum(kept, axis=2), 1).astype(tokens.dtype)
    # Activations of padding may be anything, and infinity times zero is no number.
    own = jnp.where(kept, tokens.reshape(*of_leads, dim), 0)
    mean = jnp.sum(own, axis=2) / count
    # The mean is subtracted first: in float32 a difference of squares would lose small deviations.
    apart = jnp.where(kept, own - mean[:, :, None], 0)
    return jnp.stack([mean, jnp.sqrt(jnp.sum(apart * apart, axis=2) / count)], axis=2)


def pooled(moments: np.ndarray, readout: str) -> np.ndarray:
    """Returns the features of a readout, `f32[n, dim]`, `f32[n, 2 · dim]` or `f32[n, leads · dim]`.

    Args:
        moments: Moments of the tokens, `f32[n, leads, 2, dim]`.
        readout: Name of the readout. `mean` is the mean over time, averaged over leads; `mean_deviation` has the
            standard deviation over time beside it, of every lead and averaged over leads; `lead_mean` has the means
            over time of all leads side by side.
    """
    return _POOLS[readout](np.asarray(moments))


def num_leads_of_tokens(split: encoders.Split[encoders.Encoder], num_samples: int) -> int:
    """Returns the number of leads that an encoder's tokens see one by one; 1 where each token sees all leads.

    Args:
        split: Encoder; its arrays may be abstract.
        num_samples: Number of samples of the recordings.
    """
    leads = encoders.merge(split).token_leads(num_samples)
    return 1 if leads is None else len(np.unique(leads))


def token_mask(encoder: Encoder, num_samples: int, *, start: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Returns which tokens stand for a part of what was recorded, `bool[n, tokens]`.

    Args:
        encoder: Encoder.
        num_samples: Number of samples of the recordings, with their padding.
        start: First recorded sample of each recording, `int[n]`.
        samples: Number of recorded samples of each, `int[n]`.
    """
    return encoders.merge(encoder.split).grids(num_samples)[-1].recorded(start, samples)


def tokens_of(encoder: Encoder, signals: np.ndarray) -> np.ndarray:
    """Returns the tokens of a batch in half precision, `f16[n, tokens, dim]`.

    Args:
        encoder: Encoder.
        signals: Recordings in µV, `int16[n, time, 8]`.
    """
    return np.asarray(_half(encoder.split.graph, encoder.num_leads, *encoder.split[1:], signals))


def moments_of(encoder: Encoder, signals: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the moments of a batch's tokens, `f32[n, leads, 2, dim]`.

    Args:
        encoder: Encoder.
        signals: Recordings in µV, `int16[n, time, 8]`.
        mask: Mask of the tokens, `bool[n, tokens]`.
    """
    leads = num_leads_of_tokens(encoder.split, signals.shape[1])
    return np.asarray(_moments(encoder.split.graph, encoder.num_leads, leads, *encoder.split[1:], signals, mask))


def token_shape(encoder: Encoder, num_samples: int, stored_leads: int) -> tuple[int, int]:
    """Returns number and dimension of the tokens of a recording; nothing is computed.

    Args:
        encoder: Encoder.
        num_samples: Number of samples of the recordings.
        stored_leads: Number of stored leads.
    """
    signal = jax.ShapeDtypeStruct((1, num_samples, stored_leads), jnp.int16)
    made = jax.eval_shape(
        lambda params, stats, x: _tokens(encoder.split.graph, encoder.num_leads, params, stats, x),
        encoder.split.params,
        encoder.split.stats,
        signal,
    )
    return made.shape[1], made.shape[2]


def _tokens(graph: Any, num_leads: int, params: Any, stats: Any, signal: Array) -> Array:
    module = encoders.merge(encoders.Split(graph, params, stats))
    return module.tokens(prepare(signal, num_leads=num_leads), train=False)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _half(graph: Any, num_leads: int, params: Any, stats: Any, signal: Array) -> Array:
    return _tokens(graph, num_leads, params, stats, signal).astype(jnp.float16)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _moments(graph: Any, num_leads: int, leads: int, params: Any, stats: Any, signal: Array, mask: Array) -> Array:
    return moments(_tokens(graph, num_leads, params, stats, signal), mask, leads=leads)
