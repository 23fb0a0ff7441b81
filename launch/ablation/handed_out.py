"""Runs of an ablation that are made elsewhere: a file of commands, or an array of jobs of a cluster."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from data_pipelines.command import output_file
from ecgjax.system.files import write_atomically

from ..clusters import arrays, delivery
from .planned_runs import Planned
from .request import Asked


def hand_out(asked: Asked, runs: Sequence[Planned], *, of: int) -> int | None:
    """Hands out runs as commands in a file, or as an array in the form of a cluster; returns the exit status.

    Args:
        asked: What is asked of the ablation.
        runs: Runs that are to be made elsewhere.
        of: Number of all runs.
    """
    commands = [[*shlex.split(asked.command), "--noreport", f"--only={run.name}"] for run in runs]
    told = f"{len(commands)} of {of} runs are to be made"
    if asked.array is None:
        path = output_file("jobs", str(asked.jobs))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(f"{shlex.join(words)}\n" for words in commands))
        print(f"{told}: {asked.jobs}")
        return None
    if not commands:
        print(told, file=sys.stderr)
        return None
    own = [
        f"--array={asked.array}",
        *([f"--at_once={asked.at_once}"] if asked.at_once else []),
        *([f"--jobs={asked.jobs}"] if asked.jobs else []),
        *(f"--{name}" for name in ("collect", "submit") if getattr(asked, name)),
    ]
    array = arrays.array(
        asked.array,
        asked.of_jobs,
        commands,
        made_by=f"{asked.command} {shlex.join(own)} -- {shlex.join(asked.of_jobs)}".removesuffix(" -- "),
        at_once=asked.at_once,
    )
    # The array itself may go to the standard output.
    written = f": {asked.jobs}, which {array.to[0]} takes" if asked.jobs and not asked.submit else ""
    print(f"{told}{written}", file=sys.stderr)
    wanted = delivery.Delivery(submit=asked.submit, out=asked.jobs)
    return delivery.deliver(wanted, array.text, to=array.to, logs=array.logs) or None
