"""Multi-similarity loss with its own mining of pairs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput, Reducer, mean_where
from ecgjax.objectives.pairs.relations import Pairs, Relation, Rows
from ecgjax.objectives.pairs.running import Compared, LogSum, PairStats, fold_logits
from ecgjax.objectives.pairs.tiles import Tiling


class _Mined(NamedTuple):
    """Running values of each anchor's mined pairs.

    Attributes:
        pull: Log-sum over the mined positives.
        push: Log-sum over the mined negatives.
        positives: Number of mined positives, `f32[anchors]`.
        negatives: Number of mined negatives, `f32[anchors]`.
    """

    pull: LogSum
    push: LogSum
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
    """Evaluates the multi-similarity loss, which mines its pairs itself.

    A negative is kept if its similarity exceeds that of the row's farthest positive, less ε: s_n > min_p s_p − ε. A
    positive is kept if its similarity is below that of the nearest negative, plus ε: s_p < max_n s_n + ε. With the
    pairs that are kept a row costs

        (1/α) log(1 + Σ_p e^{−α (s_p − λ)}) + (1/β) log(1 + Σ_n e^{β (s_n − λ)}).

    Rows that have a positive count. Those of which no pair was kept cost 0. The choice carries no gradient.

    Args:
        embeddings: Embeddings, `[rows, dim]`, not yet normalised.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        positive_scale: Scale α of the positives: the larger it is, the more the farthest positives dominate.
        negative_scale: Scale β of the negatives: the larger it is, the more the nearest negatives dominate.
        threshold: Cosine similarity λ that positives should exceed and negatives stay below; 1 in the paper, .5 in its
            authors' code.
        slack: Slack ε of the mining of pairs, in cosine similarity: the larger it is, the more pairs are kept.
        reducer: Reduction of the losses of the rows to one number.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`).

    References:
        Wang et al., Multi-Similarity Loss with General Pair Weighting, CVPR 2019 (arXiv 1904.06627), eq. 10-13.
    """

    def add_extremes(
        carry: tuple[Array, PairStats], similarity: Array, logits: Array, pairs: Pairs, _: Any
    ) -> tuple[Array, PairStats]:
        farthest = jnp.where(pairs.positive, similarity, jnp.inf).min(1)
        return jnp.minimum(carry[0], farthest), carry[1].add(similarity, pairs)

    # 1. Find each row's farthest positive and nearest negative.
    compared = Compared.of(embeddings, rows, tiling=tiling)
    farthest_positive, stats = fold_logits(
        lambda anchors: (jnp.full((anchors,), jnp.inf, jnp.float32), PairStats.empty(anchors)),
        add_extremes,
        jax.lax.stop_gradient(compared),
        rows,
        relation=relation,
        temperature=1.0,
        tiling=tiling,
    )

    # The two passes cannot be one: which pairs are kept depends on extremes over all keys.
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

    # 2. Keep the pairs that these extremes let through, and add up their terms.
    mined = fold_logits(
        init,
        add_mined,
        compared,
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
    """Returns log(1 + Σ e^x), `f32[anchors]`, which is 0 without a term."""
    return jnp.where(log_sum.any, jax.nn.softplus(log_sum.value()), 0.0)
