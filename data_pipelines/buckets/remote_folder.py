"""Reads and writes files of a folder in a bucket, or another remote, with a time limit on every answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from data_pipelines.buckets.faults import in_words, is_of_bucket
from data_pipelines.buckets.timed_task import Task
from data_pipelines.errors import DataError

#: Seconds that a remote may take for one answer: metadata, or one block of a file.
TIMEOUT_S = 60.0

_BLOCK_BYTES = 2**24

#: Seconds between looks at what is being sent.
_LOOK_S = 1.0

# Listings that a driver keeps would show a folder as it was before others wrote to it.
_OPTIONS: Mapping[str, Any] = {"use_listings_cache": False}

# The digest that the store answers with is compared. Drivers of S3 send one along, which the store compares.
_OPTIONS_OF_GS: Mapping[str, Any] = {"consistency": "md5"}

# These warn at every call where an account has no right to ask for the kind of a bucket, which nothing here needs, and
# print a stack of calls for every error that they also raise, which is told in one line here.
_TALKATIVE = ("gcsfs", "google.auth", "s3fs", "fsspec")

Result = TypeVar("Result")


class RemoteFolder:
    """Files of one folder, which may be remote.

    Attributes:
        url: URL or path of the folder.
        local: Path of the folder if it lies in the local file system, whose files need not be downloaded; None
            otherwise.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S, more_time: str = "allow more time with --timeout"):
        """Connects to the file system of the folder.

        Args:
            url: URL or path of the folder, such as `gs://bucket/folder`, `s3://bucket/folder` or `/mnt/bucket/folder`.
            timeout_s: Seconds that one answer may take.
            more_time: Remedy of the command for a remote that is slow.

        Raises:
            DataError: There is no driver for this kind of URL, its package is not installed, or no answer came in time.
        """
        self.url = url.rstrip("/")
        self._timeout_s, self._more_time = timeout_s, more_time
        self.local: Path | None = None
        options = _OPTIONS if "://" in self.url else {}
        if self.url.startswith("gs://"):
            options = {**options, **_OPTIONS_OF_GS}
        for name in _TALKATIVE if "://" in self.url else ():
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self._system, self._root = self._within_time(lambda: fsspec.core.url_to_fs(self.url, **options))
        except ImportError as error:
            raise DataError(f"{url}: this kind of URL needs another package ({error})") from error
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{url}: {error}") from error
        except Exception as error:
            raise self._failed("", error, doing="reached") from error
        protocols = self._system.protocol
        is_local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)
        if is_local:
            self.local = Path(self._root)

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes, or None if there is no such file."""
        info = self._asked(name, lambda: self._system.info(self._path(name)), doing="read")
        if info is not None and info["size"] is None:
            raise DataError(f"{self.url}/{name}: this remote does not tell the sizes of its files")
        return None if info is None else info["size"]

    def download(
        self,
        name: str,
        path: Path,
        *,
        progress: Callable[[int], None] = lambda num_bytes: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Copies a file to the local disk.

        Args:
            name: Name of the file, as a path below the folder.
            path: Path of the copy, which is overwritten.
            progress: Function that is called with the size of every block.
            cancelled: Function that is asked before every block whether to stop; the copy then stays unfinished.

        Raises:
            DataError: There is no such file, it cannot be read, or no answer came in time.
        """
        if (size := self.size(name)) is None:
            raise DataError(f"{self.url}/{name}: there is no such file")
        with path.open("wb") as file:
            for start in range(0, size, _BLOCK_BYTES):
                if cancelled():
                    return
                block = self._block(name, start, min(start + _BLOCK_BYTES, size))
                file.write(block)
                progress(len(block))

    def read(self, name: str) -> bytes | None:
        """Returns the contents of a small file, or None if there is no such file."""
        return self._asked(name, lambda: bytes(self._system.cat_file(self._path(name))), doing="read")

    def names(self) -> set[str]:
        """Returns the names of all files in the folder and the folders in it, as paths below it."""
        found = self._asked("", lambda: self._system.find(self._root), doing="listed") or []
        return {path.removeprefix(self._root).strip("/") for path in found} - {""}

    def write(self, name: str, contents: bytes) -> None:
        """Writes a small file, which appears whole or not at all."""
        self._wrote(name, self._asked(name, lambda: self._piped(name, contents), doing="written"))

    def upload(self, name: str, path: Path, *, progress: Callable[[int], None] = lambda num_bytes: None) -> None:
        """Copies a local file to the folder, where it appears whole or not at all.

        Args:
            name: Name of the file, as a path below the folder.
            path: Path of the local file.
            progress: Function that is called with the size of every part that was sent.

        Raises:
            DataError: The file cannot be written there, or nothing moved for as long as one answer may take.
        """
        heart = _Heart(progress)
        sent = Task(lambda: (self._system.put_file(str(path), self._path(name), callback=heart), True)[1])
        try:
            while True:
                try:
                    self._wrote(name, sent.result(_LOOK_S))
                    progress(path.stat().st_size - heart.told)  # Drivers do not tell of small files.
                    return
                except TimeoutError:
                    if time.monotonic() - heart.beat > self._timeout_s:
                        raise self._silent() from None
        except Exception as error:
            raise self._failed(name, error, doing="written") from error

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        self._asked(name, lambda: self._system.rm_file(self._path(name)), doing="removed")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _piped(self, name: str, contents: bytes) -> bool:
        self._system.pipe_file(self._path(name), contents)
        return True

    def _wrote(self, name: str, done: bool | None) -> None:
        if not done:
            raise DataError(f"{self.url}/{name}: cannot be written, there is no such place")

    def _block(self, name: str, start: int, stop: int) -> bytes:
        path = self._path(name)
        block = self._asked(name, lambda: self._system.cat_file(path, start=start, end=stop), doing="read")
        if block is None or len(block) != stop - start:
            raise DataError(f"{self.url}/{name}: gave {len(block or b'')} bytes where {stop - start} were asked for")
        return bytes(block)

    def _asked(self, name: str, work: Callable[[], Result], *, doing: str) -> Result | None:
        """Returns an answer, or None where there is no such file."""
        try:
            return self._within_time(work)
        except FileNotFoundError as error:
            if is_of_bucket(error):
                raise self._failed(name, error, doing=doing) from error
            return None
        except Exception as error:
            raise self._failed(name, error, doing=doing) from error

    def _within_time(self, work: Callable[[], Result]) -> Result:
        try:
            return Task(work).result(self._timeout_s)
        except TimeoutError as error:
            raise self._silent() from error

    def _silent(self) -> DataError:
        return DataError(
            f"{self.url}: no answer within {self._timeout_s:g} s; check the address, the network and the "
            f"credentials, or {self._more_time}"
        )

    def _failed(self, name: str, error: Exception, *, doing: str) -> DataError:
        # Drivers raise errors of many types, which become one type here.
        if isinstance(error, DataError):
            return error
        where = f"{self.url}/{name}" if name else self.url
        on_disk = f"{type(error).__name__}: {error}"
        words = on_disk if self.local is not None else in_words(error, bucket=self._bucket())
        return DataError(f"{where}: cannot be {doing} ({words})")

    def _bucket(self) -> str:
        return self.url.partition("://")[2].partition("/")[0]


class _Heart(fsspec.callbacks.Callback):
    """The time at which a driver last said that something was sent."""

    def __init__(self, progress: Callable[[int], None]):
        super().__init__()
        self.beat, self.told, self._progress = time.monotonic(), 0, progress

    def relative_update(self, inc: int = 1) -> None:
        """Notes that so many further bytes were sent."""
        self.beat = time.monotonic()
        self.told += inc
        self._progress(inc)
