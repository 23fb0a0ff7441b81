"""Remotes that do not answer, or cannot be reached, end a command in one line that says so."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.errors import DataError
from data_pipelines.packing.local_copy import stage_dataset

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
