"""The stopwatch against a made-up clock, and its file against kills and bad disks."""

import json
import threading

import jax
import jax.numpy as jnp
import pytest

from data_pipelines.errors import DataError
from ecgjax.errors import ConfigError
from ecgjax.training.run_log import metric_writer
from ecgjax.training.run_time.account import account_of
from ecgjax.training.run_time.compile_time import CompileTime
from ecgjax.training.run_time.events import GOODPUT_FILE, read_events
from ecgjax.training.run_time.stopwatch import Stopwatch

LINES = ["begin", "train", "save", "stopped"]


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock(50.0)


def stopwatch(clock, **options):
    return Stopwatch(clock=clock, wall=lambda: 1000.0 + clock.now, **options)


def spend(watch, clock, kind, seconds):
    with watch.spending(kind):
        clock.now += seconds


def train(watch, clock, workdir, *, first, steps, save=True):
    """Takes 3 s for the start, and 0.25 s of input and 1 s for each step; a save takes 2 s."""
    watch.write_to(workdir)
    clock.now += 3
    watch.train_from(first)
    for _ in range(steps):
        spend(watch, clock, "input", 0.25)
        clock.now += 1
        watch.step()
    if save:
        spend(watch, clock, "save", 2)


def test_all_time_is_given_to_one_kind(tmp_path, clock):
    with stopwatch(clock, begun=1045.0) as watch:
        train(watch, clock, tmp_path, first=0, steps=4)
        spend(watch, clock, "evaluate", 10)
        told = watch.metrics()
        watch.finished()
    (start,) = account_of(read_events(tmp_path)).starts
    assert start.spent == {
        "init": 8, "compile": 0, "input": 1, "step": 4, "evaluate": 10, "save": 2, "lost": 0, "down": 0,
    }  # fmt: skip
    assert told["perf/goodput"] == pytest.approx(4 / 25)
    assert sum(value for name, value in told.items() if name.startswith("perf/share_")) == pytest.approx(1)
    assert (start.ended, start.last) == ("finished", 4)


def test_a_later_start_counts_what_an_earlier_one_lost(tmp_path, clock):
    killed = stopwatch(clock)
    train(killed, clock, tmp_path, first=0, steps=4)
    for _ in range(2):
        clock.now += 1
        killed.step()
    killed._write("alive")
    killed._writer.close()  # It is killed once that line is on the disk.
    clock.now += 20
    with stopwatch(clock) as watch:
        train(watch, clock, tmp_path, first=4, steps=6, save=False)
        told = watch.metrics()
    # First 3 + 1 + 4 + 2 and 2 s lost, 20 s down, then 3 + 1.5 + 6.
    whole = 10 + 2 + 20 + 10.5
    assert told["perf/share_lost"] == pytest.approx(2 / whole)
    assert told["perf/share_down"] == pytest.approx(20 / whole)
    assert told["perf/goodput"] == pytest.approx(10 / whole)
    assert account_of(read_events(tmp_path)).goodput == pytest.approx(10 / whole)


def test_a_start_that_is_refused_writes_nothing(tmp_path, clock):
    with pytest.raises(ValueError, match="refused"), stopwatch(clock):
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []


def test_what_compiles_is_taken_from_where_it_happened(tmp_path):
    with Stopwatch() as watch:
        with watch.spending("evaluate"):
            jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((3, 3)))
        spent = dict(watch._event("now").spent)
    assert spent["compile"] > 0
    assert all(value >= 0 for value in spent.values())


def test_a_part_of_a_compilation_inside_another_counts_once(clock):
    added = []
    compiling = CompileTime(added.append, clock=clock)
    clock.now = 3.0
    compiling.part(1.0)  # 2 to 3
    clock.now = 6.0
    compiling.part(2.0)  # 4 to 6
    clock.now = 7.0
    compiling.part(5.5)  # 1.5 to 7, around both
    clock.now = 9.0
    compiling.part(1.0)  # 8 to 9
    assert added == [1.0, 2.0, 2.5, 1.0]


