"""Configs and flags: changes by single flags on the command line, a resolved copy in the workdir, plain errors."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import ml_collections
from absl import app, flags, logging
from ml_collections.config_flags import config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from data_pipelines import command
from data_pipelines.errors import DataError
from data_pipelines.system import stop_signals
from data_pipelines.system.blocked_output import give_up_blocked_output
from data_pipelines.system.exit_status import ExitStatus
from data_pipelines.system.near_names import meant
from data_pipelines.system.terminal_lines import columns_of
from ecgjax.config import earlier, recipes
from ecgjax.config.help import describe_leaves
from ecgjax.errors import CheckpointError, ConfigError, DivergedError, UnknownSettingError, status_of
from ecgjax.settings.leaf import Leaf, Value
from ecgjax.settings.sections import flat
from ecgjax.system.files import write_atomically

CONFIG_FILE = "config.json"

#: Exit status of a run that was told to stop (SIGTERM), saved its state and ended; the same command resumes it.
EXIT_STOPPED = ExitStatus.STOPPED

#: Leaves, or beginnings of their paths, that may differ between a run and its resumption: where the data lie, how often
#: things happen, how the result is evaluated, and how an extension goes on, which the workdir keeps. Everything else
#: changes the numbers.
MAY_CHANGE = (
    "data.allow_bad_shards",
    "data.dir",
    "data.links",
    "data.store",
    "init.schedule",
    "init.share",
    "log_every",
    "checkpoint.",
    "compile_cache",
    "debug.nan_checks",
    "probe.",
    "profile.",
    "mesh.",
    "nonfinite.most_in_a_row",
    "nonfinite.most_in_all",
    "pictures",
    "trackers",
    "watchdog.",
    "resume.",
)

#: Leaves that may not even differ where `resume.allow` names them: they say whether the run trains a model.
_NEVER_CHANGE = ("debug.fake_data", "debug.reuse_batch")

# Leaf that the config of one kind of run has alone → that kind.
_KINDS = {"objective.name": "pretraining", "training.head_start": "fine-tuning"}

#: Name of the file that is locked while a run writes to its workdir.
_LOCK_FILE = ".lock"

# An argument that sets a leaf.
_SETS_LEAF = re.compile(r"--?(no)?config\.([\w.]+)(?:=(.*))?", re.DOTALL)

#: Errors of the machine that no code can solve: no space, no permission, a read-only or broken disk, a folder where a
#: file should be.
_MACHINE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EIO, errno.ESTALE, errno.EISDIR, errno.ENOTDIR),
)


def define_flags(default: str | None = None, *, without_workdir: str | None = None) -> None:
    """Defines the required flags `--config` and `--workdir`; unknown keys of the config are errors.

    Args:
        default: Config file or recipe for `--config`; None for no default.
        without_workdir: Name of a flag, defined before, with which no workdir is needed; None where there is none.
    """
    config_flags.DEFINE_config_file(
        "config", default, "Config file or recipe, e.g. configs/simclr.py:small or simclr:small.", lock_config=True
    )
    flags.DEFINE_string("workdir", None, "Folder of this run: checkpoints, metrics, the resolved config.")
    flags.mark_flag_as_required("config")
    if without_workdir is None:
        flags.mark_flag_as_required("workdir")
    else:
        flags.register_multi_flags_validator(
            ["workdir", without_workdir],
            lambda given: given["workdir"] is not None or given[without_workdir],
            message=f"--workdir=… must be given, except with --{without_workdir}",
        )
    flags.register_validator("workdir", lambda value: value != "", message="it must name a folder")
    for name in ("config", "workdir"):
        _list_in_help(name)


def _list_in_help(name: str) -> None:
    # `--help` lists the flags of the command's own module, and this one defines them for it.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def define_config(default: str, words: str) -> None:
    """Defines `--config` of a command that has a default config, and ends the process where a leaf is unknown.

    Args:
        default: Recipe that is used where none is given.
        words: Help of the flag.
    """
    if not recipes.configs_in(sys.argv):  # A default's leaves are set when its flag is defined.
        try:
            check_leaves(sys.argv, recipes.load_recipe(default), of=default)
        except ConfigError as error:
            command.fail(str(error))
    config_flags.DEFINE_config_file("config", recipes.path_of(default), words, lock_config=True)
    _list_in_help("config")


def run(
    main: Callable[[list[str]], int | None],
    *,
    argv: Sequence[str] | None = None,
    flags_parser: Callable[[list[str]], list[str]] | None = None,
    leaves: Callable[[], Mapping[str, Leaf]] | None = None,
) -> None:
    """Runs an entry point; errors in the user's input print as one line, without a stack trace.

    Args:
        main: Function that takes the rest of the command line and returns the exit status.
        argv: Command line, program first; that of the process by default.
        flags_parser: Parser of the command line; by default the one of commands with one config.
        leaves: Function that returns the leaves of the command's config, which `--help` then lists.
    """
    if argv is None:
        stop_signals.listen()
    given = arguments = list(sys.argv if argv is None else argv)
    try:
        earlier.check_retired(argument.lstrip("-").partition("=")[0] for argument in given[1:])
        if _takes_one_config():
            arguments = recipes.with_paths(given)
            _check_config_flags(given)
    except ConfigError as error:
        command.fail(str(error))

    def wrapped(argv: list[str]) -> int | None:
        if len(argv) > 1:
            command.fail(f"unexpected argument {argv[1]!r}; every option starts with --")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax logs every file that it writes.
        try:
            return main(argv)
        except UnknownSettingError as error:  # The config is of another kind, since its own leaves were checked.
            configs = recipes.configs_in(given)
            command.fail(
                f"--config={configs[-1]} is no config of this command: {error}. There are "
                "those that --help lists, and no others"
                if configs
                else str(error)
            )
        except (ConfigError, DataError, CheckpointError, DivergedError) as error:
            command.fail(str(error), status_of(error))
        except OSError as error:
            if error.errno not in _MACHINE_ERRORS:
                raise
            command.fail(str(error))
        except (MemoryError, RuntimeError) as error:
            # JAX raises a RuntimeError, not a MemoryError, where memory is exhausted.
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            command.fail(f"too little memory for what was asked for ({error}); ask for less, or take a larger machine")

    def parse(argv: list[str]) -> list[str]:
        if leaves is not None and command.asks_for_help(argv):
            show_help(argv, leaves())
        rest = command.parse_flags(without_none(argv))
        if _takes_one_config() and flags.FLAGS.config is not None:
            set_none(flags.FLAGS.config, argv)
        return rest

    app.run(wrapped, argv=arguments, flags_parser=flags_parser or parse)


def show_help(argv: Sequence[str], leaves: Mapping[str, Leaf]) -> NoReturn:
    """Prints the help of the command and then the leaves of its config, and ends the process with status 0.

    Args:
        argv: Command line, program first, which asks for help.
        leaves: Leaves to list, with the values of the config that the command line names.
    """
    configs = recipes.configs_in(argv)
    values = flat(recipes.load_recipe(configs[-1]).to_dict()) if configs else {}
    with contextlib.suppress(SystemExit):  # The parser exits once it has printed the help.
        command.parse_flags(argv)
    of = configs[-1] if configs else "every config, unless it sets its own"
    try:
        print(describe_leaves(leaves, values, of=of, columns=columns_of(sys.stdout)), flush=True)
    except BrokenPipeError:  # Nobody reads the help to its end.
        give_up_blocked_output()
    sys.exit(0)


def without_none(arguments: Sequence[str]) -> list[str]:
    """Returns a command line without `--config.LEAF=None`, which no parser of a typed leaf accepts; see `set_none`."""
    return _apart(arguments)[0]


def set_none(config: ml_collections.ConfigDict, arguments: Sequence[str]) -> None:
    """Sets to None the leaves that a command line asks to be None.

    Args:
        config: Config that is changed; whether a leaf may be None is checked where settings are read from it.
        arguments: Command line, of which only `--config.LEAF=None` is read, in one word or two.
    """
    for leaf in _apart(arguments)[1]:
        with config.ignore_type():
            config.update_from_flattened_dict({leaf: None})


def _apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments for a parser, and the paths of the leaves that the command line sets to None.

    Where a leaf is given several times, the last one counts.
    """
    rest: list[str] = []
    none: dict[str, None] = {}
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*rest, argument, *left], list(none)
        given = _SETS_LEAF.fullmatch(argument)
        if given is None:
            rest.append(argument)
        elif given[3] == "None" or (given[3] is None and not given[1] and left[:1] == ["None"]):
            del left[: given[3] is None]
            none[given[2]] = None
        else:
            rest.append(argument)
            none.pop(given[2], None)
    return rest, list(none)


