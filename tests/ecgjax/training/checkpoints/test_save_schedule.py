"""When a run saves: by steps, by time, and where an evaluation is better than all before."""

import jax.numpy as jnp
import pytest

from ecgjax.training.checkpoints import save_schedule
from ecgjax.training.checkpoints.best_checkpoint import Best
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.checkpoints.save_schedule import SaveSchedule
from ecgjax.training.telemetry import Telemetry
from tests.ecgjax.training.test_loop import State, train


def steps_saved(schedule, seconds_a_step, steps=40):
    now, saved = [0.0], []
    schedule._clock = lambda: now[0]
    schedule.saved()
    for step in range(1, steps + 1):
        now[0] += seconds_a_step
        if schedule.due(step):
            saved.append(step)
            schedule.saved()
    return saved


def test_multiples_are_saved():
    assert steps_saved(SaveSchedule(every=15), 1.0) == [15, 30]


def test_time_adds_saves_at_the_next_look():
    # 60 s are over at step 9, and step 10 is the first at which the clock is looked at.
    assert steps_saved(SaveSchedule(every=1000, minutes=1, look_every=5), 7.0) == [10, 20, 30, 40]


def test_time_counts_from_the_last_save_of_whatever_kind():
    # Steps 8 (8 · 7 s = 56 s since the start) and 17 (63 s since 8).
    assert steps_saved(SaveSchedule(every=8, minutes=1), 7.0, steps=8 * 3 - 1) == [8, 16]


def test_the_first_process_reads_the_clock_for_all(monkeypatch):
    asked = []

    def of_first_process(number):
        asked.append(number)
        return int(len(asked) == 2)

    monkeypatch.setattr(save_schedule, "of_first_process", of_first_process)
    assert steps_saved(SaveSchedule(every=100, minutes=1, look_every=10), 7.0) == [20], "whatever the own clock says"
    assert len(asked) == 4, "every process asks at every look"


def test_without_minutes_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(save_schedule, "of_first_process", pytest.fail)
    assert steps_saved(SaveSchedule(every=20), 1e9) == [20, 40]


def test_an_evaluation_that_is_better_than_all_is_saved_at_once(tmp_path):
    losses = {0: 0.1, 5: 4.0, 10: 3.0, 15: 5.0, 20: 2.0, 25: 2.0, 30: 6.0}

    def step(state, _):
        return State(state.step + 1), {"loss": jnp.float32(1.0), "param_norm": jnp.float32(1.0)}

    saved = []
    best = Best(metric="eval/loss", mode="min")
    with (
        Checkpoints(tmp_path / "checkpoints", keep_last=1, best=best) as checkpoints,
        Telemetry(tmp_path, total_steps=30, examples_per_step=1, progress=False) as telemetry,
    ):
        save = checkpoints.save

        def noted(now, parts, *, metadata):
            saved.append((now, metadata["evaluation"]))
            save(now, parts, metadata=metadata)

        checkpoints.save = noted
        train(
            State(jnp.int32(0)),
            step=step,
            batches=iter([{}] * 30),
            num_steps=30,
            telemetry=telemetry,
            checkpoints=checkpoints,
            metadata=lambda _: {},
            log_every=5,
            saves=SaveSchedule(every=12),
            evaluate=lambda state: {"eval/loss": losses[int(state.step)]},
            eval_every=5,
        )
        assert checkpoints.best() == (20, 2.0)
        assert checkpoints.steps() == [20, 30]
    evaluated = [5, 10, 20, 30]
    assert [now for now, _ in saved] == [5, 10, 12, 20, 24, 30], "the first state has nothing that was trained"
    assert dict(saved) == {now: {"eval/loss": losses[now]} if now in evaluated else {} for now, _ in saved}
