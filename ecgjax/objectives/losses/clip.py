"""Contrastive loss of ECGs and precomputed embeddings of another modality: reports, echocardiograms, cardiac MR."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.nt_xent import cross_entropies
from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput, Reducer
from ecgjax.objectives.pairs.relations import Pairs, Rows
from ecgjax.objectives.pairs.running import Compared
from ecgjax.objectives.pairs.tiles import Exchanged, Tiling, exchange
from ecgjax.settings.bounds import Positive


def same_pair(anchors: Rows, keys: Rows) -> Pairs:
    """Pairs ECGs (anchors) with partners of another modality (keys); a relation as in `pairs.relations`.

    Rows of one `pair_group` are positives, a row and its own partner among them. Rows of other groups are negatives if
    they belong to other patients. Rows without a partner (`pair_group` −1) are left out.
    """
    of_anchors, of_keys = _pair_groups(anchors), _pair_groups(keys)
    has = (anchors.valid & (of_anchors >= 0))[:, None] & (keys.valid & (of_keys >= 0))[None, :]
    same_group = of_anchors[:, None] == of_keys[None, :]
    same_patient = anchors.patient[:, None] == keys.patient[None, :]
    return Pairs(positive=has & same_group, negative=has & ~same_group & ~same_patient)


def _pair_groups(rows: Rows) -> Array:
    if rows.pair_group is None:
        raise ConfigError("a paired objective looks at 'pair_group', which the rows of this run do not carry")
    return rows.pair_group


def clip_loss(
    embeddings: Array,
    rows: Rows,
    *,
    paired: Array,
    temperature: Positive | Array = 0.07,
    positives: str = "outside",
    reducer: Reducer = outputs.mean_of_counted,
    tiling: Tiling,
) -> LossOutput:
    """Evaluates the CLIP loss: the mean of two cross-entropies, ECG to partner and partner to ECG.

    Every ECG has to pick its partner among the partners of the batch, and every partner its ECG. Partners that are the
    same (identical reports) have one `pair_group` and are positives of all its ECGs: otherwise they would be negatives
    that cannot be told from the positive. Partners of another recording of the same patient are neither positives nor
    negatives, unless they are the same.

    Args:
        embeddings: Embeddings of the ECGs, `[rows, dim]`, not yet normalised.
        rows: Metadata of the embedding rows, with `pair_group`.
        paired: Embeddings of each row's partner, `[rows, dim]`, already projected to the ECGs' dimensions but not yet
            normalised. Values of rows without a partner have no effect, as long as they are finite.
        temperature: Temperature τ, by which cosine similarities are divided to give logits.
        positives: Place of the sum over several positives: `"outside"` or `"inside"` the logarithm.
        reducer: Reduction of the losses of the rows to one number.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`).

    Raises:
        ConfigError: The rows carry no `pair_group`, or the shapes of ECGs and partners differ.

    References:
        Radford et al., CLIP, ICML 2021 (arXiv 2103.00020); Yang et al., UniCL, CVPR 2022 (arXiv 2204.03610), for
        partners in common.
    """
    if paired.shape != embeddings.shape:
        raise ConfigError(
            f"partners {paired.shape} and ECG embeddings {embeddings.shape} differ in shape: project one to the other"
        )

    own = {"ecg": embeddings.astype(jnp.float32), "partner": paired.astype(jnp.float32)}
    # ECGs and partners cross the links between slices together.
    keys = exchange(own | {"rows": rows}, tiling=tiling).arrays

    def direction(anchor: str, key: str) -> tuple:
        compared = Compared(own[anchor], Exchanged({"x": keys[key], "rows": keys["rows"]}))
        return cross_entropies(
            compared, rows, relation=same_pair, temperature=temperature, positives=positives, tiling=tiling
        )

    forth, stats = direction("ecg", "partner")
    back, stats_back = direction("partner", "ecg")
    summary = stats.summary(rows) | {"reverse_top1_accuracy": stats_back.summary(rows)["top1_accuracy"]}
    return outputs.output((forth + back) / 2, stats.positives > 0, summary, reducer=reducer)