def _takes_one_config() -> bool:
    return "config" in flags.FLAGS and isinstance(flags.FLAGS["config"].parser, ConfigFileFlagParser)


def _check_config_flags(arguments: Sequence[str]) -> None:
    """Raises a `ConfigError` for a variant that the config file lacks, and for a leaf that its config lacks."""
    for config in recipes.configs_in(arguments):
        try:
            found = recipes.load_recipe(config)
        except ConfigError:  # It names the config already.
            raise
        except ValueError as error:
            raise ConfigError(f"--config={config}: {error}") from error
        check_leaves(arguments, found, of=config)


def check_leaves(arguments: Sequence[str], config: ml_collections.ConfigDict, *, of: str) -> None:
    """Refuses the first `--config.LEAF=…` of a command line whose leaf the config lacks.

    Args:
        arguments: Command line.
        config: Config that the leaves are looked for in.
        of: Name of the config for the message.

    Raises:
        ConfigError: There is no such leaf; the message names those with a similar spelling.
    """
    known = flat(config.to_dict())
    sections = {name[:place] for name in known for place, sign in enumerate(name) if sign == "."}
    for argument in arguments:
        given = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if given and ((given[1] not in known and given[1] not in sections) or not given[1]):
            raise ConfigError(
                f"there is no setting config.{given[1]} of {of}{meant(given[1], known, prefix='config.')}"
            )


