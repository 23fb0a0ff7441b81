"""Uploads of a run's workdir beside the training: a thread looks for new checkpoints, and tells what fails."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from data_pipelines.buckets.mirror import Mirror, OtherWriterError
from data_pipelines.command import progress_bar
from data_pipelines.errors import DataError
from ecgjax.system.terminal import warn

#: Seconds between looks at the checkpoints.
LOOK_S = 2.0

#: Seconds after which logs are uploaded though no checkpoint has come.
_LOGS_S = 600.0


class BackgroundUploads:
    """Thread that uploads a folder after every new checkpoint.

    An upload that fails is told in one line, and is tried again with the next checkpoint: training goes on.

    Args:
        mirror: Folder and its place in the bucket.
        checkpoints: Folder of the checkpoints, whose finished ones have whole numbers for names.
        address: Address of the place in the bucket, for messages.
    """

    def __init__(self, mirror: Mirror, checkpoints: Path, *, address: str):
        self._mirror, self._checkpoints, self._address = mirror, checkpoints, address
        self._over = threading.Event()
        self._ended: DataError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="uploads")
        self._thread.start()

    def stop(self) -> None:
        """Begins no further upload, and waits for the one under way."""
        self._over.set()
        self._thread.join()

    def finish(self) -> None:
        """Uploads the folder as it is once the run has come to an end.

        Raises:
            DataError: The store does not answer or refuses, or another run writes there.
        """
        self.stop()
        if self._ended is not None:
            raise self._ended
        with progress_bar(f"uploading to {self._address}", 0, unit="B") as sent:
            self._mirror.upload(progress=sent)

    def _run(self) -> None:
        # What is there at the beginning may not have been uploaded by a run before.
        uploaded, last = frozenset[str](), time.monotonic()
        while not self._over.wait(LOOK_S):
            now = self._finished()
            if now == uploaded and time.monotonic() - last < _LOGS_S:
                continue
            uploaded, last = now, time.monotonic()
            if not self._upload():
                return

    def _upload(self) -> bool:
        """Uploads once, and returns whether another upload may be tried."""
        try:
            self._mirror.upload()
        except OtherWriterError as error:
            self._ended = error
            warn(f"{error}. Nothing more is uploaded; training goes on")
            return False
        except (DataError, OSError) as error:
            warn(f"not uploaded: {error}. Training goes on, and uploads again after the next checkpoint")
        return True

    def _finished(self) -> frozenset[str]:
        with contextlib.suppress(OSError):
            return frozenset(path.name for path in self._checkpoints.iterdir() if path.name.isdecimal())
        return frozenset()
