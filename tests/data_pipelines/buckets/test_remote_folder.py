"""Remotes that do not answer, or cannot be reached, end a command in one line that says so."""

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.errors import DataError
from data_pipelines.packing.local_copy import stage_dataset
from tests.support import object_stores

REPOSITORY = Path(__file__).parents[3]


class Silent(fsspec.AbstractFileSystem):
    """A remote that never answers."""

    protocol = "silent"
    cachable = False

    def info(self, path, **_):
        threading.Event().wait()


@pytest.fixture(autouse=True)
def silent():
    fsspec.register_implementation("silent", Silent, clobber=True)
    fsspec.register_implementation("driverless", "no_such_driver.FileSystem", True, "Please install no_such_driver")


def test_a_remote_that_does_not_answer_is_given_up(tmp_path):
    start = time.monotonic()
    with pytest.raises(DataError, match=r"silent://bucket/ecgs: no answer within 0.2 s; .*credentials.*--timeout"):
        stage_dataset("silent://bucket/ecgs", tmp_path / "local", timeout_s=0.2)
    assert time.monotonic() - start < 5
    assert not list(tmp_path.iterdir())


def test_the_command_ends_though_the_remote_never_answers(tmp_path):
    """Threads that hang must not keep the process."""
    script = "import sys, tests.data_pipelines.buckets.test_remote_folder as t, fsspec\n"
    script += "fsspec.register_implementation('silent', t.Silent)\n"
    script += "from data_pipelines import stage; stage.define_flags(); stage.run(stage.main, required=['dataset'])"
    command = [sys.executable, "-c", script, "--dataset=silent://bucket/x", f"--out={tmp_path / 'x'}", "--timeout=0.5"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: silent://bucket/x: no answer within 0.5 s")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("driverless://bucket/ecgs", r"driverless://bucket/ecgs: this kind of URL needs another package \(.*no_such"),
        ("nonsense://bucket/ecgs", "nonsense://bucket/ecgs: Protocol not known: nonsense"),
        ("memory://bucket/nothing", "memory://bucket/nothing: not a prepared data set, it has no ecgjax_dataset.json"),
        ("nowhere", "nowhere: not a prepared data set, it has no ecgjax_dataset.json"),
    ],
)
def test_what_cannot_be_reached_is_told(tmp_path, url, message):
    with pytest.raises(DataError, match=message):
        stage_dataset(url, tmp_path / "local")
    assert not list(tmp_path.iterdir())


def test_an_error_of_a_driver_names_the_file(monkeypatch):
    folder = RemoteFolder("memory://bucket/ecgs")

    def refuse(self, path, **_):
        raise PermissionError("no access")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "info", refuse)
    with pytest.raises(DataError, match=r"memory://.*/x: cannot be read \(the store refuses access; check the cred"):
        folder.size("x")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_files_come_back_as_they_were_sent(scheme, tmp_path):
    path, rng = tmp_path / "file", np.random.default_rng(0)
    with object_stores.store(scheme) as bucket:
        folder = RemoteFolder(f"{bucket}/x")
        assert folder.names() == set()
        for number, contents in enumerate((b"", b"a\r", b"a\r\n", b"\n\n", rng.bytes(100), rng.bytes(6_000_000))):
            path.write_bytes(contents)
            sent = []
            folder.upload(f"below/{number}", path, progress=sent.append)
            assert sum(sent) == len(contents)
            assert folder.size(f"below/{number}") == len(contents)
            folder.download(f"below/{number}", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == contents
        assert folder.names() == {f"below/{number}" for number in range(6)}
        folder.remove("below/0")
        folder.remove("below/0")
        assert folder.size("below/0") is None
        assert folder.read("below/0") is None


def test_a_store_that_damages_a_file_is_noticed(tmp_path, monkeypatch):
    with object_stores.store("gs") as bucket:
        import gcp_storage_emulator.server as emulator

        read = emulator._read_data
        monkeypatch.setattr(
            emulator,
            "_read_data",
            lambda *given: {**found, "content": b"other"} if "content" in (found := read(*given) or {}) else found,
        )
        (tmp_path / "file").write_bytes(b"these")
        with pytest.raises(DataError, match=r"/x/file: cannot be written \(.*[cC]heck"):
            RemoteFolder(f"{bucket}/x").upload("file", tmp_path / "file")


def test_drivers_do_not_log_the_errors_that_are_told_here(caplog):
    RemoteFolder("memory://drivers")
    for name in ("gcsfs", "s3fs", "fsspec", "google.auth"):
        logging.getLogger(name).error("_request out of retries on exception")
    assert not caplog.records
