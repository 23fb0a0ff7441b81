"""Running values that contrastive losses carry from tile to tile: log-sums that never overflow, and counts of pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.distances import inner_products, normalise
from ecgjax.objectives.pairs.outputs import ANCHORS_WITHOUT_POSITIVE, count_where, mean_where
from ecgjax.objectives.pairs.relations import Pairs, Relation, Rows
from ecgjax.objectives.pairs.tiles import Exchanged, Tiling, exchange, fold
from ecgjax.settings.bounds import between

_LOW = -jnp.inf


class LogSum(NamedTuple):
    """A running log Σ e^x that never overflows.

    Attributes:
        maximum: Maximum of the x so far, −∞ before the first. It carries no gradient, because that would cancel.
        total: Sum Σ e^{x − maximum}.
    """

    maximum: Array
    total: Array

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> LogSum:
        """Returns the sum before the first term."""
        return cls(jnp.full(shape, _LOW, jnp.float32), jnp.zeros(shape, jnp.float32))

    def add(self, x: Array, where: Array) -> LogSum:
        """Returns the running sum after the terms e^x of a tile; `x` and the mask `where` are `[..., terms]`."""
        tile_max = jnp.max(jnp.where(where, x, _LOW), axis=-1)
        maximum = jax.lax.stop_gradient(jnp.maximum(self.maximum, tile_max))
        # Before the first term the maximum is −∞; subtracting it would give NaN, and so would its gradient.
        shift = jnp.where(jnp.isfinite(maximum), maximum, jnp.float32(0))
        zero = jnp.float32(0)
        terms = jnp.where(where, jnp.exp(jnp.where(where, x - shift[..., None], zero)), zero)
        return LogSum(maximum, self.total * jnp.exp(self.maximum - shift) + terms.sum(-1))

    def plus(self, other: LogSum, *, weight: Array) -> LogSum:
        """Returns the sum of these terms and those of another sum times a weight, `f32[...]`, 0 or more."""
        counts = weight > 0
        theirs = jnp.where(counts, other.maximum, _LOW)
        maximum = jax.lax.stop_gradient(jnp.maximum(self.maximum, theirs))
        shift = jnp.where(jnp.isfinite(maximum), maximum, jnp.float32(0))
        added = jnp.where(counts, weight * other.total, jnp.float32(0)) * jnp.exp(theirs - shift)
        return LogSum(maximum, self.total * jnp.exp(self.maximum - shift) + added)

    @property
    def any(self) -> Array:
        """Mask of the sums that have a term."""
        return self.maximum > _LOW

    def value(self) -> Array:
        """Returns log Σ e^x; 0 with zero gradient where there is no term, which `any` shows."""
        some = self.any
        return jnp.log(jnp.where(some, self.total, jnp.float32(1))) + jnp.where(some, self.maximum, jnp.float32(0))


#: Ceiling on cosine similarity.
Ceiling = Annotated[float, between(-1, 1)]


def below(pairs: Pairs, similarity: Array, ceiling: float | None) -> Pairs:
    """Returns pairs without the negatives whose cosine similarity is at a ceiling or above, which may be no true ones.

    Args:
        pairs: Pairs of a tile.
        similarity: Cosine similarities, `f32[anchors, keys]`.
        ceiling: Ceiling of a negative's cosine similarity; None for none.
    """
    if ceiling is None:
        return pairs
    return pairs._replace(negative=pairs.negative & (similarity < jnp.float32(ceiling)))


class PairStats(NamedTuple):
    """Running counts and extremes of an anchor's similarities, for telemetry; every leaf is `f32[anchors]`.

    Attributes:
        positives: Number of positives.
        negatives: Number of negatives.
        best_positive: Highest cosine similarity of a positive; −∞ without any.
        best_negative: Highest cosine similarity of a negative; −∞ without any.
    """

    positives: Array
    negatives: Array
    best_positive: Array
    best_negative: Array

    @classmethod
    def empty(cls, anchors: int) -> PairStats:
        """Returns the statistics before the first tile."""
        zero, low = jnp.zeros((anchors,), jnp.float32), jnp.full((anchors,), _LOW, jnp.float32)
        return cls(zero, zero, low, low)

    def add(self, similarity: Array, pairs: Pairs) -> PairStats:
        """Returns the statistics after a further tile of cosine similarities, `f32[anchors, keys]`."""
        frozen = jax.lax.stop_gradient(similarity)
        return PairStats(
            positives=self.positives + pairs.positive.sum(1, dtype=jnp.float32),
            negatives=self.negatives + pairs.negative.sum(1, dtype=jnp.float32),
            best_positive=jnp.maximum(self.best_positive, jnp.where(pairs.positive, frozen, _LOW).max(1)),
            best_negative=jnp.maximum(self.best_negative, jnp.where(pairs.negative, frozen, _LOW).max(1)),
        )

    def summary(self, rows: Rows) -> outputs.Stats:
        """Returns means over rows, and the number of valid rows without a positive, `anchors_without_positive`.

        The means are those of the numbers of positives and negatives a row, of the hardest negative's and the best
        positive's similarity, and of how often the nearest key is a positive.
        """
        has_positive = self.positives > 0
        contested = has_positive & (self.negatives > 0)
        return {
            ANCHORS_WITHOUT_POSITIVE: count_where(rows.valid & ~has_positive),
            "positives_per_row": mean_where(self.positives, rows.valid),
            "negatives_per_row": mean_where(self.negatives, rows.valid),
            "hardest_negative_similarity": mean_where(self.best_negative, contested),
            "best_positive_similarity": mean_where(self.best_positive, has_positive),
            "top1_accuracy": mean_where((self.best_positive > self.best_negative).astype(jnp.float32), contested),
        }


class Compared(NamedTuple):
    """Embeddings to be compared, as anchors and as the keys that several passes share.

    Attributes:
        anchors: Embeddings of the anchors, `f32[rows, dim]`, not yet normalised.
        keys: Embeddings `x`, not yet normalised, and metadata `rows` of the keys by name; they may be of another
            modality.
    """

    anchors: Array
    keys: Exchanged

    @classmethod
    def of(cls, embeddings: Array, rows: Rows, *, tiling: Tiling) -> Compared:
        """Returns embeddings, `[rows, dim]`, to be compared with each other."""
        x = embeddings.astype(jnp.float32)
        return cls(x, exchange({"x": x, "rows": rows}, tiling=tiling))

    def normalised(self) -> tuple[Array, Exchanged]:
        """Returns the anchors' unit vectors, and keys whose unit vectors are named `z`."""
        z, others = normalise(self.anchors), self.keys.arrays["x"]
        keys = {"z": z if others is self.anchors else normalise(others), "rows": self.keys.arrays["rows"]}
        return z, Exchanged(keys)


