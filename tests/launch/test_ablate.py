"""The command that runs an ablation, from configs to tables."""

import hashlib
import json
import os
import re
import shlex
import shutil
import types
from pathlib import Path

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
from ecgjax.evaluation.models import boosted
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.results import Key, read_results
from ecgjax.pages import write
from ecgjax.pages.images import Image
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies.ablation import ArmRun
from ecgjax.studies.model_names import BASELINES, PLAIN
from launch import ablate
from launch.ablation import arm_status, judged_records, making, planned_runs, request
from launch.ablation.arms import arms_of
from tests.ecgjax.studies.test_ablation import write_as_before

TINY = "tests/support/tiny_config.py"


def _plan(sweeps, *, seeds=1, configs=(TINY,), common=(), **asked):
    return planned_runs.plan(arms_of(configs, sweeps, common=common), seeds=seeds, **asked)


def test_every_encoder_has_one_random_twin_a_seed():
    runs = _plan(["objective.temperature=.1|.2", "base|encoder.dropout=.5"], seeds=2)
    twins = [(run.arm, run.seed) for run in runs if run.model == "random"]
    name = runs[0].settings.encoder.name
    assert twins == [(f"random {name}{more}", seed) for seed in (0, 1) for more in ("", " #2")]
    of_labels = [(run.arm, run.seed) for run in runs if run.model == "supervised"]
    assert of_labels == [(f"labels only {name}{more}", seed) for seed in (0, 1) for more in ("", " #2")]
    trained = [run for run in runs if run.twin]
    assert len(trained) == 8
    assert {run.twin for run in trained if "dropout" in run.arm} == {f"random {name} #2"}
    assert len({run.digest for run in runs}) == len({run.name for run in runs}) == len(runs)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)


def test_models_without_an_encoder_stand_once_a_seed_beside_all_arms():
    runs = _plan(["base|encoder.dropout=.5"], seeds=2)
    plain = [(run.arm, run.seed) for run in runs if run.model in PLAIN]
    titles = ("intervals and amplitudes", "boosted trees", "median beat", "age and sex")
    assert plain == [(title, seed) for seed in (0, 1) for title in titles]
    assert not any(run.twin or run.flags for run in runs if run.model != "pretrained")
    few = _plan(["base|encoder.dropout=.5"], baselines=("demographics",))
    assert [run.model for run in few] == ["random", "demographics", "pretrained", "random", "pretrained"]
    assert [run.model for run in _plan([], baselines=())] == ["random", "pretrained"]


def test_where_the_data_lie_decides_nothing():
    here, there = (_plan([], common=[("data.dir", place)]) for place in ("a", "b"))
    assert [run.digest for run in here] == [run.digest for run in there]


def test_settings_of_other_evaluations_decide_nothing_and_those_of_the_probe_do():
    plain, other, layer = (
        [run.digest for run in _plan([], common=common)]
        for common in ([], [("probe.finetune.steps", "7"), ("probe.task", "x")], [("probe.layer", "embedding")])
    )
    assert plain == other
    assert not {*plain} & {*layer}


def test_arms_of_two_layers_have_twins_of_their_own():
    runs = _plan(["probe.layer=features|embedding"], baselines=())
    assert [(run.model, run.arm, run.settings.probe.layer) for run in runs[::2]] == [
        ("random", "random resnet18", "features"),
        ("random", "random resnet18 (embedding)", "embedding"),
    ]
    assert [run.twin for run in runs[1::2]] == [run.arm for run in runs[::2]]
    assert len({run.folder for run in runs}) == len({run.digest for run in runs}) == 4


