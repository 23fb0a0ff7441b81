"""The quickstart: SimCLR on a SIMULATED cohort at 100 Hz, probed for LVEF below 40 with a tenth of the labels.

    make quickstart

It is `configs/simclr.py:small`, reduced to a few minutes on two cores: 100 Hz, no dropout, fewer steps. Expect
the probe on the pretrained encoder some .05 AUROC above the same encoder at random initialisation.
"""

from ml_collections import ConfigDict

from ecgjax.config import recipes


def get_config() -> ConfigDict:
    """Returns the config of pretraining and probe."""
    config = recipes.load_recipe("simclr:small")
    config.data.train_folds = (1, 2, 3, 4, 5, 6)
    config.data.val_folds = (7, 8)
    config.data.test_folds = (9, 10)
    config.batch_size = 128
    config.duration.value, config.duration.unit = 300.0, "steps"
    config.encoder.dropout = 0.0
    config.optimizer.learning_rate = 2e-3
    config.log_every = 10
    config.eval_every = 100
    config.eval_batches = 2
    config.checkpoint.every = 100

    config.probe.task = "lvef<40"
    config.probe.label_fraction = 0.1
    config.probe.supervised.steps = 150
    return config
