"""Configs and flags: one-line changes from the command line, a resolved copy in the workdir, plain errors."""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections.config_flags import config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from data_pipelines import command
from data_pipelines.errors import DataError
from ecgjax.config import recipes
from ecgjax.errors import CheckpointError, ConfigError, DivergedError
from ecgjax.system.files import write_atomically

CONFIG_FILE = "config.json"

#: Exit status of a run that was told to stop (SIGTERM), saved, and left; the same command again goes on.
EXIT_STOPPED = 75

#: Leaves that may differ between a run and its resumption: where the data lie, how often things happen, and how the
#: result is judged. Everything else decides the numbers.
MAY_CHANGE = (
    "data.allow_bad_shards",
    "data.dir",
    "data.links",
    "data.store",
    "log_every",
    "checkpoint.",
    "probe.",
    "mesh.",
)

#: Held while a run writes to its workdir.
_LOCK_FILE = ".lock"

#: What the machine refuses and no code can mend: no space, no permission, a read-only disk.
_MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

_ONE_OR_MORE = (lambda value: value >= 1, "at least 1")
_ZERO_OR_MORE = (lambda value: value >= 0, "0 or more")
_POSITIVE = (lambda value: 0 < value < math.inf, "above 0")
_PROBABILITY = (lambda value: 0 <= value <= 1, "0 to 1")
_BELOW_ONE = (lambda value: 0 <= value < 1, "0 or more and below 1")
_SHARE_OF_TIME = (lambda value: 0 < value <= 1, "above 0 and at most 1")

#: Leaf → whether a value makes sense, and in words which do. Here are those that nothing else would refuse plainly.
RANGES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "duration.value": _POSITIVE,
    "log_every": _ONE_OR_MORE,
    "eval_every": _ZERO_OR_MORE,
    "eval_batches": _ONE_OR_MORE,
    "views.num": _ONE_OR_MORE,
    "views.segments": _ONE_OR_MORE,
    "reconstruction.weight": _ZERO_OR_MORE,
    "reconstruction.peak_weight": _ZERO_OR_MORE,
    "task.weight": _ZERO_OR_MORE,
    "task.dropout": _BELOW_ONE,
    "task.hidden": _ONE_OR_MORE,
    "objective.weight": _ZERO_OR_MORE,
    "checkpoint.every": _ONE_OR_MORE,
    "checkpoint.keep": _ONE_OR_MORE,
    "encoder.dropout": _BELOW_ONE,
    "augment.geodesic.max_step": (lambda value: 0 <= value <= 0.5, "0 to .5: farther on the label is the partner's"),
    "augment.geodesic.p": _PROBABILITY,
    "augment.geodesic.regularisation": _POSITIVE,
    "augment.random_crop.ratio": _SHARE_OF_TIME,
    "augment.resized_crop.min_ratio": _SHARE_OF_TIME,
    "augment.resized_crop.max_ratio": _SHARE_OF_TIME,
    "augment.heartbeat_shuffle.p": _PROBABILITY,
    "augment.time_warp.sigma": (lambda value: 0 <= value <= 0.2, "0 to .2: above, time could run back"),
    "augment.time_warp.num_knots": (lambda value: 1 <= value <= 16, "1 to 16"),
    "augment.time_reversal.p": _PROBABILITY,
    "augment.vcg.max_angle_deg": (lambda value: 0 <= value <= 180, "0 to 180"),
    "augment.vcg.max_scale": _ONE_OR_MORE,
    "augment.amplitude_scale.sigma": _ZERO_OR_MORE,
    "augment.polarity.p": _PROBABILITY,
    "augment.gaussian_noise.min_sigma_mv": _ZERO_OR_MORE,
    "augment.gaussian_noise.max_sigma_mv": _ZERO_OR_MORE,
    "augment.emg.max_amplitude_mv": _ZERO_OR_MORE,
    "augment.emg.p": _PROBABILITY,
    "augment.powerline.max_amplitude_mv": _ZERO_OR_MORE,
    "augment.powerline.p": _PROBABILITY,
    "augment.baseline_wander.max_amplitude_mv": _ZERO_OR_MORE,
    "augment.baseline_wander.min_hz": _ZERO_OR_MORE,
    "augment.baseline_wander.max_hz": _POSITIVE,
    "augment.baseline_wander.num_waves": _ONE_OR_MORE,
    "augment.baseline_wander.lead_spread": _ZERO_OR_MORE,
    "augment.baseline_wander.p": _PROBABILITY,
    "augment.baseline_shift.max_shift_mv": _ZERO_OR_MORE,
    "augment.baseline_shift.ratio": _SHARE_OF_TIME,
    "augment.baseline_shift.p": _PROBABILITY,
    "augment.time_mask.ratio": _BELOW_ONE,
    "augment.lead_mask.drop_rate": _BELOW_ONE,
    "objective.temperature": _POSITIVE,
    "objective.concentration": _ZERO_OR_MORE,
    "objective.degrees": (lambda value: 0 < value < 90, "above 0 and below 90"),
    "miner.triplets": _ONE_OR_MORE,
    "columns.signal_downsample": _ONE_OR_MORE,
    "columns.signal_farthest": _ONE_OR_MORE,
    "columns.signal_radius": _ZERO_OR_MORE,
    "columns.components": _ZERO_OR_MORE,
    "columns.clusters": _ONE_OR_MORE,
    "encoder.embedding_dim": _ONE_OR_MORE,
    **{
        f"encoder.{name}": _ONE_OR_MORE
        for name in (
            "patch",
            "dim",
            "depth",
            "num_heads",
            "hidden_dim",
            "stem_width",
            "position_kernel",
            "position_groups",
        )
    },
    "optimizer.b1": _BELOW_ONE,
    "optimizer.b2": _BELOW_ONE,
    "optimizer.momentum": _BELOW_ONE,
    "optimizer.eps": _POSITIVE,
    "tiling.chunk": _ONE_OR_MORE,
    "micro_batch.parts": _ONE_OR_MORE,
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.warmup_fraction": (lambda value: 0 <= value <= 1, "0 to 1"),
    "optimizer.final_fraction": (lambda value: 0 <= value <= 1, "0 to 1"),
    "optimizer.weight_decay": _ZERO_OR_MORE,
    "optimizer.layer_decay": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "optimizer.ema_decay": _BELOW_ONE,
    "optimizer.clip_norm": _POSITIVE,
    "probe.prevalence": (lambda value: 0 < value < 1, "above 0 and below 1: a share, not a percentage"),
    "probe.treat_at": (
        lambda values: all(isinstance(value, int | float) and 0 <= value < 1 for value in values),
        "probabilities of 0 or more and below 1, with commas between",
    ),
    **{
        f"probe.{section}.{name}": holds
        for section in ("supervised", "finetune")
        for name, holds in {
            "steps": _ONE_OR_MORE,
            "batch_size": _ONE_OR_MORE,
            "eval_every": _ONE_OR_MORE,
            "patience": _ZERO_OR_MORE,
            "learning_rate": _POSITIVE,
            "head_learning_rate": _POSITIVE,
            "layer_decay": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
            "hidden": _ONE_OR_MORE,
            "head_dropout": _BELOW_ONE,
        }.items()
    },
}