def test_every_model_is_decided_by_what_it_is_made_of_and_nothing_else():
    before = _plan([])

    def changed(leaf, value):
        after = _plan([], common=[(leaf, value)])
        return {run.model for run, other in zip(before, after, strict=True) if run.digest != other.digest}

    assert changed("probe.supervised.steps", "7") == {"supervised"}
    assert changed("optimizer.weight_decay", "0.3") == {"supervised", "pretrained"}
    assert changed("optimizer.learning_rate", "0.3") == {"pretrained"}
    assert changed("encoder.dropout", "0.5") == {"random", "supervised", "pretrained"}
    assert changed("data.test_folds", "(9,)") == {"random", "pretrained", *BASELINES}


def _beside(runs):
    """Returns title, folder, seed and digest of every training with labels alone."""
    return {(run.arm, run.folder, run.seed, run.digest) for run in runs if run.model == "supervised"}


@pytest.mark.parametrize(
    ("leaf", "value"), [("optimizer.weight_decay", "0.3"), ("probe.supervised.steps", "7")], ids=["decay", "steps"]
)
def test_trainings_with_labels_that_differ_are_apart_in_any_order_of_the_arms(leaf, value):
    here, there = (_plan([sweep]) for sweep in (f"base|{leaf}={value}", f"{leaf}={value}|base"))
    of_labels = _beside(here)
    assert of_labels == _beside(there)
    assert len(of_labels) == len({folder for _, folder, *_ in of_labels}) == 2
    assert all(re.fullmatch(r"labels-only-resnet18-[0-9a-f]{6}", folder) for _, folder, *_ in of_labels)
    # Whatever is made in one order is what is made in the other.
    assert {(run.name, run.digest) for run in here} == {(run.name, run.digest) for run in there}
    for runs in (here, there):
        trained = {run.arm: run for run in runs if run.model == "supervised"}
        arms = [run for run in runs if run.model == "pretrained"]
        assert len(arms) == 2
        assert len({run.twin for run in arms}) == 1
        for run in arms:
            own = trained[run.labels_only]
            assert flat(tree_of(own.settings))[leaf] == flat(tree_of(run.settings))[leaf]
            assert runs.index(own) < runs.index(run), "it is made before the arm"
        assert len({run.labels_only for run in arms}) == 2


def test_arms_of_equal_trainings_with_labels_share_one():
    runs = _plan(["optimizer.weight_decay=.1|.3", "objective.temperature=.1|.2"])
    assert len(_beside(runs)) == 2
    arms = [run for run in runs if run.model == "pretrained"]
    assert len(arms) == 4
    decays = {(run.labels_only, run.settings.optimizer.weight_decay) for run in arms}
    assert len(decays) == 2
    shared = _plan(["base|optimizer.learning_rate=.3|objective.temperature=.2"])
    assert [title for title, *_ in _beside(shared)] == ["labels only resnet18"]
    assert {run.labels_only for run in shared if run.twin} == {"labels only resnet18"}


def _only(script):
    """Returns the names of the runs of an array, in the order of its jobs."""
    return [shlex.split(line)[0].removeprefix("--only=") for line in re.findall(r"own=\((.*)\) ;;", script.read_text())]


@pytest.fixture
def faked(given, monkeypatch):
    """Gives the command arguments; runs have made-up answers, and those that are named end as a test says.

    Figures are not drawn, which takes longer than all else; the page has its own tests in `test_ablation.py`.
    """
    ends = {}
    monkeypatch.setattr(write, "image_of", lambda picture: Image(data=b"", kind="svg", width=1, height=1))

    def make(run, recordings, tasks, *, out):
        if isinstance(end := ends.get(run.name, 0), Exception):
            raise end
        if end:
            return making.Ended(end, f"pretraining ended with status {end}")
        rng = np.random.default_rng(int(run.digest[:8], 16))
        answers = {
            name: Answers(
                outputs=rng.normal(size=len(data.test.records)).astype(np.float32), records=9, positives=None,
                val_metric=0.5, selected="C = 1",
            )
            for name, data in tasks.items()
        }  # fmt: skip
        facts = {"steps": 2.0} if run.twin else {}
        ArmRun(arm=run.arm, seed=run.seed, twin=run.twin, config=run.digest, tasks=answers, facts=facts).save(
            planned_runs.result_path(out, run)
        )
        return making.Ended(0)

    monkeypatch.setattr(making, "make", make)
    grid = ("--sweep=objective.temperature=.1|.5", "--sweep=batch_size=8|16", "--baselines=none")
    return lambda *more: given(*grid, *more), ends


