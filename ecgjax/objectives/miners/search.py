"""Passes over the pairs of a batch that keep each anchor's best candidates; miners are made of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.objectives.miners.winners import Winners
from ecgjax.objectives.pairs import hashing
from ecgjax.objectives.pairs.distances import DISTANCES, Distance, Points
from ecgjax.objectives.pairs.outputs import ANCHORS_WITHOUT_POSITIVE, Stats, count_where, mean_where
from ecgjax.objectives.pairs.relations import Pairs, Relation, Rows
from ecgjax.objectives.pairs.tiles import Exchanged, Tiling, exchange, exchange_before, fold, positions, take

T = TypeVar("T")


class Mined(NamedTuple):
    """Triplets of every anchor.

    Attributes:
        positive: Position of the positive in the global batch, `i32[anchors, triplets]`.
        negative: Position of the negative in the global batch, `i32[anchors, triplets]`.
        found: Mask of the triplets that exist, `bool[anchors, triplets]`; elsewhere the positions mean nothing.
        stats: Statistics by name: `valid_negatives_per_anchor`; `anchors_without_positive`, the number of valid rows
            for which there is no positive to choose; `found_frac`, the share of valid rows with a triplet;
            `fallback_frac`, the share of triplets that are a miner's second choice (of miners that have one);
            `false_negative_frac`, the share of mined negatives with the anchor's label (where rows carry labels, of the
            pairs with both known).
    """

    positive: Array
    negative: Array
    found: Array
    stats: Stats


class Miner(Protocol):
    """A miner whose own settings are bound."""

    def __call__(self, embeddings: Array, rows: Rows, *, relation: Relation, tiling: Tiling, key: Array) -> Mined:
        """Chooses triplets; `key` is the random key of the run's seed and step."""


def given(values: T | None) -> T:
    """Returns an array that the scores of a tile need, after a check that the search has it.

    Raises:
        ValueError: The search was made without it, so that it is None.
    """
    if values is None:
        raise ValueError("a choice looks at what its search was not given")
    return values


def candidates(where: Array, score: Array) -> Array:
    """Returns scores, `f32[anchors, keys]`, with −∞ for keys outside `where` and for keys whose score is NaN."""
    return jnp.where(where & (score >= -jnp.inf), score, -jnp.inf)


class Tile(NamedTuple):
    """One tile of pairs, from which a miner's functions make scores.

    The methods return scores, `f32[anchors, keys]`: of an anchor's keys the one with the highest score is chosen, and
    −∞ marks keys that are no candidates. `where`, `bool[anchors, keys]`, masks the candidates.

    Attributes:
        anchors: Metadata of the anchors.
        keys: Metadata of the keys.
        pairs: Pairs that the relation calls positive and negative.
        columns: Further arrays of the anchors, such as the results of an earlier pass.
        distance: Distances, `f32[anchors, keys]`; None for miners that use none.
        points: Embeddings of anchors and of keys, as `Search` has them.
        words: Words that the anchors' draws are hashed from, `u32[anchors, 2]`; None for miners that draw nothing.
    """

    anchors: Rows
    keys: Rows
    pairs: Pairs
    columns: Any
    distance: Array | None
    points: tuple[Points | None, Points | None]
    words: Array | None

    def nearest(self, where: Array) -> Array:
        """Returns scores by which the nearest candidate wins."""
        return candidates(where, -given(self.distance))

    def farthest(self, where: Array) -> Array:
        """Returns scores by which the farthest candidate wins."""
        return candidates(where, given(self.distance))

    def draw(self, stream: str, where: Array, log_weight: Array | None = None) -> Array:
        """Returns scores by which one candidate wins at random.

        Args:
            stream: Name of the draw's purpose; draws of different names are independent.
            where: Mask of the candidates, `bool[anchors, keys]`.
            log_weight: Logarithms of the candidates' weights, `f32[anchors, keys]`; None for equal weights.
        """
        words = given(self.words)
        if log_weight is None:
            return candidates(where, -hashing.uniforms(words, self.keys.row, stream=stream))
        return candidates(where, log_weight + hashing.gumbels(words, self.keys.row, stream=stream))

    def cosine_distances(self) -> Array:
        """Returns 1 − cosine, for distances on the sphere; XLA shares the inner products with the distance itself."""
        anchors, keys = self.points
        return DISTANCES["cosine"].matrix(given(anchors), given(keys))

    def any_positive(self) -> Array:
        """Returns scores by which one of the positives wins at random."""
        return self.draw("positive", self.pairs.positive)

    def any_negative(self) -> Array:
        """Returns scores by which one of the negatives wins at random."""
        return self.draw("negative", self.pairs.negative)

    def farthest_positive(self) -> Array:
        """Returns scores by which the farthest positive wins."""
        return self.farthest(self.pairs.positive)

    def farthest_negative(self) -> Array:
        """Returns scores by which the farthest negative wins."""
        return self.farthest(self.pairs.negative)

    def nearest_negative(self) -> Array:
        """Returns scores by which the nearest negative wins."""
        return self.nearest(self.pairs.negative)


class Found(NamedTuple):
    """Result of a pass over the pairs: winners by name, and each anchor's number of negatives, `f32[anchors]`."""

    winners: dict[str, Winners]
    negatives: Array


