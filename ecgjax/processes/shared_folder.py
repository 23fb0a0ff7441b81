"""The check that all processes of a run have one folder in common, in which each can write.

Checkpoints are written by all processes into one folder. Where their machines have different folders under one path,
a run would go on until its first save and hang there, and nothing would be saved.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.buckets.cache import CACHE_VARIABLE, cache_folder
from data_pipelines.system.visible_text import visible
from ecgjax.errors import ConfigError
from ecgjax.processes.roll_call import Judge, RollCall, Said

#: Seconds after which a file must be seen from another machine. NFS shows a folder as it was for up to 60 s.
SEEN_WITHIN_S = 75.0

#: Folder that is made in the folder to check, and removed again.
_FOLDER = ".start"

_FAILED = "failed"


def check(
    call: RollCall, folder: str | Path, *, process_id: int, num_processes: int, token: str, limit_s: float
) -> None:
    """Writes a file for the other processes to see, and looks for theirs.

    Args:
        call: Roll call whose next rounds are those of `agenda`.
        folder: Folder to check, which process 0 makes where it is missing.
        process_id: Number of this process.
        num_processes: Number of processes.
        token: Text that all processes know and no other run does.
        limit_s: Limit of a round of the roll call, in seconds.

    Raises:
        ConfigError: A process cannot write there or does not see what others have written; all processes raise it.
    """
    seconds = min(SEEN_WITHIN_S, 0.6 * limit_s)
    inside = Path(folder) / _FOLDER
    try:
        call.say({_FAILED: _make(folder, inside, token) if process_id == 0 else None})
        call.say({_FAILED: None if process_id == 0 else _see_and_write(inside, process_id, token, seconds)})
        others = range(1, num_processes)
        call.say({_FAILED: _see_all(inside, others, token, seconds) if process_id == 0 else None})
    finally:
        if process_id == 0 and "://" not in str(folder):
            shutil.rmtree(inside, ignore_errors=True)


def agenda(folder: str | Path, *, flag: str = "--workdir") -> list[Judge]:
    """Returns the judgements of the rounds of `check`.

    Args:
        folder: Folder to check.
        flag: Flag that names it, for messages.
    """

    def judge(said: Sequence[Said]) -> Said:
        failed = [(number, each) for number, each in enumerate(said) if each.get(_FAILED)]
        if not failed:
            return {}
        told = "; ".join(
            f"process {number} on {visible(str(each['host']))} {visible(str(each[_FAILED]))}"
            for number, each in failed[:4]
        )
        more = f" and {len(failed) - 4} more processes" if len(failed) > 4 else ""
        # The copy of a workdir in a bucket is named by a variable.
        by = f" with {CACHE_VARIABLE}" if cache_folder() in Path(folder).parents else ""
        raise ConfigError(
            f"{flag}={folder} is no folder that all processes share and can write: {told}{more}. Name{by} a folder of "
            "a file system that every machine has mounted"
        )

    return [judge] * 3


def _make(folder: str | Path, inside: Path, token: str) -> str | None:
    """Writes process 0's file; returns what is wrong, or None."""
    if "://" in str(folder):
        return "finds that it is no folder of a machine (mount the bucket, and give its path there)"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        # A start that was killed leaves it.
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir(exist_ok=True)
        _write(inside, 0, token)
    except OSError as error:
        return f"cannot write there ({error.strerror})"
    return None


def _write(inside: Path, process_id: int, token: str) -> None:
    with (inside / _name(process_id, token)).open("x") as file:
        # On a network file system a write may fail only when it is sent.
        file.flush()
        os.fsync(file.fileno())


def _name(process_id: int, token: str) -> str:
    return f"{token}-{process_id}"


def _see_and_write(inside: Path, process_id: int, token: str, seconds: float) -> str | None:
    if _missing(inside, {0}, token, seconds):
        return f"does not see in {seconds:g} s in {inside.parent} what process 0 has written there"
    try:
        _write(inside, process_id, token)
    except OSError as error:
        return f"cannot write there ({error.strerror})"
    return None


def _see_all(inside: Path, others: Sequence[int], token: str, seconds: float) -> str | None:
    if left := _missing(inside, set(others), token, seconds):
        return f"does not see in {seconds:g} s in {inside.parent} what process {min(left)} has written there"
    return None


def _missing(inside: Path, numbers: set[int], token: str, seconds: float) -> set[int]:
    """Waits for the files of some processes, and returns the numbers of those that do not appear."""
    until, pause = time.monotonic() + seconds, 0.02
    while True:
        found: set[str] = set()
        # A network file system remembers that a file was not there, but looks again at a folder that is opened.
        with contextlib.suppress(OSError):
            os.listdir(inside.parent)
            found = set(os.listdir(inside))
        left = {number for number in numbers if _name(number, token) not in found}
        if not left or time.monotonic() > until:
            return left
        time.sleep(pause)
        pause = min(1.5 * pause, 1.0)