@pytest.mark.slow
def test_an_array_whose_arms_fail_and_vanish_is_collected_and_gives_the_report_of_a_local_run(faked, tmp_path, capsys):
    give, ends = faked
    script, out, slurm = tmp_path / "array.sh", tmp_path / "out", ("--", "--gpus_per_node=1", "--time=1:00:00")
    assert give("--array=slurm", f"--jobs={script}", *slurm) is None
    assert not (out / "results").exists()
    names = _only(script)
    assert len(names) == 5
    assert "--array=0-4\n" in script.read_text()
    failing, stopped, killed, missing, good = names[1], names[2], names[3], names[4], names[0]
    ends.update({failing: DataError("no probe is possible"), stopped: 75})

    def job(name):
        return give("--noreport", f"--only={name}")

    assert (job(good), job(failing), job(stopped)) == (None, 1, 75)
    assert not (out / "report.md").exists(), "jobs that run at once would write the same file"
    left = out / "status" / killed.replace("/seed0", "") / "seed0.json"
    with arm_status.telling(left):
        begun = left.read_text()
    left.write_text(begun)  # It never came to its end.
    capsys.readouterr()

    assert give("--collect", "--array=slurm", f"--jobs={script}", *slurm) == 1
    assert "1 done, 1 running, 1 stopped, 1 failed, 1 missing" in capsys.readouterr().out
    assert _only(script) == [failing, stopped, missing], "one that is at work is left to it"
    os.utime(left, (left.stat().st_mtime - 1000, left.stat().st_mtime - 1000))
    assert give("--collect", "--array=slurm", f"--jobs={script}", *slurm) == 1
    told = capsys.readouterr()
    assert "1 done, 1 stopped, 1 killed, 1 failed, 1 missing" in told.out
    for line in (f"failed   {failing} (no probe is possible;", f"stopped  {stopped} (pretraining ended with status 75;",
                 f"killed   {killed} (it ended without a word;", f"missing  {missing}\n"):  # fmt: skip
        assert line in told.out
    assert f"error: {failing} failed: no probe is possible" in told.err
    assert _only(script) == names[1:]
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "Failed: " in report
    assert "Not made yet: " in report

    ends.clear()
    assert [job(name) for name in _only(script)] == [None] * 4
    script.unlink()
    assert give("--collect", "--array=slurm", f"--jobs={script}", *slurm) is None
    assert not script.exists(), "nothing is left to be made"
    collected = {name: (out / name).read_bytes() for name in ("report.md", "results.json")}
    shutil.rmtree(out)
    assert give() is None
    assert {name: (out / name).read_bytes() for name in collected} == collected


def test_tables_name_what_tells_arms_apart_and_the_page_what_they_share(faked, tmp_path):
    give, _ = faked
    assert give("--sweep=views.num=2") is None
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "All arms have views.num=2." in report
    told = {run["arm"] for run in json.loads((tmp_path / "out" / "results.json").read_text())["runs"]}
    assert {title for title in told if not title.startswith("random")} == {
        f"tiny_config objective.temperature={temperature} batch_size={size}"
        for temperature in (".1", ".5")
        for size in (8, 16)
    }
    assert all(result.arm.endswith("views.num=2") for result in map(ArmRun.load, pretrained_results(tmp_path / "out")))


def pretrained_results(out):
    return [path for path in (out / "results").rglob("*.npz") if not path.parent.name.startswith("random")]


