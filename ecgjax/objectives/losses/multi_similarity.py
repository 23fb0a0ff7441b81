"""Multi-similarity loss with its own mining of pairs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput, Reducer, mean_where
from ecgjax.objectives.pairs.relations import Pairs, Relation, Rows
from ecgjax.objectives.pairs.running import LogSum, PairStats, fold_logits
from ecgjax.objectives.pairs.tiles import Tiling


class _Mined(NamedTuple):
    pull: LogSum  # over mined positives
    push: LogSum  # over mined negatives
    positives: Array
    negatives: Array


def multi_similarity(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    positive_scale: float = 2.0,
    negative_scale: float = 50.0,
    threshold: float = 1.0,
    slack: float = 0.1,
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
) -> LossOutput:
    """Multi-similarity loss.

    A negative is kept if it is nearer than the row's farthest positive, less ε: s_n > min_p s_p − ε; a positive if it
    is farther than the nearest negative, plus ε: s_p < max_n s_n + ε. Of the pairs that are kept a row costs

        (1/α) log(1 + Σ_p e^{−α (s_p − λ)}) + (1/β) log(1 + Σ_n e^{β (s_n − λ)}).

    Rows that have a positive count, also those of which no pair was kept: they cost 0. The choice carries no gradient.

    Args:
        embeddings: `[rows, dim]`, not yet normalised.
        rows: their metadata.
        relation: which pairs are positive and which negative.
        positive_scale: α.
        negative_scale: β.
        threshold: λ, of cosine similarity; 1 in the paper, .5 in its authors' code.
        slack: ε, of cosine similarity.
        reducer: of the rows.
        tiling: how the pairs are gone through.

    References:
        Wang et al., Multi-Similarity Loss with General Pair Weighting, CVPR 2019 (arXiv 1904.06627), eq. 10-13.
    """

    def add_extremes(
        carry: tuple[Array, PairStats], similarity: Array, logits: Array, pairs: Pairs, _: Any
    ) -> tuple[Array, PairStats]:
        farthest = jnp.where(pairs.positive, similarity, jnp.inf).min(1)
        return jnp.minimum(carry[0], farthest), carry[1].add(similarity, pairs)

    farthest_positive, stats = fold_logits(
        lambda anchors: (jnp.full((anchors,), jnp.inf, jnp.float32), PairStats.empty(anchors)),
        add_extremes,
        jax.lax.stop_gradient(embeddings),
        rows,
        relation=relation,
        temperature=1.0,
        tiling=tiling,
    )

    def init(anchors: int) -> _Mined:
        empty, zero = LogSum.empty((anchors,)), jnp.zeros((anchors,), jnp.float32)
        return _Mined(empty, empty, zero, zero)

    def add_mined(carry: _Mined, similarity: Array, logits: Array, pairs: Pairs, columns: Any) -> _Mined:
        positive = pairs.positive & (similarity < columns["highest_positive"][:, None])
        negative = pairs.negative & (similarity > columns["lowest_negative"][:, None])
        return _Mined(
            carry.pull.add(-positive_scale * (similarity - threshold), positive),
            carry.push.add(negative_scale * (similarity - threshold), negative),
            carry.positives + positive.sum(1, dtype=jnp.float32),
            carry.negatives + negative.sum(1, dtype=jnp.float32),
        )

    mined = fold_logits(
        init,
        add_mined,
        embeddings,
        rows,
        relation=relation,
        temperature=1.0,
        tiling=tiling,
        columns={"highest_positive": stats.best_negative + slack, "lowest_negative": farthest_positive - slack},
    )
    per_row = _softplus_of(mined.pull) / positive_scale + _softplus_of(mined.push) / negative_scale
    counts = stats.positives > 0
    summary = stats.summary(rows) | {
        "mined_positives_per_row": mean_where(mined.positives, counts),
        "mined_negatives_per_row": mean_where(mined.negatives, counts),
        "active_frac": mean_where((mined.positives + mined.negatives > 0).astype(jnp.float32), counts),
    }
    return outputs.output(per_row, counts, summary, reducer=reducer)


def _softplus_of(log_sum: LogSum) -> Array:
    """log(1 + Σ e^x), 0 without a term."""
    return jnp.where(log_sum.any, jax.nn.softplus(log_sum.value()), 0.0)