def test_only_its_own_thread_counts_as_compiling():
    added = []
    with CompileTime(added.append):
        other = threading.Thread(target=lambda: jax.jit(lambda x: x * 3 + 1)(jnp.ones(7)))
        other.start()
        other.join()
        assert added == []
    jax.jit(lambda x: x * 5 + 1)(jnp.ones(7))
    assert added == [], "it hears no more after its end"


@pytest.mark.parametrize("cut", [1, 20])
def test_half_a_line_costs_that_line_alone(tmp_path, clock, cut, capsys):
    path = tmp_path / GOODPUT_FILE
    with stopwatch(clock) as watch:
        train(watch, clock, tmp_path, first=0, steps=4)
    path.write_bytes(path.read_bytes()[:-cut])
    clock.now += 1
    with stopwatch(clock) as watch:
        train(watch, clock, tmp_path, first=4, steps=1)
    # Four lines each (begin, train, save, end), of which one was cut.
    assert [event.occasion for event in read_events(tmp_path)] == ["begin", "train", "save", *LINES]
    assert [start.last for start in account_of(read_events(tmp_path)).starts] == [4, 5]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"[]", b"{}", b"null", b'{"begun": "x"}', b"[" * 5000, json.dumps({"begun": 1e400}).encode()],
)
def test_damaged_lines_are_passed_over_and_counted(tmp_path, clock, line, capsys):
    path = tmp_path / GOODPUT_FILE
    with stopwatch(clock) as watch:
        train(watch, clock, tmp_path, first=0, steps=4)
    whole = read_events(tmp_path)
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert read_events(tmp_path) == whole
    assert "1 damaged line, passed over" in capsys.readouterr().err


def test_a_full_disk_costs_the_lines_and_not_the_run(tmp_path, clock, capsys):
    (tmp_path / GOODPUT_FILE).symlink_to("/dev/full")
    with stopwatch(clock) as watch:
        train(watch, clock, tmp_path, first=0, steps=4)
        assert watch.metrics()["perf/goodput"] > 0
    told = capsys.readouterr().err
    assert "goodput.jsonl cannot be written (No space left on device); training goes on" in told
    assert "records of" in told


def test_a_disk_that_gives_no_answer_is_not_waited_for(tmp_path, clock, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(metric_writer, "append_whole", lambda *_, **__: answers.wait(60))
    watch = stopwatch(clock)
    train(watch, clock, tmp_path, first=0, steps=4)  # It would hang here.
    answers.set()
    watch._writer.close()


def test_a_beat_writes_what_was_spent_so_far(tmp_path, clock):
    with stopwatch(clock, beat_s=0.01) as watch:
        watch.write_to(tmp_path)
        clock.now += 100
        deadline = threading.Event()
        for _ in range(200):
            if any(event.spent["init"] == 100 for event in read_events(tmp_path)):
                break
            deadline.wait(0.02)
    assert any(event.occasion == "alive" and event.spent["init"] == 100 for event in read_events(tmp_path))


@pytest.mark.parametrize("error", [ConfigError("a leaf"), DataError("a shard")])
def test_a_start_that_is_refused_leaves_no_line(clock, tmp_path, error):
    def start(*, trains):
        with stopwatch(clock) as watch:
            if trains:
                train(watch, clock, tmp_path, first=2, steps=1)
            watch.write_to(tmp_path)
            raise error

    with pytest.raises(type(error)):
        start(trains=False)
    assert not (tmp_path / GOODPUT_FILE).exists()
    with stopwatch(clock) as watch:
        train(watch, clock, tmp_path, first=0, steps=2)
    before = (tmp_path / GOODPUT_FILE).read_bytes()
    with pytest.raises(type(error)):
        start(trains=False)
    assert (tmp_path / GOODPUT_FILE).read_bytes() == before
    # What is wrong once the training has begun is no refusal.
    with pytest.raises(type(error)):
        start(trains=True)
    assert len((tmp_path / GOODPUT_FILE).read_bytes()) > len(before)
