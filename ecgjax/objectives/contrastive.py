"""Contrastive losses over the global batch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from ecgjax.objectives import tiles
from ecgjax.objectives.relations import Pairs, Relation, Rows


class LossOutput(NamedTuple):
    """A loss over rows.

    Attributes:
        loss: mean over the rows that count, `f32[]`; 0 when none does.
        per_row: `f32[rows]`, 0 where a row does not count.
        counts: `bool[rows]`, the rows that count.
        stats: name → `f32[]`, for telemetry; carry no gradient.
    """

    loss: Array
    per_row: Array
    counts: Array
    stats: dict[str, Array]


class _Running(NamedTuple):
    """Carry of the fold; every leaf is `f32[anchors]`."""

    maximum: Array  # of the logits so far
    total: Array  # Σ e^{logit − maximum} over positives and negatives
    positive_sum: Array  # Σ logit over positives
    positives: Array
    negatives: Array
    best_positive: Array
    best_negative: Array


def normalise(embeddings: Array) -> Array:
    """Scales rows to unit length; a zero row stays zero and has zero gradient.

    Args:
        embeddings: `[rows, dim]`.

    Returns:
        `f32[rows, dim]`.
    """
    x = embeddings.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), jnp.float32(1e-24)))


def nt_xent(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    temperature: float = 0.1,
    mesh: Mesh | None = None,
    chunk: int | None = tiles.DEFAULT_CHUNK,
) -> LossOutput:
    """NT-Xent (Chen et al. 2020), and its form for several positives with the sum outside the log (Khosla et al. 2020).

    A row with positives P and negatives N, at cosine similarity s, costs
    log Σ_{a ∈ P ∪ N} e^{s_a/τ} − (1/|P|) Σ_{p ∈ P} s_p/τ. With one positive this is NT-Xent. Rows without a positive,
    or that are not valid, do not count.

    Args:
        embeddings: `[rows, dim]`, not yet normalised.
        rows: their metadata.
        relation: which pairs are positive and which negative.
        temperature: τ.
        mesh: the mesh whose `data` axis the rows are sharded over, or None.
        chunk: keys a tile; None for the dense form.
    """

    def init(anchors: int) -> _Running:
        zero, low = jnp.zeros((anchors,), jnp.float32), jnp.full((anchors,), -jnp.inf, jnp.float32)
        return _Running(low, zero, zero, zero, zero, low, low)

    def update(carry: _Running, similarity: Array, pairs: Pairs) -> _Running:
        logits = similarity / temperature
        used = pairs.positive | pairs.negative
        tile_max = jnp.max(jnp.where(used, logits, -jnp.inf), axis=1)
        maximum = jax.lax.stop_gradient(jnp.maximum(carry.maximum, tile_max))
        # Before the first pair the maximum is −inf; subtracting it would give NaN, and so would its gradient.
        shift = jnp.where(jnp.isfinite(maximum), maximum, jnp.float32(0))
        exps = jnp.where(used, jnp.exp(jnp.where(used, logits - shift[:, None], jnp.float32(0))), jnp.float32(0))
        frozen = jax.lax.stop_gradient(similarity)
        return _Running(
            maximum=maximum,
            total=carry.total * jnp.exp(carry.maximum - shift) + exps.sum(1),
            positive_sum=carry.positive_sum + jnp.where(pairs.positive, logits, jnp.float32(0)).sum(1),
            positives=carry.positives + pairs.positive.sum(1, dtype=jnp.float32),
            negatives=carry.negatives + pairs.negative.sum(1, dtype=jnp.float32),
            best_positive=jnp.maximum(carry.best_positive, jnp.where(pairs.positive, frozen, -jnp.inf).max(1)),
            best_negative=jnp.maximum(carry.best_negative, jnp.where(pairs.negative, frozen, -jnp.inf).max(1)),
        )

    end = tiles.fold(init, update, normalise(embeddings), rows, relation=relation, mesh=mesh, chunk=chunk)
    counts = end.positives > 0
    log_total = jnp.log(jnp.where(counts, end.total, jnp.float32(1))) + jnp.where(counts, end.maximum, jnp.float32(0))
    per_row = jnp.where(counts, log_total - end.positive_sum / jnp.maximum(end.positives, 1.0), jnp.float32(0))
    number = jnp.maximum(counts.sum(dtype=jnp.float32), 1.0)

    def mean(values: Array, where: Array) -> Array:
        where_f = where.astype(jnp.float32)
        return jnp.where(where, values, jnp.float32(0)).sum() / jnp.maximum(where_f.sum(), 1.0)

    contested = counts & (end.negatives > 0)
    stats = {
        "positives_per_row": mean(end.positives, rows.valid),
        "negatives_per_row": mean(end.negatives, rows.valid),
        "hardest_negative_similarity": mean(end.best_negative, contested),
        "best_positive_similarity": mean(end.best_positive, counts),
        "top1_accuracy": mean((end.best_positive > end.best_negative).astype(jnp.float32), contested),
    }
    return LossOutput(per_row.sum() / number, per_row, counts, jax.lax.stop_gradient(stats))
