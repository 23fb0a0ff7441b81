"""Losses of triplets: an anchor, a positive and a negative that a miner chose over the global batch.

A loss and its miner may measure by different distances: the miner's distance is bound with its other settings by
`functools.partial`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.miners.search import Miner, Search, Tile
from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.distances import DISTANCES, Distance, inner_products, normalise, safe_sqrt
from ecgjax.objectives.pairs.outputs import ANCHORS_WITHOUT_POSITIVE, LossOutput, Reducer, count_where, mean_where
from ecgjax.objectives.pairs.relations import Relation, Rows
from ecgjax.objectives.pairs.running import LogSum
from ecgjax.objectives.pairs.tiles import Exchanged, Tiling, exchange, exchange_before, fold, take
from ecgjax.settings.bounds import Bound

TRIPLET_FORMS = ("hinge", "soft")

#: Name → penalty that the angular loss makes of ‖x‖² of every anchor; the gradient of a norm is 0 where x is 0.
L2_FORMS: Mapping[str, Callable[[Array], Array]] = {"squared_norm": lambda squares: squares, "norm": safe_sqrt}

#: Width of the hinge in Jeong et al. 2023, and in FaceNet.
_MARGIN = 0.2


#: Angle of a triangle that is not flat.
Degrees = Annotated[float, Bound(lambda value: 0 < value < 90, "above 0 and below 90")]


def triplet(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    miner: Miner,
    distance: Distance = DISTANCES["squared_euclidean"],
    form: str = "hinge",
    margin: float | Array | None = None,
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
    key: Array,
) -> LossOutput:
    """Evaluates the triplet loss: max(0, d_ap − d_an + margin), or log(1 + e^{d_ap − d_an}) with a soft margin.

    An anchor's loss is the mean over its triplets; anchors without one do not count.

    Args:
        embeddings: Embeddings, `[rows, dim]`.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        miner: Miner that chooses the triplets.
        distance: Distance d; by default the squared Euclidean one of unscaled embeddings, as in Jeong et al. 2023.
        form: Form of the loss: `"hinge"`, or `"soft"` for the soft margin.
        margin: Width of the hinge, in the unit of `distance`; None for .2.
        reducer: Reduction of the losses of the rows to one number.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, for the miner.

    Returns:
        The loss, with the miner's statistics, `hardest_negative_similarity` (of an anchor's mined negatives, mean over
        anchors) and `active_frac`: the share of triplets within the margin, or, if that is soft, in the wrong order.

    Raises:
        ConfigError: `form` is unknown, or `margin` is given with the soft form.

    References:
        Schroff, Kalenichenko and Philbin, FaceNet, CVPR 2015, eq. 1; the soft margin is of Hermans, Beyer and Leibe,
        2017 (arXiv 1703.07737).
    """
    if form not in TRIPLET_FORMS:
        raise ConfigError(f"triplet: form={form!r} must be one of: {', '.join(TRIPLET_FORMS)}")
    if form == "soft" and margin is not None:
        raise ConfigError(f"triplet: margin={margin} is of the hinge; with form='soft' set it to None")
    mined = _distances(embeddings, rows, relation=relation, miner=miner, distance=distance, tiling=tiling, key=key)
    apart = mined.of_positive - mined.of_negative
    if form == "hinge":
        apart += jnp.float32(_MARGIN if margin is None else margin)
        losses = jax.nn.relu(apart)
    else:
        losses = jax.nn.softplus(apart)
    per_row, counts = _mean_of_found(losses, mined.found)
    active = mean_where((apart > 0).astype(jnp.float32), mined.found)
    return outputs.output(per_row, counts, mined.stats | {"active_frac": active}, reducer=reducer)


def margin(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    miner: Miner,
    distance: Distance = DISTANCES["euclidean_on_sphere"],
    alpha: float = 0.2,
    beta: float | Array = 1.2,
    tiling: Tiling,
    key: Array,
) -> LossOutput:
    """Evaluates the margin loss: [d_ap − β + α]₊ + [β − d_an + α]₊, summed over triplets.

    The sum is divided by the number of terms above 0.

    Args:
        embeddings: Embeddings, `[rows, dim]`.
        rows: Metadata of the rows; with `label`, 0 up to the number of classes, where β is given for each class.
        relation: Rule that says which pairs are positive and which negative.
        miner: Miner that chooses the triplets.
        distance: Distance d; β = 1.2 presumes unsquared distances on the unit sphere.
        alpha: Half the width α of the band about β that pairs should leave, in the unit of `distance`.
        beta: Boundary β between the distances of positives and negatives: one for all, `f32[]`, or one for each class
            of the anchor, `f32[classes]`, where anchors without a class do not count. It is learnt where it is
            differentiated.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, for the miner.

    Returns:
        The loss, whose `per_row` holds the mean over an anchor's triplets of its two terms. Its statistics are those of
        `triplet`, with `active_frac` as the share of terms above 0, and `beta`, the mean over the anchors that count.

    Raises:
        ConfigError: β is given for each class, and the rows carry no labels.

    References:
        Wu et al., Sampling Matters in Deep Embedding Learning, ICCV 2017, eq. 5–6.
    """
    boundary, known = _boundary(jnp.asarray(beta, jnp.float32), rows)
    mined = _distances(embeddings, rows, relation=relation, miner=miner, distance=distance, tiling=tiling, key=key)
    found = mined.found & known[:, None]
    terms = jnp.stack(
        [
            jax.nn.relu(mined.of_positive - boundary[:, None] + jnp.float32(alpha)),
            jax.nn.relu(boundary[:, None] - mined.of_negative + jnp.float32(alpha)),
        ],
        axis=-1,
    )
    terms = jnp.where(found[:, :, None], terms, jnp.float32(0))
    active = (terms > 0).sum(dtype=jnp.float32)
    per_row, counts = _mean_of_found(terms.sum(-1), found)
    stats = mined.stats | {
        "active_frac": active / jnp.maximum(2 * found.sum(dtype=jnp.float32), 1.0),
        "beta": mean_where(boundary, counts),
    }
    return outputs.output(per_row, counts, stats, reducer=lambda *_: terms.sum() / jnp.maximum(active, 1.0))


def angular(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    degrees: Degrees = 45.0,
    angular_weight: float = 2.0,
    l2_weight: float = 0.005,
    l2_form: str = "squared_norm",
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
    key: Array,
) -> LossOutput:
    """Evaluates the N-pair loss, the angular loss and L2 regularisation.

    Each anchor is compared with a random positive and all its negatives. With unit vectors u and embeddings x, an
    anchor a with positive p and negatives n costs
    log(1 + Σ_n e^{x_a·x_n − x_a·x_p}) + w log(1 + Σ_n e^{4 tan²α (u_a + u_p)·u_n − 2 (1 + tan²α) u_a·u_p}) + λ ‖x_a‖².
    Anchors without a positive or without a negative do not count.

    Args:
        embeddings: Embeddings, `[rows, dim]`.
        rows: Metadata of the embedding rows.
        relation: Rule that says which pairs are positive and which negative.
        degrees: Largest angle α at the negative that costs little, in degrees.
        angular_weight: Weight w of the angular loss beside the N-pair loss.
        l2_weight: Weight λ of the L2 regularisation of embeddings.
        l2_form: Form of the penalty: `"squared_norm"`, λ ‖x_a‖², or `"norm"`, λ ‖x_a‖, which is how the code of Jeong
            et al. regularises.
        reducer: Reduction of the losses of the rows to one number.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        key: Random key of the run's seed and step, by which positives are drawn.

    Returns:
        The loss, with the statistics `valid_negatives_per_anchor`, `anchors_without_positive`,
        `hardest_negative_similarity` (over all negatives of an anchor), and `active_frac`, the share of anchors with a
        negative that makes a wider angle than α.

    Raises:
        ConfigError: `l2_form` is unknown.

    References:
        Wang et al., Deep Metric Learning with Angular Loss, ICCV 2017, eq. 6–8; Sohn, N-pair Loss, NeurIPS 2016;
        weights of Jeong, Stultz and Ghassemi, 2023 (arXiv 2308.04650).
    """
    if l2_form not in L2_FORMS:
        raise ConfigError(f"angular: l2_form={l2_form!r} must be one of: {', '.join(L2_FORMS)}")
    tan2 = math.tan(math.radians(degrees)) ** 2
    search = Search.of(embeddings, rows, relation=relation, distance=None, tiling=tiling, key=key)
    first = search({"positive": Tile.any_positive})
    x = embeddings.astype(jnp.float32)
    keys = exchange({"x": x, "rows": rows}, tiling=tiling)
    x_p = take(Exchanged(keys.arrays["x"]), first.winners["positive"].position[:, 0], tiling=tiling)
    u, u_p = normalise(x), normalise(x_p)

    class Running(NamedTuple):
        npair: LogSum
        angular: LogSum
        similarity: Array

    def init(anchors: int) -> Running:
        low = jnp.full((anchors,), -jnp.inf, jnp.float32)
        return Running(LogSum.empty((anchors,)), LogSum.empty((anchors,)), low)

    def update(carry: Running, anchors: Any, keys: Any) -> Running:
        negative = relation(anchors["rows"], keys["rows"]).negative
        # Unit vectors are made again in each tile, so that only one array of keys travels between devices.
        unit = normalise(keys["x"])
        similarity = jax.lax.stop_gradient(inner_products(anchors["u"], unit))
        return Running(
            npair=carry.npair.add(inner_products(anchors["x"], keys["x"]), negative),
            angular=carry.angular.add(inner_products(anchors["both"], unit), negative),
            similarity=jnp.maximum(carry.similarity, jnp.where(negative, similarity, -jnp.inf).max(1)),
        )

    columns = {"x": x, "u": jax.lax.stop_gradient(u), "both": 4 * tan2 * (u + u_p), "rows": rows}
    end = fold(init, update, columns, keys, tiling=tiling)
    has_positive = first.winners["positive"].found[:, 0]
    counts = has_positive & end.npair.any
    towards = 2 * (1 + tan2) * (u * u_p).sum(-1)
    npair = jax.nn.softplus(end.npair.value() - (x * x_p).sum(-1))
    of_angle = jax.nn.softplus(end.angular.value() - towards)
    per_row = npair + angular_weight * of_angle + l2_weight * L2_FORMS[l2_form]((x * x).sum(-1))
    stats = {
        "valid_negatives_per_anchor": mean_where(first.negatives, rows.valid),
        ANCHORS_WITHOUT_POSITIVE: count_where(rows.valid & ~has_positive),
        "hardest_negative_similarity": mean_where(end.similarity, counts),
        "active_frac": mean_where((end.angular.maximum > towards).astype(jnp.float32), counts),
    }
    return outputs.output(per_row, counts, stats, reducer=reducer)


#: Name in a config → loss.
TRIPLET_LOSSES: Mapping[str, Callable[..., LossOutput]] = {"triplet": triplet, "margin": margin, "angular": angular}


class _Distances(NamedTuple):
    """Distances of mined triplets, and the miner's statistics.

    Attributes:
        of_positive: Distances from anchor to positive, `f32[anchors, triplets]`.
        of_negative: Distances from anchor to negative, `f32[anchors, triplets]`.
        found: Mask of the triplets that exist, `bool[anchors, triplets]`.
        stats: Statistics of the miner.
    """

    of_positive: Array
    of_negative: Array
    found: Array
    stats: outputs.Stats


def _distances(
    embeddings: Array, rows: Rows, *, relation: Relation, miner: Miner, distance: Distance, tiling: Tiling, key: Array
) -> _Distances:
    """Mines triplets, fetches the embeddings of their rows, and measures the distances."""
    mined = miner(jax.lax.stop_gradient(embeddings), rows, relation=relation, tiling=tiling, key=key)
    x = embeddings.astype(jnp.float32)
    z = distance.prepare(x)
    # Positives and negatives are taken together, so that the embeddings are gathered once. They are exchanged before
    # they are scaled, as the miner's are (`Search.of`).
    keys = exchange_before(distance.prepare, x, z, tiling=tiling)
    others = take(keys, jnp.concatenate([mined.positive, mined.negative], axis=1), tiling=tiling)
    triplets = mined.positive.shape[1]
    apart = distance.of_pairs(z[:, None, :], others)
    unit, negatives = (normalise(jax.lax.stop_gradient(x)) for x in (z[:, None, :], others[:, triplets:]))
    similarity = jnp.where(mined.found, (unit * negatives).sum(-1), -jnp.inf).max(1)
    stats = mined.stats | {"hardest_negative_similarity": mean_where(similarity, mined.found.any(1))}
    return _Distances(apart[:, :triplets], apart[:, triplets:], mined.found, stats)


def _mean_of_found(values: Array, found: Array) -> tuple[Array, Array]:
    """Returns the mean over an anchor's triplets, `f32[anchors]`, and which anchors have any, `bool[anchors]`."""
    number = found.sum(1, dtype=jnp.float32)
    return jnp.where(found, values, jnp.float32(0)).sum(1) / jnp.maximum(number, 1.0), number > 0


def _boundary(beta: Array, rows: Rows) -> tuple[Array, Array]:
    """Returns β of each anchor, `f32[anchors]`, and which anchors have one, `bool[anchors]`."""
    if beta.ndim == 0:
        return jnp.broadcast_to(beta, rows.valid.shape), rows.valid
    if rows.label is None:
        raise ConfigError("margin: a β for each class looks at 'label', which the rows of this run do not carry")
    is_class = rows.label == jnp.floor(rows.label)  # This is false for NaN.
    known = is_class & (rows.label >= 0) & (rows.label < beta.shape[0])
    return beta[jnp.where(known, rows.label, jnp.float32(0)).astype(jnp.int32)], known
