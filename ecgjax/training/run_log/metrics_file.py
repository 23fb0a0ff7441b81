"""`metrics.jsonl`: reading it whatever has happened to it, and preparing it for a run that resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from data_pipelines.system.visible_text import visible
from ecgjax.system.files import free_name, write_atomically
from ecgjax.system.machine_faults import cause_of
from ecgjax.system.terminal import warn

METRICS_FILE = "metrics.jsonl"

#: A line of the file: `step` and metrics by name.
Line = dict[str, Any]


def read_metrics(workdir: str | Path) -> list[Line]:
    """Returns the lines of `metrics.jsonl`, by ascending step, and none where it does not exist or cannot be read.

    Half a line that a killed process left at the end is left out. So are damaged lines, which a warning counts. Where a
    step has a metric twice, as after a resumption whose disk was full, the later line counts.

    Args:
        workdir: Folder of the run.
    """
    path = Path(workdir) / METRICS_FILE
    try:
        lines, damaged, _ = _parsed(path)
    except OSError as error:
        warn(f"{visible(str(path))} cannot be read ({cause_of(error)}); it is passed over")
        return []
    if damaged:
        warn(f"{visible(str(path))} has {damaged} damaged line{'s' * (damaged > 1)}, passed over")
    kept: list[Line] = []
    told: set[tuple[int, str]] = set()
    for _, line in reversed(lines):  # What a later line has said already is left out of an earlier one.
        new = {name: value for name, value in line.items() if name == "step" or (line["step"], name) not in told}
        told |= {(line["step"], name) for name in new if name != "step"}
        if len(new) > 1 or len(line) == 1:
            kept.append(new)
    return sorted(reversed(kept), key=lambda line: line["step"])


def drop_after(workdir: str | Path, step: int) -> None:
    """Drops the lines after a step, all of them for step 0, and sets a damaged file aside as `metrics.jsonl.damaged`.

    A disk that does not let this be done is no error: `read_metrics` takes the later of two lines.

    Args:
        workdir: Folder of the run.
        step: Step that the run begins at.
    """
    path = Path(workdir) / METRICS_FILE
    try:
        lines, damaged, data = _parsed(path)
        # What is logged at a step comes before its checkpoint. Step 0 has no checkpoint, and is evaluated again.
        kept = b"".join(text + b"\n" for text, line in lines if step > 0 and line["step"] <= step)
        if damaged and step > 0:
            _set_aside(path, damaged)
        if kept == data:
            return
        if data.startswith(kept):  # The usual case, which needs no space.
            os.truncate(path, len(kept))
        else:
            write_atomically(path, kept.decode())
    except OSError as error:
        warn(
            f"{visible(str(path))} cannot be brought to step {step} ({cause_of(error)}); training goes on, and of two "
            "lines of a step the later counts"
        )


def _set_aside(path: Path, damaged: int) -> None:
    aside = free_name(path, "damaged")
    aside.write_bytes(path.read_bytes())
    warn(f"{visible(str(path))} has {damaged} damaged line{'s' * (damaged > 1)}; it is kept as {aside.name}")


def _parsed(path: Path) -> tuple[list[tuple[bytes, Line]], int, bytes]:
    """Returns the good lines of a file as bytes and values, the number of damaged ones, and the file's bytes.

    What is no file, such as a pipe, has none.
    """
    if not path.is_file():  # A pipe or device would not end.
        return [], 0, b""
    data = path.read_bytes()
    # A run that was killed may have left half a line at the end.
    texts = [text for text in data[: data.rfind(b"\n") + 1].split(b"\n") if text.strip()]
    lines = [(text, line) for text in texts if (line := _line(text)) is not None]
    return lines, len(texts) - len(lines), data


def _line(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int or line["step"] < 0:
        return None
    numbers = all(value is None or type(value) in (int, float) for value in line.values())
    return line if numbers else None