def test_results_count_whatever_a_status_says(faked, tmp_path, capsys):
    give, _ = faked
    assert give() is None
    shutil.rmtree(tmp_path / "out" / "status")
    assert give("--collect") is None
    assert "5 runs: 5 done" in capsys.readouterr().out
    assert give("--array=slurm") is None
    assert "0 of 5 runs are to be made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--", "--gpus_per_node=1"), "--gpus_per_node=1 after -- is for the jobs of an array"),
        (("--submit",), "--submit is for an array"),
        (("--collect", "--only=x"), "--only makes one run"),
        (("--collect", "--array=slurm"), "give --jobs=FILE for the array"),
        (("--array=slurm", "--", "--nonsense=1"), "nonsense"),
        (("--array=slurm", "--", "surplus"), "unexpected argument 'surplus'"),
        (("--array=slurm", "--", "--nodes=2"), "--nodes=2: a job of an array is one process"),
        (("--array=slurm", "--", "--name=A"), "--name='A'"),
        (("--array=jobset", "--out=relative", "--", "--image=a"), "--out=relative lies on no volume"),
        (("--array=jobset", "--out=/b/c", "--", "--image=a", "--volume=ecg:/data"), "--out=/b/c lies on no volume"),
        (("--array=jobset", "--"), "--image=… must be given"),
        (("--array=jobset", "--", "--image=a", "--nodes=2"), "one machine"),
    ],
)
def test_what_an_array_cannot_be_is_refused(faked, arguments, words):
    with pytest.raises(ConfigError, match=words):
        faked[0](*arguments)


def _digest_before(run):
    """Returns the digest of a run as it was before models other than random encoders stood beside the arms."""

    def decides(leaf):
        of_probe = not leaf.startswith("probe.") or leaf in ("probe.layer", "probe.seed")
        of_encoder = run.twin or leaf == "seed" or leaf.startswith(("encoder.", "data.", "probe."))
        return leaf != "data.dir" and not leaf.startswith("init.") and of_probe and of_encoder

    leaves = flat(tree_of(run.settings)).items()
    told = repr(sorted((name, repr(value)) for name, value in leaves if decides(name)))
    return hashlib.blake2b(f"{run.arm} {told}".encode(), digest_size=16).hexdigest()


def test_arms_about_other_records_are_refused():
    with pytest.raises(ConfigError, match=r"config\.data\.test_folds is \(9,\).*all arms are judged on the same"):
        _plan(["base|data.test_folds=(9,)"])


def test_readouts_share_the_training_of_their_arm_and_have_results_of_their_own(tmp_path):
    common = (("probe.readouts", "('attention','fusion','finetuned')"), ("probe.grid", "('resnet18 seed=1',)"))
    runs = planned_runs.plan(arms_of([TINY], [], common=common), seeds=1, baselines=())
    by_model = {run.model: run for run in runs}
    assert [*by_model] == ["random", "random_grid", "measured", "pretrained"]
    arm, twin = by_model["pretrained"], by_model["random"]
    assert [*arm.titles] == ["pretrained", "pretrained_attention", "pretrained_fusion", "finetuned"]
    assert arm.titles["pretrained_attention"] == f"{arm.arm}, attention pool on tokens"
    # Each is compared with the same readout of the random encoder.
    for model in ("pretrained_attention", "pretrained_fusion"):
        assert arm.twin_of(model) == twin.titles[model.replace("pretrained", "random")]
    assert arm.twin_of("finetuned") == arm.twin_of("pretrained") == twin.arm
    assert not any(map(twin.twin_of, twin.titles))
    paths = [path for run in runs for path in planned_runs.result_paths(tmp_path, run)]
    assert len({*paths}) == len(paths) == 9
    assert len({run.digest_of(model) for run in runs for model in run.titles}) == 9
    for path in planned_runs.result_paths(tmp_path, arm)[:-1]:
        path.parent.mkdir(parents=True)
        path.touch()
    assert not planned_runs.is_done(tmp_path, arm)
    # Readouts change no result that is there, and a choice changes those that it concerns.
    (plain,) = (each for each in planned_runs.plan(arms_of([TINY], []), seeds=1) if each.model == "pretrained")
    assert plain.digest == arm.digest
    (other,) = (
        run
        for run in planned_runs.plan(
            arms_of([TINY], [], common=(*common, ("probe.attention.queries", "7"))), seeds=1, baselines=()
        )
        if run.model == "pretrained"
    )
    differing = [model for model in arm.titles if other.digest_of(model) != arm.digest_of(model)]
    assert differing == ["pretrained_attention"]