@dataclasses.dataclass(frozen=True)
class Search:
    """Passes over the pairs of one batch.

    Attributes:
        z: Embeddings as the distance's matrix takes them, without gradient; None where there is no distance.
        rows: Metadata of the embedding rows.
        keys: The same, and each row's `position` in the global batch, as all passes share them.
        relation: Rule that says which pairs are positive and which negative.
        distance: Distance by which pairs are compared; None for miners that use none.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        words: Words that draws are hashed from, `u32[rows, 2]`; None for miners that draw nothing.
    """

    z: Points | None
    rows: Rows
    keys: Exchanged
    relation: Relation
    distance: Distance | None
    tiling: Tiling
    words: Array | None

    @classmethod
    def of(
        cls,
        embeddings: Array,
        rows: Rows,
        *,
        relation: Relation,
        distance: Distance | None,
        tiling: Tiling,
        key: Array | None,
    ) -> Search:
        """Returns the search of a batch, with embeddings and draws prepared; arguments are those of a miner."""
        z, keys_z = None, None
        if distance is not None:
            # The embeddings are exchanged as they are, and so does the loss that takes the winners: as one, they cross
            # the links between slices once.
            x = jax.lax.stop_gradient(embeddings.astype(jnp.float32))
            points = functools.partial(distance.points, shift=distance.shift(x, rows.valid))
            z = points(x)
            keys_z = exchange_before(points, x, z, tiling=tiling).arrays
        keys = {
            "z": keys_z,
            "rows": exchange(rows, tiling=tiling).arrays,
            "position": positions(rows.row.shape[0], tiling=tiling).arrays,
        }
        words = None if key is None else hashing.anchor_words(key, rows.row)
        return cls(z, rows, Exchanged(keys), relation, distance, tiling, words)

    def __call__(self, choose: Mapping[str, Callable[[Tile], Array]], *, num: int = 1, columns: Any = None) -> Found:
        """Goes once through all pairs, and returns the winners of each function and the numbers of negatives.

        Args:
            choose: Functions by name that give the scores of a tile, `f32[anchors, keys]`, with −∞ where a key is no
                candidate.
            num: Number of winners of each name.
            columns: Tree of `[rows, ...]`, of which each choice gets the anchors' part.
        """

        def init(anchors: int) -> Found:
            return Found({name: Winners.empty(anchors, num) for name in choose}, jnp.zeros((anchors,), jnp.float32))

        def update(carry: Found, anchors: Any, keys: Any) -> Found:
            tile = Tile(
                anchors=anchors["rows"],
                keys=keys["rows"],
                pairs=self.relation(anchors["rows"], keys["rows"]),
                columns=anchors["columns"],
                distance=None if self.distance is None else self.distance.matrix(anchors["z"], keys["z"]),
                points=(anchors["z"], keys["z"]),
                words=anchors["words"],
            )
            winners = {
                name: carry.winners[name].add(scores(tile), keys["rows"].row, keys["position"], tile.distance)
                for name, scores in choose.items()
            }
            return Found(winners, carry.negatives + tile.pairs.negative.sum(1, dtype=jnp.float32))

        return fold(
            init,
            update,
            {"z": self.z, "rows": self.rows, "columns": columns, "words": self.words},
            self.keys,
            tiling=self.tiling,
        )

    def mined(
        self,
        first: Found,
        positive: Winners | None = None,
        negative: Winners | None = None,
        *,
        other_positive: Winners | None = None,
        other_negative: Winners | None = None,
    ) -> Mined:
        """Returns triplets and their statistics, with the other winners for anchors that have no winner.

        Args:
            first: Result of a pass over the pairs, which counted the negatives.
            positive: Winners to take for positives; None for those of the name `positive` in `first`.
            negative: Winners to take for negatives; None for those of the name `negative` in `first`.
            other_positive: Winners that take the place of missing positives.
            other_negative: Winners that take the place of missing negatives.
        """
        positive, negative = positive or first.winners["positive"], negative or first.winners["negative"]
        fallback = jnp.zeros((positive.found.shape[0], 1), bool)
        if other_positive is not None:
            positive, missing = _or_else(positive, other_positive)
            fallback |= missing
        if other_negative is not None:
            negative, missing = _or_else(negative, other_negative)
            fallback |= missing
        count = positive.found.sum(1, keepdims=True, dtype=jnp.int32)
        # Anchors with fewer positives than triplets use them again.
        again = jnp.arange(positive.row.shape[1], dtype=jnp.int32)[None, :] % jnp.maximum(count, 1)
        found = (count > 0) & negative.found
        valid = self.rows.valid
        stats = {
            "valid_negatives_per_anchor": mean_where(first.negatives, valid),
            ANCHORS_WITHOUT_POSITIVE: count_where(valid & (count[:, 0] == 0)),
            "found_frac": mean_where(found.any(1).astype(jnp.float32), valid),
        }
        if other_negative is not None:
            stats["fallback_frac"] = mean_where(jnp.broadcast_to(fallback, found.shape).astype(jnp.float32), found)
        if self.rows.label is not None:
            label = self.rows.label[:, None]
            theirs = take(Exchanged(self.keys.arrays["rows"].label), negative.position, tiling=self.tiling)
            known = found & jnp.isfinite(label) & jnp.isfinite(theirs)
            stats["false_negative_frac"] = mean_where((label == theirs).astype(jnp.float32), known)
        return Mined(jnp.take_along_axis(positive.position, again, axis=1), negative.position, found, stats)


def _or_else(winners: Winners, others: Winners) -> tuple[Winners, Array]:
    """Returns the winners, with `others` for anchors that have none, and the mask of those, `bool[anchors, 1]`."""
    missing = ~winners.found.any(1, keepdims=True)
    return jax.tree.map(lambda a, b: jnp.where(missing, b, a), winners, others), missing
