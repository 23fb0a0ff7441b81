"""Traces of steps, and the operations that are read from them."""

import jax
import jax.numpy as jnp
import pytest

from ecgjax.training.profiling.operations import Span, latest_trace, operations_of, own_times
from ecgjax.training.profiling.profile_settings import ProfileSettings
from ecgjax.training.profiling.step_trace import PROFILE_DIR, StepTrace


def take(step, *, first, calls):
    state = jnp.ones((200, 200))
    for _ in range(calls):
        state, _ = step(state, None)
    return first + calls


@jax.jit
def work(state, batch):
    del batch
    return jnp.tanh(state @ state) / 200, {}


def test_a_trace_of_the_steps_that_were_asked_for_has_their_operations(tmp_path, capsys):
    work(jnp.ones((200, 200)), None)
    with StepTrace(work, tmp_path, ProfileSettings(start=2, steps=3), first=0) as step:
        take(step, first=0, calls=7)
    assert capsys.readouterr().out == f"trace of the steps up to 5: {tmp_path / PROFILE_DIR}\n"
    files = latest_trace(tmp_path)
    assert len(files) == 1
    operations = [each for each in operations_of(files) if each.program == "jit_work"]
    assert sum(each.share for each in operations_of(files)) == pytest.approx(1)
    assert max(each.executions for each in operations) % 3 == 0, "three steps"
    assert all(each.seconds > 0 for each in operations[:1])


@pytest.mark.parametrize(("start", "first"), [(None, 0), (100, 0), (0, 50)])
def test_a_run_without_these_steps_has_no_trace(tmp_path, start, first):
    with StepTrace(work, tmp_path, ProfileSettings(start=start, steps=3), first=first) as step:
        take(step, first=first, calls=2)
    assert latest_trace(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_trace_that_an_error_cuts_short_is_written(tmp_path):
    def stopped(step):
        take(step, first=0, calls=2)
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        StepTrace(work, tmp_path, ProfileSettings(start=0, steps=30), first=0) as step,
    ):
        stopped(step)
    assert operations_of(latest_trace(tmp_path))


def test_a_trace_that_cannot_be_written_costs_a_warning(tmp_path, capsys):
    (tmp_path / PROFILE_DIR).write_text("no folder")
    with StepTrace(work, tmp_path, ProfileSettings(start=0, steps=1), first=0) as step:
        take(step, first=0, calls=2)
    assert "there is no trace in" in capsys.readouterr().err


def test_own_time_leaves_out_what_lies_inside():
    # A loop from 0 to 100 with two turns, of which the second has an operation inside; then one beside them.
    spans = [
        Span(0, 100, "while", "p"), Span(10, 20, "body", "p"), Span(40, 50, "body", "p"), Span(45, 5, "dot", "p"),
        Span(100, 7, "copy", "p"),
    ]  # fmt: skip
    found = sorted((span.name, own) for span, own in own_times(reversed(spans)))
    assert found == [("body", 20), ("body", 45), ("copy", 7), ("dot", 5), ("while", 30)]
