"""Supervised metric learning beside the prediction of a label (Jeong, Stultz and Ghassemi 2023, arXiv 2308.04650).

    python -m ecgjax.pretrain --config=configs/supervised_dml.py --config.data.dir=DIR --workdir=runs/dml_18
    python -m ecgjax.pretrain --config=configs/supervised_dml.py:regression --config.data.dir=DIR --workdir=runs/mmhg
    python -m ecgjax.pretrain … --config.objective.weight=0     (the plain task, to compare with)
    python -m ecgjax.pretrain … --config.miner.name=semi_hard --config.miner.distance=euclidean \
        --config.miner.choice=random --config.miner.fallback=random     (their semi-hard; without: the nearest one)

The loss is α times a triplet loss plus the loss of the task. `binary` predicts a wedge pressure above 18 mmHg by
cross-entropy, with α = 1; positives have the same answer. `regression` predicts the pressure in mmHg by RMSE, with
α = 3; the positive has the most similar pressure and the negative the least similar. As published, this beats the plain
task; in 600 steps of `regression,small` on simulated pressures it did not (docs/results.md). Only labelled recordings
have a loss; the others are encoded and take part in batch statistics alone.

From a checkpoint of any other pretraining: --config.probe.finetune.metric.weight=1 of ecgjax.label_efficiency (and
--config.probe.supervised.metric.weight=1, what it is compared with).

Deviations: one stage, where the publication then trains the whole network on the task alone under a fresh head (which
`ecgjax.label_efficiency` does from a run's checkpoint); regression starts from mean and spread of the training labels;
rows of one patient are no negatives, and a recording that stands in a batch twice is no positive of itself. `semi_hard`
takes the nearest negative of its band, theirs a random one (`--config.miner.choice=random`); the L2 term of
`--config.objective.name=angular` is the squared norm, theirs the norm (`--config.objective.l2_form=norm`); Adam's L2
term is of kernels, theirs of every parameter (`--config.optimizer.decayed=all`). `small`: the encoder at a quarter of
its widths.
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining config; `arg` is `binary` (the default) or `regression`, with or without `,small`."""
    task, small = variant_of(arg, ("binary", "regression"))
    config = defaults.get_config()
    config.encoder.name = "resnet18:small" if small else "resnet18"
    config.batch_size = 64
    config.views.num = 1
    config.objective.name = "triplet"
    config.objective.margin, config.objective.distance = 0.2, "squared_euclidean"
    config.task.name, config.columns.task = task, "wedge_pressure"
    if task == "binary":
        config.columns.task = "wedge_pressure>18"
        config.relation.name, config.miner.name = "same_label", "npair"
    else:
        config.objective.weight = 3.0
        config.relation.name, config.miner.name = "same_record", "label_distance"
    config.optimizer.name, config.optimizer.weight_decay = "adam", 0.1
    config.optimizer.learning_rate, config.optimizer.schedule = 1e-4, "constant"
    config.probe.task = "wedge_pressure>18"
    return config
