"""Statistics of a batch's embeddings: alignment and uniformity on the unit sphere, and effective rank.

References:
    Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity, ICML 2020.
    Roy and Vetterli, The Effective Rank, EUSIPCO 2007. Garrido et al., RankMe, ICML 2023.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.objectives.pairs.distances import centred, inner_products, normalise, squared_euclidean_matrix
from ecgjax.objectives.pairs.outputs import Stats, mean_where

#: Names of what `statistics` returns.
STATISTICS = ("alignment", "uniformity", "effective_rank")

#: Greatest number of rows that uniformity is taken of: enough for two digits, and few enough to cost nothing beside the
#: objective.
MAX_ROWS = 512


def alignment(z: Array, valid: Array) -> Array:
    """Returns the mean ‖z − z′‖² over pairs of views of one record: 0 is perfect, random vectors have 2.

    Args:
        z: Embeddings of unit length, `f32[records, views, dim]`.
        valid: Records that count, `bool[records]`.
    """
    num_views = z.shape[1]
    if num_views < 2:
        return jnp.zeros((), jnp.float32)
    # Differences are taken first: for embeddings that have all but collapsed, 2 − 2 z·z′ would be nothing but rounding.
    spread = jnp.sum((z - z.mean(1, keepdims=True)) ** 2, (1, 2))
    return jnp.where(valid.any(), mean_where(2 / (num_views - 1) * spread, valid), jnp.float32(2))


def uniformity(z: Array, valid: Array) -> Array:
    """Returns log mean e^{−2‖z − z′‖²} over pairs of rows: 0 if all are equal, about −4 + 8 / dim if spread out.

    Args:
        z: Embeddings of unit length and of different records, `f32[rows, dim]`.
        valid: Rows that count, `bool[rows]`.
    """
    stride = -(-z.shape[0] // MAX_ROWS)
    z, valid = z[::stride], valid[::stride]
    pairs = valid[:, None] & valid[None, :] & ~jnp.eye(z.shape[0], dtype=bool)
    z = centred(z, valid)
    # 1 is subtracted (`expm1`, `log1p`): near 0 the mean and its logarithm could otherwise not be told from rounding.
    potential = jnp.where(pairs, jnp.expm1(-2 * squared_euclidean_matrix(z, z)), jnp.float32(0)).sum()
    return jnp.log1p(potential / jnp.maximum(pairs.sum(dtype=jnp.float32), 1))


def effective_rank(z: Array, valid: Array) -> Array:
    """Returns the exponential of the entropy of the singular values: the number of directions in which rows vary.

    Args:
        z: Embeddings, `f32[rows, dim]`.
        valid: Rows that count, `bool[rows]`.

    Returns:
        The effective rank, from 1 (the rows lie on a line, or are all equal) to `dim`.
    """
    weight = valid.astype(jnp.float32)[:, None]
    number = jnp.maximum(weight.sum(), jnp.float32(1))
    about_mean = (z - (weight * z).sum(0, keepdims=True) / number) * weight
    # The product is dim × dim whatever the number of rows; its eigenvalues are the squared singular values.
    values = jnp.linalg.eigvalsh(inner_products(about_mean.T, about_mean.T))
    singular = jnp.sqrt(jnp.maximum(values, jnp.float32(0)))
    # Rounding leaves singular values of about √ε of the largest where there are none.
    singular = jnp.where(singular > 1e-3 * singular.max(), singular, jnp.float32(0))
    share = singular / jnp.maximum(singular.sum(), jnp.float32(1e-30))
    return jnp.exp(-jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0)))


def statistics(embeddings: Array, valid: Array, *, num_views: int) -> Stats:
    """Returns `alignment`, `uniformity` and `effective_rank` of a batch by name, each `f32[]` without gradient.

    Args:
        embeddings: Embeddings, `[records · num_views, dim]`, with the views of a record next to each other.
        valid: Rows that count, `bool[records · num_views]`.
        num_views: Number of views of each record.
    """
    z = jax.lax.stop_gradient(normalise(embeddings))
    by_record, first = z.reshape(-1, num_views, z.shape[-1]), valid.reshape(-1, num_views)[:, 0]
    return {
        "alignment": alignment(by_record, first),
        "uniformity": uniformity(by_record[:, 0], first),
        "effective_rank": effective_rank(by_record[:, 0], first),
    }
