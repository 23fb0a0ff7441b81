"""Reads files of a local or remote folder through fsspec, with a time limit on every answer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import fsspec

from data_pipelines.errors import DataError

#: Seconds that a remote may take for one answer: metadata, or one block of a file.
TIMEOUT_S = 60.0

_BLOCK_BYTES = 2**24

Result = TypeVar("Result")


class Task(Generic[Result]):
    """Runs a function in a daemon thread of its own, which ends with the process and need not be waited for."""

    def __init__(self, work: Callable[[], Result]):
        """Starts the function in its thread."""
        # The executors of the standard library wait for their threads at exit, and would never return if one hangs.
        self._answers: queue.SimpleQueue[tuple[Result] | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._answers.put((work(),))
        except BaseException as error:  # It is raised again where the result is taken.
            self._answers.put(error)

    def result(self, timeout_s: float | None = None) -> Result:
        """Waits for the function's result and returns it, or raises the function's error; the result can be taken once.

        Raises:
            TimeoutError: The result did not come in time.
        """
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(answer, BaseException):
            raise answer
        return answer[0]


class RemoteFolder:
    """Files of one folder, which may be remote.

    Attributes:
        url: URL or path of the folder.
        local: Path of the folder if it lies in the local file system, whose files need not be downloaded; None
            otherwise.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S):
        """Connects to the file system of the folder.

        Args:
            url: URL or path of the folder, such as `gs://bucket/folder`, `s3://bucket/folder` or `/mnt/bucket/folder`.
            timeout_s: Seconds that one answer may take.

        Raises:
            DataError: There is no driver for this kind of URL, its package is not installed, or no answer came in time.
        """
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        try:
            self._system, self._root = self._within_time(lambda: fsspec.core.url_to_fs(self.url))
        except ImportError as error:
            raise DataError(f"{url}: this kind of URL needs another package ({error})") from error
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{url}: {error}") from error
        protocols = self._system.protocol
        is_local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)
        self.local = Path(self._root) if is_local else None

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes, or None if there is no such file."""
        try:
            size = self._within_time(lambda: self._system.info(f"{self._root}/{name}")["size"])
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failed(name, error) from error
        if size is None:
            raise DataError(f"{self.url}/{name}: this remote does not tell the sizes of its files")
        return size

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

    def _block(self, name: str, start: int, stop: int) -> bytes:
        try:
            block = self._within_time(lambda: self._system.cat_file(f"{self._root}/{name}", start=start, end=stop))
        except Exception as error:
            raise self._failed(name, error) from error
        if len(block) != stop - start:
            raise DataError(f"{self.url}/{name}: gave {len(block)} bytes where {stop - start} were asked for")
        return block

    def _within_time(self, work: Callable[[], Result]) -> Result:
        try:
            return Task(work).result(self._timeout_s)
        except TimeoutError as error:
            raise DataError(
                f"{self.url}: no answer within {self._timeout_s:g} s; check the address, the network and the "
                "credentials, or allow more time with --timeout"
            ) from error

    def _failed(self, name: str, error: Exception) -> DataError:
        # Drivers raise errors of many types, which become one type here.
        if isinstance(error, DataError):
            return error
        return DataError(f"{self.url}/{name}: cannot be read ({type(error).__name__}: {error})")
