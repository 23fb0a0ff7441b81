"""Files of the runs of an ablation: how each state is told, also by a run that was killed."""

import json
import os
import time

import pytest

from data_pipelines.errors import DataError
from launch.ablation import arm_status
from launch.ablation.arm_status import State


@pytest.fixture
def path(tmp_path):
    return tmp_path / "status" / "arm" / "seed0.json"


def _age(path, seconds):
    os.utime(path, (path.stat().st_atime - seconds, path.stat().st_mtime - seconds))


def test_a_run_is_missing_then_running_then_done(path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert arm_status.read(path).state is State.MISSING
    with arm_status.telling(path):
        told = arm_status.read(path)
        assert told.state is State.RUNNING
        assert "Slurm job 5" in told.where
    assert arm_status.read(path).state is State.DONE


def test_a_run_that_falls_silent_was_killed_and_one_that_touches_its_file_was_not(path, monkeypatch):
    monkeypatch.setattr(arm_status, "TOUCH_S", 0.01)
    with arm_status.telling(path):
        _age(path, 10_000)
        deadline = time.monotonic() + 60  # The thread that touches the file may have to wait for a processor.
        while arm_status.read(path).state is not State.RUNNING and time.monotonic() < deadline:
            time.sleep(0.01)
        assert arm_status.read(path).state is State.RUNNING
        left_behind = path.read_text()
    path.write_text(left_behind)
    assert arm_status.read(path).state is State.RUNNING
    _age(path, arm_status.SILENCE_S + 5)
    assert arm_status.read(path) == arm_status.Told(
        State.KILLED, "it ended without a word", arm_status.read(path).where
    )


def test_what_a_run_told_at_its_end_stays_and_errors_are_told(path):
    with arm_status.telling(path) as end:
        end(State.STOPPED, "pretraining ended with status 75")
    assert arm_status.read(path).state is State.STOPPED
    with pytest.raises(ZeroDivisionError), arm_status.telling(path):
        _ = 1 / 0
    assert arm_status.read(path).state is State.FAILED
    assert arm_status.read(path).reason == "ZeroDivisionError: division by zero"
    with pytest.raises(SystemExit), arm_status.telling(path):
        raise SystemExit(75)
    assert arm_status.read(path).state is State.STOPPED


@pytest.mark.parametrize(
    ("status", "state"),
    [(0, State.DONE), (75, State.STOPPED), (76, State.STOPPED), (77, State.STOPPED), (143, State.STOPPED),
     (-9, State.STOPPED), (1, State.FAILED), (2, State.FAILED), (3, State.FAILED)],
)  # fmt: skip
def test_statuses_that_another_start_mends_are_stops(status, state):
    assert arm_status.state_after(status) is state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "asleep"}', json.dumps({"state": "done"})])
def test_a_damaged_file_is_named(path, text):
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(DataError, match=r"seed0\.json: this file is damaged .*remove it"):
        arm_status.read(path)