def test_arms_with_other_readouts_are_refused():
    with pytest.raises(ConfigError, match=r"config\.probe\.readouts is .*give it once for all"):
        _plan(["base|probe.readouts=('mean',)"])


@pytest.mark.slow
def test_an_ablation_with_readouts_goes_on_with_more_of_them(given, tmp_path, capsys):
    out, some = tmp_path / "out", "--baselines=none"
    with jax.numpy_dtype_promotion("standard"):
        assert given(some, "--config.probe.readouts=('fusion',)") is None
        before = {path: path.stat().st_mtime_ns for path in (out / "results").rglob("*.npz")}
        assert (
            given(some, "--config.probe.readouts=('fusion','mean')", "--config.probe.grid=('resnet18:small',)") is None
        )
    assert len(before) == 5
    after = {path: path.stat().st_mtime_ns for path in (out / "results").rglob("*.npz")}
    assert before.items() < after.items()
    assert len(after) == 8
    report = (out / "report.md").read_text(encoding="utf-8")
    for words in ("Hyperparameters are chosen on all", "Difference from the model of intervals and median beat"):
        assert words in report
    compared = {(key.model.rpartition(", ")[2], key.minus) for key in read_results(out) if key.minus}
    assert ("linear with intervals and median beat", "intervals and median beat") in compared


@pytest.fixture
def given(stored_dataset, monkeypatch, tmp_path):
    """Gives the command some arguments; pretraining happens in this process."""
    planned = {}

    def pretrain_here(command, environment):
        workdir = next(word for word in command if word.startswith("--workdir=")).removeprefix("--workdir=")
        with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power
            finished = pretrain.pretrain(ConfigDict(tree_of(planned[workdir].settings)), workdir)
        return 0 if finished else 75

    def give(*more):
        common = {
            "data.dir": stored_dataset[0].directory, "data.train_folds": "(1,2,3,4,5,6)", "data.val_folds": "(7,8)",
            "data.test_folds": "(9,10)", "encoder.widths": "(4,)", "duration.value": "2", "duration.unit": "steps",
            "log_every": "1", "probe.supervised.steps": "2", "probe.supervised.batch_size": "4",
            "probe.supervised.eval_every": "1",
        }  # fmt: skip
        arguments = [f"--config={TINY}", *(f"--config.{leaf}={value}" for leaf, value in common.items()),
                     "--task=age_years>55", "--task=age", "--label_fraction=.5", "--resamples=100", "--seeds=1",
                     f"--out={tmp_path / 'out'}", *more]  # fmt: skip
        values = flags.FlagValues()
        request.define_flags(values)
        values(["ablate", *request.common_changes(arguments)[0]])
        asked = request.asked_by(values, arguments=arguments)
        for run in planned_runs.plan(arms_of(asked.config, asked.sweep, common=asked.common), seeds=asked.seeds):
            planned[str(tmp_path / "out" / "runs" / run.folder / f"seed{run.seed}")] = run
        return ablate.ablate(asked)

    monkeypatch.setattr(making, "run_child", pretrain_here)
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    monkeypatch.setattr(boosted, "_TREES", 3)
    return give