#: Leaf of older configs → why it cannot be set. Its only value changed nothing.
RETIRED: Mapping[str, str] = {
    "gradient_accumulation": (
        "negatives come from the batch, and parts whose gradients are added know no negatives but their own, which is "
        "another loss. For large batches in little memory set config.micro_batch.parts, whose gradient is exact"
    ),
}


def define_flags(default: str | None = None) -> None:
    """Defines `--config` and `--workdir`; unknown keys of the config are errors."""
    config_flags.DEFINE_config_file(
        "config", default, "Config file or recipe, e.g. configs/simclr.py:small or simclr:small.", lock_config=True
    )
    flags.DEFINE_string("workdir", None, "Folder of this run: checkpoints, metrics, the resolved config.")
    flags.mark_flags_as_required(["config", "workdir"])


def run(main: Callable[[list[str]], int | None], *, argv: Sequence[str] | None = None, **kwargs: Any) -> None:
    """Runs an entry point; errors in what the user gave print as one line, without a stack trace.

    Args:
        main: Function that takes what is left of the command line, and returns the exit status.
        argv: Command line, program first; that of the process by default.
        **kwargs: Further arguments of `absl.app.run`.
    """
    given = arguments = list(sys.argv if argv is None else argv)
    try:
        check_retired(argument.lstrip("-").partition("=")[0] for argument in given[1:])
        if _takes_one_config():
            arguments = recipes.with_paths(given)
            _check_config_flags(given)
    except ConfigError as error:
        command.fail(str(error))

    def wrapped(argv: list[str]) -> int | None:
        if len(argv) > 1:
            command.fail(f"unexpected argument {argv[1]!r}; every option starts with --")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it writes
        try:
            return main(argv)
        except (ConfigError, DataError, CheckpointError, DivergedError) as error:
            command.fail(str(error))
        except OSError as error:
            if error.errno not in _MACHINE_ERRORS:
                raise
            command.fail(str(error))

    app.run(wrapped, argv=arguments, **{"flags_parser": command.parse_flags, **kwargs})


