import pytest

from ecgjax.processes.signs_of_life import SignsOfLife
from ecgjax.training.run_log.metrics_file import read_metrics
from ecgjax.training.run_time.stragglers import Pace, pace_of, straggler_of
from ecgjax.training.telemetry import Telemetry


def test_the_process_that_waits_longest_is_found_and_told_where_it_matters():
    own = Pace(10, 4.0, 100.0)
    told = {1: Pace(10, 60.0, 100.0).text(), 2: Pace(10, 5.0, 100.0).text(), 3: Pace(9, 6.0, 100.0).text()}
    slowest = straggler_of(told, own=own)
    assert (slowest.process, slowest.median_ms, slowest.is_told) == (1, 5.0, True)
    assert slowest.metrics() == {
        "perf/straggler_process": 1.0, "perf/straggler_input_ms": 60.0, "perf/straggler_excess_ms": 55.0,
    }  # fmt: skip


def test_what_is_small_beside_a_step_or_beside_the_others_is_not_told():
    assert not straggler_of({1: Pace(1, 9.0, 100.0).text()}, own=Pace(1, 0.5, 100.0)).is_told
    assert not straggler_of({1: Pace(1, 79.0, 100.0).text()}, own=Pace(1, 40.0, 100.0)).is_told
    assert straggler_of({1: Pace(1, 5.0, 100.0).text()}, own=Pace(1, 40.0, 100.0)).process == 0


@pytest.mark.parametrize("text", ["", "null", "[1]", "[1, 2, 3, 4]", '["a", 1, 2]', "[1, NaN, 2]", "{}", "[1, [], 2]"])
def test_what_is_no_pace_is_passed_over(text):
    assert pace_of(text) is None
    assert straggler_of({1: text}, own=Pace(1, 1.0, 1.0)) is None
    assert pace_of(Pace(3, 1.5, 2.5).text()) == Pace(3, 1.5, 2.5)


class Signs:
    def __init__(self):
        self.noted, self.others = [], {}

    def note(self, text):
        self.noted.append(text)

    def notes(self):
        return self.others

    def host_of(self, process):
        return f"host{process}"


def test_a_straggler_is_told_once_and_logged_every_time(tmp_path, monkeypatch, capsys):
    signs = Signs()
    monkeypatch.setattr(SignsOfLife, "_current", signs)
    with Telemetry(tmp_path, total_steps=9, examples_per_step=1, progress=False) as telemetry:
        for step in (1, 2, 3):
            telemetry.step()
            telemetry.log(step, {"train/loss": 1.0})
            signs.others = {1: Pace(step, 1e6, 1e6).text()}
    told = [line for line in capsys.readouterr().err.splitlines() if "waits" in line]
    assert len(told) == 1
    assert told[0].startswith("warning: process 1 (host1) waits 1000000.0 ms of every step for its input")
    first, *others = read_metrics(tmp_path)
    assert "perf/straggler_process" not in first, "no other process has told anything yet"
    assert [line["perf/straggler_process"] for line in others] == [1, 1]
    assert [pace_of(text).step for text in signs.noted] == [1, 2, 3]
