"""The code answers what it answered before, and opens what was written before (`tests/golden`)."""

import functools
import json
from pathlib import Path

import pytest

from tests.golden import answers, normalise, results_map
from tests.golden.commands import RENAMED, ROOT
from tests.golden.machine import machine, same_numbers, same_words, unlike
from tests.golden.making import all_of, begin, words
from tests.golden.opening import open_old
from tests.golden.runs import step_jobs
from tests.golden.studies import study_jobs

RECORDED = Path(__file__).parents[1] / "golden"


@functools.cache
def recorded(kind):
    return answers.read(RECORDED, kind)[kind]


def assert_equal(old, new):
    unexpected, _ = answers.agreed_on(answers.differences(old, new))
    assert not unexpected, "\n".join(unexpected[:50])


def test_commands_and_configs_say_what_they_said():
    if not same_words(recorded(answers.MACHINE), machine()):
        pytest.skip("another release of absl or ml-collections writes these texts")
    assert_equal({kind: recorded(kind) for kind in answers.WORDS}, words())


@pytest.mark.slow
def test_what_was_written_before_is_opened_and_gone_on_with():
    unexpected, _ = answers.agreed_on(open_old(RECORDED, only=("data set", "half-finished run")))
    assert not unexpected, "\n".join(unexpected[:50])


@pytest.mark.slow
def test_what_was_trained_before_is_evaluated_alike():
    unexpected, _ = answers.agreed_on(open_old(RECORDED, only=("checkpoint", "kept features")))
    assert not unexpected, "\n".join(unexpected[:50])


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A working folder with the data sets and the kept run, and what was answered in making them."""
    if not same_numbers(recorded(answers.MACHINE), machine()):
        pytest.skip(f"other machine: {'; '.join(unlike(recorded(answers.MACHINE), machine()))}")
    folder = tmp_path_factory.mktemp("golden")
    return folder, begin(folder)


@pytest.mark.slow
def test_data_and_steps_are_equal_to_the_last_bit(begun):
    folder, found = begun
    # Programs of `dade` take as long to compile as all others together: `make` and `compare` go through them.
    # Configs that are younger than the record have nothing to be compared with.
    jobs = {name: job for name, job in step_jobs(folder).items() if "dade" not in name and name in recorded("steps")}
    steps = found["steps"] | all_of("steps", jobs)
    assert_equal(
        {"data": recorded("data"), "steps": {name: recorded("steps")[name] for name in steps}},
        {"data": found["data"], "steps": steps},
    )


@pytest.mark.slow
def test_the_table_of_results_has_every_number_of_before(begun):
    folder, _ = begun
    found = all_of("results", study_jobs(folder))
    lines = [line for study, old in recorded("results").items()
             for line in results_map.differences(study, old, found[study])]  # fmt: skip
    unexpected, _ = answers.agreed_on(lines)
    assert not unexpected, "\n".join(unexpected[:50])


def test_differences_are_named():
    old = {"a": {"b/c": 1, "d": [1, 2]}, "e": {}, "same": "x"}
    new = {"a": {"b/c": 1.0, "d": [1]}, "e": {"f": None}, "same": "x"}
    assert answers.differences(old, new) == [
        "a/b/c: 1 -> 1.0", "a/d/1: 2 -> absent", "e: {} -> absent", "e/f: absent -> null",
    ]  # fmt: skip
    assert answers.differences(old, old) == []


def test_what_is_written_is_read_again(tmp_path):
    value = {"rows": {"1": "0x1p+0", "2": "é"}, "long": {str(n): ["x" * 40] * 3 for n in range(3)}, "none": []}
    answers.write(tmp_path, {"helps": value, "steps": [value, 1, None]})
    assert answers.read(tmp_path, "helps", "steps") == {"helps": value, "steps": [value, 1, None]}


@pytest.mark.parametrize("number", [0.0, -0.0, 1.0, 1 / 3, -2.5e-300, 1024.0, 0.1])
def test_floats_are_exact(number):
    assert float.fromhex(normalise.exact(number)).hex() == number.hex()


def test_only_what_is_measured_anew_is_left_out():
    lines = [json.dumps({"step": 1, "train/loss": 0.5, "perf/step_ms": 3.0, "eval/loss": None})]
    assert normalise.metrics(lines) == {"train/loss": {"1": "0x1p-1"}, "eval/loss": {"1": "null"}}
    assert normalise.plain({"seconds": 1.5, "environment": {}, "a": [0.5, 1]}) == {"a": ["0x1p-1", 1]}
    for old, new in RENAMED.items():
        assert normalise.words(f"{ROOT}/a.py:\n python -m {new}") == f"COMMAND:\n python -m {old}"


def test_a_meant_difference_has_a_reason(monkeypatch, tmp_path):
    (tmp_path / "agreed.txt").write_text("# comment\nleaves/*/mesh.* # a new leaf\n")
    monkeypatch.setattr(answers, "_AGREED", tmp_path / "agreed.txt")
    lines = ["leaves/simclr.py/mesh.rules: absent -> x", "leaves/simclr.py/seed: 0 -> 1"]
    assert answers.agreed_on(lines) == (lines[1:], lines[:1])