def checkpoint_dir(workdir: str | Path) -> Path:
    """Returns the folder of a run's checkpoints."""
    return Path(workdir) / "checkpoints"


def is_run(workdir: str | Path) -> bool:
    """Returns whether a folder is that of a run that was accepted before."""
    return (Path(workdir) / CONFIG_FILE).is_file()


@contextlib.contextmanager
def exclusive(workdir: str | Path, *, flag: str = "--workdir") -> Iterator[None]:
    """Locks a workdir for this run, and makes it where it is missing.

    Two runs that write to one workdir would destroy each other's files.

    The operating system drops the lock when the process ends, however it ends.

    Args:
        workdir: Folder of the run.
        flag: Flag that names the folder, for messages.

    Raises:
        ConfigError: Another run is writing there, or the folder cannot be written.
    """
    if "://" in str(workdir):
        raise ConfigError(f"{flag}={workdir} is no folder of this machine; mount the bucket, and give its path there")
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        lock = os.open(Path(workdir) / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{flag}={workdir} is no folder that can be written ({error.strerror})") from error
    try:
        try:
            # The system takes this lock back however the process ends; a file that only exists would have to be removed
            # by hand.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another run is writing to {workdir}; wait for it to end, or use another {flag}"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{flag}={workdir} cannot be locked against a second run ({error.strerror}): put it on a disk that has "
                "locks, or mount this one with them"
            ) from error
        yield
    finally:
        os.close(lock)


