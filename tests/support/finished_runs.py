"""What a finished run has left."""

from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.encoders.from_config import create_split
from ecgjax.optim import create
from ecgjax.training.checkpoint import Checkpoints
from ecgjax.training.steps import init_state


def final_state(workdir):
    """Returns the last checkpoint's step and parts, of a run whose loss learns nothing itself."""
    settings = defaults.settings_of_run(workdir)
    split = create_split(settings.encoder, seed=0)
    params, stats = {"encoder": split.params, "objective": {}}, {"encoder": split.stats}
    # The length of the run shapes the schedule, but no leaf of the state.
    optimizer = create(settings.optimizer, num_steps=1, batch_size=settings.batch_size, params=params)
    template = init_state(params, stats, optimizer, ema=settings.optimizer.ema_decay is not None).parts()
    with Checkpoints(run_config.checkpoint_dir(workdir), read_only=True) as checkpoints:
        return checkpoints.restore(template)
