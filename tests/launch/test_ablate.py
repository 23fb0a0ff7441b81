"""The command that runs an ablation, from configs to tables."""

import json
import shlex
import subprocess
import types

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict

from data_pipelines.errors import DataError
from ecgjax import pretrain
from ecgjax.config import run_config
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.settings.sections import tree_of
from launch import ablate
from launch.arms import arms_of

TINY = "tests/support/tiny_config.py"


def _plan(sweeps, *, seeds=1, configs=(TINY,), common=()):
    return ablate.plan(arms_of(configs, sweeps, common=common), seeds=seeds)


def test_every_encoder_has_one_random_twin_a_seed():
    runs = _plan(["objective.temperature=.1|.2", "base|encoder.dropout=.5"], seeds=2)
    twins = [(run.arm, run.seed) for run in runs if not run.twin]
    name = runs[0].settings.encoder.name
    assert twins == [(f"random {name}{more}", seed) for seed in (0, 1) for more in ("", " #2")]
    trained = [run for run in runs if run.twin]
    assert len(trained) == 8
    assert {run.twin for run in trained if "dropout" in run.arm} == {f"random {name} #2"}
    assert len({run.digest for run in runs}) == len({run.name for run in runs}) == len(runs)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)


def test_where_the_data_lie_decides_nothing():
    here, there = (_plan([], common=[("data.dir", place)]) for place in ("a", "b"))
    assert [run.digest for run in here] == [run.digest for run in there]


def test_settings_of_other_evaluations_decide_nothing_and_those_of_the_probe_do():
    (_, plain), (_, other), (_, layer) = (
        _plan([], common=common)
        for common in ([], [("probe.finetune.steps", "7"), ("probe.task", "x")], [("probe.layer", "embedding")])
    )
    assert plain.digest == other.digest != layer.digest


def test_arms_about_other_records_are_refused():
    with pytest.raises(ConfigError, match=r"config\.data\.test_folds is \(9,\).*all arms are judged on the same"):
        _plan(["base|data.test_folds=(9,)"])


@pytest.fixture
def given(stored_dataset, monkeypatch, tmp_path):
    """Gives the command some arguments; pretraining happens in this process."""
    planned = {}

    def pretrain_here(command, check, env):
        workdir = next(word for word in command if word.startswith("--workdir=")).removeprefix("--workdir=")
        with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power
            finished = pretrain.pretrain(ConfigDict(tree_of(planned[workdir].settings)), workdir)
        return subprocess.CompletedProcess(command, 0 if finished else 75)

    def give(*more):
        common = {
            "data.dir": stored_dataset[0].directory, "data.train_folds": "(1,2,3,4,5,6)", "data.val_folds": "(7,8)",
            "data.test_folds": "(9,10)", "encoder.widths": "(4,)", "duration.value": "2", "duration.unit": "steps",
            "log_every": "1",
        }  # fmt: skip
        arguments = [f"--config={TINY}", *(f"--config.{leaf}={value}" for leaf, value in common.items()),
                     "--task=age_years>55", "--task=age", "--label_fraction=.5", "--resamples=100", "--seeds=1",
                     f"--out={tmp_path / 'out'}", *more]  # fmt: skip
        values = flags.FlagValues()
        ablate.define_flags(values)
        values(["ablate", *ablate.common_changes(arguments)[0]])
        asked = ablate.asked_by(values, arguments=arguments)
        for run in ablate.plan(arms_of(asked.config, asked.sweep, common=asked.common), seeds=asked.seeds):
            planned[str(tmp_path / "out" / "runs" / run.folder / f"seed{run.seed}")] = run
        return ablate.ablate(asked)

    monkeypatch.setattr(ablate, "subprocess", types.SimpleNamespace(run=pretrain_here))
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    return give


