"""What is asked of an ablation: the flags of its command, and the settings that all arms share."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from ecgjax.errors import ConfigError
from ecgjax.pages.texts import ANONYMOUS_WORDS
from ecgjax.studies.model_names import BASELINES

from ..clusters import arrays

# In a wheel the package has another name.
_LAUNCH = (__package__ or "").rpartition(".")[0]


class Asked(NamedTuple):
    """The values of the flags (`define_flags`), and what else the command line says.

    That is `of_jobs`, the flags of the jobs of an array, which follow `--`; `common`, the changes of leaves in all
    arms; and the `command` without what chooses a part of the work.
    """

    config: Sequence[str]
    sweep: Sequence[str]
    task: Sequence[str]
    baselines: Sequence[str]
    seeds: int
    label_fraction: Sequence[float]
    draws: int
    resamples: int
    out: str
    only: Sequence[str]
    jobs: str | None
    array: str | None
    at_once: int
    submit: bool
    collect: bool
    report: bool
    anonymous: bool
    of_jobs: Sequence[str]
    common: Sequence[tuple[str, str]]
    command: str


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the command's flags."""
    many = functools.partial(flags.DEFINE_multi_string, flag_values=values)
    many("config", [], "Config file, e.g. configs/simclr.py:small. Repeat for several.")
    many("sweep", [], "LEAF=VALUE|VALUE: alternatives, see above. Repeat for a grid.")
    many("task", [], "What the probes are asked, e.g. 'lvef<40'. Repeat for several.")
    many("only", [], "ARM/seedN as --jobs writes it: makes this run alone.")
    words = f"Models beside the arms: {', '.join(BASELINES)}; none for the random encoders alone."
    flags.DEFINE_list("baselines", list(BASELINES), words, flag_values=values)
    flags.DEFINE_integer("seeds", 3, "Runs of every arm.", lower_bound=1, upper_bound=1000, flag_values=values)
    words = "Share of the labelled training patients for the probes. Repeat for several."
    flags.DEFINE_multi_float("label_fraction", [0.1], words, lower_bound=0, upper_bound=1, flag_values=values)
    words = "Draws of labelled patients for every run, task and share, over which results are averaged."
    flags.DEFINE_integer("draws", 1, words, lower_bound=1, upper_bound=1000, flag_values=values)
    words = "Of the test patients, for the intervals."
    flags.DEFINE_integer("resamples", 2000, words, lower_bound=100, upper_bound=1_000_000, flag_values=values)
    flags.DEFINE_string("out", None, "Folder of the ablation.", flag_values=values)
    words = "Writes the commands of what is missing into this file, and runs nothing."
    flags.DEFINE_string("jobs", None, words, flag_values=values)
    words = "Prints, or writes into the file of --jobs, an array with a job for every missing run; nothing is run here."
    flags.DEFINE_enum("array", None, arrays.CLUSTERS, words, flag_values=values)
    words = "Jobs of an array that run at once; 0 for no limit."
    flags.DEFINE_integer("at_once", 0, words, lower_bound=0, upper_bound=100_000, flag_values=values)
    flags.DEFINE_bool("submit", False, "Gives the array to sbatch or kubectl.", flag_values=values)
    words = "Tells what is done, failed, stopped or missing, and makes the report of what is done; nothing is run here."
    flags.DEFINE_bool("collect", False, words, flag_values=values)
    flags.DEFINE_bool("report", True, "Makes the report at the end.", flag_values=values)
    flags.DEFINE_bool("anonymous", False, ANONYMOUS_WORDS, flag_values=values)


def common_changes(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the arguments of this command, and the changes by `--config.LEAF=VALUE` in all arms as (leaf, value).

    Raises:
        ConfigError: A change has no name or no value.
    """
    rest, common = [], []
    for argument in argv:
        name, equals, value = argument.partition("=")
        if not name.lstrip("-").startswith("config."):
            rest.append(argument)
        elif equals and name.lstrip("-") != "config.":
            common.append((name.lstrip("-").removeprefix("config."), value))
        else:
            raise ConfigError(f"{argument} is no setting; write --config.LEAF=VALUE")
    return rest, common


def split_at_dashes(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments before and after `--`."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:place]), list(arguments[place + 1 :])


def asked_by(values: flags.FlagValues, *, arguments: Sequence[str]) -> Asked:
    """Returns the values of parsed flags, completed from the whole command line (`arguments`)."""
    own = {name: getattr(values, name) for name in Asked._fields if name not in ("of_jobs", "common", "command")}
    mine, of_jobs = split_at_dashes(arguments)
    common = common_changes(mine)[1]
    # The command leaves out flags that only choose a part of the work. It is made of the values and not of the
    # arguments, which may be written in several ways.
    repeated = [
        *(f"--{name}={value}" for name in ("config", "sweep", "task") for value in own[name]),
        f"--baselines={','.join(own['baselines']) or 'none'}",
        *(f"--label_fraction={fraction:g}" for fraction in own["label_fraction"]),
        *([f"--draws={own['draws']}"] if own["draws"] > 1 else []),
        *(f"--{name}={own[name]}" for name in ("seeds", "resamples", "out")),
        *(["--anonymous"] if own["anonymous"] else []),
        *(f"--config.{leaf}={value}" for leaf, value in common),
    ]
    return Asked(
        **own, of_jobs=of_jobs, common=common, command=shlex.join(["python", "-m", f"{_LAUNCH}.ablate", *repeated])
    )


def check_arrays(asked: Asked) -> None:
    """Refuses flags of arrays that contradict each other.

    Args:
        asked: What is asked of the ablation.

    Raises:
        ConfigError: Two flags contradict each other, or one lacks another.
    """
    if asked.of_jobs and asked.array is None:
        raise ConfigError(f"{asked.of_jobs[0]} after -- is for the jobs of an array; give --array=slurm or jobset too")
    if asked.submit and asked.array is None:
        raise ConfigError("--submit is for an array; give --array=slurm or jobset too")
    if asked.only and (asked.array or asked.collect):
        raise ConfigError("--only makes one run, --array and --collect are about all; leave one of them out")
    if asked.collect and asked.array and not (asked.jobs or asked.submit):
        raise ConfigError("--collect prints the report; give --jobs=FILE for the array of the rest, or --submit")
