"""A local folder and its snapshots in a bucket: the newest is fetched at the start, others are added as it changes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from data_pipelines.buckets import snapshots
from data_pipelines.buckets.copy_locks import locked
from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.buckets.snapshots import Content, Version
from data_pipelines.buckets.stable_files import hold
from data_pipelines.errors import DataError
from data_pipelines.system.digests import file_digest

#: Function that is told a line.
Tell = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class _Descent:
    """What a local folder comes from.

    Attributes:
        writer: Text under which it writes snapshots.
        base: Snapshot that it began with; None where it began empty.
    """

    writer: str
    base: Version | None


class OtherWriterError(DataError):
    """Another run writes snapshots to the same folder of the bucket."""


class Mirror:
    """A local folder that is kept in a bucket; one process at a time has it.

    Args:
        remote: Folder in the bucket.
        local: Local folder.
        sealed: Function from a path below the folder to that of a folder in it whose files never change; None for
            files outside of such folders.
        tell: Function that is told what a user should know.
    """

    def __init__(
        self,
        remote: RemoteFolder,
        local: Path,
        *,
        sealed: Callable[[PurePosixPath], PurePosixPath | None] = lambda path: None,
        tell: Tell = print,
    ):
        self.local, self._remote, self._sealed, self._tell = local, remote, sealed, tell
        self._beside = local.with_name(f".{local.name}.mirror")
        self._digests: dict[tuple[int, int, int], str] = {}
        self._number = 0

    @contextlib.contextmanager
    def locked(self, *, flag: str) -> Iterator[None]:
        """Keeps other processes of this machine from the local folder.

        Args:
            flag: Flag that named the folder, for messages.

        Raises:
            DataError: Another process has it, or nothing can be written there.
        """
        busy = (
            f"another run on this machine is writing to {self._remote.url}; wait for it to end, or use another --{flag}"
        )
        with locked(self._beside / "lock", busy=busy):
            yield

    def fetch(
        self,
        *,
        progress: Callable[[int], None] = lambda num_bytes: None,
        wanted: Callable[[PurePosixPath], bool] = lambda path: True,
    ) -> None:
        """Makes the local folder that of the newest snapshot, unless it is what that came from and may be ahead of it.

        A snapshot that is damaged is told and passed over for the one before. What an interrupted fetch has brought is
        not brought again.

        Args:
            progress: Function that is called with the number of bytes that came since its last call.
            wanted: Function that says of a path below the folder whether it is brought; what is not brought is not
                looked at either. A folder that has a part alone must not be uploaded.

        Raises:
            DataError: The store does not answer or refuses, or no snapshot is whole.
        """
        found = snapshots.versions(self._remote.names())
        self._number = found[0].number if found else 0
        descent = self._descent()
        if not found or (descent is not None and (found[0].writer == descent.writer or found[0] == descent.base)):
            self.local.mkdir(parents=True, exist_ok=True)
            self._write_descent(descent or _Descent(secrets.token_hex(8), None))
            return
        causes = []
        for version in found:
            try:
                self._bring(version, progress, wanted)
                break
            except _BrokenError as error:
                causes.append(str(error))
                self._tell(f"{error}; the snapshot before it is looked at")
        else:
            raise DataError(
                f"{self._remote.url}: no snapshot there is whole ({'; '.join(causes)}); restore the folder from a "
                "copy, or give another"
            )
        # Later snapshots, if they were damaged, are superseded by what is written from here on.
        self._write_descent(_Descent(secrets.token_hex(8), found[0]))

    def upload(self, *, progress: Callable[[int], None] = lambda num_bytes: None) -> bool:
        """Adds a snapshot of the local folder as it is, and removes all but the last two; returns whether it differs.

        Args:
            progress: Function that is called with the number of bytes that were sent since its last call.

        Raises:
            OtherWriterError: Another run has written there since.
            DataError: The store does not answer or refuses.
        """
        descent = self._descent()
        if descent is None:
            raise DataError(f"{self.local}: was not fetched from {self._remote.url}")
        names = self._remote.names()
        found = self._own(names, descent)
        held = self._beside / "held"
        try:
            files = {name: self._content(held / name) for name in hold(self.local, held, sealed=self._sealed)}
            before = self._files(found[0]) if found else {}
            if files == before:
                return False
            for name, content in files.items():
                if (key := snapshots.key_of(name, content)) not in names:
                    self._remote.upload(key, held / name, progress=progress)
        finally:
            shutil.rmtree(held, ignore_errors=True)
        self._own(self._remote.names(), descent)
        # A number is never given twice: what was given up may still come to pass.
        self._number = max(self._number, found[0].number if found else 0) + 1
        new = Version(self._number, descent.writer)
        self._remote.write(new.name, snapshots.to_json(files))
        kept = {snapshots.key_of(*each) for each in (*files.items(), *before.items())}
        self._remove(names, kept | {new.name, *(each.name for each in found[:1])})
        return True

    def _own(self, names: set[str], descent: _Descent) -> list[Version]:
        found = snapshots.versions(names)
        if found and found[0].writer != descent.writer and found[0] != descent.base:
            raise OtherWriterError(
                f"another run writes to {self._remote.url} since this one began; this one's files stay in "
                f"{self.local}: give one of them another folder"
            )
        return found

    def _remove(self, names: set[str], kept: set[str]) -> None:
        """Removes files of earlier snapshots; what cannot be removed is left for the next time."""
        old = {each for each in names if snapshots.is_content(each)}
        old |= {each.name for each in snapshots.versions(names)}
        with contextlib.suppress(DataError):
            for each in sorted(old - kept):
                self._remote.remove(each)

    def _files(self, version: Version) -> dict[str, Content]:
        text = self._remote.read(version.name)
        return {} if text is None else snapshots.from_json(text, source=f"{self._remote.url}/{version.name}")

    def _content(self, path: Path) -> Content:
        status = path.stat()
        # A link is the same file as what it was made from: what never changes is read once.
        key = (status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = file_digest(path)
        return Content(status.st_size, self._digests[key])

    def _bring(
        self, version: Version, progress: Callable[[int], None], wanted: Callable[[PurePosixPath], bool]
    ) -> None:
        coming = self._beside / "coming"
        source = f"{self._remote.url}/{version.name}"
        text = self._remote.read(version.name)
        try:
            files = snapshots.from_json(text or b"", source=source)
        except DataError as error:
            raise _BrokenError(str(error)) from error
        files = {name: content for name, content in files.items() if wanted(PurePosixPath(name))}
        coming.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            self._bring_file(name, content, coming, progress)
        for path in [each for each in coming.rglob("*") if each.is_file()]:
            if path.relative_to(coming).as_posix() not in files:
                path.unlink()
        replaced = self._beside / "replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        if self.local.exists():
            if any(self.local.iterdir()):
                self._tell(f"{self.local} is replaced by what {source} lists, which is newer")
            self.local.rename(replaced)
        coming.rename(self.local)
        shutil.rmtree(replaced, ignore_errors=True)

    def _bring_file(self, name: str, content: Content, coming: Path, progress: Callable[[int], None]) -> None:
        target = coming / name
        if content.is_in(target):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if content.is_in(self.local / name):
            shutil.copy2(self.local / name, target)
            return
        key = snapshots.key_of(name, content)
        if self._remote.size(key) != content.size:
            raise _BrokenError(f"{self._remote.url}/{key}: is missing, or has another size than the snapshot says")
        unfinished = target.with_name(f".{target.name}.tmp")
        self._remote.download(key, unfinished, progress=progress)
        if not content.is_in(unfinished):
            unfinished.unlink()
            raise _BrokenError(f"{self._remote.url}/{key}: is not what was written (damaged)")
        unfinished.rename(target)

    def _descent(self) -> _Descent | None:
        try:
            told = json.loads((self._beside / "descent.json").read_text(encoding="utf-8"))
            base = told["base"]
            return _Descent(str(told["writer"]), None if base is None else Version(int(base[0]), str(base[1])))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    def _write_descent(self, descent: _Descent) -> None:
        told = {"writer": descent.writer, "base": None if descent.base is None else dataclasses.astuple(descent.base)}
        self._beside.mkdir(parents=True, exist_ok=True)
        making = self._beside / "descent.json.tmp"
        making.write_text(json.dumps(told), encoding="utf-8")
        making.replace(self._beside / "descent.json")


class _BrokenError(DataError):
    """A snapshot is not whole."""
