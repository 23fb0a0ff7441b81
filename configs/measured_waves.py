"""Measured waves as targets: intervals, amplitudes and rhythm are predicted from the signal, without labels.

    python -m data_pipelines.build … --median_beat     (for a built data set: python -m data_pipelines.measure
                                                        --dataset=DIR --on=median_beat)
    python -m ecgjax.pretrain --config=configs/measured_waves.py --config.data.dir=DIR --workdir=runs/waves
    python -m ecgjax.pretrain --config=configs/measured_waves.py:simclr --config.data.dir=DIR --workdir=runs/both
    python -m ecgjax.pretrain … --config.columns.without_measurements="('rate','rhythm')"
    python -m ecgjax.pretrain … --config.columns.measured_on=beats         (59 statistics over the beats of lead II)

Every archive has this teacher: what `data_pipelines.measure` finds in a recording (52 intervals, and amplitudes in
every lead, of its median beat), each in robust deviations of the training records, predicted under Huber's loss by one
head with an output for each. The embedding is what probes read here (`config.probe.layer`): the head's own input.
`simclr` trains the same head beside SimCLR; it reads the pooled features, so that the contrast's projection and the
head do not share a layer. Alone, it reads the embedding, which nothing else would train. What is learnt is logged as
the explained share of the loss, `train/task_explained` and by group, and in evaluation by measurement.

No publication is reproduced here, and nothing is deviated from. Views are crops and masks, and for `simclr` noise:
nothing is drawn that changes amplitudes or rates, which would make targets wrong (docs/objectives.md). The encoder
sees every lead by itself. It, in its form `small` of 15,000 parameters, and the learning rate of `alone` were chosen
on validation recordings of a SIMULATED cohort (docs/results.md); its full size has not been compared with others.
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining config; `arg` is `alone` (the default) or `simclr`, with or without `,small`."""
    beside, small = variant_of(arg, ("alone", "simclr"))
    config = defaults.get_config()
    config.encoder.name = "lead_resnet:small" if small else "lead_resnet"
    config.augment.random_crop.enabled = True
    config.augment.time_mask.enabled = True
    config.task.name = "measurements"
    config.columns.measured_on = "median_beat"
    config.task.hidden, config.task.dropout = 256, 0.0
    config.objective.name = "nt_xent"
    config.objective.temperature = 0.1
    config.relation.name = "same_record"
    # With labels alone this network learns little in 300 steps at the usual 1e-3 (docs/results.md).
    config.probe.supervised.learning_rate = 1e-2
    if beside == "simclr":
        config.task.reads = "features"
        config.augment.gaussian_noise.enabled = True
    else:
        config.views.num, config.objective.weight = 1, 0.0
        config.probe.layer = "embedding"
        config.optimizer.learning_rate = 3e-3
    return config
