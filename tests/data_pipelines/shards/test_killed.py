"""Builds that are killed: nothing is ever lost, and the same command completes them."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset, staging_directory
from data_pipelines.shards import making, plan
from data_pipelines.shards.build_state import BuildState
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.shards.making import LocalProcesses
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from data_pipelines.storage.store import open_store
from data_pipelines.system import atomic_directory
from data_pipelines.system.atomic_directory import publish, recover_retired
from tests.support.kill_builds import MadeUpSource, content

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path):
    """In memory where the system can: the hundreds of fsyncs of a build are not what is tested."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = memory / f"ecgjax-{os.getpid()}"
    folder.mkdir()
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.slow
def test_builds_killed_at_random_points_lose_nothing_and_are_completed(folder):
    command = [sys.executable, "-m", "tests.support.kill_builds", f"--folder={folder}", "--kills=20"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    for way, left in counts.items():
        assert sum(left.values()) >= 20
        assert {"nothing yet", "the old one", "the new one"} <= set(left), (way, left)
    assert "the old one, moved away" in counts["two_renames"]
    assert "the old one, moved away" not in counts["exchange"]


@pytest.mark.slow
def test_a_killed_command_goes_on_from_its_finished_shards(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "data_pipelines.build", "--builder=simulated", "--num_patients=250"]
    command += ["--num_workers=2", f"--out={out}"]
    killed = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE)
    state = BuildState(staging_directory(out))
    while not (state.parts.is_dir() and any(state.parts.iterdir())):
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not out.exists()
    with pytest.raises(DataError, match=r"out: is not finished \(there is out.building beside it\)"):
        open_dataset(out)
    first = min(state.dataset.iterdir())
    made = first.stat().st_mtime_ns
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    dataset = open_dataset(out)
    assert len(dataset.shards) == 3
    assert (out / first.name).stat().st_mtime_ns == made
    records = Cohort(CohortConfig(seed=0, num_patients=250)).simulate(0, dataset.index.num_records)
    np.testing.assert_array_equal(open_store(out).read(np.arange(dataset.index.num_records)), records.signal)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Interrupting:
    """Makes so many shards, and is then interrupted."""

    def __init__(self, num_shards):
        self.num_shards = num_shards

    def __call__(self, job, tasks, *, folder, progress):
        LocalProcesses(1)(job, tasks[: self.num_shards], folder=folder, progress=progress)
        raise KeyboardInterrupt


class Watching:
    """Makes shards, and keeps their numbers."""

    def __call__(self, job, tasks, *, folder, progress):
        self.made = [task.shard.number for task in tasks]
        LocalProcesses(1)(job, tasks, folder=folder, progress=progress)


@pytest.fixture
def six_shards(monkeypatch):
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 4 * 4224)


def build(out, *, source=None, make_shards=None, request=None, **options):
    source = source or MadeUpSource(0)
    make_shards = make_shards or Watching()
    build_dataset(lambda: source, out, request=request or {}, make_shards=make_shards, **options)
    return getattr(make_shards, "made", None)


def interrupt(out, **options):
    with pytest.raises(KeyboardInterrupt):
        build(out, make_shards=Interrupting(3), **options)


def test_only_what_is_missing_is_made(tmp_path, six_shards):
    interrupt(tmp_path / "out")
    shown = []

    def progress(title, total, done):
        shown.append((title, total, done))
        return no_op()

    assert build(tmp_path / "out", progress=progress) == [3, 4, 5]
    assert shown == [("building", 24, 12)]
    build(tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


class no_op:  # noqa: N801
    def __enter__(self):
        return lambda num_items: None

    def __exit__(self, *error):
        return None


def test_another_request_or_reader_or_plan_begins_anew(tmp_path, six_shards, monkeypatch):
    interrupt(tmp_path / "out")
    assert build(tmp_path / "out", request={"other": 1}) == [0, 1, 2, 3, 4, 5]
    interrupt(tmp_path / "read")
    source = MadeUpSource(0)
    source.reader = lambda: itertools.chain  # Another one, whatever it does: it is never called.
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "read", source=source, make_shards=Interrupting(0))
    assert not any(BuildState(staging_directory(tmp_path / "read")).parts.iterdir())
    interrupt(tmp_path / "planned")
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 3 * 4224)
    assert build(tmp_path / "planned") == list(range(8))


