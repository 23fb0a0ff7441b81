"""All answers of the code at hand, and the artefacts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.golden import answers, artefacts
from tests.golden.commands import beside_each_other
from tests.golden.data import make_data
from tests.golden.helps import helps
from tests.golden.leaves import leaves
from tests.golden.machine import machine
from tests.golden.runs import KEPT, half_run, step_jobs, whole_run
from tests.golden.studies import study_jobs


def make(out: Path) -> None:
    """Writes answers and artefacts to a folder; those that are there are replaced.

    Raises:
        GoldenError: A command fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    answers.write(out, words())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answers.write(out, numbers(folder))
        artefacts.pack(folder, out / artefacts.FILE)
    answers.write(out, {answers.MACHINE: machine()})


def words() -> dict[str, Any]:
    """Returns the answers that depend on no machine."""
    return {"helps": _timed("helps", helps), "leaves": _timed("leaves", leaves)}


def numbers(folder: Path) -> dict[str, Any]:
    """Returns the answers that are computed, and leaves the artefacts in a working folder."""
    found = begin(folder)
    found["steps"] |= all_of("steps", step_jobs(folder))
    return found | {"results": all_of("results", study_jobs(folder))}


def begin(folder: Path) -> dict[str, Any]:
    """Makes in an empty working folder what all other answers need: the data sets and the kept run; returns both."""
    artefacts.add_configs(folder)
    data = _timed("data", lambda: make_data(folder))
    kept = all_of("kept run", {KEPT: lambda: whole_run(folder), "half": lambda: half_run(folder)})
    return {"data": data, "steps": {KEPT: kept[KEPT]}}


def all_of(kind: str, jobs: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Returns the results of jobs by name, and says how long they took."""
    return _timed(kind, lambda: dict(beside_each_other(jobs)))


def _timed(kind: str, ask: Callable[[], Any]) -> Any:
    start = time.monotonic()
    found = ask()
    print(f"{kind}: {time.monotonic() - start:.0f} s", flush=True)
    return found
