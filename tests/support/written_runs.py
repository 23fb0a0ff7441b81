"""Folders of runs as `pretrain` leaves them, written in a moment: nothing is trained."""

import jax
import numpy as np

from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.data.recordings import open_recordings
from ecgjax.data.samplers import SampledSide
from ecgjax.encoders.from_config import abstract_split
from ecgjax.leakage.trained_on import pretraining_records
from ecgjax.training.about import about_run, exposures, write_about
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.steps import EMA
from tests.support import tiny_config
from tests.support.plain_networks import away_from_initialisation

FINGERPRINT = "f00d"


def tiny(dataset, **leaves):
    """Returns the config of the smallest run on a data set, with some leaves changed."""
    config = tiny_config.get_config()
    config.data.dir = str(dataset)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in leaves.items()})
    return config


def write_run(workdir, config, *, steps=(6, 12), told=True):
    """Writes the folder of a run; `told=False` leaves out what checkpoints did not say of themselves before they did.

    Weights and statistics are made up, others at every step and in the moving average.
    """
    settings = defaults.settings_of(config)
    recordings = open_recordings(settings.data)
    side = SampledSide(settings.sampling, recordings, recordings.split.train, weights=settings.data.weights)
    split = away_from_initialisation(abstract_split(settings.encoder))
    sampler = side.sampler(batch_size=settings.batch_size, seed=settings.seed)
    about = about_run(settings, recordings, side, split, examples_per_epoch=sampler.examples_per_epoch)
    records = pretraining_records(recordings, side.records, run=FINGERPRINT)
    metadata = {"fingerprint": FINGERPRINT, "records": records.digest, "datasets": list(recordings.fingerprints)}
    with Checkpoints(run_config.checkpoint_dir(workdir)) as checkpoints:
        for step in steps:
            parts = {}
            for prefix, add in (("", step), (EMA, 1000 + step)):
                factor = np.float32(1 + add / 1000)
                made = jax.tree.map(
                    lambda array, factor=factor: np.asarray(array) * factor, (split.params, split.stats)
                )
                made = jax.device_put(made)
                parts |= dict(zip((f"{prefix}params_encoder", f"{prefix}stats_encoder"), made, strict=True))
            saying = {"about": about, "exposures": exposures(about, step)} if told else {}
            checkpoints.save(step, parts, metadata=metadata | saying)
    run_config.write_resolved(config, workdir)
    records.write(workdir)
    if told:
        write_about(about, workdir, step=steps[-1], num_steps=steps[-1])
    return workdir