def test_a_shard_whose_items_changed_or_whose_files_are_damaged_is_made_again(tmp_path, six_shards):
    interrupt(tmp_path / "out")
    state = BuildState(staging_directory(tmp_path / "out"))
    parts = sorted(state.parts.iterdir())
    parts[0].write_bytes(parts[0].read_bytes()[:-100])
    source = MadeUpSource(0)
    source.items[5] = MadeUpSource(1).items[5]  # In the second shard.
    assert build(tmp_path / "out", source=source) == [0, 1, 3, 4, 5]
    build(tmp_path / "whole", source=source)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    interrupt(tmp_path / "truncated")
    shard = min(BuildState(staging_directory(tmp_path / "truncated")).dataset.iterdir())
    os.truncate(shard, 100)
    assert build(tmp_path / "truncated") == [0, 3, 4, 5]


def test_shards_of_items_that_changed_since_do_not_pass_for_the_new_ones(tmp_path, six_shards):
    interrupt(tmp_path / "out")
    source = MadeUpSource(0)
    source.items[5] = MadeUpSource(1).items[5]
    # As of workers that see another directory than this process.
    with pytest.raises(DataError, match=r"4 shards are not there after they were made, first .*-00001-of-00006"):
        build(tmp_path / "out", source=source, make_shards=lambda job, tasks, *, folder, progress: None)
    assert build(tmp_path / "out", source=source) == [1, 3, 4, 5]


def test_a_build_that_stored_too_little_begins_anew(tmp_path, six_shards):
    with pytest.raises(DataError, match="could not be stored"):
        build(tmp_path / "out", max_quarantined=0.01)
    assert build(tmp_path / "out") == [0, 1, 2, 3, 4, 5]


def test_a_plain_command_does_not_complete_an_overwriting_one(tmp_path, six_shards, monkeypatch):
    out = tmp_path / "out"
    build(out)
    old = content(out)
    with monkeypatch.context() as patch:
        patch.setattr(BuildState, "_put_in_place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(out, overwrite=True)
    build(out, make_shards=Interrupting(0))
    assert content(out) == old
    assert not staging_directory(out).exists()


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_finished_data_set_is_put_in_place_without_its_source(tmp_path, six_shards, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(BuildState, "_put_in_place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(out)

    def never():
        raise AssertionError("nothing to read")

    build_dataset(never, out, request={})
    assert open_dataset(out).index.num_records == sum(hasattr(item, "signal") for item in MadeUpSource(0).items)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_publishing_replaces_at_once(tmp_path, monkeypatch, can_exchange):
    finished, out, retired = (tmp_path / name for name in ("finished", "out", "retired"))
    for folder in (finished, out):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    if not can_exchange:
        monkeypatch.setattr(atomic_directory, "_exchange", lambda first, second: False)
    publish(finished, out, retired=retired)
    assert (out / "name").read_text() == "finished"
    assert ((finished if can_exchange else retired) / "name").read_text() == "out"
    assert retired.exists() is not can_exchange


def test_what_was_moved_away_is_put_back_only_where_nothing_is(tmp_path):
    out, retired = tmp_path / "out", tmp_path / "retired"
    retired.mkdir()
    (retired / "old").touch()
    out.mkdir()
    (out / "new").touch()
    recover_retired(retired, out)
    assert retired.exists()
    (out / "new").unlink()
    recover_retired(retired, out)
    assert (out / "old").exists()


def test_a_shard_made_twice_at_once_is_the_same(tmp_path, six_shards):
    class Twice:
        def __call__(self, job, tasks, *, folder, progress):
            for task in [*tasks, *tasks]:
                progress(making.make_shard(job, task))

    build(tmp_path / "twice", make_shards=Twice())
    build(tmp_path / "once")
    assert content(tmp_path / "twice") == content(tmp_path / "once")
