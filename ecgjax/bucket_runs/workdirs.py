"""The workdir of a run in a bucket: fetched when the run begins, and uploaded while it trains and when it ends.

Checkpoints go to a local folder, and from there to the bucket, rather than to the bucket at once: a store that hangs or
refuses must not hold the training, and the last snapshot stays whole whatever happens to the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import jax

from data_pipelines.buckets.addresses import below, checked, is_remote
from data_pipelines.buckets.cache import CACHE_VARIABLE, cache_folder
from data_pipelines.buckets.copy_locks import after_others
from data_pipelines.buckets.mirror import Mirror
from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.command import progress_bar
from data_pipelines.errors import DataError
from data_pipelines.system import stop_signals
from ecgjax.bucket_runs.background_uploads import BackgroundUploads
from ecgjax.config.run_config import checkpoint_dir
from ecgjax.processes.barriers import wait_for_all
from ecgjax.system.terminal import say, warn

#: Folders in that of local copies: of workdirs, and of their files but the checkpoints.
_PLACE, _LOGS = "runs", "logs"

#: Seconds that a store may take for one answer, and that an upload may stand still.
TIMEOUT_S = 60.0

#: Seconds that the other processes wait while the first one fetches a workdir, whose checkpoints may be large.
_FETCH_S = 6 * 3600.0


def local_folder(workdir: str, *, flag: str = "workdir") -> str:
    """Returns the folder that a run writes to: the workdir itself, or the place of the local copy of one in a bucket.

    Args:
        workdir: Folder, or address of one in a bucket.
        flag: Flag that gave it, for messages.

    Raises:
        DataError: The address is none, or its driver is not installed.
    """
    if not is_remote(workdir):
        return workdir
    return str(below(cache_folder() / _PLACE, checked(workdir, flag=flag)))


@contextlib.contextmanager
def kept(workdir: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[str]:
    """Yields the folder that a run writes to, and keeps it in the bucket if the workdir is an address.

    The first process fetches the newest snapshot before, uploads a new one after every checkpoint, and a last one at
    the end. All processes have to share the folder, since all write their parts of the checkpoints there.

    Args:
        workdir: Folder, or address of one in a bucket.
        timeout_s: Seconds that one answer of the store may take, and that an upload may stand still.

    Raises:
        DataError: The store does not answer or refuses at the start, or at the end of a run that has finished.
    """
    folder = local_folder(workdir)
    if folder == workdir:
        yield folder
    elif jax.process_index():
        _begin_together()
        yield folder
    else:
        with _uploading(checked(workdir, flag="workdir"), Path(folder), timeout_s):
            yield folder


def fetched(workdir: str, *, flag: str = "workdir", timeout_s: float = TIMEOUT_S) -> str:
    """Returns the folder of a run to read from: the workdir, or the local copy of the newest snapshot in a bucket.

    Args:
        workdir: Folder, or address of one in a bucket.
        flag: Flag that gave it, for messages.
        timeout_s: Seconds that one answer of the store may take.

    Raises:
        DataError: The store does not answer or refuses, holds no run there, or no snapshot is whole.
    """
    folder = local_folder(workdir, flag=flag)
    if folder != workdir:
        address = checked(workdir, flag=flag)
        mirror = _mirror(address, Path(folder), timeout_s)
        with mirror.locked(flag=flag):
            _fetch(mirror, address)
        _check_run(folder, workdir, flag)
    return folder


def fetched_logs(workdir: str, *, flag: str = "workdir", timeout_s: float = TIMEOUT_S) -> str:
    """Returns the folder of a run to read its logs from; of a workdir in a bucket it lacks the checkpoints.

    The run may be at work, on this machine too: what it has uploaded last is read.

    Args:
        workdir: Folder, or address of one in a bucket.
        flag: Flag that gave it, for messages.
        timeout_s: Seconds that one answer of the store may take.

    Raises:
        DataError: The store does not answer or refuses, holds no run there, or no snapshot is whole.
    """
    if not is_remote(workdir):
        return workdir
    address = checked(workdir, flag=flag)
    folder = below(cache_folder() / _LOGS, address)
    with after_others(folder):
        _fetch(_mirror(address, folder, timeout_s), address, wanted=lambda path: _checkpoint_of(path) is None)
    _check_run(folder, workdir, flag)
    return str(folder)


@contextlib.contextmanager
def _uploading(address: str, folder: Path, timeout_s: float) -> Iterator[None]:
    mirror = _mirror(address, folder, timeout_s)
    with mirror.locked(flag="workdir"):
        say(f"{address}: kept in {folder}, and uploaded after every checkpoint ({CACHE_VARIABLE} names another place)")
        _fetch(mirror, address)
        _begin_together()
        uploads = BackgroundUploads(mirror, checkpoint_dir(folder), address=address)
        try:
            yield
        except Exception:
            # The error counts; what there is of logs and checkpoints is uploaded if that can be done.
            with contextlib.suppress(DataError, OSError):
                uploads.finish()
            raise
        _finish(uploads, address, folder)


def _check_run(folder: str | Path, workdir: str, flag: str) -> None:
    if not any(Path(folder).iterdir()):
        raise DataError(f"--{flag}={workdir}: there is no run; give the address that its --workdir was")


def _finish(uploads: BackgroundUploads, address: str, folder: Path) -> None:
    try:
        uploads.finish()
    except (DataError, OSError) as error:
        words = f"{error}. The run's files are in {folder}: the same command uploads them from this machine"
        # A run that was stopped has its own status, by which it is begun again.
        if stop_signals.heard() is None:
            raise DataError(words) from error
        warn(f"not uploaded: {words}")
    else:
        say(f"uploaded to {address}")


def _begin_together() -> None:
    wait_for_all("the workdir of the bucket", limit_s=_FETCH_S)


def _mirror(address: str, folder: Path, timeout_s: float) -> Mirror:
    remote = RemoteFolder(address, timeout_s=timeout_s, more_time="try again later")
    return Mirror(remote, folder, sealed=_checkpoint_of, tell=warn)


def _fetch(mirror: Mirror, address: str, *, wanted: Callable[[PurePosixPath], bool] = lambda path: True) -> None:
    with progress_bar(f"fetching {address}", 0, unit="B") as came:
        mirror.fetch(progress=came, wanted=wanted)


def _checkpoint_of(path: PurePosixPath) -> PurePosixPath | None:
    """Returns the checkpoint that a file of a workdir is in; checkpoints appear whole and never change."""
    inside = path.parts[0] == checkpoint_dir("").name and len(path.parts) > 2 and path.parts[1].isdecimal()
    return PurePosixPath(*path.parts[:2]) if inside else None
