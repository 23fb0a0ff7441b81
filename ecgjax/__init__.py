"""Pretraining of ECG encoders in JAX, from prepared recordings to encoders and their evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.system.late_names import late_names
from data_pipelines.version import __version__

if TYPE_CHECKING:
    from ecgjax.config.recipes import load_recipe, recipe_names
    from ecgjax.data.recordings import Recordings, open_recordings
    from ecgjax.data.tasks import parse_task
    from ecgjax.errors import CheckpointError, ConfigError, DivergedError
    from ecgjax.evaluation.features.frozen_encoder import Encoder, load_encoder, random_encoder, recalibrate_batch_norm
    from ecgjax.model.applied import Model, Tokens
    from ecgjax.model.load import load
    from ecgjax.training.loop import train
    from ecgjax.training.run import Run, prepare_run

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DivergedError",
    "Encoder",
    "Model",
    "Recordings",
    "Run",
    "Tokens",
    "__version__",
    "load",
    "load_encoder",
    "load_recipe",
    "open_recordings",
    "parse_task",
    "prepare_run",
    "random_encoder",
    "recalibrate_batch_norm",
    "recipe_names",
    "train",
]

#: Modules of the public names; a module is imported when one of its names is first used.
_MODULES = {
    "CheckpointError": "ecgjax.errors",
    "ConfigError": "ecgjax.errors",
    "DivergedError": "ecgjax.errors",
    "Encoder": "ecgjax.evaluation.features.frozen_encoder",
    "Model": "ecgjax.model.applied",
    "Recordings": "ecgjax.data.recordings",
    "Run": "ecgjax.training.run",
    "Tokens": "ecgjax.model.applied",
    "load": "ecgjax.model.load",
    "load_encoder": "ecgjax.evaluation.features.frozen_encoder",
    "load_recipe": "ecgjax.config.recipes",
    "open_recordings": "ecgjax.data.recordings",
    "parse_task": "ecgjax.data.tasks",
    "prepare_run": "ecgjax.training.run",
    "random_encoder": "ecgjax.evaluation.features.frozen_encoder",
    "recalibrate_batch_norm": "ecgjax.evaluation.features.frozen_encoder",
    "recipe_names": "ecgjax.config.recipes",
    "train": "ecgjax.training.loop",
}

__getattr__, __dir__ = late_names(__name__, _MODULES, others=globals())
