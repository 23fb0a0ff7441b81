"""The code at hand opens what an earlier commit left, and goes on with it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from tests.golden import answers, artefacts, results_map
from tests.golden.commands import GoldenError, beside_each_other, run
from tests.golden.data import look
from tests.golden.machine import machine, same_numbers
from tests.golden.runs import KEPT, resume
from tests.golden.studies import FEATURES, evaluate, label_efficiency

#: Study that each of these makes.
_STUDIES = {"kept features": "label_efficiency", "checkpoint": "binary"}


def open_old(old: Path, *, only: Collection[str] = ()) -> list[str]:
    """Opens a data set, links, a checkpoint, a half-finished run and kept features, and compares what is answered.

    Args:
        old: Folder that `make` has written.
        only: Names of what to open, see `_jobs`; all by default.

    Returns:
        A line for every difference. On another machine numbers are not compared: all must be opened without an error.

    Raises:
        GoldenError: A command fails, the run begins anew, or kept features are made again.
    """
    before = answers.read(old)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artefacts.unpack(old / artefacts.FILE, folder)
        comparable = same_numbers(before[answers.MACHINE], machine())
        jobs = {name: job for name, job in _jobs(folder, same_machine=comparable).items() if not only or name in only}
        found = dict(beside_each_other(jobs))
    if not comparable:
        return []
    lines = [
        line
        for name, study in _STUDIES.items()
        if name in found
        for line in results_map.differences(study, before["results"][study], found.pop(name))
    ]
    return lines + answers.differences(_expected(before, found), found)


def _jobs(folder: Path, *, same_machine: bool) -> dict[str, Callable[[], Any]]:
    return {
        "data set": partial(_data_set, folder),
        "half-finished run": partial(resume, folder),
        "kept features": partial(_with_kept_features, folder, same_machine=same_machine),
        "checkpoint": partial(evaluate, folder, "binary"),
    }


def _expected(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    data = before["data"]
    expected = {
        "data set": {name: data[name] for name in ("inspect", "verify")},
        "half-finished run": before["steps"][KEPT],
    }
    return {name: expected[name] for name in found}


def _data_set(folder: Path) -> Any:
    """Looks at the data set, and makes another packed copy of its shards: each record is compared with the index."""
    run("data_pipelines.stage", "--dataset=data/kept", "--out=data/again", folder=folder)
    return look(folder)


def _with_kept_features(folder: Path, *, same_machine: bool) -> Any:
    """Makes the label-efficiency study again, from the features that it kept."""
    before = _stamps(folder)
    results = label_efficiency(folder)
    after = _stamps(folder)
    # A random encoder is initialised anew, and its features are found by its weights.
    anew = [name for name in after if after[name] != before.get(name) and (same_machine or "random" not in name)]
    if anew or not before:
        raise GoldenError(f"kept features were not found and made anew: {', '.join(anew) or 'there are none'}")
    return results


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (folder / FEATURES).iterdir()}
