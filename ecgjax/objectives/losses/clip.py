"""Contrast of ECGs with precomputed embeddings of another modality: reports, echocardiograms, cardiac MR."""

from __future__ import annotations

from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.nt_xent import cross_entropies
from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput, Reducer
from ecgjax.objectives.pairs.relations import Pairs, Rows
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.settings.bounds import Positive


def same_pair(anchors: Rows, keys: Rows) -> Pairs:
    """Rows of one pair group are positives, a row and its own partner among them; of other patients' groups negatives.

    Rows without a partner (`pair_group` −1) are left out.
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
    """CLIP form: every ECG picks its partner among the batch's, every partner its ECG; the mean of both.

    Partners that are the same (identical reports) have one `pair_group`, and are positives of all its ECGs, where they
    would otherwise be negatives that cannot be told from the positive. Partners of another recording of the same
    patient are neither, unless they are the same.

    Args:
        embeddings: `[rows, dim]` of ECGs, not yet normalised.
        rows: their metadata, with `pair_group`.
        paired: `[rows, dim]` of each row's partner, already projected to the ECGs' dimensions; not yet normalised. What
            stands where there is no partner is not looked at, as long as it is finite.
        temperature: τ, fixed or learnt.
        positives: several are summed `"outside"` or `"inside"` the log, as in `nt_xent.nt_xent`.
        reducer: of the rows.
        tiling: how the pairs are gone through.

    Raises:
        ConfigError: the rows carry no `pair_group`, or shapes differ.

    References:
        Radford et al., CLIP, ICML 2021 (arXiv 2103.00020); Yang et al., UniCL, CVPR 2022 (arXiv 2204.03610), for
        partners in common.
    """
    if paired.shape != embeddings.shape:
        raise ConfigError(
            f"partners {paired.shape} and ECG embeddings {embeddings.shape} differ in shape: project one to the other"
        )

    def direction(anchors: Array, keys: Array) -> tuple:
        return cross_entropies(
            anchors,
            rows,
            relation=same_pair,
            temperature=temperature,
            positives=positives,
            tiling=tiling,
            keys=keys,
        )

    forth, stats = direction(embeddings, paired)
    back, stats_back = direction(paired, embeddings)
    summary = stats.summary(rows) | {"reverse_top1_accuracy": stats_back.summary(rows)["top1_accuracy"]}
    return outputs.output((forth + back) / 2, stats.positives > 0, summary, reducer=reducer)
