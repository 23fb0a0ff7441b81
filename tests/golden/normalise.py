"""What is left out of answers or replaced: everything that differs between two runs of one commit, and nothing else.

- Where the project and the working folder lie, which the defaults of flags and the cards of data sets tell.
- The name that a command is run by, and the file that it lies in: a renamed command is to say the same.
- `build_id` of a data set's card, drawn at random, and so the card's own digest in the table of digests.
- Dates of the members of zip archives (`.npz`): their arrays are compared one by one.
- Durations and speeds: `seconds`, `ECGs/s`, the metrics `perf/…` and `mem/…`.
- `environment`, which lists versions and devices: `machine` of the answers has these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden.commands import RENAMED, ROOT

#: Keys of `results.json` that are not compared.
MEASURED = ("ECGs/s", "environment", "seconds")

#: Beginnings of the names of metrics that are compared.
COMPARED = ("eval/", "train/")

_CARD, _DIGESTS = "ecgjax_dataset.json", "SHA256SUMS"
_FILE_OF_COMMAND = re.compile(r"^ROOT/\S+\.py:$", flags=re.MULTILINE)


def exact(number: float) -> str:
    """Returns a float in hexadecimal, without the zeros at its end."""
    mantissa, _, exponent = float(number).hex().partition("p")
    mantissa = re.sub(r"\.?0+$", "", mantissa) if "." in mantissa else mantissa
    return f"{mantissa}p{exponent}" if exponent else mantissa


def plain(value: Any) -> Any:
    """Returns the content of a JSON file with its floats in hexadecimal and without what is measured anew."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if name not in MEASURED}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return exact(value) if isinstance(value, float) else value


def words(text: str) -> str:
    """Returns what a command prints without the place of the project and with the old names of commands."""
    text = _FILE_OF_COMMAND.sub("COMMAND:", text.replace(str(ROOT), "ROOT"))
    for old, new in RENAMED.items():
        text = text.replace(new, old)
    return text


def metrics(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    """Returns the metrics of a run's `metrics.jsonl`: name → step → value."""
    table: dict[str, dict[str, str]] = {}
    for line in map(json.loads, lines):
        for name, value in line.items():
            if name.startswith(COMPARED):
                table.setdefault(name, {})[str(line["step"])] = "null" if value is None else exact(value)
    return table


def contents(path: Path, *, folder: Path) -> dict[str, bytes]:
    """Returns what of a file is compared: all of it, or its parts by name where some of it is left out.

    Args:
        path: Path of the file.
        folder: Working folder, whose place cards tell.
    """
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {f"[{name}]": f"{arrays[name].dtype.str}{arrays[name].shape}".encode() + arrays[name].tobytes()
                    for name in sorted(arrays)}  # fmt: skip
    if path.name == _CARD:
        card = json.loads(path.read_text(encoding="utf-8").replace(str(folder), "FOLDER"))
        return {" without build_id": json.dumps({**card, "build_id": None}, ensure_ascii=False).encode()}
    if path.name == _DIGESTS:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return {" without the card": "".join(line for line in lines if not line.endswith(f"  {_CARD}\n")).encode()}
    return {"": path.read_bytes()}
