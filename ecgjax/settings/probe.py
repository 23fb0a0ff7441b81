"""Settings of supervised training, and of the evaluation of a pretrained encoder."""

from __future__ import annotations

import dataclasses
import math

from ecgjax.settings.bounds import BELOW_ONE, INSIDE_ONE, ONE_OR_MORE, POSITIVE, SHARE, ZERO_OR_MORE, Bound, between
from ecgjax.settings.leaf import leaf, section

#: Value of `MetricSettings.miner` that selects the first miner of a kind of task.
AUTO = "auto"

#: Readouts that an evaluation may have beside the linear probe of `config.probe.layer`.
READOUTS = ("mean", "mean_deviation", "lead_mean", "attention", "fusion", "finetuned")

#: What the hyperparameters of a model may be chosen on.
SELECTIONS = ("validation", "validation_part", "labelled")

_TWO_OR_MORE = Bound(lambda value: 2 <= value < math.inf, "2 or more, because an interval is computed from them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricSettings:
    """`config.probe.supervised.metric` and `….finetune.metric`: metric learning on the features beside the task."""

    weight: float = leaf(
        0.0, "Weight of a triplet loss beside the task's; published 1, for a quantity 3.", bound=ZERO_OR_MORE
    )
    margin: float = leaf(0.2, "Margin of the triplet loss.", bound=POSITIVE)
    distance: str = leaf("squared_euclidean", "Distance of the triplet loss.")
    miner: str = leaf(
        AUTO,
        'Miner of negatives: "auto" for npair, or label_distance for a quantity; or "semi_hard", "semi_hard_random", '
        '"soft_hard".',
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneSettings:
    """`config.probe.supervised` and `….finetune`: a training with labels; the defaults are those of `supervised`."""

    steps: int = leaf(300, "Steps of training.", bound=ONE_OR_MORE)
    batch_size: int = leaf(64, "Recordings of a batch.", bound=ONE_OR_MORE)
    learning_rate: float = leaf(1e-3, "Learning rate of the encoder at its peak.", bound=POSITIVE)
    head_learning_rate: float | None = leaf(None, "Learning rate of the head; None for the encoder's.", bound=POSITIVE)
    layer_decay: float = leaf(1.0, "Factor of the learning rate from each block to the one below.", bound=SHARE)
    frozen: tuple[str, ...] = leaf(
        (), 'Parts that stay as they are, batch norm and dropout included, such as ("^encoder/",).'
    )
    head: str = leaf("linear", 'Head; "mlp" is linear-BN-ReLU-dropout-linear.', choices=("linear", "mlp"))
    head_start: str = leaf("zeros", 'Start of a linear head; "probe" is that of features.', choices=("zeros", "probe"))
    hidden: int = leaf(128, 'Width inside "mlp".', bound=ONE_OR_MORE)
    head_dropout: float = leaf(0.3, 'Dropout inside "mlp".', bound=BELOW_ONE)
    positive_weight: str = leaf("none", 'Weight of positives; "balanced" class by class.', choices=("none", "balanced"))
    balance: bool = leaf(False, "Whether every batch of a binary task holds as many positives as negatives.")
    eval_every: int = leaf(25, "Steps between looks at validation.", bound=ONE_OR_MORE)
    eval_records: int = leaf(0, "Validation records that a look sees, drawn at random; 0 for all.", bound=ZERO_OR_MORE)
    patience: int = leaf(0, "Looks without a better one after which training ends; 0 for never.", bound=ZERO_OR_MORE)
    metric: MetricSettings = section(MetricSettings)
    select: str = leaf("metric", "What the best step is chosen by on validation.", choices=("metric", "loss"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionSettings:
    """`config.probe.attention`: attention pool with learned queries and a linear head, on the tokens of an encoder."""

    queries: int = leaf(4, "Learned queries, each of which pools the tokens once.", bound=ONE_OR_MORE)
    steps: int = leaf(400, "Steps of training.", bound=ONE_OR_MORE)
    batch_size: int = leaf(64, "Recordings of a batch.", bound=ONE_OR_MORE)
    learning_rate: float = leaf(1e-3, "Learning rate.", bound=POSITIVE)
    weight_decays: tuple[float, ...] = leaf(
        (0.01, 1.0),
        "Weight decays that are tried; the best on validation is kept.",
        bound=ZERO_OR_MORE._replace(fewest=1),
    )
    eval_every: int = leaf(10, "Steps between looks at validation.", bound=ONE_OR_MORE)
    patience: int = leaf(10, "Looks without a better one after which training ends; 0 for never.", bound=ZERO_OR_MORE)
    cache_gb: float = leaf(
        2.0, "GB (1e9 bytes) of float16 tokens to keep; more are computed anew for every batch.", bound=ZERO_OR_MORE
    )


def _of_pretrained() -> FineTuneSettings:
    return FineTuneSettings(learning_rate=3e-4, head_learning_rate=3e-3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """`config.probe`: evaluation of a pretrained encoder."""

    task: str = leaf(
        "",
        "Question, such as 'lvef<40', 'superdiagnostic:NORM', 'superdiagnostic:*' or a quantity such as 'age_years'.",
    )
    label_fraction: float = leaf(1.0, "Share of the labelled training patients.", bound=SHARE)
    seed: int = leaf(0, "Seed of the labels that are drawn, and of resampling.", bound=between(0, 2**63 - 1))
    readouts: tuple[str, ...] = leaf(
        (),
        "Further readouts of the encoder, beside the linear probe of `layer`.",
        choices=READOUTS,
    )
    grid: tuple[str, ...] = leaf(
        (),
        'Random encoders of which the best on validation is reported, such as ("resnet18:small seed=1", "vit_s:small '
        'depth=2").',
    )
    strength: float | None = leaf(
        None, "Fixed inverse L2 strength C of all linear models; None to choose it.", bound=POSITIVE
    )
    select: str = leaf(
        "validation",
        "What hyperparameters are chosen on: all validation records, a part of them as small as that of the training "
        "labels, or the labelled training patients alone.",
        choices=SELECTIONS,
    )
    rate_factors: tuple[float, ...] = leaf(
        (1.0,),
        "Factors of the learning rates that fine-tuning and labels only both try; the best on validation is kept.",
        bound=POSITIVE._replace(fewest=1),
    )
    attention: AttentionSettings = section(AttentionSettings)
    layer: str = leaf("features", 'Layer; "features" are pooled activations.', choices=("features", "embedding"))
    overlaps: str = leaf(
        "refuse", "What is done about records that were pretrained on.", choices=("refuse", "drop", "mark")
    )
    bootstrap: int = leaf(2000, "Resamples of the test patients for intervals.", bound=ONE_OR_MORE)
    groups: tuple[str, ...] = leaf(
        ("sex", "age"), 'Groups of patients: any scalar or class of the data set too, "=site", or "dataset".'
    )
    prevalence: float | None = leaf(
        None, "Prevalence at which PPV and NPV are told beside the records' own.", bound=INSIDE_ONE
    )
    treat_at: tuple[float, ...] = leaf(
        (0.1, 0.2), "Probabilities from which one would treat, at which net benefit is told.", bound=BELOW_ONE
    )
    shuffles: int = leaf(10, "Permutations of the labels that the control is made of.", bound=_TWO_OR_MORE)
    supervised: FineTuneSettings = section(FineTuneSettings)
    finetune: FineTuneSettings = section(_of_pretrained)
