"""The flags by which a command makes a dry run in place of a run."""

from __future__ import annotations

import datetime
import sys

import jax
from absl import flags

from data_pipelines.records import SignalFormat
from ecgjax.ahead.dry_run import DryRunRequest, dry_run
from ecgjax.ahead.report import lines_of, markdown_row
from ecgjax.ahead.topologies import MOST_SLICES, known, read_topology
from ecgjax.errors import ConfigError
from ecgjax.system.terminal import say
from ecgjax.training.settings import PretrainingSettings

#: Flags of a dry run alone.
_OWN = ("topology", "slices", "rate_hz", "seconds", "markdown")

#: Flags of a run that a dry run has no use for.
_OF_RUNS = ("extend", "coordinator", "num_processes", "process_id")


def define_flags() -> None:
    """Defines `--dry_run` and the flags that belong to it, and lists them in help."""
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Compile the step for the accelerators that --topology names, which need not be here, and tell its memory, "
        "FLOP and collective operations. Nothing is run or written, and no data are needed: without --config.data.dir "
        "shapes are those of --rate_hz and --seconds.",
    )
    flags.DEFINE_string(
        "topology",
        None,
        f"[--dry_run] Accelerators: {known()}. TPUs need pip install 'ecgjax[tpu-aot]'; cpu:N are simulated devices.",
    )
    flags.DEFINE_integer(
        "slices",
        None,
        "[--dry_run] Number of such slices, which the network of a data centre joins; 1 by default.",
        lower_bound=1,
        upper_bound=MOST_SLICES,
    )
    flags.DEFINE_integer(
        "rate_hz",
        None,
        "[--dry_run] Rate of the recordings where no data are named; 250 by default.",
        lower_bound=50,
        upper_bound=2000,
    )
    flags.DEFINE_float("seconds", None, "[--dry_run] Their length; 10 by default.", lower_bound=2.0, upper_bound=600.0)
    flags.DEFINE_bool("markdown", None, "[--dry_run] Print the row of docs/scaling.md too.")
    for name in ("dry_run", *_OWN):
        # `--help` lists the flags of the command's own module, and this one defines them for it.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def asks_for_dry_run() -> bool:
    """Returns whether the command line asks for a dry run.

    Raises:
        ConfigError: Flags are given that do not belong together.
    """
    given = flags.FLAGS
    if given.dry_run:
        if given.topology is None:
            raise ConfigError(f"--dry_run needs --topology, such as v5e:4x4; there are: {known()}")
        if others := [name for name in _OF_RUNS if given[name].value is not None]:
            raise ConfigError(f"--{others[0]} is for a run, and --dry_run runs nothing; leave one of them out")
        return True
    if others := [name for name in _OWN if given[name].value is not None]:
        raise ConfigError(f"--{others[0]} is for a dry run; give --dry_run too, or leave it out")
    return False


def say_dry_run(settings: PretrainingSettings) -> None:
    """Makes the dry run that the command line asks for, and prints what it says.

    Args:
        settings: Settings of the run.

    Raises:
        ConfigError: `dry_run` refuses the settings, or there is no such topology.
        DataError: `dry_run` refuses the data.
    """
    given = flags.FLAGS
    topology = read_topology(given.topology, slices=given.slices or 1)
    # Whatever accelerators this machine has are left to others.
    jax.config.update("jax_platforms", "cpu")
    rate_hz = given.rate_hz or 250
    simulated = SignalFormat(sampling_rate_hz=rate_hz, num_samples=round(rate_hz * (given.seconds or 10.0)))
    result = dry_run(settings, DryRunRequest(topology=topology, simulated_format=simulated))
    for line in lines_of(result):
        say(line)
    if given.markdown:
        say(markdown_row(result, date=datetime.datetime.now(datetime.UTC).date()))
