"""A visit to a lent accelerator: parts one after the other, of which a hang or a crash costs its own limit alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgjax.benchmarks.device.part_report import read_report, write_report
from ecgjax.benchmarks.device.parts import PARTS, Part
from ecgjax.errors import check_each_once

# The memory's settings must be made before any import that starts threads.
_PROGRAM = """
from ecgjax.system.host_memory import keep_freed_memory
keep_freed_memory()
import json, sys
from pathlib import Path
from ecgjax.benchmarks.device.part_process import measure_part
from ecgjax.benchmarks.device.parts import Part
name, part, out, rehearse = json.loads(sys.argv[1])
measure_part(name, Part(**part), Path(out), rehearse=rehearse)
"""

#: Lines of a part's output that its report repeats where it failed.
_LAST_LINES = 15


def chosen_parts(names: Sequence[str]) -> dict[str, Part]:
    """Returns the parts that `--parts` names, each once; all of them without names.

    Raises:
        ConfigError: There is no such part, or one is named twice.
    """
    check_each_once(names, PARTS, setting="--parts")
    return {name: PARTS[name] for name in names or PARTS}


def measure(parts: Mapping[str, Part], out: Path, *, rehearse: bool) -> dict[str, Any]:
    """Runs parts in processes of their own, each until its time limit, and writes their summary.

    Args:
        parts: Parts by name, in their order.
        out: Folder of the reports, `NAME.json`, and of what the parts print, `NAME.log`.
        rehearse: Whether parts run in a small form on a CPU; their reports say so.

    Returns:
        Values for JSON, which are in `out/summary.json` too: state, seconds and measurements of each part.
    """
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {"rehearsal": rehearse, "parts": {}}
    for name, part in parts.items():
        report = _run(name, part, out, rehearse=rehearse)
        summary["parts"][name] = {key: report[key] for key in _SUMMARISED if key in report}
        write_report(out / "summary.json", summary)
        print(f"{name}: {report['state']} after {report['seconds']} s", file=sys.stderr, flush=True)
    return summary


_SUMMARISED = ("state", "reason", "seconds", "measurements")


def _run(name: str, part: Part, out: Path, *, rehearse: bool) -> dict[str, Any]:
    """Runs a part to its end or its limit, and returns its report."""
    path, log = out / f"{name}.json", out / f"{name}.log"
    path.unlink(missing_ok=True)
    limit_s = part.limit(rehearse=rehearse)
    asked = json.dumps([name, dataclasses.asdict(part), str(out), rehearse])
    begun = time.monotonic()
    with log.open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, asked],
            env=_environment(out, rehearse=rehearse),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # All that it starts is killed with it.
        )
        try:
            status: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _kill(process)
    report = read_report(path)
    if status != 0 or report.get("state") == "running":
        report |= {"part": name, "state": "out of time" if status is None else "failed"}
        report |= {"reason": _reason(status, limit_s, log), "seconds": round(time.monotonic() - begun, 1)}
        write_report(path, report)
    return report


def _environment(out: Path, *, rehearse: bool) -> Mapping[str, str]:
    """Returns the environment of a part: parts share compiled programs, and a rehearsal stays on the CPU."""
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str((out / "compile_cache").absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        **({"JAX_PLATFORMS": "cpu"} if rehearse else {}),
    }


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all that it has started, also where it has ended before them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(status: int | None, limit_s: float, log: Path) -> str:
    if status is None:
        return f"killed at its limit of {limit_s:.0f} s; what it measured before stays"
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    return f"its process ended with status {status}; its last lines: " + "\n".join(last)
