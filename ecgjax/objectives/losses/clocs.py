"""The loss of CLOCS, which contrasts every view of a recording with every other view, in one pass over all pairs."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.distances import inner_products, normalise
from ecgjax.objectives.pairs.outputs import LossOutput, Reducer
from ecgjax.objectives.pairs.relations import Relation, Rows, same_signal
from ecgjax.objectives.pairs.running import LogSum, PairStats
from ecgjax.objectives.pairs.tiles import Tiling, fold
from ecgjax.settings.bounds import Positive


class _Running(NamedTuple):
    """Running values for each anchor and view of the keys; every leaf but `stats` is `f32[anchors, views]`.

    Attributes:
        denominator: Log-sum of the logits with the keys of that view.
        own_logit: Logit with the anchor's own recording in that view.
        own: Whether the anchor's own recording counts in that view, 1 or 0.
        patient_logits: Sum of the logits with later recordings of the anchor's patient.
        patients: Number of later recordings of the anchor's patient.
        stats: Counts and extremes for telemetry.
    """

    denominator: LogSum
    own_logit: Array
    own: Array
    patient_logits: Array
    patients: Array
    stats: PairStats


def clocs(
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    views: int,
    temperature: Positive | Array = 0.1,
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
) -> LossOutput:
    """Evaluates CLOCS, which is also the contrastive loss of Dade et al., averaged over all view pairs.

    Of two views v and w, S_ij = e^{cos(z_i^v, z_j^w)/τ} over all recordings i and j of the batch. The pair's loss is

        mean_i −log S_ii / Σ_k S_ik                 + mean_{i < j of one patient} −log S_ij / Σ_k S_ik
      + mean_i −log S_ii / Σ_k S_ki                 + mean_{i > j of one patient} −log S_ij / Σ_k S_kj

    divided by the number of terms: two where no patient has two recordings in the batch, otherwise four. Entries of one
    patient stay in the denominators, as published. Seen from an anchor (i, v), the left terms are −log of its own
    recording in view w over the sum of all recordings in w, and the right terms are the same for later recordings of
    its patient. The lower line is the upper one with v and w exchanged. So one pass that keeps a log-sum for each
    anchor and key view gives everything, for any number of views.

    The view pairs that count are those that `relation` calls positive within a recording: all with `same_record`, those
    of CMSC with `other_segment`, those of CMLC with `other_lead`, and those of CMSMLC with `other_segment_or_lead`.
    Views stand in the same order in every recording. Rows that are not valid are in no sum.

    Args:
        embeddings: Embeddings, `[recordings · views, dim]`, with the views of a recording next to each other; not yet
            normalised.
        rows: Metadata of the embedding rows. `row` is the position in the global batch, and tells a recording that was
            drawn twice apart.
        relation: Rule that says which view pairs of a recording count.
        views: Number of views of each recording.
        temperature: Temperature τ, by which cosine similarities are divided to give logits.
        reducer: Reduction of the rows' shares of the loss, which are scaled so that their mean is the published
            average.
        tiling: Split of the pairs into tiles and over devices, which does not change the result; tiles hold whole
            recordings.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`).

    Raises:
        ConfigError: `views` is below 2, or rows do not come in whole recordings on every device.

    References:
        Kiyasseh, Zhu and Clifton, CLOCS, ICML 2021 (arXiv 2005.13249), § 3; Dade et al., Heart Rhythm O2, 2026. The
        authors' code keeps the last view pair only; this is the average that the text describes.
    """
    count = embeddings.shape[0]
    if views < 2:
        raise ConfigError("CLOCS compares rows of a recording: config.views or config.encoder.lead_wise must give two")
    if count % (views * tiling.num_shards):
        raise ConfigError(
            f"CLOCS takes whole recordings of {views} views on each of {tiling.num_shards} devices; {count} rows are "
            "not: change config.batch_size"
        )
    z = normalise(embeddings)
    scale = jnp.broadcast_to(1 / jnp.asarray(temperature, jnp.float32), (count,))

    def init(anchors: int) -> _Running:
        zeros = jnp.zeros((anchors, views), jnp.float32)
        return _Running(LogSum.empty((anchors, views)), zeros, zeros, zeros, zeros, PairStats.empty(anchors))

    def view_by_view(x: Array) -> Array:
        """Reorders the keys of a tile: all of the first view, all of the second, and so on."""
        return jnp.swapaxes(x.reshape(-1, views, *x.shape[1:]), 0, 1).reshape(x.shape)

    def by_view(x: Array) -> Array:
        """Reshapes `[anchors, keys]` to `[anchors, views, recordings]`."""
        return x.reshape(x.shape[0], views, -1)

    def update(carry: _Running, anchors: Any, keys: Any) -> _Running:
        # The keys are reordered instead of the tile's similarities, of which there are far more.
        keys = jax.tree.map(view_by_view, keys)
        a, k = anchors["rows"], keys["rows"]
        pairs = relation(a, k)
        similarity = inner_products(anchors["z"], keys["z"])
        valid = a.valid[:, None] & k.valid[None, :]
        same_recording = a.row[:, None] // views == k.row[None, :] // views
        same_patient = a.patient[:, None] == k.patient[None, :]
        logits = by_view(similarity * anchors["scale"][:, None])
        own = by_view(pairs.positive & same_recording)
        other = same_patient & ~same_recording & ~same_signal(a, k)
        later = by_view(valid & other & (k.row[None, :] > a.row[:, None]))
        return _Running(
            carry.denominator.add(logits, by_view(valid)),
            carry.own_logit + jnp.where(own, logits, 0.0).sum(-1),
            carry.own + own.sum(-1, dtype=jnp.float32),
            carry.patient_logits + jnp.where(later, logits, 0.0).sum(-1),
            carry.patients + later.sum(-1, dtype=jnp.float32),
            carry.stats.add(similarity, pairs),
        )

    end = fold(
        init,
        update,
        {"z": z, "rows": rows, "scale": scale},
        {"z": z, "rows": rows},
        tiling=dataclasses.replace(tiling, multiple_of=views),
    )
    log_sum = end.denominator.value()
    own_terms = end.own * log_sum - end.own_logit
    patient_terms = end.patients * log_sum - end.patient_logits
    shares, counts = _over_view_pairs(own_terms, end.own, patient_terms, end.patients, views=views)
    per_row = shares * counts.sum(dtype=jnp.float32)
    return outputs.output(per_row, counts, end.stats.summary(rows), reducer=reducer)


def _over_view_pairs(
    own_terms: Array, own: Array, patient_terms: Array, patients: Array, *, views: int
) -> tuple[Array, Array]:
    """Returns each row's share of the average over view pairs, `f32[rows]`, and whether it has one, `bool[rows]`.

    The arguments are `f32[rows, views]`: the sums of the terms with the own recording, the numbers of these terms, and
    the same two for later recordings of the patient.
    """

    def by_pair(x: Array) -> Array:
        """Reshapes `[rows, key views]` to `[recordings, anchor view, key view]`."""
        return x.reshape(-1, views, views)

    num_own, num_patients = by_pair(own).sum(0), by_pair(patients).sum(0)
    # One direction has one or two terms, and both together up to four. A view pair without a diagonal does not count.
    used = num_own > 0
    terms = used.astype(jnp.float32) + (used & (num_patients > 0)).astype(jnp.float32)
    view_pairs = used.sum(dtype=jnp.float32) / 2
    weight = jnp.where(used, 1 / jnp.maximum((terms + terms.T) * view_pairs, 1.0), 0.0)
    shares = (
        by_pair(own_terms) * (weight / jnp.maximum(num_own, 1.0))[None]
        + by_pair(patient_terms) * (weight / jnp.maximum(num_patients, 1.0))[None]
    )
    has_share = used[None] & (by_pair(own) + by_pair(patients) > 0)
    return shares.sum(2).reshape(-1), has_share.any(2).reshape(-1)
