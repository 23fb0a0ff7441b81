"""Contrastive losses: sums over the positives and negatives that each row has in the global batch.

Every loss takes `(embeddings, rows)` and settings, and returns a `LossOutput`. The temperature may be a number, or an
array where it is learnt: logits are scaled by scaling the anchors, so that the temperature gets its gradient
through them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput, Reducer
from ecgjax.objectives.pairs.relations import Pairs, Relation, Rows
from ecgjax.objectives.pairs.running import Compared, LogSum, PairStats, fold_logits, sum_terms
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.settings.bounds import Positive

#: First value of SigLIP's log t, for t = 10.
LOG_SCALE = math.log(10)


def nt_xent(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    temperature: Positive | Array = 0.1,
    positives: str = "outside",
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
) -> LossOutput:
    """Evaluates NT-Xent, or one of its two forms for several positives.

    A row has positives P and negatives N, with cosine similarities s. With the sum over positives outside the log it
    costs log Σ_{a ∈ P ∪ N} e^{s_a/τ} − (1/|P|) Σ_{p ∈ P} s_p/τ, and with the sum inside the log it costs
    log Σ_{a ∈ P ∪ N} e^{s_a/τ} − log Σ_{p ∈ P} e^{s_p/τ}. With one positive either is NT-Xent. With the sum inside, the
    positives that are already near get nearly all of the gradient. Rows without a positive, and rows that are not
    valid, do not count.

    With `relations.similar_physiology` this is the contrastive term of PhysioCLR (Maghsoodi et al. 2025) in the form
    that is bounded below.

    Args:
        embeddings: Embeddings, `[rows, dim]`, not yet normalised.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        temperature: Temperature τ, by which cosine similarities are divided to give logits.
        positives: Place of the sum over several positives: `"outside"` or `"inside"` the logarithm.
        reducer: Reduction of the losses of the rows to one number.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`).

    Raises:
        ConfigError: `positives` is neither `"outside"` nor `"inside"`.

    References:
        Chen et al., SimCLR, ICML 2020, eq. 1; Khosla et al., SupCon, NeurIPS 2020, eq. 2 (outside) and 3 (inside).
    """
    per_row, stats = cross_entropies(
        embeddings, rows, relation=relation, temperature=temperature, positives=positives, tiling=tiling
    )
    return outputs.output(per_row, stats.positives > 0, stats.summary(rows), reducer=reducer)


def cross_entropies(
    embeddings: Array | Compared,
    rows: Rows,
    *,
    relation: Relation,
    temperature: Positive | Array,
    positives: str,
    tiling: Tiling,
) -> tuple[Array, PairStats]:
    """Returns the loss of every row by `nt_xent`, `f32[rows]`, and the counts and extremes of its pairs.

    The loss of a row without a positive has no meaning.

    Args:
        embeddings: Embeddings, `[rows, dim]`, to be compared with each other; or anchors and keys.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        temperature: Temperature τ, by which cosine similarities are divided to give logits.
        positives: Place of the sum over several positives: `"outside"` or `"inside"` the logarithm.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Raises:
        ConfigError: `positives` is neither `"outside"` nor `"inside"`.
    """
    no_pull = Pull.of(positives)

    class Running(NamedTuple):
        everything: LogSum
        pull: Pull
        stats: PairStats

    def init(anchors: int) -> Running:
        return Running(LogSum.empty((anchors,)), no_pull(anchors), PairStats.empty(anchors))

    def update(carry: Running, similarity: Array, logits: Array, pairs: Pairs, _: Any) -> Running:
        everything = carry.everything.add(logits, pairs.positive | pairs.negative)
        return Running(everything, carry.pull.add(logits, pairs.positive), carry.stats.add(similarity, pairs))

    end = fold_logits(init, update, embeddings, rows, relation=relation, temperature=temperature, tiling=tiling)
    return end.everything.value() - end.pull.value(end.stats.positives), end.stats


class Pull(NamedTuple):
    """What the positives of each anchor subtract from its cost, with their sum inside or outside the logarithm.

    Attributes:
        logits: Log-sum of the positives' logits (inside the logarithm), or their sum, `f32[anchors]` (outside).
    """

    logits: LogSum | Array

    @classmethod
    def of(cls, positives: str) -> Callable[[int], Pull]:
        """Returns the function from the number of anchors to their pull before the first positive.

        Args:
            positives: Place of the sum over several positives: `"outside"` or `"inside"` the logarithm.

        Raises:
            ConfigError: `positives` is neither.
        """
        if positives == "inside":
            return lambda anchors: cls(LogSum.empty((anchors,)))
        if positives == "outside":
            return lambda anchors: cls(jnp.zeros((anchors,), jnp.float32))
        raise ConfigError(f"config.objective.positives={positives!r} must be 'outside' or 'inside' (the log)")

    def add(self, logits: Array, positive: Array) -> Pull:
        """Returns the pull after a tile of logits, `f32[anchors, keys]`, of which `positive` masks the positives."""
        if isinstance(self.logits, LogSum):
            return Pull(self.logits.add(logits, positive))
        return Pull(self.logits + jnp.where(positive, logits, 0.0).sum(1))

    def value(self, positives: Array) -> Array:
        """Returns what is subtracted, `f32[anchors]`, given each anchor's number of positives, `f32[anchors]`."""
        if isinstance(self.logits, LogSum):
            return self.logits.value()
        # A row without a positive is divided by 1: its cost is left out later, but NaN would spoil the gradient even
        # so.
        return self.logits / jnp.maximum(positives, 1.0)


def three_kg(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    temperature: Positive | Array = 0.1,
    reducer: Reducer | None = None,
    tiling: Tiling,
) -> LossOutput:
    """Evaluates the loss of 3KG: a positive pair against the anchor's negatives, without its other positives.

    An ordered pair costs −log e^{s_ap/τ} / (e^{s_ap/τ} + Σ_n e^{s_an/τ}). A first pass over the pairs finds the
    log-sum of the negatives, because each term of the second pass needs all of it.

    Args:
        embeddings: Embeddings, `[rows, dim]`, not yet normalised.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative; published with `relations.same_patient`.
        temperature: Temperature τ, by which cosine similarities are divided to give logits.
        reducer: Reduction of the losses of the rows, each the mean over its positives, to one number. None, as
            published, takes the mean over all ordered pairs, in which a row counts as often as it has positives.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`).

    References:
        Gopal et al., 3KG, ML4H 2021 (arXiv 2106.04452).
    """

    def add_negatives(carry: LogSum, similarity: Array, logits: Array, pairs: Pairs, _: Any) -> LogSum:
        return carry.add(logits, pairs.negative)

    compared = Compared.of(embeddings, rows, tiling=tiling)
    negatives = fold_logits(
        lambda anchors: LogSum.empty((anchors,)),
        add_negatives,
        compared,
        rows,
        relation=relation,
        temperature=temperature,
        tiling=tiling,
    )

    def terms(logits: Array, pairs: Pairs, columns: Any) -> Array:
        # −log p/(p + Σn) = log(1 + Σn/p), which softplus computes without overflow.
        terms = jax.nn.softplus(columns["log_sum"][:, None] - logits)
        # Without a negative a term is log 1, whereas the empty log-sum is told as 0.
        return jnp.where(pairs.positive & columns["any"][:, None], terms, 0.0)

    total, stats = sum_terms(
        terms,
        compared,
        rows,
        relation=relation,
        temperature=temperature,
        tiling=tiling,
        columns={"log_sum": negatives.value(), "any": negatives.any},
    )

    def over_pairs(per_row: Array, counts: Array) -> Array:
        pairs = jnp.where(counts, stats.positives, 0.0)
        return (per_row * pairs).sum() / jnp.maximum(pairs.sum(), 1.0)

    per_row = total / jnp.maximum(stats.positives, 1.0)
    return outputs.output(per_row, stats.positives > 0, stats.summary(rows), reducer=reducer or over_pairs)


def sigmoid(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    log_scale: float | Array = LOG_SCALE,
    bias: float | Array = -10.0,
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
) -> LossOutput:
    """Evaluates the sigmoid loss of SigLIP: every pair is a binary classification of its own.

    A row costs Σ_j log(1 + e^{−y_j (t s_j + b)}) over its positives (y = 1) and negatives (y = −1); the loss is the
    mean over the rows that have such pairs. Scale and bias start at the published values, and are meant to be
    learnt: the bias makes up for negatives being far more numerous than positives.

    Args:
        embeddings: Embeddings, `[rows, dim]`, not yet normalised.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        log_scale: Logarithm of the scale t, which multiplies cosine similarities.
        bias: Bias b, which is added to every logit.
        reducer: Reduction of the losses of the rows to one number.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`).

    References:
        Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023 (arXiv 2303.15343), eq. in § 3.2.
    """

    def terms(logits: Array, pairs: Pairs, bias: Array) -> Array:
        logits = logits + bias[:, None]
        terms = jax.nn.softplus(jnp.where(pairs.positive, -logits, logits))
        return jnp.where(pairs.positive | pairs.negative, terms, 0.0)

    per_row, stats = sum_terms(
        terms,
        embeddings,
        rows,
        relation=relation,
        temperature=jnp.exp(-jnp.asarray(log_scale, jnp.float32)),
        tiling=tiling,
        columns=jnp.broadcast_to(jnp.asarray(bias, jnp.float32), rows.row.shape),
    )
    # A row without a positive counts too, because each of its negatives is a classification of its own.
    counts = stats.positives + stats.negatives > 0
    return outputs.output(per_row, counts, stats.summary(rows), reducer=reducer)
