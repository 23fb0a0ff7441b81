"""Arrays of independent jobs, a command each, in the form that a cluster takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from absl import flags

from ecgjax.errors import ConfigError

from . import jobset_manifest, slurm_script


class Array(NamedTuple):
    """An array that is ready for a cluster.

    Attributes:
        text: Script or manifest.
        to: Command that takes it at its standard input.
        logs: Folder that must exist before it is submitted; empty for none.
    """

    text: str
    to: Sequence[str]
    logs: str = ""


def _of_slurm(values: flags.FlagValues, commands: Sequence[Sequence[str]], made_by: str, at_once: int) -> Array:
    for flag in ("nodes", "processes_per_node"):
        if values[flag].present and values[flag].value != 1:
            raise ConfigError(f"--{flag}={values[flag].value}: a job of an array is one process; leave it out")
    # One process takes all GPUs that it is given.
    values["processes_per_node"].value = 1
    job = slurm_script.job_of(values)
    text = slurm_script.array_script(job, commands, made_by=made_by, at_once=at_once)
    return Array(text, ["sbatch"], job.logs)


def _of_jobset(values: flags.FlagValues, commands: Sequence[Sequence[str]], made_by: str, at_once: int) -> Array:
    job = jobset_manifest.jobset_of(values)
    text = jobset_manifest.array_manifest(job, commands, made_by=made_by, at_once=at_once)
    for caution in jobset_manifest.check_folders(job, commands[0], written="out"):
        print(f"warning: {caution}", file=sys.stderr)
    return Array(text, ["kubectl", "create", "-f", "-"])


#: Clusters by name: what defines the flags of a job, and what makes an array of it.
_CLUSTERS: Mapping[str, tuple[Callable[[flags.FlagValues], None], Callable[..., Array]]] = {
    "slurm": (slurm_script.define_flags, _of_slurm),
    "jobset": (jobset_manifest.define_flags, _of_jobset),
}

CLUSTERS = tuple(_CLUSTERS)


def array(
    cluster: str, arguments: Sequence[str], commands: Sequence[Sequence[str]], *, made_by: str, at_once: int
) -> Array:
    """Returns an array of jobs.

    Args:
        cluster: Kind of cluster, of `CLUSTERS`.
        arguments: Flags of `launch.slurm` or `launch.jobset`, which say what each job asks for.
        commands: Programs with their arguments, at least one, which write to the folder that `--out` names.
        made_by: Command that makes the array, for its head.
        at_once: Greatest number of jobs that run at once; 0 for no limit.

    Raises:
        ConfigError: A flag is unknown, or a value is not possible.
    """
    define, make = _CLUSTERS[cluster]
    values = flags.FlagValues()
    define(values)
    try:
        rest = values([f"launch.{cluster}", *arguments])[1:]
    except flags.Error as error:
        raise ConfigError(f"{error} (python -m launch.{cluster} --help tells more)") from error
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r}; after -- come flags of launch.{cluster}")
    return make(values, commands, made_by, at_once)
