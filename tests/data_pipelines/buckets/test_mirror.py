"""A folder's snapshots in a bucket are whole or not there, whatever happens to an upload or a fetch."""

import itertools
import json
import random
from pathlib import PurePosixPath

import pytest

from data_pipelines.buckets import snapshots, stable_files
from data_pipelines.buckets.mirror import Mirror, OtherWriterError
from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.buckets.snapshots import Content
from data_pipelines.errors import DataError
from tests.support import object_stores


def sealed(path):
    return PurePosixPath(*path.parts[:1]) if path.parts[0].isdecimal() and len(path.parts) > 1 else None


@pytest.fixture
def remote(request):
    number = next(_NUMBERS)
    return RemoteFolder(f"memory://bucket-of-mirrors/{number}")


_NUMBERS = itertools.count()


def machine(tmp_path, name, remote, told=None):
    """The mirror of a machine that has this name, and what it has told."""
    return Mirror(remote, tmp_path / name / "run", sealed=sealed, tell=(told if told is not None else []).append)


def write(mirror, **files):
    for name, text in files.items():
        path = mirror.local / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def contents(mirror):
    return {
        path.relative_to(mirror.local).as_posix(): path.read_text()
        for path in sorted(mirror.local.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_run_goes_from_machine_to_machine_through_a_store(scheme, tmp_path):
    with object_stores.store(scheme) as bucket:
        remote = RemoteFolder(f"{bucket}/runs/one")
        first, second = (machine(tmp_path, name, remote) for name in "ab")
        first.fetch()
        write(first, log="1", **{"10__x": "ten", "10__y": "", ".lock": "", "20.orbax-checkpoint-tmp__x": "half"})
        assert first.upload() is True
        assert first.upload() is False
        second.fetch()
        assert contents(second) == {"log": "1", "10/x": "ten", "10/y": ""}
        write(second, log="1 2", **{"20__x": "twenty"})
        second.upload()
        first.fetch()
        assert contents(first) == contents(second)
        assert len(remote.names()) == 2 + 3 + 2


def test_a_folder_that_is_ahead_of_the_bucket_is_left(tmp_path, remote):
    own = machine(tmp_path, "a", remote)
    own.fetch()
    write(own, log="1")
    own.upload()
    write(own, log="1 2")
    again = machine(tmp_path, "a", remote)
    again.fetch()
    assert contents(again) == {"log": "1 2"}
    other = machine(tmp_path, "b", remote)
    other.fetch()
    write(other, log="1 2 3")
    machine(tmp_path, "b", remote).fetch()
    assert contents(other) == {"log": "1 2 3"}


def test_an_upload_that_is_killed_anywhere_leaves_the_last_snapshot(tmp_path, remote, monkeypatch):
    own = machine(tmp_path, "a", remote)
    own.fetch()
    write(own, log="1", **{"10__x": "ten", "10__y": "of ten"})
    own.upload()
    before = contents(own)
    write(own, log="1 2", gone="", **{"20__x": "twenty", "20__y": "of twenty"})
    after = contents(own)
    seen = []
    for at in itertools.count():
        with monkeypatch.context() as patch:
            calls = itertools.count()
            for name in ("upload", "write", "remove"):
                object_stores.die_at(patch, name, calls, at)
            try:
                machine(tmp_path, "a", remote).upload()
                break
            except object_stores.Interrupted:
                pass
        reader = machine(tmp_path, f"reader{at}", remote)
        reader.fetch()
        seen.append(contents(reader))
    assert [each for each in seen if each not in (before, after)] == []
    assert before in seen
    # A kill among the removals comes after the new list, and a later upload removes what is left.
    write(own, log="1 2 3")
    (mirror := machine(tmp_path, "a", remote)).fetch()
    mirror.upload()
    (reader := machine(tmp_path, "last", remote)).fetch()
    assert contents(reader) == {**after, "log": "1 2 3"}
    assert len(snapshots.versions(remote.names())) == 2


def test_a_fetch_that_is_killed_goes_on_with_what_it_has(tmp_path, remote, monkeypatch):
    own = machine(tmp_path, "a", remote)
    own.fetch()
    write(own, a="a", b="b", c="c")
    own.upload()
    reader = machine(tmp_path, "b", remote)
    with monkeypatch.context() as patch:
        object_stores.die_at(patch, "download", itertools.count(), 2)
        with pytest.raises(object_stores.Interrupted):
            reader.fetch()
    assert not reader.local.exists()
    came = []
    reader.fetch(progress=came.append)
    assert contents(reader) == contents(own)
    assert sum(came) == 1


def test_a_damaged_snapshot_is_told_and_the_one_before_is_taken(tmp_path, remote):
    own = machine(tmp_path, "a", remote)
    own.fetch()
    for text in ("one", "two"):
        write(own, log=text)
        own.upload()
    newest = next(name for name in remote.names() if name == snapshots.key_of("log", own._content(own.local / "log")))
    remote.write(newest, b"tw0")
    reader = machine(tmp_path, "b", remote, told := [])
    reader.fetch()
    assert contents(reader) == {"log": "one"}
    assert "is not what was written (damaged); the snapshot before it is looked at" in told[0]
    write(reader, log="three")
    reader.upload()
    (last := machine(tmp_path, "c", remote)).fetch()
    assert contents(last) == {"log": "three"}
    for name in remote.names():
        remote.write(name, b"{}")
    with pytest.raises(DataError, match="no snapshot there is whole"):
        machine(tmp_path, "d", remote).fetch()


def test_two_runs_that_write_to_one_folder_are_noticed(tmp_path, remote):
    one, other = (machine(tmp_path, name, remote) for name in "ab")
    one.fetch()
    other.fetch()
    write(one, log="of one")
    write(other, log="of the other")
    one.upload()
    with pytest.raises(OtherWriterError, match=r"another run writes to memory://.* since this one began"):
        other.upload()
    second = machine(tmp_path, "a", remote).locked(flag="workdir")
    with one.locked(flag="workdir"), pytest.raises(DataError, match=r"another run on this machine.*another --workdir"):
        second.__enter__()


def test_a_number_that_was_given_up_is_not_given_again(tmp_path, remote, monkeypatch):
    """What a store answers too late may still come to pass: the list of an upload that was given up."""
    own, late = machine(tmp_path, "a", remote), []
    own.fetch()
    write(own, log="given up")
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "write", lambda self, name, text: (late.append((name, text)), 1 / 0))
        with pytest.raises(ZeroDivisionError):
            own.upload()
    write(own, log="good")
    own.upload()
    remote.write(*late[0])
    (reader := machine(tmp_path, "b", remote)).fetch()
    assert contents(reader) == {"log": "good"}


def test_a_list_that_names_files_elsewhere_is_damaged():
    for name in ("../x", "/etc/x", "a//b", "a\\b", "a/./b", ""):
        text = json.dumps({"format": 1, "files": {name: [1, "0" * 64]}}).encode()
        with pytest.raises(DataError, match="damaged"):
            snapshots.from_json(text, source="here")
    files = {"a/b": Content(1, "0" * 64)}
    assert snapshots.from_json(snapshots.to_json(files), source="here") == files


def test_checkpoints_that_come_and_go_meanwhile_are_held_whole_or_not_at_all(tmp_path, monkeypatch):
    folder, dice = tmp_path / "run", random.Random(0)
    for step in range(1, 6):
        (folder / str(step)).mkdir(parents=True)
        for part in "abc":
            (folder / str(step) / part).write_text(f"{step}{part}")

    original = stable_files._held

    def held(*arguments, **options):
        if dice.random() < 0.1:
            for path in sorted(folder.rglob("*"))[: dice.randrange(3)]:
                if path.is_file():
                    path.unlink()
        return original(*arguments, **options)

    monkeypatch.setattr(stable_files, "_held", held)
    for _ in range(20):
        names = stable_files.hold(folder, tmp_path / "held", sealed=sealed)
        for step in {name.split("/")[0] for name in names}:
            there = [part for part in "abc" if (folder / step / part).exists()]
            assert [name for name in names if name.startswith(step)] >= [f"{step}/{part}" for part in there]
        assert all((tmp_path / "held" / name).read_text() == name.replace("/", "") for name in names)
