"""Folders that a command writes once and leaves finished, in a bucket: written to the disk first, and marked last.

BUCKET/FOLDER/
report.html …                files under their own names
ecgjax_uploading.json        while files are being uploaded
ecgjax_complete.json         sizes and digests of all files, written when all of them are there
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from data_pipelines.buckets import snapshots
from data_pipelines.buckets.addresses import below, checked, is_remote
from data_pipelines.buckets.cache import cache_folder
from data_pipelines.buckets.copy_locks import after_others, lock_beside, locked
from data_pipelines.buckets.remote_folder import TIMEOUT_S, RemoteFolder
from data_pipelines.buckets.snapshots import Content
from data_pipelines.command import progress_bar
from data_pipelines.errors import DataError
from data_pipelines.system.digests import file_digest, files_of

#: Files in the bucket that say whether a folder is whole.
UPLOADING, COMPLETE = "ecgjax_uploading.json", "ecgjax_complete.json"

_WRITTEN, _READ = "outputs", "inputs"

_LATER = "try again later"


@contextlib.contextmanager
def finished_folder(given: str, *, flag: str = "out", timeout_s: float = TIMEOUT_S) -> Iterator[str]:
    """Yields the folder that a command writes to, and uploads it when the block ends, if an address was given.

    Nothing in the bucket is replaced: a folder there must be empty, or left by an upload that was interrupted. Before
    the block runs the store is asked for that, and to take a file.

    Args:
        given: Folder, or address of one in a bucket.
        flag: Flag that gave it, for messages.
        timeout_s: Seconds that one answer of the store may take, and that an upload may stand still.

    Raises:
        DataError: The address is none, the folder there is not empty, or the store does not answer or refuses.
    """
    if not is_remote(given):
        yield given
        return
    address = checked(given, flag=flag)
    folder = below(cache_folder() / _WRITTEN, address)
    busy = f"another command on this machine is writing to {address}; wait for it to end, or use another --{flag}"
    with locked(lock_beside(folder), busy=busy), _uploaded(address, folder, flag=flag, timeout_s=timeout_s):
        yield str(folder)


@contextlib.contextmanager
def _uploaded(address: str, folder: Path, *, flag: str, timeout_s: float) -> Iterator[None]:
    remote = RemoteFolder(address, timeout_s=timeout_s, more_time=_LATER)
    _check_free(remote, address, flag)
    remote.write(UPLOADING, b"{}\n")
    done = folder.with_name(f".{folder.name}.uploaded")
    if done.exists():  # What it holds was asked for before, and was removed from the bucket since.
        shutil.rmtree(folder, ignore_errors=True)
        done.unlink()
    try:
        yield
    except Exception:
        # A command that refuses what it was asked for leaves nothing behind.
        with contextlib.suppress(DataError):
            if remote.names() == {UPLOADING}:
                remote.remove(UPLOADING)
        raise
    try:
        _upload(remote, folder)
    except DataError as error:
        raise DataError(f"{error}. What was written is in {folder}: the same command uploads it") from error
    done.touch()
    print(f"uploaded to {address}; a copy is in {folder}", file=sys.stderr)


def fetched_folder(given: str, *, flag: str, timeout_s: float = TIMEOUT_S) -> str:
    """Returns a folder to read from: the one that was given, or the local copy of a finished one in a bucket.

    Args:
        given: Folder, or address of one in a bucket that `finished_folder` has uploaded.
        flag: Flag that gave it, for messages.
        timeout_s: Seconds that one answer of the store may take.

    Raises:
        DataError: The address is none, the folder there is not finished or is damaged, or the store does not answer or
            refuses.
    """
    if not is_remote(given):
        return given
    found = fetched_if_finished(given, flag=flag, timeout_s=timeout_s)
    if found is None:
        raise DataError(
            f"--{flag}={given}: has no {COMPLETE}, so that it is not there, not finished, or was put there otherwise; "
            "copy the folder here, and give its path"
        )
    return found


def fetched_if_finished(given: str, *, flag: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Returns the local copy of a folder in a bucket; None where `finished_folder` has uploaded none there.

    Processes of one machine make the copy one at a time, so that a later one finds it.

    Args:
        given: Address in a bucket.
        flag: Flag that gave it, for messages.
        timeout_s: Seconds that one answer of the store may take.

    Raises:
        DataError: The address is none, the folder there is damaged, or the store does not answer or refuses.
    """
    address = checked(given, flag=flag)
    remote = RemoteFolder(address, timeout_s=timeout_s, more_time=_LATER)
    if (text := remote.read(COMPLETE)) is None:
        return None
    files = snapshots.from_json(text, source=f"{address}/{COMPLETE}")
    folder = below(cache_folder() / _READ, address)
    with after_others(folder), progress_bar(f"fetching {address}", 0, unit="B") as came:
        for name, content in files.items():
            _bring(remote, name, content, folder / name, came)
        for name in set(files_of(folder)) - set(files):  # An earlier folder at this address had it.
            (folder / name).unlink()
    return str(folder)


def _check_free(remote: RemoteFolder, address: str, flag: str) -> None:
    names = remote.names()
    if names and UPLOADING not in names:
        raise DataError(
            f"--{flag}={address}: holds {min(names)!r} already, and nothing in a bucket is replaced; name another "
            "folder, or remove this one with the store's own tools"
        )


def _upload(remote: RemoteFolder, folder: Path) -> None:
    names = [name for name in files_of(folder) if not any(part.startswith(".") for part in name.split("/"))]
    if not names:
        raise DataError(f"{folder}: there is nothing to upload")
    files = {name: Content((folder / name).stat().st_size, file_digest(folder / name)) for name in names}
    with progress_bar(f"uploading to {remote.url}", sum(each.size for each in files.values()), unit="B") as sent:
        for name in names:
            remote.upload(name, folder / name, progress=sent)
    # What an interrupted upload left and this one has not written is no part of the folder.
    for name in remote.names() - set(names) - {UPLOADING}:
        remote.remove(name)
    remote.write(COMPLETE, snapshots.to_json(files))
    remote.remove(UPLOADING)


def _bring(remote: RemoteFolder, name: str, content: Content, path: Path, came: Callable[[int], None]) -> None:
    if content.is_in(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    remote.download(name, unfinished, progress=came)
    if not content.is_in(unfinished):
        unfinished.unlink()
        raise DataError(f"{remote.url}/{name}: is not what was written (damaged, or being replaced); get it again")
    unfinished.replace(path)
