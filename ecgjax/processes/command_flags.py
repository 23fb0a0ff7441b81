"""The flags of a command that may run as several processes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from absl import flags
from ml_collections.config_flags import config_flags

from ecgjax.processes.barriers import telling_failures
from ecgjax.processes.detection import Given
from ecgjax.processes.place import MOST_PROCESSES
from ecgjax.processes.start import LIMIT_S, begin
from ecgjax.settings.leaf import Value

_LONGEST_S = 86_400.0


def define_flags() -> None:
    """Defines `--coordinator`, `--num_processes`, `--process_id` and `--start_timeout_s`, and lists them in help."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "Address of process 0, HOST:PORT, of a run of several processes; by default that of $ECGJAX_COORDINATOR or of "
        "the cluster that has started them (Slurm, MPI, a JobSet, a TPU pod).",
    )
    flags.DEFINE_integer(
        "num_processes",
        None,
        "Number of processes of the run; by default $ECGJAX_NUM_PROCESSES or that of the cluster.",
        lower_bound=1,
        upper_bound=MOST_PROCESSES,
    )
    flags.DEFINE_integer(
        "process_id",
        None,
        "Number of this process, from 0; by default $ECGJAX_PROCESS_ID or that of the cluster.",
        lower_bound=0,
        upper_bound=MOST_PROCESSES - 1,
    )
    flags.DEFINE_float(
        "start_timeout_s",
        LIMIT_S,
        "Seconds within which all processes must have come, and again each later step of their start.",
        lower_bound=1.0,
        upper_bound=_LONGEST_S,
    )
    for name in ("coordinator", "num_processes", "process_id", "start_timeout_s"):
        # `--help` lists the flags of the command's own module, and this one defines them for it.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def given_place() -> Given:
    """Returns what the flags say of the place of this process."""
    return Given(flags.FLAGS.coordinator, flags.FLAGS.num_processes, flags.FLAGS.process_id)


@contextlib.contextmanager
def started(leaves: Mapping[str, Value], *, workdir: str | Path) -> Iterator[None]:
    """Begins a run as the flags say, and passes an error inside the block on to the other processes.

    Args:
        leaves: Every leaf of the resolved config by its path, and flags that decide the numbers.
        workdir: Folder that all processes write to.

    Raises:
        ConfigError: `begin` refuses the start.
    """
    with telling_failures():
        begin(
            leaves=leaves,
            config_file=config_flags.get_config_filename(flags.FLAGS["config"]),
            workdir=workdir,
            given=given_place(),
            limit_s=flags.FLAGS.start_timeout_s,
        )
        yield
