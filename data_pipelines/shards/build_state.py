"""The state that a build keeps in `OUT.building`, from which the same command resumes after an interruption.

OUT.building/
build.json     identity of the build: what was asked for, and a name that its card has too
tasks/         items of every shard, where machines other than this one make them
unfinished/    files being written
parts/         index columns and facts of every finished shard (`parts.py`)
dataset/       finished shards, and the rest of the data set while it is being completed
finished/      the whole data set, ready to be put in place; after that, the one that it changed places with
retired/       the data set that is being replaced, where the system cannot exchange directories
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.builders.reading_notes import last_noted
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import CARD_FILE, read_card
from data_pipelines.system.atomic_directory import clear_staging, publish, recover_retired, sync, written_whole

_STATE_FILE = "build.json"


class BuildState:
    """The staging directory of one data set, locked by this process.

    Attributes:
        staging: Staging directory, in which the others are.
        tasks: Folder of tasks.
        unfinished: Folder of files being written.
        parts: Folder of finished parts.
        dataset: Folder of finished shards, which becomes the data set.
        finished: Folder of the complete data set, with its card.
    """

    def __init__(self, staging: Path):
        """Names the folders, and makes none of them."""
        self.staging = staging
        self.tasks = staging / "tasks"
        self.unfinished = staging / "unfinished"
        self.parts = staging / "parts"
        self.dataset = staging / "dataset"
        self.finished = staging / "finished"
        self._retired = staging / "retired"

    def complete_publishing(self, out: Path, request: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Completes the publishing of a data set if an interrupted run had finished making it.

        Args:
            out: Path of the data set.
            request: What this run is asked for, as values that JSON can hold.
            overwrite: Whether a data set at `out` may be replaced.

        Returns:
            Whether the data set at `out` is now that of the interrupted run and answers this request.
        """
        # Where the system cannot exchange directories, a run may have been killed between two renames.
        if (self._retired / CARD_FILE).is_file():
            recover_retired(self._retired, out)
        self._discard_retired()
        state = self._read()
        if state.get("request") != _plain(request):
            return False
        if _build_id(out) == state["build_id"]:
            return True
        if _build_id(self.finished) != state["build_id"] or ((out / CARD_FILE).is_file() and not overwrite):
            return False
        self._put_in_place(out)
        return True

    def left_reading(self) -> list[str]:
        """Returns the files that the processes of an interrupted run were reading when they ended."""
        return last_noted(self.unfinished)

    def has_shards_of_other_files(self, request: Mapping[str, Any], *, files: str | None) -> bool:
        """Returns whether an interrupted build of this request read other files than the source has now.

        Args:
            request: What this run is asked for, as values that JSON can hold.
            files: Digest of the source's listing, or None without a listing.
        """
        state = self._read()
        return state.get("request") == _plain(request) and state.get("files") != files

    def begin(self, request: Mapping[str, Any], *, key: str, files: str | None = None) -> str:
        """Prepares to build: keeps the shards of an interrupted build with the same key, or starts anew.

        Args:
            request: What this run is asked for, as values that JSON can hold.
            key: Digest of everything that the shards have in common.
            files: Digest of the source's listing, on which `key` depends too; None without a listing.

        Returns:
            The id of this build.
        """
        state = self._read()
        if state.get("key") != key or state.get("request") != _plain(request):
            clear_staging(self.staging)
            state = {"request": request, "key": key, "files": files, "build_id": uuid.uuid4().hex}
            self._write(state)
        # What was handed out or being written belongs to processes that are gone.
        for leftover in (self.tasks, self.unfinished, self.finished):
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in (self.tasks, self.unfinished, self.parts, self.dataset):
            folder.mkdir(exist_ok=True)
        return state["build_id"]

    def forget(self) -> None:
        """Makes the next run start anew; the files stay for inspection."""
        (self.staging / _STATE_FILE).unlink()

    def publish(self, out: Path) -> None:
        """Moves the completed data set to its place."""
        # It is renamed first, because the folder 'dataset' must never hold anything but shards of this build.
        self.dataset.rename(self.finished)
        sync(self.staging)
        self._put_in_place(out)

    def _put_in_place(self, out: Path) -> None:
        publish(self.finished, out, retired=self._retired)
        self._discard_retired()

    def _discard_retired(self) -> None:
        """Removes the replaced data set, its card first, so that what is left does not look complete."""
        (self._retired / CARD_FILE).unlink(missing_ok=True)
        shutil.rmtree(self._retired, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads((self.staging / _STATE_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _write(self, state: Mapping[str, Any]) -> None:
        # A state that was written in part could not be read, and all finished shards would be made again.
        path = self.staging / _STATE_FILE
        with written_whole(path, making=path.with_name(f"{_STATE_FILE}.unfinished")) as file:
            file.write(json.dumps(state).encode())
        sync(self.staging)


def _build_id(directory: Path) -> str | None:
    with contextlib.suppress(DataError):
        return read_card(directory).get("build_id")
    return None


def _plain(request: Mapping[str, Any]) -> Any:
    # The kept request went through JSON, which turns tuples into lists.
    return json.loads(json.dumps(request))
