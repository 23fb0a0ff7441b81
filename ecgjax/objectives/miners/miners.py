"""Miners, which choose triplets (anchor, positive, negative) from the global batch for a loss.

A miner is `(embeddings, rows, *, relation, tiling, key) → Mined`, with its own settings bound by `functools.partial`.
It goes through the pairs by `tiles.fold` under `stop_gradient`, keeps the best candidates so far of every anchor, and
returns their positions; the loss takes those embeddings by `tiles.take`. The relation decides which rows may be chosen:
rows of one patient are no negatives of each other unless it makes them so by name (`relations.OTHERS_OF_PATIENT`), and
rows that are not valid are never chosen.

Every miner that uses embeddings has a distance by which it chooses. The loss may have another: Jeong et al. 2023 mine
by distances and square them in the loss. Draws are hashes of (key, row, other row), and ties go to the lower
row number. So the choice is the same for any tile size, form, number of devices and order of rows, except for pairs so
near to a tie that the rounding of an inner product decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import optax
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.miners.reference_mining import label_distance, signal_distance
from ecgjax.objectives.miners.search import Mined, Search, Tile
from ecgjax.objectives.pairs.distances import DISTANCES, Distance
from ecgjax.objectives.pairs.relations import Relation, Rows
from ecgjax.objectives.pairs.running import Ceiling
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.settings.bounds import Count

#: Pairs nearer than the first are drawn as if they were that far apart, pairs farther than the second are not drawn at
#: all (Wu et al. 2017).
_NEAREST_DRAWN, _FARTHEST_DRAWN = 0.5, 1.4


#: Name in a config → choice among the negatives within the band, and choice of a negative where there is none.
_SEMI_HARD_CHOICES = {"nearest": Tile.nearest, "random": lambda tile, where: tile.draw("negative", where)}
_SEMI_HARD_FALLBACKS = {"farthest": Tile.farthest_negative, "random": Tile.any_negative}


def random(
    embeddings: Array, rows: Rows, *, relation: Relation, tiling: Tiling, key: Array, triplets: Count = 1
) -> Mined:
    """Chooses a random positive and a random negative for every anchor.

    With labels (relation `same_label`) this is the miner that publications call npair.

    Args:
        embeddings: Embeddings, `[rows, dim]`; only their number matters.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, `key<threefry2x32>[]`.
        triplets: Number of triplets of each anchor. The negatives of an anchor are different, and its positives as far
            as there are enough of them.
    """
    search = Search.of(embeddings, rows, relation=relation, distance=None, tiling=tiling, key=key)
    return search.mined(search({"positive": Tile.any_positive, "negative": Tile.any_negative}, num=triplets))


def batch_hard(
    embeddings: Array, rows: Rows, *, relation: Relation, distance: Distance, tiling: Tiling, key: Array | None = None
) -> Mined:
    """Chooses the farthest positive and the nearest negative of every anchor.

    Args:
        embeddings: Embeddings, `[rows, dim]`.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        distance: Distance that decides which pairs are far and which near.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key, which this miner does not use.

    References:
        Hermans, Beyer and Leibe, In Defense of the Triplet Loss, 2017 (arXiv 1703.07737).
    """
    search = Search.of(embeddings, rows, relation=relation, distance=distance, tiling=tiling, key=key)
    return search.mined(search({"positive": Tile.farthest_positive, "negative": Tile.nearest_negative}))


def semi_hard(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    distance: Distance,
    tiling: Tiling,
    key: Array,
    margin: float = 0.2,
    choice: str = "nearest",
    fallback: str = "farthest",
) -> Mined:
    """Chooses a random positive, and a negative that is farther than the positive by less than the margin.

    By default the nearest such negative is chosen.

    Args:
        embeddings: Embeddings, `[rows, dim]`.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        distance: Distance d of the rule d_ap < d_an < d_ap + margin.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, `key<threefry2x32>[]`.
        margin: Width of the band behind the positive in which a semi-hard negative lies, in the unit of `distance`.
        choice: Choice among the semi-hard negatives: the `"nearest"`, or a `"random"` one, as in the code of Jeong et
            al.
        fallback: Negative of anchors without a semi-hard one: the `"farthest"` or a `"random"` one.

    Raises:
        ConfigError: `choice` or `fallback` is unknown.

    References:
        Schroff, Kalenichenko and Philbin, FaceNet, CVPR 2015, eq. 4; random choice and random fallback are of Jeong,
        Stultz and Ghassemi, 2023 (arXiv 2308.04650).
    """
    for name, value, known in (("choice", choice, _SEMI_HARD_CHOICES), ("fallback", fallback, _SEMI_HARD_FALLBACKS)):
        if value not in known:
            raise ConfigError(f"semi_hard: {name}={value!r} must be one of: {', '.join(known)}")
    choose = _SEMI_HARD_CHOICES[choice]
    search = Search.of(embeddings, rows, relation=relation, distance=distance, tiling=tiling, key=key)
    first = search({"positive": Tile.any_positive, "other": _SEMI_HARD_FALLBACKS[fallback]})
    positive = first.winners["positive"]

    def semi_hard_negative(tile: Tile) -> Array:
        d_ap = tile.columns[:, None]
        within = (tile.distance > d_ap) & (tile.distance < d_ap + jnp.float32(margin))
        return choose(tile, tile.pairs.negative & within)

    negative = search({"negative": semi_hard_negative}, columns=positive.value[:, 0]).winners["negative"]
    return search.mined(first, positive, negative, other_negative=first.winners["other"])


def soft_hard(
    embeddings: Array, rows: Rows, *, relation: Relation, distance: Distance, tiling: Tiling, key: Array
) -> Mined:
    """Chooses a random hard positive and a random hard negative for every anchor.

    A positive is hard if it is farther than the nearest negative, and a negative if it is nearer than the farthest
    positive. An anchor all of whose positives are nearer than its negatives has neither, and gets a random positive and
    a random negative.

    Args:
        embeddings: Embeddings, `[rows, dim]`.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        distance: Distance that decides which pairs are far and which near.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, `key<threefry2x32>[]`.

    References:
        Jeong, Stultz and Ghassemi, 2023 (arXiv 2308.04650), after Roth et al., Revisiting Training Strategies, ICML
        2020, whose fallback this is.
    """
    search = Search.of(embeddings, rows, relation=relation, distance=distance, tiling=tiling, key=key)
    first = search(
        {
            "farthest": Tile.farthest_positive,
            "nearest": Tile.nearest_negative,
            "positive": Tile.any_positive,
            "negative": Tile.any_negative,
        }
    )
    extremes = {name: first.winners[name].value[:, 0] for name in ("farthest", "nearest")}

    def hard_positive(tile: Tile) -> Array:
        return tile.draw("positive", tile.pairs.positive & (tile.distance > tile.columns["nearest"][:, None]))

    def hard_negative(tile: Tile) -> Array:
        return tile.draw("negative", tile.pairs.negative & (tile.distance < tile.columns["farthest"][:, None]))

    hard = search({"positive": hard_positive, "negative": hard_negative}, columns=extremes).winners
    return search.mined(
        first,
        hard["positive"],
        hard["negative"],
        other_positive=first.winners["positive"],
        other_negative=first.winners["negative"],
    )


def distance_weighted(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    distance: Distance,
    tiling: Tiling,
    key: Array,
    triplets: Count = 1,
) -> Mined:
    """Chooses a random positive, and negatives drawn so that their distances are spread evenly.

    On the unit sphere of n dimensions random points are at distance d with density d^{n−2} (1 − d²/4)^{(n−3)/2}. A
    negative's weight is the inverse of that density, where d counts as at least .5. Negatives at 1.4 or farther are not
    drawn. Anchors with no other negatives get their nearest one.

    Args:
        embeddings: Embeddings, `[rows, dim]`.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        distance: Distance by which negatives are drawn; it must be `euclidean_on_sphere`, for which the density holds.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, `key<threefry2x32>[]`.
        triplets: Number of triplets of each anchor. The negatives of an anchor are different, and its positives as far
            as there are enough of them.

    Raises:
        ConfigError: The distance is not `euclidean_on_sphere`.

    References:
        Wu et al., Sampling Matters in Deep Embedding Learning, ICCV 2017, eq. 3–4.
    """
    if distance is not DISTANCES["euclidean_on_sphere"]:
        raise ConfigError("distance_weighted mining is defined on distance 'euclidean_on_sphere'; set its distance so")
    dim = embeddings.shape[1]
    search = Search.of(embeddings, rows, relation=relation, distance=distance, tiling=tiling, key=key)

    def evenly_spread(tile: Tile) -> Array:
        eligible = tile.pairs.negative & (tile.distance < jnp.float32(_FARTHEST_DRAWN))
        # Pairs that are not eligible may lie opposite each other, where the density is 0 and its logarithm infinite.
        d = jnp.clip(tile.distance, _NEAREST_DRAWN, _FARTHEST_DRAWN)
        log_weight = (2.0 - dim) * jnp.log(d) - (dim - 3.0) / 2 * jnp.log1p(-d * d / 4)
        return tile.draw("negative", eligible, log_weight=log_weight)

    first = search(
        {"positive": Tile.any_positive, "drawn": evenly_spread, "nearest": Tile.nearest_negative}, num=triplets
    )
    found = first.winners
    return search.mined(first, found["positive"], found["drawn"], other_negative=found["nearest"])


def hardest(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    distance: Distance,
    tiling: Tiling,
    key: Array,
    ceiling: Ceiling,
    triplets: Count = 1,
) -> Mined:
    """Chooses a random positive, and the nearest negatives whose cosine similarity is below a ceiling.

    A pair that is nearer than two different patients should be may be no true negative: the ceiling guards against it.

    Args:
        embeddings: Embeddings, `[rows, dim]`.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        distance: Distance that decides which pairs are near; it must be one on the sphere, where the ceiling has a
            meaning.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, `key<threefry2x32>[]`.
        ceiling: Ceiling of a negative's cosine similarity: pairs that are as near or nearer are not chosen.
        triplets: Number of triplets of each anchor. The negatives of an anchor are different, and its positives as far
            as there are enough of them.

    Raises:
        ConfigError: The distance is not on the sphere.
    """
    if not distance.on_sphere:
        raise ConfigError("hardest mining has a ceiling on cosine similarity; set its distance to one on the sphere")
    search = Search.of(embeddings, rows, relation=relation, distance=distance, tiling=tiling, key=key)

    def hard_negative(tile: Tile) -> Array:
        return tile.nearest(tile.pairs.negative & (tile.cosine_distances() > jnp.float32(1 - ceiling)))

    return search.mined(search({"positive": Tile.any_positive, "negative": hard_negative}, num=triplets))


def scheduled(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    distance: Distance,
    tiling: Tiling,
    key: Array,
    step: Array,
    schedule: optax.Schedule,
    triplets: Count = 1,
) -> Mined:
    """Chooses a random positive, and negatives drawn with weights e^{−γ d}, whose hardness γ follows a schedule.

    With γ = 0 negatives are drawn uniformly; with a large γ the hardest ones are drawn. With the distance `cosine` the
    weights are e^{γ s}, where s is the cosine similarity.

    Args:
        embeddings: Embeddings, `[rows, dim]`.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        distance: Distance d of a negative.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, `key<threefry2x32>[]`.
        step: Number of the training step, `i32[]`.
        schedule: Function from a step to the hardness γ, which is at least 0.
        triplets: Number of triplets of each anchor. The negatives of an anchor are different, and its positives as far
            as there are enough of them.
    """
    search = Search.of(embeddings, rows, relation=relation, distance=distance, tiling=tiling, key=key)
    hardness = jnp.broadcast_to(jnp.asarray(schedule(step), jnp.float32), rows.row.shape)

    def weighted_negative(tile: Tile) -> Array:
        return tile.draw("negative", tile.pairs.negative, log_weight=-tile.columns[:, None] * tile.distance)

    first = search({"positive": Tile.any_positive, "negative": weighted_negative}, num=triplets, columns=hardness)
    return search.mined(first)


#: Name in a config → miner.
MINERS: Mapping[str, Callable[..., Mined]] = {
    "random": random,
    "npair": random,
    "batch_hard": batch_hard,
    "semi_hard": semi_hard,
    "soft_hard": soft_hard,
    "distance_weighted": distance_weighted,
    "signal_distance": signal_distance,
    "label_distance": label_distance,
    "hardest": hardest,
    "scheduled": scheduled,
}