def _takes_one_config() -> bool:
    return "config" in flags.FLAGS and isinstance(flags.FLAGS["config"].parser, ConfigFileFlagParser)


def _check_config_flags(arguments: Sequence[str]) -> None:
    """Refuses a variant that a config file has not, and settings that its config has not."""
    for config in recipes.configs_in(arguments):
        try:
            found = recipes.load_recipe(config)
        except ValueError as error:
            raise ConfigError(f"--config={config}: {error}") from error
        check_leaves(arguments, found, of=config)


def check_leaves(arguments: Sequence[str], config: ml_collections.ConfigDict, *, of: str) -> None:
    """Refuses the first `--config.LEAF=…` of a command line whose leaf a config has not.

    Args:
        arguments: Command line.
        config: Config that the leaves are looked for in.
        of: Name of the config for the message.

    Raises:
        ConfigError: There is no such leaf; the message names those that are spelt much like it.
    """
    known = leaves(config.to_dict())
    sections = {name.rpartition(".")[0] for name in known}
    for argument in arguments:
        given = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
        if given and given[1] not in known and given[1] not in sections:
            alike = ", ".join(f"config.{name}" for name in difflib.get_close_matches(given[1], known))
            meant = f"; did you mean {alike}?" if alike else ""
            raise ConfigError(f"there is no setting config.{given[1]} of {of}{meant}")


def check_retired(names: Iterable[str]) -> None:
    """Refuses leaves that configs no longer have.

    Args:
        names: Leaves, with or without `config.` in front.

    Raises:
        ConfigError: One of them is in `RETIRED`; the message says what to do instead.
    """
    for name in names:
        if reason := RETIRED.get(name.removeprefix("config.")):
            raise ConfigError(f"config.{name.removeprefix('config.')} cannot be set: {reason}")


def checkpoint_dir(workdir: str | Path) -> Path:
    """Where the checkpoints of a run lie."""
    return Path(workdir) / "checkpoints"


@contextlib.contextmanager
def exclusive(workdir: str | Path) -> Iterator[None]:
    """Keeps a workdir, made where it is missing, to this run: two that write there would destroy each other's files.

    The system drops the lock when the process ends, however it ends.

    Raises:
        ConfigError: another run is writing there, or the folder cannot be written.
    """
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        lock = os.open(Path(workdir) / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"--workdir={workdir} is no folder that can be written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another run is writing to {workdir}; wait for it to end, or use another --workdir"
            ) from error
        yield
    finally:
        os.close(lock)


def check_ranges(config: ml_collections.ConfigDict) -> None:
    """Refuses values that make no sense, before they fail far from where they were given.

    Raises:
        ConfigError: naming the leaf, its value and what is possible.
    """
    found = leaves(config.to_dict())
    for name, (holds, words) in RANGES.items():
        value = found.get(name)
        if value is not None and not holds(value):
            raise ConfigError(f"config.{name}={value!r} is not possible; it must be {words}")


def write_resolved(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Writes every leaf of the config to `config.json` of the workdir, atomically."""
    path = Path(workdir) / CONFIG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n")


def load_resolved(workdir: str | Path) -> ml_collections.ConfigDict:
    """Reads the config that a run was trained with.

    Raises:
        ConfigError: the folder holds no run, or its config is damaged.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{workdir} is not the folder of a pretraining run: {path} does not exist")
    try:
        found = _tuples(json.loads(path.read_text(encoding="utf-8")))
        return ml_collections.ConfigDict({name: value for name, value in found.items() if name not in RETIRED})
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); restore it from a copy, or use another --workdir") from error


def check_resume(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Refuses to go on with another config than the one a workdir was started with.

    Raises:
        ConfigError: leaves outside `MAY_CHANGE` differ, and the message names them with both values; or there are
            checkpoints without the config that they were trained with.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.is_file():
        folder = checkpoint_dir(workdir)
        if folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir()):
            raise ConfigError(
                f"{folder} holds checkpoints, but {path} with the config they were trained with is gone; restore it "
                "from a copy, or use another --workdir"
            )
        return
    before = leaves(load_resolved(workdir).to_dict())
    now = leaves(_tuples(json.loads(json.dumps(config.to_dict()))))
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


def parse_fractions(texts: Sequence[str]) -> list[float]:
    """Returns the fractions of `--fractions` in order, each once.

    Raises:
        ConfigError: one is no number, or outside (0, 1].
    """
    try:
        fractions = sorted({float(text) for text in texts})
    except ValueError as error:
        raise ConfigError(f"--fractions={','.join(texts)} are no numbers") from error
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise ConfigError(f"--fractions={','.join(texts)} must be above 0 and at most 1")
    return fractions


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


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of a nested mapping by their paths, such as `probe.label`."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
