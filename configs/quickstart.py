"""The quickstart: a pretraining of about a minute on a SIMULATED cohort at 100 Hz, and a question to ask of it.

    make quickstart
    python -m ecgjax.pretrain --config=quickstart:waves --config.data.dir=DIR --workdir=runs/waves
    python -m ecgjax.pretrain --config=quickstart --config.data.dir=DIR --workdir=runs/simclr

`waves` is what `make quickstart` trains: an encoder that sees every lead by itself predicts intervals and amplitudes,
which need no labels (`configs/measured_waves.py:small`, docs/results.md). Without a variant it is
`configs/simclr.py:small`, with ResNet-18. Both are reduced to 100 Hz, no dropout and a few hundred steps. Expect the
probe of `waves` to read potassium better than measured intervals do from few labels, and about as well as labels alone;
and that of SimCLR to be above the same encoder at random initialisation.
"""

from ml_collections import ConfigDict

from ecgjax.config import recipes
from ecgjax.config.variants import variant_of


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config of pretraining and probe; `arg` is `""` for SimCLR, or `"waves"`."""
    variant, _ = variant_of(arg, ("", "waves"))
    config = recipes.load_recipe("measured_waves:alone,small" if variant == "waves" else "simclr:small")
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
    if variant == "waves":
        config.optimizer.learning_rate = 3e-3
        # Where there are few labels, as few choose: no model sees more of them than a user would have.
        config.probe.select = "validation_part"
        # Six small trainings with labels alone have to end within two minutes.
        config.probe.supervised.steps, config.probe.supervised.eval_every = 200, 50
        config.probe.supervised.eval_records = 500
    return config