def fold_logits(
    init: Callable[[int], Any],
    update: Callable[[Any, Array, Array, Pairs, Any], Any],
    embeddings: Array | Compared,
    rows: Rows,
    *,
    relation: Relation,
    temperature: float | Array,
    tiling: Tiling,
    columns: Any = None,
) -> Any:
    """Folds over tiles of cosine similarities and logits.

    Args:
        init: Function from the number of anchors to the carry before the first tile.
        update: Step of the fold, `(carry, similarity, logits, pairs, columns of the anchors) → carry`.
        embeddings: Embeddings, `[rows, dim]`, not yet normalised; or what `Compared.of` made of them, where several
            passes go through the same pairs.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        temperature: Temperature τ; logits are cosine / τ.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        columns: Tree of `[rows, ...]`, such as results of an earlier pass, of which `update` gets the anchors' part.

    Returns:
        The carry after the last tile.
    """
    compared = embeddings if isinstance(embeddings, Compared) else Compared.of(embeddings, rows, tiling=tiling)
    z, others = compared.normalised()
    # A learnt temperature is a column of the anchors, since `fold` may close over nothing that is differentiated.
    scale = jnp.broadcast_to(1 / jnp.asarray(temperature, jnp.float32), rows.row.shape)

    def tile(carry: Any, anchors: Any, keys: Any) -> Any:
        similarity = inner_products(anchors["z"], keys["z"])
        pairs = relation(anchors["rows"], keys["rows"])
        return update(carry, similarity, similarity * anchors["scale"][:, None], pairs, anchors["columns"])

    return fold(
        init,
        tile,
        {"z": z, "rows": rows, "scale": scale, "columns": columns},
        others,
        tiling=tiling,
    )


def sum_terms(
    terms: Callable[[Array, Pairs, Any], Array],
    embeddings: Array | Compared,
    rows: Rows,
    *,
    relation: Relation,
    temperature: float | Array,
    tiling: Tiling,
    columns: Any = None,
) -> tuple[Array, PairStats]:
    """Sums the loss terms of every anchor's pairs, and counts the pairs.

    Args:
        terms: Loss term of each pair, `(logits, pairs, columns of the anchors) → f32[anchors, keys]`, 0 where a pair
            has none.
        embeddings: Embeddings, `[rows, dim]`, not yet normalised; or what `Compared.of` made of them, where several
            passes go through the same pairs.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        temperature: Temperature τ; logits are cosine / τ.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        columns: Tree of `[rows, ...]`, such as results of an earlier pass, of which `terms` gets the anchors' part.

    Returns:
        The sums, `f32[rows]`, and the counts and extremes of the pairs.
    """

    def update(
        carry: tuple[Array, PairStats], similarity: Array, logits: Array, pairs: Pairs, columns: Any
    ) -> tuple[Array, PairStats]:
        return carry[0] + terms(logits, pairs, columns).sum(1), carry[1].add(similarity, pairs)

    def init(anchors: int) -> tuple[Array, PairStats]:
        return jnp.zeros((anchors,), jnp.float32), PairStats.empty(anchors)

    return fold_logits(
        init, update, embeddings, rows, relation=relation, temperature=temperature, tiling=tiling, columns=columns
    )
