"""The loop: what is written before a checkpoint, and that a diverged run does not replace the last good one."""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import pytest

from ecgjax.errors import DivergedError
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.checkpoints.save_schedule import SaveSchedule
from ecgjax.training.loop import train
from ecgjax.training.run_log.metrics_file import read_metrics
from ecgjax.training.telemetry import Telemetry


class State(NamedTuple):
    step: jnp.ndarray

    def parts(self):
        return self._asdict()


class RecordingCheckpoints:
    """Stands for the checkpoints: notes what `metrics.jsonl` held when each save began."""

    def __init__(self, workdir):
        self.workdir, self.logged, self.directory = workdir, {}, workdir / "checkpoints"

    def save(self, step, parts, *, metadata):
        assert int(parts["step"]) == step
        self.logged[step] = [line["step"] for line in read_metrics(self.workdir) if "train/loss" in line]

    def wait(self):
        pass

    def improves(self, evaluation):
        return False


def run(workdir, *, start=0, num_steps=20, bad_from=math.inf, checkpoints=None, log_every=5, evaluate=None, more=None):
    def step(state, batch):
        done = int(state.step) + 1
        value = math.nan if done >= bad_from else 1.0
        return State(jnp.int32(done)), {"loss": jnp.float32(1.0), "param_norm": jnp.float32(value)}

    checkpoints = checkpoints or RecordingCheckpoints(workdir)
    with Telemetry(workdir, total_steps=num_steps, examples_per_step=1, start_step=start, progress=False) as telemetry:
        train(
            State(jnp.int32(start)),
            step=step,
            batches=itertools.repeat({}),
            num_steps=num_steps,
            telemetry=telemetry,
            checkpoints=checkpoints,
            metadata=lambda step: {"step": step},
            log_every=log_every,
            saves=SaveSchedule(every=10),
            evaluate=evaluate,
            eval_every=10 if evaluate else 0,
            more_metrics=more,
        )
    return checkpoints


def test_what_led_to_a_checkpoint_is_logged_before_it(tmp_path):
    # A run killed right after the save resumes there, and nobody would ever write these lines.
    assert run(tmp_path).logged == {10: [5, 10], 20: [5, 10, 15, 20]}


def test_further_metrics_are_computed_at_a_tenth_of_the_logged_steps_alone(tmp_path):
    asked = []

    def more(state, batch):
        asked.append(int(state.step))
        return {"grad_norm_task": jnp.float32(state.step)}

    run(tmp_path, more=more, num_steps=48, log_every=2)
    assert asked == [1, 19, 39, 47], "before the first and the last that are logged, and every tenth"
    logged = {
        line["step"]: line["train/grad_norm_task"] for line in read_metrics(tmp_path) if "train/grad_norm_task" in line
    }
    assert logged == {2: 1.0, 20: 19.0, 40: 39.0, 48: 47.0}


def test_a_run_started_again_from_0_writes_each_line_once(tmp_path):
    for _ in range(2):
        run(tmp_path, evaluate=lambda state: {"eval/loss": 2.0})
    steps = [line["step"] for line in read_metrics(tmp_path) if "eval/loss" in line]
    assert steps == [0, 10, 20]


@pytest.mark.parametrize(("bad_from", "log_every"), [(13, 1), (13, 5), (13, 1000), (20, 7)])
def test_a_run_that_diverges_stops_and_keeps_the_last_good_checkpoint(tmp_path, bad_from, log_every):
    with Checkpoints(tmp_path / "checkpoints", keep_last=1) as checkpoints:
        with pytest.raises(DivergedError, match=r"train/param_norm is nan at step \d+;.*learning_rate"):
            run(tmp_path, bad_from=bad_from, checkpoints=checkpoints, log_every=log_every)
        assert checkpoints.steps() == [10]
