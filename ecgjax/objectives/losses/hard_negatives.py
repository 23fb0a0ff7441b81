"""Contrastive losses that weight negatives by how near they are, or correct for the positives hidden among them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput, Reducer
from ecgjax.objectives.pairs.relations import Pairs, Relation, Rows
from ecgjax.objectives.pairs.running import Ceiling, Compared, LogSum, below, fold_logits, sum_terms
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.settings.bounds import Positive, ZeroOrMore


def hcl(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    temperature: Positive | Array = 0.5,
    concentration: ZeroOrMore | Array = 1.0,
    positive_prior: float = 0.1,
    ceiling: Ceiling | None = None,
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
) -> LossOutput:
    """Evaluates the hard-negative contrastive loss: near negatives weigh more, and hidden positives are subtracted.

    With p = e^{s_p/τ} of a positive and n_j = e^{s_j/τ} of the row's N negatives, R = Σ n_j^β n_j / mean_j(n_j^β), and

        N_g = max((R − τ⁺ N p) / (1 − τ⁺), N e^{−1/τ}),    the positive's term −log p/(p + N_g).

    A row costs the mean over its positives. The relation says which rows are negatives, so that N differs from row to
    row; a row without negatives costs 0. The importance weights carry gradient, and β may follow a schedule. With β =
    0, τ⁺ = 0 and one positive this is NT-Xent. A first pass over the pairs finds R, and a second one adds up the terms.

    Args:
        embeddings: Embeddings, `[rows, dim]`, not yet normalised.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        temperature: Temperature τ, by which cosine similarities are divided to give logits.
        concentration: Concentration β, at least 0: the larger it is, the more near negatives weigh.
        positive_prior: Share τ⁺ of the negatives that are positives in truth, at least 0 and below 1.
        ceiling: Ceiling of a negative's cosine similarity: negatives that are as near or nearer may be positives in
            truth, and are left out; None, as published, for no ceiling.
        reducer: Reduction of the losses of the rows to one number.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`); with a ceiling also
        `kept_negatives_per_row`.

    Raises:
        ConfigError: `positive_prior` is out of its range.

    References:
        Robinson et al., Contrastive Learning with Hard Negative Samples, ICLR 2021 (arXiv 2010.04592).
    """
    if not 0 <= positive_prior < 1:
        raise ConfigError(f"config.objective.positive_prior={positive_prior} must be at least 0 and less than 1")

    class Negatives(NamedTuple):
        weighted: LogSum  # log Σ n^β n
        weights: LogSum  # log Σ n^β
        number: Array

    def init(anchors: int) -> Negatives:
        empty = LogSum.empty((anchors,))
        return Negatives(empty, empty, jnp.zeros((anchors,), jnp.float32))

    def add_negatives(carry: Negatives, similarity: Array, logits: Array, pairs: Pairs, beta: Array) -> Negatives:
        pairs = below(pairs, similarity, ceiling)
        tempered = beta[:, None] * logits
        return Negatives(
            carry.weighted.add(tempered + logits, pairs.negative),
            carry.weights.add(tempered, pairs.negative),
            carry.number + pairs.negative.sum(1, dtype=jnp.float32),
        )

    # 1. Find R: the weighted log-sum of each row's negatives.
    compared = Compared.of(embeddings, rows, tiling=tiling)
    found = fold_logits(
        init,
        add_negatives,
        compared,
        rows,
        relation=relation,
        temperature=temperature,
        tiling=tiling,
        columns=jnp.broadcast_to(jnp.asarray(concentration, jnp.float32), rows.row.shape),
    )
    some = found.number > 0
    log_count = jnp.log(jnp.where(some, found.number, 1.0))
    columns = {
        "some": some,
        "log_count": log_count,
        "log_r": log_count + found.weighted.value() - found.weights.value(),
        "highest_logit": jnp.broadcast_to(1 / jnp.asarray(temperature, jnp.float32), rows.row.shape),
    }

    # 2. Add up the terms of the positives, each of which needs the whole R.
    def terms(logits: Array, pairs: Pairs, columns: Any) -> Array:
        log_count, log_r, highest = (columns[name][:, None] for name in ("log_count", "log_r", "highest_logit"))
        terms = jax.nn.softplus(_log_ratio(logits, log_r, log_count, highest, positive_prior))
        return jnp.where(pairs.positive & columns["some"][:, None], terms, 0.0)

    total, stats = sum_terms(
        terms, compared, rows, relation=relation, temperature=temperature, tiling=tiling, columns=columns
    )
    per_row = total / jnp.maximum(stats.positives, 1.0)
    summary = stats.summary(rows)
    if ceiling is not None:
        summary["kept_negatives_per_row"] = outputs.mean_where(found.number, rows.valid)
    return outputs.output(per_row, stats.positives > 0, summary, reducer=reducer)


def debiased(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    temperature: Positive | Array = 0.5,
    positive_prior: float = 0.1,
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
) -> LossOutput:
    """Evaluates the debiased contrastive loss: `hcl` at β = 0, where every negative weighs the same.

    Args:
        embeddings: Embeddings, `[rows, dim]`, not yet normalised.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        temperature: Temperature τ, by which cosine similarities are divided to give logits.
        positive_prior: Share τ⁺ of the negatives that are positives in truth, at least 0 and below 1.
        reducer: Reduction of the losses of the rows to one number.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`).

    Raises:
        ConfigError: `positive_prior` is out of its range.

    References:
        Chuang et al., Debiased Contrastive Learning, NeurIPS 2020 (arXiv 2007.00224), eq. 7 and 8 with M = 1.
    """
    return hcl(
        embeddings,
        rows,
        relation=relation,
        temperature=temperature,
        concentration=0.0,
        positive_prior=positive_prior,
        reducer=reducer,
        tiling=tiling,
    )


def _log_ratio(positive: Array, log_r: Array, log_count: Array, highest: Array, prior: float) -> Array:
    """Returns log(N_g / p) of `hcl`, `f32[anchors, keys]`.

    It is computed in logarithms throughout, because e^{1/τ} overflows float32 from τ = .011 down.

    Args:
        positive: Logits s_p/τ, `f32[anchors, keys]`.
        log_r: Logarithm of R, `f32[anchors, 1]`.
        log_count: Logarithm of the number N of negatives, `f32[anchors, 1]`.
        highest: Highest possible logit 1/τ, `f32[anchors, 1]`.
        prior: Share τ⁺ of the negatives that are positives in truth.
    """
    lowest = log_count - highest - positive
    ratio = log_r - positive
    if not prior:
        # `jnp.maximum` is not used: its gradient asks which argument the result equals, and that test can fail where
        # XLA computes the arguments twice (see `encoders.operations.pooling.max_pool`).
        return jnp.where(ratio > lowest, ratio, lowest)
    # This is log((e^ratio − τ⁺ N) / (1 − τ⁺)), where the difference is above 0.
    share = math.log(prior) + log_count - ratio
    above = share < 0
    corrected = ratio + jnp.log(-jnp.expm1(jnp.where(above, share, -1.0))) - math.log1p(-prior)
    return jnp.where(above & (corrected > lowest), corrected, lowest)
