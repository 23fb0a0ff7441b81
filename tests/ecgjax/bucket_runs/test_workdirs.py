"""A workdir in a bucket: fetched, uploaded beside the training, and no store that fails holds the training."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.buckets.snapshots import versions
from data_pipelines.errors import DataError
from data_pipelines.system import stop_signals
from ecgjax.bucket_runs import background_uploads, workdirs
from tests.ecgjax.test_resume import assert_equal_runs
from tests.support import object_stores
from tests.support.finished_runs import computed, last_of_fine_tuning, predictions
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(background_uploads, "LOOK_S", 0.05)


@pytest.fixture
def answer_within(monkeypatch):
    """Function that changes the time limit of runs: a store that is there is given long, on a busy machine too."""
    made = []

    class Noted(RemoteFolder):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(workdirs, "RemoteFolder", Noted)
    return lambda seconds: [setattr(each, "_timeout_s", seconds) for each in made]


def elsewhere(monkeypatch, tmp_path, name):
    """What follows happens on another machine."""
    monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / name))


def save(folder, step):
    """Writes what a checkpoint looks like from outside."""
    making = Path(folder, "checkpoints", f"{step}.orbax-checkpoint-tmp")
    making.mkdir(parents=True)
    (making / "array").write_text(str(step))
    making.rename(making.with_name(str(step)))


def until(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def steps(folder):
    return sorted(path.name for path in Path(folder, "checkpoints").iterdir())


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_every_checkpoint_is_uploaded_while_the_run_goes_on(scheme, tmp_path, monkeypatch):
    with object_stores.store(scheme) as bucket:
        address, remote = f"{bucket}/runs/one", RemoteFolder(f"{bucket}/runs/one")
        with workdirs.kept(address) as folder:
            Path(folder, "config.json").write_text("{}")
            save(folder, 10)
            until(lambda: versions(remote.names()))
            Path(folder, "metrics.jsonl").write_text("told later\n")
        elsewhere(monkeypatch, tmp_path, "other")
        logs = workdirs.fetched_logs(address)
        assert {path.name for path in Path(logs).iterdir()} == {"config.json", "metrics.jsonl"}
        read = workdirs.fetched(address)
        assert read != folder
        assert steps(read) == ["10"]
        assert Path(read, "metrics.jsonl").read_text() == "told later\n"
        with workdirs.kept(address) as again:
            assert steps(again) == ["10"]
            save(again, 20)
        elsewhere(monkeypatch, tmp_path, "third")
        assert steps(workdirs.fetched(address)) == ["10", "20"]


def test_a_folder_is_taken_as_it_is(tmp_path):
    with workdirs.kept(str(tmp_path)) as folder:
        assert folder == workdirs.fetched(folder) == str(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize(("trouble", "words"), [("silent", "no answer within 1 s"), ("refusing", "refuses access")])
def test_a_store_that_fails_during_training_is_told_and_training_goes_on(scheme, trouble, words, answer_within, capfd):
    failing = object_stores.silent if trouble == "silent" else object_stores.refusing
    with object_stores.switched_store(scheme) as (bucket, switch), failing() as elsewhere:
        address = f"{bucket}/run"
        with workdirs.kept(address) as folder:
            switch.to(elsewhere)
            answer_within(1.0 if trouble == "silent" else 60.0)
            save(folder, 10)
            until(lambda: "uploads again after the next" in (told := capfd.readouterr().err) and one_line(told, words))
            switch.to(switch.store)
            answer_within(60.0)
            save(folder, 20)
        run = workdirs.kept(address)
        folder = run.__enter__()
        save(folder, 30)
        switch.to(elsewhere)
        answer_within(1.0 if trouble == "silent" else 60.0)
        with pytest.raises(DataError, match=rf"{words}.*run's files are in .*: the same command uploads them from"):
            run.__exit__(None, None, None)
        assert steps(folder) == ["10", "20", "30"]
        switch.to(switch.store)
        with workdirs.kept(address) as folder:
            assert steps(folder) == ["10", "20", "30"]
        found = RemoteFolder(address).names()
        assert [name for name in found if name.startswith("checkpoints/30/")]


def one_line(told, words):
    assert object_stores.SECRET not in told
    (line,) = [line for line in told.splitlines() if line.startswith("warning: not uploaded: ")]
    return words in line and "Training goes on" in line


def test_a_store_that_fails_at_the_start_ends_the_run_before_it_trains():
    object_stores.skip_without("gs")
    silence = pytest.raises(DataError, match=r"no answer within 0.3 s; .*try again later")
    with object_stores.silent() as port, object_stores.environment(**object_stores.at("gs", port)), silence:
        workdirs.kept("gs://bucket/run", timeout_s=0.3).__enter__()
    with object_stores.store("gs"), pytest.raises(DataError, match="there is no bucket nosuch"):
        workdirs.kept("gs://nosuch/run").__enter__()


def test_what_is_no_run_is_told():
    with object_stores.store("gs") as bucket, pytest.raises(DataError, match=r"--workdir=gs://.*/x: there is no run"):
        workdirs.fetched(f"{bucket}/x")


def test_a_run_that_is_stopped_keeps_its_status_though_the_store_fails(monkeypatch, answer_within, capfd):
    with object_stores.switched_store("gs") as (bucket, switch), object_stores.silent() as nowhere:
        run = workdirs.kept(f"{bucket}/run")
        save(run.__enter__(), 10)
        switch.to(nowhere)
        answer_within(0.3)
        monkeypatch.setattr(stop_signals, "heard", lambda: signal.SIGTERM)
        run.__exit__(None, None, None)
    assert "The run's files are in" in capfd.readouterr().err


def test_another_run_in_the_same_folder_is_told_once_and_its_snapshots_stay(tmp_path, monkeypatch, capfd):
    with object_stores.store("gs") as bucket:
        address = f"{bucket}/run"
        run = workdirs.kept(address)
        folder = run.__enter__()
        elsewhere(monkeypatch, tmp_path, "other")
        with workdirs.kept(address) as others:
            save(others, 99)
        save(folder, 10)
        until(lambda: "Nothing more is uploaded; training goes on" in capfd.readouterr().err)
        save(folder, 20)
        with pytest.raises(DataError, match="another run writes to"):
            run.__exit__(None, None, None)
        elsewhere(monkeypatch, tmp_path, "third")
        assert steps(workdirs.fetched(address)) == ["99"]


def command(dataset, workdir, steps, module=("ecgjax.pretrain",)):
    return [
        sys.executable, "-m", *module, "--config=tests/support/tiny_config.py", f"--workdir={workdir}",
        f"--config.data.dir={dataset}", f"--config.duration.value={steps}",
    ]  # fmt: skip


def start(tmp_path, name, words):
    """Starts a command on a machine that has nothing yet, which is known by a name."""
    environment = {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    environment["ECGJAX_CACHE"] = str(tmp_path / name)
    with (tmp_path / f"{name}.log").open("w") as log:
        return subprocess.Popen(words, cwd=REPOSITORY, env={**os.environ, **environment}, stdout=log, stderr=log)


def kill_and_go_on(tmp_path, monkeypatch, remote, words, *, slowly=None):
    """Kills a run in an upload, lets it go on on another machine, and runs a whole one; returns both workdirs.

    Args:
        words: Function from a workdir to the command.
        slowly: Function from a workdir to the command whose run is killed, where the plain one may end before it.
    """
    killed = start(tmp_path, "first", (slowly or words)(remote.url))
    until(lambda: versions(remote.names()) or killed.poll() is not None, seconds=600)
    before = remote.names()
    until(lambda: remote.names() - before or killed.poll() is not None, seconds=600)
    killed.kill()  # An upload is under way.
    assert killed.wait() == -signal.SIGKILL, (tmp_path / "first.log").read_text()
    goes_on = start(tmp_path, "second", words(remote.url))
    whole = start(tmp_path, "whole", words(str(tmp_path / "plain")))
    assert (goes_on.wait(), whole.wait()) == (0, 0), (tmp_path / "second.log").read_text()
    assert "resuming from step" in (tmp_path / "second.log").read_text()
    monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / "reader"))
    return Path(workdirs.fetched(remote.url)), tmp_path / "plain"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_run_that_is_killed_in_an_upload_goes_on_elsewhere_to_the_same_bits(scheme, tmp_path, monkeypatch):
    """Data and workdir both lie in the bucket; each start is on a machine that has nothing."""
    dataset = make_simulated_dataset(tmp_path / "data", num_patients=40, rate=50, seconds=4).directory
    with object_stores.store(scheme) as bucket:
        object_stores.put(dataset, f"{bucket}/ecgs")
        remote = RemoteFolder(f"{bucket}/run")
        slow = ("tests.support.troubled_run", "reads-are-slow@1")
        found, whole = kill_and_go_on(
            tmp_path,
            monkeypatch,
            remote,
            lambda workdir: command(f"{bucket}/ecgs", workdir, 60),
            slowly=lambda workdir: command(f"{bucket}/ecgs", workdir, 60, slow),
        )
        assert_equal_runs(found, whole, steps=60)


@pytest.mark.slow
def test_a_fine_tuning_that_is_killed_in_an_upload_goes_on_elsewhere_to_the_same_bits(tmp_path, monkeypatch):
    """Data, workdir and source lie in the bucket."""
    folds = {"data__train_folds": (1, 2, 3, 4, 5), "data__val_folds": (6, 7), "data__test_folds": (8, 9, 10)}
    dataset = make_simulated_dataset(tmp_path / "data", num_patients=80, rate=50, seconds=4).directory
    source = write_run(tmp_path / "source", tiny(dataset, **folds))
    with object_stores.store("gs") as bucket:
        object_stores.put(dataset, f"{bucket}/ecgs")
        with workdirs.kept(f"{bucket}/source") as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)

        def words(workdir):
            return [
                sys.executable, "-m", "ecgjax.finetune", f"--workdir={workdir}", f"--config.data.dir={bucket}/ecgs",
                f"--config.init.source={bucket}/source", "--task=age_years>62", "--config.training.steps=80",
                "--config.training.batch_size=8", "--config.training.eval_every=5", "--config.checkpoint.every=5",
                "--config.bootstrap=100", "--config.log_every=1", "--config.training.head_start=probe",
                *(f"--config.{name.replace('__', '.')}={value}" for name, value in folds.items()),
            ]  # fmt: skip

        found, whole = kill_and_go_on(tmp_path, monkeypatch, RemoteFolder(f"{bucket}/run"), words)
    assert last_of_fine_tuning(found) == last_of_fine_tuning(whole)
    assert computed(found) == computed(whole)
    for name, values in predictions(whole).items():
        np.testing.assert_array_equal(predictions(found)[name], values, err_msg=name)
    weights = [(each / "model" / "model.safetensors").read_bytes() for each in (found, whole)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_of_one_machine_train_to_one_bucket(tmp_path, monkeypatch):
    dataset = make_simulated_dataset(tmp_path / "data", num_patients=40, rate=50, seconds=4).directory
    with object_stores.store("gs") as bucket:
        object_stores.put(dataset, f"{bucket}/ecgs")
        launcher = [sys.executable, "-m", "launch.local", "--processes=2", "--"]
        both = start(tmp_path, "machine", [*launcher, *command(f"{bucket}/ecgs", f"{bucket}/run", 12)])
        assert both.wait() == 0, (tmp_path / "machine.log").read_text()
        elsewhere(monkeypatch, tmp_path, "reader")
        assert "12" in steps(workdirs.fetched(f"{bucket}/run"))
