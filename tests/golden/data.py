"""Data sets that are built, with their packed copy, physiology and links: digests of all that is written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.golden.commands import beside_each_other, run
from tests.golden.normalise import contents, plain, words
from tests.golden.recordings import RATE_HZ, write_recordings

#: Simulated data set → patients, seed.
SIMULATED = {"kept": (24, 0), "other": (32, 1), "cohort": (60, 2)}
CODED = "coded"
#: Stored of every recording, which keeps the artefacts small.
_SECONDS = 5
LINKS = "links.npz"


def make_data(folder: Path) -> dict[str, Any]:
    """Makes the data sets in `folder/data` and the links between two of them, and returns what was made.

    `kept` has a packed copy and physiology; `coded` is read from files and has several classes a record.
    """
    write_recordings(folder / "source")
    jobs = {name: lambda name=name: _build(folder, name) for name in (*SIMULATED, CODED)}
    prints = {f"build {name}": lines for name, lines in beside_each_other(jobs)}
    for name, *arguments in (
        ("measure", "--dataset=data/kept", "--num_workers=1"),
        ("stage", "--dataset=data/kept"),
        ("link", "--dataset=data/kept", "--dataset=data/other", f"--out={LINKS}"),
    ):
        prints[name] = _lines(folder, f"data_pipelines.{name}", *arguments)
    return {"prints": prints, "files": digests(folder), **look(folder)}


def look(folder: Path) -> dict[str, Any]:
    """Returns what the commands say that look at a data set."""
    card = run("data_pipelines.inspect", "--dataset=data/kept", "--json", folder=folder)
    return {
        "inspect": plain(json.loads(card)),
        "verify": _lines(folder, "data_pipelines.verify", "--dataset=data/kept"),
    }


def digests(folder: Path) -> dict[str, str]:
    """Returns the digest of every file of the data sets and of every array of the links."""
    files = sorted(path for path in (folder / "data").rglob("*") if path.is_file())
    return {
        f"{path.relative_to(folder).as_posix()}{part}": hashlib.sha256(content).hexdigest()
        for path in (*files, *sorted(folder.glob("links.*")))
        for part, content in contents(path, folder=folder).items()
    }


def _build(folder: Path, name: str) -> list[str]:
    arguments = (f"--out=data/{name}", f"--target_rate_hz={RATE_HZ}", f"--seconds={_SECONDS}", "--num_workers=1")
    if name == CODED:
        chosen = ("--builder=physionet2021", "--source=source")
    else:
        patients, seed = SIMULATED[name]
        chosen = ("--builder=simulated", f"--num_patients={patients}", f"--seed={seed}")
    measured = () if name == "kept" else ("--physiology",)  # It is measured afterwards, by the command of its own.
    return _lines(folder, "data_pipelines.build", *chosen, *arguments, *measured)


def _lines(folder: Path, name: str, *arguments: str) -> list[str]:
    return words(run(name, *arguments, folder=folder).replace(str(folder), "FOLDER")).splitlines()