@pytest.mark.slow
def test_an_ablation_from_configs_to_tables(given, tmp_path, capsys, monkeypatch):
    out, sweep = tmp_path / "out", "--sweep=objective.temperature=.1|.5"
    given(sweep, "--jobs", str(tmp_path / "jobs"))
    jobs = (tmp_path / "jobs").read_text().splitlines()
    assert len(jobs) == 8
    assert all(word.startswith("--") for word in shlex.split(jobs[0])[3:])
    only = jobs[-1].split("--only=")[1].strip("'")
    assert not (out / "results").exists()

    assert given(sweep, f"--only={only}") is None
    assert [path.name for path in (out / "results").iterdir()] == [only.partition("/")[0]]
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "temperature=.5" in report
    assert "Not made yet: random-" in report

    with jax.numpy_dtype_promotion("standard"):
        assert given(sweep) is None
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "SIMULATED" in report
    assert "Not made yet" not in report
    for words in (
        "age_years>55 (AUROC)",
        "age (R²)",
        "validation loss, last",
        "same-patient pairs a batch",
        "Difference from the same encoder trained with labels alone",
        "Difference from the model of boosted trees",
        "Difference from the model of age and sex",
        "How to make it again",
        "Environment",
        "Data",
    ):
        assert words in report
    stored = json.loads((out / "results.json").read_text())
    arms = [run["arm"] for run in stored["runs"]]
    assert [run["facts"].get("steps") for run in stored["runs"]] == [None] * 6 + [2, 2]
    assert arms[:6] == [
        "random resnet18", "labels only resnet18", "intervals and amplitudes", "boosted trees", "median beat",
        "age and sex",
    ]  # fmt: skip
    rows = read_results(out)
    assert {(key.model, key.minus) for key in rows if key.task == "age_years>55"} == {
        *((arm, "") for arm in arms), *((arm, beside) for arm in arms[6:] for beside in arms[:6]), (arms[7], arms[6]),
    }  # fmt: skip
    assert {key.fraction for key in rows} == {0.5}
    capsys.readouterr()

    # Done: nothing is trained again, and the same tables come from the files.
    monkeypatch.setattr(making, "answer_tasks", None)
    assert given(sweep) is None
    assert (out / "report.md").read_text(encoding="utf-8") == report
    given(sweep, f"--jobs={tmp_path / 'jobs'}")
    assert (tmp_path / "jobs").read_text() == ""

    with pytest.raises(ConfigError, match="is the result of another config"):
        given(sweep, "--config.views.num=3")
    with pytest.raises(ConfigError, match="holds another study: label_fraction, tasks, test_records differ"):
        given(sweep, "--label_fraction=1")  # Beside .5, which is given already.
    with pytest.raises(ConfigError, match="--only=nothing: there is no such run"):
        given(sweep, "--only=nothing")


