"""How far the runs of an ablation are, by the files that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.system.counted import counted

from . import arm_status
from .arm_status import State, Told
from .planned_runs import Planned, is_done, status_path


def lacking(runs: Sequence[Planned], out: Path) -> list[Planned]:
    """Returns the runs that have no result and are not at work.

    Args:
        runs: Runs of the ablation.
        out: Folder of the ablation.
    """
    unfinished = [run for run in runs if not is_done(out, run)]
    return [run for run in unfinished if arm_status.read(status_path(out, run)).state is not State.RUNNING]


def collect(runs: Sequence[Planned], out: Path) -> dict[str, str]:
    """Prints how far every run is, and returns the reasons of those that failed, by their names.

    Args:
        runs: Runs of the ablation.
        out: Folder of the ablation.
    """
    found = {}
    for run in runs:
        done = is_done(out, run)
        found[run.name] = Told(State.DONE) if done else arm_status.read(status_path(out, run))
    counts = {state: sum(told.state is state for told in found.values()) for state in State}
    print(f"{counted(len(runs), 'run')}: {', '.join(f'{count} {state}' for state, count in counts.items() if count)}")
    for name, told in found.items():
        if told.state is not State.DONE:
            more = "; ".join(filter(None, (told.reason, told.where)))
            print(f"  {told.state:8} {name}{f' ({more})' if more else ''}")
    return {name: told.reason for name, told in found.items() if told.state is State.FAILED}