@pytest.mark.slow
def test_an_ablation_from_configs_to_tables(given, tmp_path, capsys, monkeypatch):
    out, sweep = tmp_path / "out", "--sweep=objective.temperature=.1|.5"
    given(sweep, "--jobs", str(tmp_path / "jobs"))
    jobs = (tmp_path / "jobs").read_text().splitlines()
    assert len(jobs) == 3
    assert all(word.startswith("--") for word in shlex.split(jobs[0])[3:])
    only = jobs[-1].split("--only=")[1].strip("'")
    assert not (out / "results").exists()

    assert given(sweep, f"--only={only}") is None
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "temperature=.5" in report
    assert "Not made yet: random-" in report

    assert given(sweep) is None
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "SIMULATED" in report
    assert "Not made yet" not in report
    for words in (
        "age_years>55 (AUROC)",
        "age (R²)",
        "validation loss, last",
        "same-patient pairs a batch",
        "How to make it again",
        "Environment",
        "Data",
    ):
        assert words in report
    stored = json.loads((out / "results.json").read_text())
    assert [run["facts"].get("steps") for run in stored["runs"]] == [None, 2, 2]
    assert set(stored["answers"][0]["above_random"]) == {run["arm"] for run in stored["runs"][1:]}
    capsys.readouterr()

    # Done: nothing is trained again, and the same tables come from the files.
    monkeypatch.setattr(ablate, "probe_tasks", None)
    assert given(sweep) is None
    assert (out / "report.md").read_text(encoding="utf-8") == report
    given(sweep, f"--jobs={tmp_path / 'jobs'}")
    assert (tmp_path / "jobs").read_text() == ""

    with pytest.raises(ConfigError, match="is the result of another config"):
        given(sweep, "--config.views.num=3")
    with pytest.raises(ConfigError, match="holds another study: label_fraction differ"):
        given(sweep, "--label_fraction=1")
    with pytest.raises(ConfigError, match="--only=nothing: there is no such run"):
        given(sweep, "--only=nothing")


def test_seeds_share_compiled_programs_unless_they_are_kept_elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    kept = jax.config.jax_compilation_cache_dir
    ablate.keep_compiled(tmp_path)
    assert jax.config.jax_compilation_cache_dir == kept
    assert ablate._environment()["JAX_COMPILATION_CACHE_DIR"] == kept
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert "JAX_COMPILATION_CACHE_DIR" not in ablate._environment()
        ablate.keep_compiled(tmp_path)
        assert ablate._environment()["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)


def test_a_run_that_fails_is_named_and_the_others_go_on(given, monkeypatch, tmp_path, capsys):
    failing = types.SimpleNamespace(run=lambda command, **_: subprocess.CompletedProcess(command, 2))
    monkeypatch.setattr(ablate, "subprocess", failing)
    assert given() == 1
    assert "failed: pretraining ended with status 2" in capsys.readouterr().err
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Failed: tiny_config" in report
    assert len(list((tmp_path / "out" / "results").rglob("*.npz"))) == 1, "the random encoder"

    def none(*args, title, **kwargs):
        raise DataError("no probe is possible")

    monkeypatch.setattr(ablate, "probe_tasks", none)
    assert given("--seeds=2") == 1
    assert "random" in (error := capsys.readouterr().err)
    assert "/seed1 failed: no probe is possible" in error
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "/seed1 (no probe is possible)" in report


def test_what_any_arm_is_pretrained_on_is_kept_out_of_what_all_are_judged_on(given, monkeypatch, tmp_path, capsys):
    trained = []

    def with_a_test_record(recordings, records, *, run):
        trained.append(records)
        return listed(recordings, np.union1d(records, recordings.split.test[:1]), run=run)

    listed = ablate.pretraining_records
    monkeypatch.setattr(ablate, "pretraining_records", with_a_test_record)
    monkeypatch.setattr(ablate, "make", lambda *args, **kwargs: 2)
    other = "--sweep=base|data.train_folds=(1,2)"
    with pytest.raises(ConfigError, match=r"1 of the .* validation and test records overlap .*probe\.overlaps=drop"):
        given(other)
    given(other, "--config.probe.overlaps=drop")
    assert "left out of validation and test" in capsys.readouterr().out
    given("--config.data.train_folds=(1,2)", "--config.probe.overlaps=drop", f"--out={tmp_path / 'other'}")
    assert len(trained[0]) == len(trained[1]) > len(trained[2]), "the folds of all arms count"


def test_a_run_that_is_told_to_stop_stops_the_command(given, monkeypatch, tmp_path):
    status = run_config.EXIT_STOPPED
    stopping = types.SimpleNamespace(run=lambda command, **_: subprocess.CompletedProcess(command, status))
    monkeypatch.setattr(ablate, "subprocess", stopping)
    assert given("--sweep=objective.temperature=.1|.5") == status
    assert not (tmp_path / "out" / "report.md").exists()
