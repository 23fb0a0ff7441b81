"""What the runs of an ablation leave beside their results: which began, and how each ended.

Runs on other machines are known by their files alone. A run touches its file while it is at work, so that one that was
killed is told from one that is at work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.system.exit_status import RESTARTABLE, ExitStatus
from data_pipelines.system.visible_text import visible
from ecgjax.system.files import write_atomically

#: Seconds between two touches of a file, and after how many without one a run counts as killed.
TOUCH_S, SILENCE_S = 20.0, 180.0

_SIGTERM = 15


class State(enum.StrEnum):
    """How far a run is."""

    DONE = "done"
    #: It touches its file.
    RUNNING = "running"
    #: It left with a status after which the same command goes on, or was ended by a signal of its cluster.
    STOPPED = "stopped"
    #: It has neither ended nor touched its file of late.
    KILLED = "killed"
    FAILED = "failed"
    #: It never began.
    MISSING = "missing"


@dataclasses.dataclass(frozen=True)
class Told:
    """What the file of a run tells.

    Attributes:
        state: How far it is.
        reason: Why it is there, for a run that failed or stopped; empty otherwise.
        where: Host and job of the cluster; empty where the run never began.
    """

    state: State
    reason: str = ""
    where: str = ""


def state_after(status: int) -> State:
    """Returns the state of a run whose training left with a status, negative where a signal ended it."""
    if status == ExitStatus.DONE:
        return State.DONE
    stopped = status in (*RESTARTABLE, ExitStatus.INTERRUPTED, 128 + _SIGTERM) or status < 0
    return State.STOPPED if stopped else State.FAILED


@contextlib.contextmanager
def telling(path: Path) -> Iterator[Callable[[State, str], None]]:
    """Context manager of a run; its value is a function that tells how the run ended, and why.

    An error that leaves the block is told as one, and a block that leaves without a word is told as done.

    Args:
        path: File of the run.
    """
    ended: list[State] = []
    where = _where(os.environ)

    def end(state: State, reason: str = "") -> None:
        ended.append(state)
        _write(path, Told(state, reason, where))

    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, Told(State.RUNNING, "", where))
    over = threading.Event()
    toucher = threading.Thread(target=_touch, args=(path, over), daemon=True)
    toucher.start()
    try:
        yield end
    except (KeyboardInterrupt, SystemExit) as error:
        over.set()
        toucher.join()
        end(State.STOPPED, f"it was interrupted ({type(error).__name__})")
        raise
    except BaseException as error:
        over.set()
        toucher.join()
        end(State.FAILED, f"{type(error).__name__}: {error}")
        raise
    finally:
        over.set()
        toucher.join()
    if not ended:
        end(State.DONE)


def read(path: Path) -> Told:
    """Returns what the file of a run tells.

    Args:
        path: File of the run, which may be missing.

    Raises:
        DataError: The file is damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        told = Told(State(values["state"]), str(values["reason"]), str(values["where"]))
        touched = path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return Told(State.MISSING)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: this file is damaged ({error}); remove it") from error
    if told.state is State.RUNNING and _now(path.parent) - touched > SILENCE_S:
        return dataclasses.replace(told, state=State.KILLED, reason="it ended without a word")
    return told


def _now(folder: Path) -> float:
    """Returns the time by the clock of a folder's file system, which may be another machine's."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        return os.stat(file.name).st_mtime


def _touch(path: Path, over: threading.Event) -> None:
    while not over.wait(TOUCH_S):
        # A file system that is away for a while does not end the run.
        with contextlib.suppress(OSError):
            os.utime(path)


def _write(path: Path, told: Told) -> None:
    write_atomically(path, json.dumps({**dataclasses.asdict(told), "reason": visible(told.reason)}) + "\n")


def _where(environment: Mapping[str, str]) -> str:
    """Returns host and job of this process."""
    parts = {
        "Slurm job": environment.get("SLURM_JOB_ID", ""),
        "array": "_".join(
            filter(None, (environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")))
        ),
        "index": environment.get("JOB_COMPLETION_INDEX", ""),
    }
    return ", ".join((socket.gethostname(), *(f"{name} {value}" for name, value in parts.items() if value)))
