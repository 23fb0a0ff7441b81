"""Programs are timed in turns, each from rest, and stand beside a ceiling of the same run."""

import json
import threading
import time

import pytest

from data_pipelines.benchmarks import harness


def test_what_one_leaves_behind_is_not_counted_to_the_next(monkeypatch):
    monkeypatch.setattr(harness, "REPEATS", 1)
    monkeypatch.setattr(harness, "_REST_S", 0.2)
    threads = []

    def leave_work_behind():
        def work():
            end = time.process_time() + 0.5
            while time.process_time() < end:
                pass

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    still_at_work = []
    harness.take_turns({"first": leave_work_behind, "second": lambda: still_at_work.append(threads[-1].is_alive())})
    assert still_at_work == [False] * (harness.REPEATS + 1)


def test_the_first_repetition_is_discarded_and_the_others_end_in_time():
    ran = []
    programs = {name: lambda name=name: ran.append(name) for name in ("one", "other")}
    assert [len(values) for values in harness.repetitions(programs, repeats=3).values()] == [3, 3]
    assert ran == ["one", "other"] * 4
    # One repetition is timed, however long it takes.
    assert [len(values) for values in harness.repetitions(programs, repeats=3, at_most_s=0).values()] == [1, 1]


def test_a_ratio_is_of_the_medians():
    found = harness.beside([100.0, 300.0, 200.4], "disk", [400.0, 500.0, 100.0])
    assert found == {
        "ecgs_per_sec": 200,
        "repetitions": [100, 300, 200],
        "disk_ecgs_per_sec": 400,
        "disk_repetitions": [400, 500, 100],
        "ratio_to_disk": pytest.approx(0.501),
    }


def test_the_report_begins_with_what_was_measured(capsys):
    harness.print_report("input", {"name": "ä"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"what": "input", "name": "ä"}
    assert "ä" in printed