def test_seeds_share_compiled_programs_unless_they_are_kept_elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    kept = jax.config.jax_compilation_cache_dir
    making.keep_compiled(tmp_path)
    assert jax.config.jax_compilation_cache_dir == kept
    assert making._environment()["JAX_COMPILATION_CACHE_DIR"] == kept
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert "JAX_COMPILATION_CACHE_DIR" not in making._environment()
        making.keep_compiled(tmp_path)
        assert making._environment()["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)


def test_a_run_that_fails_is_named_and_the_others_go_on(given, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(making, "run_child", lambda command, **_: 2)
    assert given("--baselines=") == 1
    assert "failed: pretraining ended with status 2\n" in capsys.readouterr().err
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Failed: tiny_config" in report
    assert len(list((tmp_path / "out" / "results").rglob("*.npz"))) == 1, "the random encoder"

    def none(*args, **kwargs):
        raise DataError("no probe is possible")

    monkeypatch.setattr(making, "answer_tasks", none)
    assert given("--seeds=2", "--baselines=") == 1
    assert "random" in (error := capsys.readouterr().err)
    assert "/seed1 failed: no probe is possible" in error
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "/seed1 (no probe is possible)" in report


def test_why_a_pretraining_failed_is_told_and_not_kept_beyond_its_next_start(given, monkeypatch, tmp_path, capsys):
    def refuse(command, *, environment):
        Path(environment["ECGJAX_ERROR_FILE"]).write_text("config.batch_size=7 does not divide", encoding="utf-8")
        return 2

    monkeypatch.setattr(making, "run_child", refuse)
    reason = "pretraining ended with status 2: config.batch_size=7 does not divide"
    assert given("--baselines=none") == 1
    assert f"failed: {reason}\n" in capsys.readouterr().err
    assert reason in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    monkeypatch.setattr(making, "run_child", lambda command, **_: 2)
    assert given("--baselines=none") == 1
    assert "failed: pretraining ended with status 2\n" in capsys.readouterr().err


def test_models_beside_the_arms_need_no_pretraining(given, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(making, "run_child", lambda command, **_: 2)
    assert given("--baselines=demographics,boosted") == 1
    capsys.readouterr()
    made = {path.parent.name for path in (tmp_path / "out" / "results").rglob("*.npz")}
    assert made == {"random-resnet18", "boosted-trees", "age-and-sex"}
    kept = [path.name for path in (tmp_path / "out" / "features").iterdir()]
    assert len(kept) == 1, "what was measured serves all seeds"
    assert kept[0].startswith("measurements-")
    rows = read_results(tmp_path / "out")
    assert {(key.model, key.minus) for key in rows} == {
        ("random resnet18", ""), ("boosted trees", ""), ("age and sex", ""),
    }  # fmt: skip
    assert "--baselines=demographics,boosted" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    # Done: they are not made again, and others stand beside them.
    monkeypatch.setattr(making, "answer_tasks", None)
    with pytest.raises(TypeError):
        given("--baselines=demographics,boosted,intervals")


def test_an_unknown_baseline_is_refused_by_name(given, monkeypatch):
    monkeypatch.setattr(judged_records, "open_recordings", None)
    with pytest.raises(ConfigError, match=r"--baselines=boosted,trees: 'trees' is unknown; there are: supervised, int"):
        given("--baselines=boosted,trees")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ("balance=True", "balance=True is for questions with the answer yes or no"),
        ("positive_weight=balanced", "values have no positives for positive_weight"),
        ("head_start=probe --config.probe.supervised.head=mlp", "head_start='probe' is for head='linear'"),
    ],
)
def test_trainings_with_labels_that_do_not_suit_a_question_are_refused_first(
    given, monkeypatch, tmp_path, changed, words
):
    monkeypatch.setattr(making, "run_child", None)
    monkeypatch.setattr(making, "make", None)
    leaves = f"--config.probe.supervised.{changed}".split()
    with pytest.raises(ConfigError, match=rf"^config\.probe\.supervised: {re.escape(words)}"):
        given(*leaves)
    assert not (tmp_path / "out" / "study.json").exists()
    # They are of no matter where no network is trained with labels alone.
    with pytest.raises(TypeError, match="not callable"):
        given(*leaves, "--baselines=demographics")


def test_the_trainings_of_every_arm_are_looked_at_first(given, monkeypatch):
    monkeypatch.setattr(making, "make", None)
    with pytest.raises(ConfigError, match=r"^config\.probe\.supervised: balance=True is for questions"):
        given("--sweep=base|probe.supervised.balance=True")


def test_a_folder_from_before_there_were_baselines_goes_on(given, monkeypatch, tmp_path):
    out = tmp_path / "out"

    def write_before(run, recordings, tasks, *, out):
        words = {
            "arm": run.arm, "seed": run.seed, "twin": run.twin, "config": _digest_before(run),
            "facts": {"steps": 2.0} if run.twin else {},
            "tasks": {
                name: {"records": 9, "positives": None, "val_metric": 0.5, "selected": "C = 1", "scores": None}
                for name in tasks
            },
        }  # fmt: skip
        scores = [np.arange(len(data.test.records), dtype=np.float32) for data in tasks.values()]
        arrays = {f"scores{place}": each for place, each in enumerate(scores)}
        write_as_before(out / "results" / run.folder / f"seed{run.seed}.npz", words, arrays)
        return making.Ended(0)

    with monkeypatch.context() as patch:
        patch.setattr(making, "make", write_before)
        assert given("--baselines=") is None
    with monkeypatch.context() as patch:
        patch.setattr(making, "answer_tasks", None)
        assert given("--baselines=") is None
    difference = read_results(out)[Key("tiny_config", "AUROC", "age_years>55", 0.5, minus="random resnet18")]
    assert (difference.low, difference.estimate, difference.high) == (0, 0, 0)
    assert given("--baselines=demographics") is None
    assert Key("tiny_config", "AUROC", "age_years>55", 0.5, minus="age and sex") in read_results(out)


def test_what_any_arm_is_pretrained_on_is_kept_out_of_what_all_are_judged_on(given, monkeypatch, tmp_path, capsys):
    trained = []

    def with_a_test_record(recordings, records, *, run):
        trained.append(records)
        return listed(recordings, np.union1d(records, recordings.split.test[:1]), run=run)

    listed = judged_records.pretraining_records
    monkeypatch.setattr(judged_records, "pretraining_records", with_a_test_record)
    monkeypatch.setattr(making, "make", lambda *args, **kwargs: making.Ended(2, "failed"))
    other = "--sweep=base|data.train_folds=(1,2)"
    with pytest.raises(ConfigError, match=r"1 of the .* validation and test records overlap .*probe\.overlaps=drop"):
        given(other)
    given(other, "--config.probe.overlaps=drop")
    assert "left out of validation and test" in capsys.readouterr().out
    given("--config.data.train_folds=(1,2)", "--config.probe.overlaps=drop", f"--out={tmp_path / 'other'}")
    assert len(trained[0]) == len(trained[1]) > len(trained[2]), "the folds of all arms count"


def test_what_an_arm_began_with_had_seen_is_kept_out_too(given, monkeypatch, capsys):
    recordings, listed = [], judged_records.pretraining_records

    def opened(opened_recordings, records, *, run):
        recordings.append(opened_recordings)
        return listed(opened_recordings, records, run=run)

    def beginning(settings):
        assert settings.source == "runs/first"
        return types.SimpleNamespace(seen=listed(recordings[-1], recordings[-1].split.test[:2], run="first"))

    monkeypatch.setattr(judged_records, "pretraining_records", opened)
    monkeypatch.setattr(judged_records, "open_beginning", beginning)
    monkeypatch.setattr(making, "make", lambda *args, **kwargs: making.Ended(2, "failed"))
    with pytest.raises(ConfigError, match=r"validation and test records overlap .*probe\.overlaps=drop"):
        given("--sweep=base|init.source=runs/first")
    given("--sweep=base|init.source=runs/first", "--config.probe.overlaps=drop")
    assert "left out of validation and test" in capsys.readouterr().out


def test_a_run_that_is_told_to_stop_stops_the_command(given, monkeypatch, tmp_path):
    status = run_config.EXIT_STOPPED
    monkeypatch.setattr(making, "run_child", lambda command, **_: status)
    assert given("--sweep=objective.temperature=.1|.5", "--baselines=") == status
    assert not (tmp_path / "out" / "report.md").exists()


def test_the_head_of_an_array_is_the_whole_command(faked, tmp_path):
    give, _ = faked
    jobs = tmp_path / "jobs.sh"
    assert give("--array=slurm", "--at_once=3", f"--jobs={jobs}", "--", "--nodes=1") is None
    head = jobs.read_text(encoding="utf-8").splitlines()[1]
    assert f"--array=slurm --at_once=3 --jobs={jobs} -- --nodes=1" in head
