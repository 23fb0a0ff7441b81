"""Configs and flags: one-line changes from the command line, a resolved copy in the workdir, plain errors."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections.config_flags import config_flags

from data_pipelines.errors import DataError
from ecgjax.checkpoint import CheckpointError

CONFIG_FILE = "config.json"

#: Exit status of a run that was told to stop (SIGTERM), saved, and left; the same command again goes on.
EXIT_STOPPED = 75
#: Exit status after an error in what the user asked for or gave.
EXIT_USER_ERROR = 2

#: Leaves that may differ between a run and its resumption: where the data lie, how often things happen, and how the
#: result is judged. Everything else decides the numbers.
MAY_CHANGE = ("data.dir", "data.store", "log_every", "checkpoint.", "probe.", "mesh.")


class ConfigError(ValueError):
    """What was asked for is not possible, and the message says what is."""


def define_flags(default: str | None = None) -> None:
    """Defines `--config` and `--workdir`; unknown keys of the config are errors."""
    config_flags.DEFINE_config_file(
        "config", default, "Config file, e.g. configs/simclr_ptbxl.py:small.", lock_config=True
    )
    flags.DEFINE_string("workdir", None, "Folder of this run: checkpoints, metrics, the resolved config.")
    flags.mark_flags_as_required(["config", "workdir"])


def run(main: Callable[[list[str]], int | None], **kwargs: Any) -> None:
    """Runs an entry point; errors in what the user gave print as one line, without a stack trace."""

    def wrapped(argv: list[str]) -> int | None:
        if len(argv) > 1:
            print(f"error: unexpected argument {argv[1]!r}; every option starts with --", file=sys.stderr)
            return EXIT_USER_ERROR
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it writes
        try:
            return main(argv)
        except (ConfigError, DataError, CheckpointError) as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_USER_ERROR

    app.run(wrapped, **kwargs)


def checkpoint_dir(workdir: str | Path) -> Path:
    """Where the checkpoints of a run lie."""
    return Path(workdir) / "checkpoints"


def write_resolved(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Writes every leaf of the config to `config.json` of the workdir, atomically."""
    path = Path(workdir) / CONFIG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def load_resolved(workdir: str | Path) -> ml_collections.ConfigDict:
    """Reads the config that a run was trained with.

    Raises:
        ConfigError: the folder holds no run.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{workdir} is not the folder of a pretraining run: {path} does not exist")
    return ml_collections.ConfigDict(_tuples(json.loads(path.read_text(encoding="utf-8"))))


def check_resume(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Refuses to go on with another config than the one a workdir was started with.

    Raises:
        ConfigError: leaves outside `MAY_CHANGE` differ; the message names them with both values.
    """
    if not (Path(workdir) / CONFIG_FILE).is_file():
        return
    before = _leaves(load_resolved(workdir).to_dict())
    now = _leaves(_tuples(json.loads(json.dumps(config.to_dict()))))
    differing = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and not name.startswith(MAY_CHANGE)
    ]
    if differing:
        raise ConfigError(
            f"{workdir} was started with another config: {'; '.join(differing)}. "
            "Give the same config to go on, or another --workdir to start anew"
        )


def num_steps(duration: ml_collections.ConfigDict, *, batch_size: int, examples_per_epoch: int) -> int:
    """Steps of a run whose length is given in steps, epochs or examples.

    Args:
        duration: `config.duration` with `value` and `unit`.
        batch_size: examples a step.
        examples_per_epoch: of the sampler.

    Raises:
        ConfigError: unknown unit, or not a single step.
    """
    steps_per_unit = {"steps": 1.0, "epochs": examples_per_epoch / batch_size, "examples": 1.0 / batch_size}
    if duration.unit not in steps_per_unit:
        raise ConfigError(f"config.duration.unit={duration.unit!r} is unknown; there are: {', '.join(steps_per_unit)}")
    steps = math.ceil(duration.value * steps_per_unit[duration.unit])
    if steps < 1:
        raise ConfigError(f"config.duration of {duration.value} {duration.unit} is not a single step")
    return steps


def _tuples(tree: Any) -> Any:
    # JSON has no tuples and the config files have no lists; a ConfigDict keeps the type that a leaf starts with.
    if isinstance(tree, Mapping):
        return {name: _tuples(value) for name, value in tree.items()}
    return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        leaves |= _leaves(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return leaves
