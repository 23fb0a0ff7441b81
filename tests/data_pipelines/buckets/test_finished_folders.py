"""What a command writes to a bucket is there whole or not marked as whole, and replaces nothing."""

import itertools
from pathlib import Path

import pytest

from data_pipelines.buckets.finished_folders import COMPLETE, UPLOADING, fetched_folder, finished_folder
from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.errors import DataError
from tests.support import object_stores


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / "cache"))


def write(folder, **files):
    for name, text in files.items():
        path = Path(folder, name.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_folder_comes_back_as_it_was_written(scheme, tmp_path, monkeypatch):
    with object_stores.store(scheme) as bucket:
        address = f"{bucket}/report"
        with finished_folder(address) as folder:
            write(folder, a="A", b__c="C", **{".lock": ""})
        assert RemoteFolder(address).names() == {"a", "b/c", COMPLETE}
        monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / "other"))
        read = fetched_folder(address, flag="model")
        assert {path.relative_to(read).as_posix() for path in Path(read).rglob("*") if path.is_file()} == {"a", "b/c"}
        assert Path(read, "b/c").read_text() == "C"
        with pytest.raises(DataError, match=r"--out=.*/report: holds 'a' already, and nothing in a bucket is replaced"):
            finished_folder(address).__enter__()
        RemoteFolder(address).write("a", b"B")
        Path(read, "a").unlink()
        with pytest.raises(DataError, match=r"/report/a: is not what was written"):
            fetched_folder(address, flag="model")


def test_an_upload_that_is_killed_anywhere_is_not_complete_and_the_same_command_finishes_it(monkeypatch):
    with object_stores.store("gs") as bucket:
        address = f"{bucket}/report"
        for at in itertools.count():
            calls = itertools.count()
            with monkeypatch.context() as patch:
                for name in ("upload", "write", "remove"):
                    object_stores.die_at(patch, name, calls, at)
                try:
                    with finished_folder(address) as folder:
                        write(folder, a="A", b="B", **{} if Path(folder, "c").exists() else {f"left{at}": "by it"})
                        Path(folder, f"left{at - 1}").unlink(missing_ok=True)
                    break
                except object_stores.Interrupted:
                    pass
            names = RemoteFolder(address).names()
            if COMPLETE in names:
                break
            assert names <= {UPLOADING, "a", "b"} | {name for name in names if name.startswith("left")}
            with pytest.raises(DataError, match=f"has no {COMPLETE}"):
                fetched_folder(address, flag="model")
        assert at >= 4
        assert {"a", "b", COMPLETE} <= RemoteFolder(address).names()


def test_a_store_that_fails_is_told_before_anything_is_computed_and_at_the_end_with_where_the_files_are():
    with object_stores.switched_store("gs") as (bucket, switch), object_stores.silent() as nowhere:
        with pytest.raises(DataError, match="there is no bucket nosuch"):
            finished_folder("gs://nosuch/x").__enter__()
        run = finished_folder(f"{bucket}/x", timeout_s=3.0)
        folder = run.__enter__()
        write(folder, a="A")
        switch.to(nowhere)
        with pytest.raises(
            DataError, match=r"no answer within 3 s.* What was written is in .*: the same command uploads"
        ):
            run.__exit__(None, None, None)
        assert Path(folder, "a").read_text() == "A"
        with pytest.raises(DataError, match=r"no answer within 0.2 s"):
            finished_folder(f"{bucket}/y", timeout_s=0.2).__enter__()
        switch.to(switch.store)
        with finished_folder(f"{bucket}/x"):
            pass
        assert RemoteFolder(f"{bucket}/x").names() == {"a", COMPLETE}
        # A folder that was removed from the bucket is made anew, and not of what is left here.
        for name in ("a", COMPLETE):
            RemoteFolder(f"{bucket}/x").remove(name)
        with finished_folder(f"{bucket}/x") as folder:
            assert not Path(folder).exists()
            write(folder, b="B")


def test_an_error_of_the_command_leaves_nothing_in_the_bucket():
    with object_stores.store("gs") as bucket:
        run = finished_folder(f"{bucket}/x")
        write(run.__enter__(), a="A")
        assert run.__exit__(ZeroDivisionError, ZeroDivisionError(), None) is not True
        assert RemoteFolder(f"{bucket}/x").names() == set()


def test_a_local_folder_is_taken_as_it_is(tmp_path):
    with finished_folder(str(tmp_path)) as folder:
        assert folder == fetched_folder(folder, flag="model") == str(tmp_path)
