"""What a command writes to a bucket is there whole or not marked as whole, and replaces nothing."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.buckets.finished_folders import (
    COMPLETE,
    UPLOADING,
    fetched_folder,
    fetched_if_finished,
    finished_folder,
)
from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.errors import DataError
from tests.support import object_stores

ROOT = Path(__file__).parents[3]

# Prints the names of the files that a process has fetched, once it is allowed to begin.
FETCH = """
import sys, time
from data_pipelines.buckets import finished_folders as folders
download = folders.RemoteFolder.download
def slow(self, name, *arguments, **options):
    time.sleep(0.1)
    download(self, name, *arguments, **options)
    print(name)
folders.RemoteFolder.download = slow
print("ready", flush=True)
sys.stdin.readline()
folders.fetched_folder(sys.argv[1], flag="model")
"""


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
        assert fetched_if_finished(address, flag="model") is None
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


def test_two_processes_of_a_machine_make_one_copy():
    with object_stores.store("gs") as bucket:
        address = f"{bucket}/model"
        with finished_folder(address) as folder:
            write(folder, **{f"part{number}": str(number) for number in range(8)})
        line = [sys.executable, "-c", FETCH, address]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
        both = [subprocess.Popen(line, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes) for _ in range(2)]
        assert [each.stdout.readline() for each in both] == ["ready\n"] * 2
        for each in both:
            each.stdin.write("go\n")
            each.stdin.flush()
        fetched = [name for each in both for name in each.communicate(timeout=60)[0].split()]
        assert [each.returncode for each in both] == [0, 0]
        assert sorted(fetched) == [f"part{number}" for number in range(8)]


def test_a_second_command_on_this_machine_that_writes_to_the_same_address_is_refused():
    with object_stores.store("gs") as bucket:
        with finished_folder(f"{bucket}/x") as folder:
            with pytest.raises(DataError, match=r"another command on this machine is writing to gs://.*another --out"):
                finished_folder(f"{bucket}/x").__enter__()
            write(folder, a="A")
        assert RemoteFolder(f"{bucket}/x").names() == {"a", COMPLETE}


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
