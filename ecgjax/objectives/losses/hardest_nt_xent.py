"""NT-Xent over each row's nearest negatives alone.

Which negatives are the nearest is found by counting: each pass over the pairs counts, for seven levels of similarity of
a row's own, the negatives at that level or above, and the next pass divides the interval in which the count reaches k.
Seven passes bring it down to 2⁻²⁰. No pass keeps more than those counts, so that k may be any share of any batch, and
memory stays linear in the batch; a list of each row's k nearest would be a part of the matrix of all pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ecgjax.objectives.losses.nt_xent import Pull
from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput, Reducer
from ecgjax.objectives.pairs.relations import Pairs, Relation, Rows
from ecgjax.objectives.pairs.running import Ceiling, Compared, LogSum, PairStats, below, fold_logits
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.settings.bounds import Count, Positive, between

#: Share of a row's negatives; it is taken as a fraction of whole numbers up to 1,000, so that its multiples are exact.
ShareOfNegatives = Annotated[float, between(0.001, 1)]

#: Parts that a pass divides each row's interval of similarities into, and the widths of those parts, pass by pass, of
#: the interval from −1 to 1. The levels are multiples of 2⁻²⁰, which float32 adds without rounding. On a CPU five
#: passes of sixteen parts take twice as long, and ten of four parts a quarter longer (1,024 rows of 128 dimensions).
_PARTS = 8
_WIDTHS = 2.0 / _PARTS ** np.arange(1, 8)
_LAST_WIDTH = float(_WIDTHS[-1])

#: XLA may compute a similarity in one pass with another last bit than in the next. The last interval is taken wider by
#: this much at both ends, more than such bits, so that the k-th nearest negative always lies in it.
_SLACK = _LAST_WIDTH


def hardest_nt_xent(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    temperature: Positive | Array = 0.1,
    share_of_negatives: ShareOfNegatives = 0.1,
    most_negatives: Count | None = None,
    ceiling: Ceiling | None = None,
    positives: str = "outside",
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
) -> LossOutput:
    """Evaluates NT-Xent in which a row keeps only its k nearest negatives, without those that are suspiciously near.

    A row with N negatives keeps the k nearest of those below the ceiling, k = min(most, ⌈share · N⌉), or all of them
    where they are fewer; it costs what `nt_xent` says of its positives and these. The choice itself has no gradient.

    Negatives as near as the k-th, to 3e-6 of cosine, share the places that are left equally: where m negatives tie for
    the last p places, each counts p/m times. So the loss depends neither on the order of the rows nor on tiles or
    devices, and equal rows get equal gradients.

    Args:
        embeddings: Embeddings, `[rows, dim]`, not yet normalised.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        temperature: Temperature τ, by which cosine similarities are divided to give logits.
        share_of_negatives: Greatest share of its negatives that a row keeps, in thousandths or a simple fraction,
            rounded up to a whole number; those at the ceiling or above count among the negatives it is a share of.
        most_negatives: Greatest number of negatives that a row keeps; None for the share alone.
        ceiling: Ceiling of a negative's cosine similarity: negatives that are as near or nearer may be positives in
            truth, and are left out; None for no ceiling.
        positives: Place of the sum over several positives: `"outside"` or `"inside"` the logarithm.
        reducer: Reduction of the losses of the rows to one number.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`), among them
        `kept_negatives_per_row` and, with a ceiling, `negatives_above_ceiling_per_row`.

    Raises:
        ConfigError: `positives` is neither `"outside"` nor `"inside"`.

    References:
        Wu et al., Conditional Negative Sampling for Contrastive Learning of Visual Representations, ICLR 2021 (arXiv
        2010.02037), whose negatives lie between two percentiles of similarity; Robinson et al., ICLR 2021.
    """
    no_pull = Pull.of(positives)

    # 1. Find the similarity of each row's k-th nearest negative.
    compared = Compared.of(embeddings, rows, tiling=tiling)
    number = _number_to_keep(share_of_negatives, most_negatives)
    level, keep = _level_of_last(number, compared, rows, relation=relation, ceiling=ceiling, tiling=tiling)

    class Running(NamedTuple):
        everything: LogSum  # Positives, and the negatives that are nearer than the last.
        pull: Pull
        tied: LogSum  # Negatives as near as the last.
        num_nearer: Array
        num_tied: Array
        num_candidates: Array
        stats: PairStats

    def init(anchors: int) -> Running:
        empty, zero = LogSum.empty((anchors,)), jnp.zeros((anchors,), jnp.float32)
        return Running(empty, no_pull(anchors), empty, zero, zero, zero, PairStats.empty(anchors))

    def update(carry: Running, similarity: Array, logits: Array, pairs: Pairs, level: Array) -> Running:
        candidate = below(pairs, similarity, ceiling).negative
        at = _cosine(similarity) - level[:, None]
        nearer = candidate & (at >= _LAST_WIDTH + _SLACK)
        tied = candidate & (at >= -_SLACK) & ~nearer
        return Running(
            everything=carry.everything.add(logits, pairs.positive | nearer),
            pull=carry.pull.add(logits, pairs.positive),
            tied=carry.tied.add(logits, tied),
            num_nearer=carry.num_nearer + nearer.sum(1, dtype=jnp.float32),
            num_tied=carry.num_tied + tied.sum(1, dtype=jnp.float32),
            num_candidates=carry.num_candidates + candidate.sum(1, dtype=jnp.float32),
            stats=carry.stats.add(similarity, pairs),
        )

    # 2. Add up the terms of those that are nearer, and apart from them of those that are as near.
    end = fold_logits(
        init, update, compared, rows, relation=relation, temperature=temperature, tiling=tiling, columns=level
    )
    left = jnp.clip(keep - end.num_nearer, 0, end.num_tied)
    weight = jax.lax.stop_gradient(left / jnp.maximum(end.num_tied, 1.0))
    everything = end.everything.plus(end.tied, weight=weight)
    per_row = everything.value() - end.pull.value(end.stats.positives)

    summary = end.stats.summary(rows)
    summary["kept_negatives_per_row"] = outputs.mean_where(end.num_nearer + left, rows.valid)
    if ceiling is not None:
        above = end.stats.negatives - end.num_candidates
        summary["negatives_above_ceiling_per_row"] = outputs.mean_where(above, rows.valid)
    return outputs.output(per_row, end.stats.positives > 0, summary, reducer=reducer)


def _number_to_keep(share: float, most: int | None) -> Callable[[Array], Array]:
    """Returns the function from numbers of negatives to the number to keep of them, `i32[anchors]` → `i32[anchors]`."""
    # In whole numbers, because a product of floating point may lie just above the number that it should be.
    fraction = Fraction(share).limit_denominator(1000)

    def number(negatives: Array) -> Array:
        of_share = (negatives * fraction.numerator + (fraction.denominator - 1)) // fraction.denominator
        return of_share if most is None else jnp.minimum(of_share, most)

    return number


class _Counts(NamedTuple):
    """Counts of an anchor's negatives in one pass.

    Attributes:
        at_least: Number below the ceiling that are at each level or nearer, `i32[anchors, levels]`.
        negatives: Number of all of them, `i32[anchors]`.
    """

    at_least: Array
    negatives: Array


def _level_of_last(
    number: Callable[[Array], Array],
    compared: Compared,
    rows: Rows,
    *,
    relation: Relation,
    ceiling: float | None,
    tiling: Tiling,
) -> tuple[Array, Array]:
    """Finds the similarity of each row's last negative that is kept.

    Args:
        number: Function from numbers of negatives to the number to keep of them.
        compared: Embeddings as anchors and as keys.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        ceiling: Ceiling of a negative's cosine similarity; None for none.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The greatest multiple of 2⁻²⁰ that at least the number to keep reach, `f32[rows]`, −1 where fewer are below the
        ceiling; and that number, `f32[rows]`.
    """
    frozen = jax.lax.stop_gradient(compared)

    def init(anchors: int) -> _Counts:
        zero = jnp.zeros((anchors,), jnp.int32)
        return _Counts(jnp.zeros((anchors, _PARTS - 1), jnp.int32), zero)

    def update(carry: _Counts, similarity: Array, logits: Array, pairs: Pairs, levels: Array) -> _Counts:
        candidate, cosine = below(pairs, similarity, ceiling).negative, _cosine(similarity)
        # Each level is a sum of its own: as one, they would be an array of all pairs and levels of the tile.
        counts = [(candidate & (cosine >= levels[:, part, None])).sum(1, dtype=jnp.int32) for part in range(_PARTS - 1)]
        negatives = pairs.negative.sum(1, dtype=jnp.int32)
        return _Counts(carry.at_least + jnp.stack(counts, axis=1), carry.negatives + negatives)

    def narrow(state: tuple[Array, Array], width: Array) -> tuple[tuple[Array, Array], None]:
        level, _ = state
        levels = level[:, None] + width * jnp.arange(1, _PARTS, dtype=jnp.float32)[None, :]
        counts = fold_logits(
            init, update, frozen, rows, relation=relation, temperature=1.0, tiling=tiling, columns=levels
        )
        keep = number(counts.negatives)
        reached = (counts.at_least >= keep[:, None]).sum(1, dtype=jnp.int32)
        return (level + width * reached.astype(jnp.float32), keep), None

    start = jnp.full(rows.row.shape, -1.0, jnp.float32), jnp.zeros(rows.row.shape, jnp.int32)
    (level, keep), _ = jax.lax.scan(narrow, start, jnp.asarray(_WIDTHS, jnp.float32))
    return level, keep.astype(jnp.float32)


def _cosine(similarity: Array) -> Array:
    """Returns similarities within −1 and 1, which rounding may exceed, without gradient."""
    return jnp.clip(jax.lax.stop_gradient(similarity), -1.0, 1.0)