def write_resolved(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Writes every leaf of the config to `config.json` of the workdir, atomically."""
    path = Path(workdir) / CONFIG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"
    if not path.is_file() or path.read_bytes() != text.encode():  # A run can resume on a disk that is full.
        write_atomically(path, text)


def load_resolved(workdir: str | Path) -> ml_collections.ConfigDict:
    """Returns the config that a run was trained with, with today's leaves in place of earlier ones.

    Args:
        workdir: Folder of the run.

    Raises:
        ConfigError: The folder holds no run, or its config is damaged.
    """
    path = Path(workdir) / CONFIG_FILE
    try:
        stored = path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: {path} cannot be read ({error.strerror})") from error
    if stored is None:
        raise ConfigError(f"--workdir={workdir} is not the folder of a pretraining run: {path} does not exist")
    try:
        return ml_collections.ConfigDict(earlier.translated(_tuples(json.loads(stored.decode()))))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); restore it from a copy, or use another --workdir") from error


def kind_of_run(leaves: Collection[str]) -> str:
    """Returns the kind of run that a config with these leaves is of, in words; empty where it is of none."""
    return next((words for leaf, words in _KINDS.items() if leaf in leaves), "")


def check_resume(
    config: ml_collections.ConfigDict,
    workdir: str | Path,
    *,
    defaults: Mapping[str, Value] | None = None,
    may_change: tuple[str, ...] = (),
    fixed: tuple[str, ...] = (),
) -> dict[str, tuple[Value, Value]]:
    """Refuses to resume with another config than the one a workdir was started with.

    Args:
        config: Config of the resumption; leaves and sections that its `resume.allow` names may differ.
        workdir: Folder of the run.
        defaults: Values, by path, of leaves that are newer than the run.
        may_change: Leaves that may differ beside `MAY_CHANGE`, or beginnings of their paths.
        fixed: Leaves and sections that this kind of run cannot change, so that the message does not offer it.

    Returns:
        Values before and now, by path, of leaves that differ and were allowed to.

    Raises:
        ConfigError: Leaves outside `MAY_CHANGE` differ that `resume.allow` does not name, and the message names them
            with both values; `resume.allow` names none; or there are checkpoints without the config that they were
            trained with.
    """
    path = Path(workdir) / CONFIG_FILE
    # The stored config went through JSON, and both sides must have the same types.
    now = flat(_tuples(json.loads(json.dumps(config.to_dict()))))
    allowed = allowed_changes(now)
    if not path.is_file():
        folder = checkpoint_dir(workdir)
        if folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir()):
            raise ConfigError(
                f"{folder} holds checkpoints, but {path} with the config they were trained with is gone; restore it "
                "from a copy, or use another --workdir"
            )
        return {}
    stored = flat(load_resolved(workdir).to_dict())
    if (kind := kind_of_run(stored)) and kind != kind_of_run(now):
        raise ConfigError(f"--workdir={workdir} is the folder of a {kind} run; give a folder of its own to this one")
    before = {**(defaults or {}), **stored}
    untrained = [name for name in _NEVER_CHANGE if before.get(name, False) != now.get(name, False)]
    if untrained:
        raise ConfigError(
            f"{workdir} was started with config.{untrained[0]}={before.get(untrained[0], False)}, which cannot be "
            "changed in the middle of a run: it is a model or it is none. Give the same config to go on, or another "
            "--workdir"
        )
    differing = {
        name: (before.get(name), now.get(name))
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and not name.startswith((*MAY_CHANGE, *may_change))
    }
    refused = {name: values for name, values in differing.items() if not _is_among(name, allowed)}
    if refused:
        deliberate = (
            "; to change it deliberately in the middle of the run, --config.resume.allow="
            f"{','.join([*allowed, *refused])}"
            if "resume.allow" in now and not any(_is_among(name, fixed) for name in refused)
            else ""
        )
        raise ConfigError(
            f"{workdir} was started with another config: "
            f"{'; '.join(f'{name} was {was!r} and is {now!r}' for name, (was, now) in refused.items())}. "
            "Give the same config to go on, or another --workdir to start anew" + deliberate
        )
    return differing


def allowed_changes(leaves: Mapping[str, Value]) -> tuple[str, ...]:
    """Returns the leaves and sections that `resume.allow` names.

    Args:
        leaves: Leaves of a config by path.

    Raises:
        ConfigError: There is no such leaf or section.
    """
    names = names_in(str(leaves.get("resume.allow", "")))
    for name in names:
        if not any(_is_among(leaf, (name,)) for leaf in leaves):
            raise ConfigError(f"config.resume.allow={name!r} is no leaf or section of a config{meant(name, leaves)}")
    return names


def names_in(allow: str) -> tuple[str, ...]:
    """Returns the names in the text of `config.resume.allow`."""
    return tuple(filter(None, map(str.strip, allow.split(","))))


def _is_among(leaf: str, names: Sequence[str]) -> bool:
    return any(leaf == name or leaf.startswith(f"{name}.") for name in names)


def parse_fractions(texts: Sequence[str]) -> list[float]:
    """Returns the fractions that `--fractions` gives as texts, in ascending order, each once.

    Raises:
        ConfigError: A fraction is no number, or lies outside (0, 1].
    """
    try:
        fractions = sorted({float(text) for text in texts})
    except ValueError as error:
        raise ConfigError(f"--fractions={','.join(texts)} are no numbers") from error
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise ConfigError(f"--fractions={','.join(texts)} must be above 0 and at most 1")
    return fractions


def _tuples(tree: Any) -> Any:
    # JSON has no tuples and the config files have no lists; a ConfigDict keeps the type that a leaf starts with.
    if isinstance(tree, Mapping):
        return {name: _tuples(value) for name, value in tree.items()}
    return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree
