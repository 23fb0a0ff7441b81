"""What a finished run has left."""

from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.encoders.from_config import abstract_split
from ecgjax.evaluation.models.answers import load_archive
from ecgjax.optim import create
from ecgjax.studies.one_task.fine_tuned import PREDICTIONS_FILE
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.run_log.metrics_file import read_metrics
from ecgjax.training.steps import init_state
from tests.support.plain_networks import away_from_initialisation


def final_state(workdir):
    """Returns the last checkpoint's step and parts, of a run whose loss learns nothing itself."""
    settings = defaults.settings_of_run(workdir)
    split = away_from_initialisation(abstract_split(settings.encoder))
    params, stats = {"encoder": split.params, "objective": {}}, {"encoder": split.stats}
    # The length of the run shapes the schedule, but no leaf of the state.
    optimizer = create(settings.optimizer, num_steps=1, batch_size=settings.batch_size, params=params)
    template = init_state(params, stats, optimizer, ema=settings.optimizer.ema_decay is not None).parts()
    with Checkpoints(run_config.checkpoint_dir(workdir), read_only=True) as checkpoints:
        return checkpoints.restore(template)


def last_of_fine_tuning(workdir):
    """Returns step, looks and leaves of the last checkpoint of a fine-tuning run, whatever its structure."""
    with Checkpoints(run_config.checkpoint_dir(workdir), read_only=True) as checkpoints:
        step = checkpoints.latest_step()
        return step, checkpoints.metadata(step)["looks"], checkpoints._folder.custom(step)["leaves"]


def computed(workdir):
    """Returns the lines of a run's metrics without what depends on the clock."""
    return [
        {name: value for name, value in line.items() if name.startswith(("step", "train/", "eval/"))}
        for line in read_metrics(workdir)
    ]


def predictions(workdir):
    """Returns the arrays of the predictions that a fine-tuning run has left."""
    return load_archive(workdir / PREDICTIONS_FILE, lambda words, arrays: arrays)
