"""Miners that choose by distances of signals or of labels, instead of embeddings."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.miners.search import Mined, Search, Tile, candidates, given
from ecgjax.objectives.pairs.relations import Relation, Rows
from ecgjax.objectives.pairs.tiles import Tiling


def signal_distance(
    embeddings: Array, rows: Rows, *, relation: Relation, tiling: Tiling, key: Array, among_farthest: bool = False
) -> Mined:
    """Chooses the nearest other recording in signal space as positive, and a random negative.

    The negative is one of the other recordings, or one of the farthest. The published code takes the two largest
    distances for positives, and may take a recording of the same patient for a negative; this is what the paper
    describes.

    Args:
        embeddings: Embeddings, `[rows, dim]`; only their number matters.
        rows: Metadata of the embedding rows.
        relation: The relation `nearest_signal`, whose column `nearest` `signal_space.nearest_and_farthest` finds.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, `key<threefry2x32>[]`.
        among_farthest: Whether negatives are drawn from the farthest recordings in signal space alone.

    Raises:
        ConfigError: The rows carry no column `farthest`.

    References:
        Jeong, Stultz and Ghassemi, 2023 (arXiv 2308.04650).
    """
    search = Search.of(embeddings, rows, relation=relation, distance=None, tiling=tiling, key=key)

    if among_farthest and rows.farthest is None:
        raise ConfigError("this miner looks at 'farthest', which the rows of this run do not carry")

    def far_negative(tile: Tile) -> Array:
        among = (tile.columns[:, :, None] == tile.keys.row[None, None, :]).any(1)
        return tile.draw("negative", tile.pairs.negative & among)

    choose = {"positive": Tile.any_positive, "negative": far_negative if among_farthest else Tile.any_negative}
    return search.mined(search(choose, columns=rows.farthest))


def label_distance(
    embeddings: Array, rows: Rows, *, relation: Relation, tiling: Tiling, key: Array | None = None
) -> Mined:
    """Chooses the recording with the most similar label as positive, and that with the least similar as negative.

    Positives are chosen among the relation's positives and negatives, except a recording's own views, whose labels are
    always equal; negatives are chosen among the relation's negatives. Anchors for which the two are equally far have no
    triplet.

    Args:
        embeddings: Embeddings, `[rows, dim]`; only their number matters.
        rows: Metadata of the embedding rows, with `label`.
        relation: Rule that says which pairs are negative, such as `same_record`.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key, which this miner does not use.

    Raises:
        ConfigError: The rows carry no labels.

    References:
        Jeong, Stultz and Ghassemi, 2023 (arXiv 2308.04650).
    """
    if rows.label is None:
        raise ConfigError("label_distance mining looks at 'label', which the rows of this run do not carry")
    search = Search.of(embeddings, rows, relation=relation, distance=None, tiling=tiling, key=key)

    def difference(tile: Tile) -> Array:
        return jnp.abs(given(tile.anchors.label)[:, None] - given(tile.keys.label)[None, :])

    def similar(tile: Tile) -> Array:
        apart = difference(tile)
        other = tile.anchors.record[:, None] != tile.keys.record[None, :]
        return candidates(other & (tile.pairs.positive | tile.pairs.negative) & jnp.isfinite(apart), -apart)

    def different(tile: Tile) -> Array:
        apart = difference(tile)
        return candidates(tile.pairs.negative & jnp.isfinite(apart), apart)

    first = search({"positive": similar, "negative": different})
    positive, negative = first.winners["positive"], first.winners["negative"]
    # The positive's score is the difference of labels with its sign turned.
    farther = negative.score > -positive.score
    return search.mined(first, positive, negative._replace(score=candidates(farther, negative.score)))
