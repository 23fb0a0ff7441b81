"""Arms side by side: sums over seeds, tables, files, and each model's answers."""

import dataclasses
import functools
import json
import math

import jax
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from ecgjax.data.labels import LabelledRecords, ProbeData, probe_data
from ecgjax.data.recordings import open_recordings
from ecgjax.data.settings import DataSettings
from ecgjax.data.tasks import BinaryTask, parse_task
from ecgjax.defaults import settings_of
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.models import boosted, kinds
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.evaluation.models.fitted import Examples
from ecgjax.evaluation.models.kinds import NO_MODEL, kind_of
from ecgjax.evaluation.results import Key, Rows, lost_seeds, of_seeds, read_results, seed_sd
from ecgjax.studies.ablation import ArmRun, answer_tasks, measure_arms, study_models
from ecgjax.studies.model_names import BASELINES, checked_baselines, short_title
from ecgjax.studies.models import StudyModels
from ecgjax.studies.report.ablation_page import _table, facts_table, write_report
from tests.support import tiny_config

TASK = "lvef<40"
PATIENTS = np.repeat(np.arange(150), 2)


def _run(arm, seed, scores, twin="random net", **facts):
    task = Answers(outputs=scores, records=10, positives=3, val_metric=0.7, selected="C = 1 of 13")
    return ArmRun(arm=arm, seed=seed, twin=twin, config="digest", tasks={TASK: task}, facts=facts)


@pytest.fixture(scope="module")
def cohort():
    """Runs of three arms, one of which lacks a seed, and the labels that they answer."""
    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.4).astype(int)

    def scores(signal):
        return (signal * labels + rng.standard_normal(300)).astype(np.float32)

    runs = [_run("random net", seed, scores(0.5), twin="") for seed in (0, 1)]
    runs += [_run("a", seed, scores(1.5), loss=2.0 + seed) for seed in (0, 1)]
    runs += [_run("b", 1, scores(1.0), loss=5.0)]
    test = LabelledRecords(records=np.arange(300), labels=labels, patients=PATIENTS, unlabelled=0)
    data = ProbeData(
        task=BinaryTask(label="lvef", rule="below", threshold=40.0), train=test, val=test, test=test,
        label_fraction=0.5, seed=0, train_available=test, excluded={},
    )  # fmt: skip
    return runs, {TASK: data}


def _key(arm, minus="", seed=None):
    return Key(arm, "AUROC", TASK, 0.5, seed, minus)


def test_means_and_differences_are_over_the_seeds_that_both_have(cohort):
    runs, tasks = cohort
    results = measure_arms(runs, tasks, labels_only={}, resamples=300)
    labels = tasks[TASK].test.labels
    auroc = {(run.arm, run.seed): roc_auc_score(labels, run.tasks[TASK].outputs.astype(float)) for run in runs}
    a, random = (np.array([auroc[arm, seed] for seed in (0, 1)]) for arm in ("a", "random net"))
    np.testing.assert_allclose(results[_key("a")].estimate, a.mean(), rtol=1e-12)
    np.testing.assert_allclose(seed_sd(of_seeds(results, _key("a"))), a.std(ddof=1), rtol=1e-9)
    np.testing.assert_allclose(results[_key("a", "random net")].estimate, (a - random).mean(), rtol=1e-12)
    np.testing.assert_allclose(results[_key("b", "random net")].estimate, auroc["b", 1] - random[1], rtol=1e-12)
    np.testing.assert_allclose(results[_key("b", "a")].estimate, auroc["b", 1] - a[1], rtol=1e-12)
    assert {(key.model, key.minus) for key in results if key.minus} == {
        ("a", "random net"), ("b", "random net"), ("b", "a"),
    }  # fmt: skip
    assert math.isnan(seed_sd(of_seeds(results, _key("b"))))
    interval = results[_key("a", "random net")]
    assert interval.low < interval.estimate < interval.high


def test_arms_are_compared_with_every_model_that_stands_beside_them(cohort):
    runs, tasks = cohort
    names = [short_title("supervised", "net"), *(short_title(name, "") for name in BASELINES[1:])]
    assert names[0] == "labels only net"
    others = [
        _run(name, seed, np.roll(runs[0].tasks[TASK].outputs, 10 * place + seed), twin="")
        for place, name in enumerate(names)
        for seed in (0, 1)
    ]
    results = measure_arms([*others, *runs], tasks, labels_only=dict.fromkeys("ab", names[0]), resamples=100)
    labels = tasks[TASK].test.labels
    for arm, seeds in (("a", (0, 1)), ("b", (1,))):
        for name in names:
            values = [
                roc_auc_score(labels, own.tasks[TASK].outputs) - roc_auc_score(labels, other.tasks[TASK].outputs)
                for own in runs
                for other in others
                if (own.arm, other.arm) == (arm, name) and own.seed == other.seed
            ]
            assert len(values) == len(seeds)
            np.testing.assert_allclose(results[_key(arm, name)].estimate, np.mean(values), rtol=0, atol=1e-12)
    assert not any(key.minus for key in results if key.model in names), "they are compared with nothing"


def test_draws_of_labels_are_averaged_at_every_fraction(cohort):
    labels = cohort[1][TASK].test.labels
    rng = np.random.default_rng(1)
    fractions = {"few, 1": 0.01, "few, 2": 0.01, "many, 1": 0.1, "many, 2": 0.1}
    tasks = {name: dataclasses.replace(cohort[1][TASK], label_fraction=each) for name, each in fractions.items()}
    scores = {
        (arm, seed, name): (labels + rng.standard_normal(len(labels))).astype(np.float32)
        for arm in ("random net", "a")
        for seed in (0, 1)
        for name in tasks
    }
    runs = [
        dataclasses.replace(
            _run(arm, seed, None, twin="" if arm.startswith("random") else "random net"),
            tasks={name: Answers(outputs=scores[arm, seed, name], records=10) for name in tasks},
        )
        for arm, seed, _ in list(scores)[:: len(tasks)]
    ]
    results = measure_arms(runs, tasks, labels_only={}, resamples=100, questions={TASK: list(tasks)})
    auroc = {key: roc_auc_score(labels, each.astype(float)) for key, each in scores.items()}
    for fraction, names in ((0.01, ("few, 1", "few, 2")), (0.1, ("many, 1", "many, 2"))):
        of_seeds_ = [np.mean([auroc["a", seed, name] for name in names]) for seed in (0, 1)]
        minus = [np.mean([auroc["random net", seed, name] for name in names]) for seed in (0, 1)]
        key = Key("a", "AUROC", TASK, fraction)
        np.testing.assert_allclose(results[key].estimate, np.mean(of_seeds_), rtol=1e-12)
        np.testing.assert_allclose(seed_sd(of_seeds(results, key)), np.std(of_seeds_, ddof=1), rtol=1e-9)
        difference = results[key._replace(minus="random net")].estimate
        np.testing.assert_allclose(difference, np.mean(of_seeds_) - np.mean(minus), rtol=1e-9)
    assert {key.task for key in results} == {TASK}


def test_an_arm_s_difference_from_an_equal_one_is_nothing_with_no_width(cohort):
    runs, tasks = cohort
    twin = [_run("same", run.seed, run.tasks[TASK].outputs) for run in runs if run.arm == "random net"]
    mean = measure_arms([*runs, *twin], tasks, labels_only={}, resamples=300)[_key("same", "random net")]
    assert (mean.low, mean.estimate, mean.high) == (0, 0, 0)


def test_tables_hold_every_arm(cohort):
    runs, tasks = cohort
    results = measure_arms(runs, tasks, labels_only={}, resamples=300)
    means = [key for key in results if key.seed is None]
    table = _table(results, means, dict.fromkeys(["random net", "a", "b"], ""))
    assert [row[0] for row in table.rows] == ["random net", "a", "b"]
    assert table.header == ("arm", "lvef<40 (AUROC)")
    assert " ± " in table.rows[1][1]
    assert " ± " not in table.rows[2][1], "one seed has no deviation"
    differences = _table(results, means, dict.fromkeys(["a", "b"], "random net"))
    assert differences.rows[0][1].startswith("+")
    assert _table(results, means, dict.fromkeys(["a", "b"], "a")).rows == [("b", differences_text(results))]
    facts = facts_table(runs).rows
    assert facts[0] == ("a", "2", "2.5")
    assert len(facts) == 2, "random encoders are not trained"


def differences_text(results):
    return results[_key("b", "a")].signed()


def test_the_page_and_the_file_hold_every_arm(cohort, stored_dataset, tmp_path):
    runs, tasks = cohort
    recordings = open_recordings(DataSettings(dir=str(stored_dataset[0].directory)))
    asked = {
        "failed": {"b/seed0": "no room"},
        "missing": ["c/seed1"],
        "labels_only": {},
        "resamples": 100,
        "cautions": ("Beware.",),
    }
    tables, page = write_report(runs, recordings, tasks, out=tmp_path, command="python -m launch.ablate …", **asked)
    for part in ("Difference from the same encoder at random initialisation", "Difference from the first arm"):
        assert part in tables
    assert "labels alone" not in tables, "of models that take no part nothing is said"
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    for part in ("Beware.", "Failed: b/seed0 (no room).", "Not made yet: c/seed1.", "python -m launch.ablate …"):
        assert part in markdown
    assert page.read_text(encoding="utf-8").count("<img ") == 1
    np.testing.assert_equal(
        {key: vars(value) for key, value in read_results(tmp_path).items()},
        {key: vars(value) for key, value in measure_arms(runs, tasks, labels_only={}, resamples=100).items()},
    )
    about = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [(run["arm"], run["seed"], run["facts"].get("loss")) for run in about["runs"]] == [
        ("random net", 0, None), ("random net", 1, None), ("a", 0, 2.0), ("a", 1, 3.0), ("b", 1, 5.0),
    ]  # fmt: skip
    assert about["runs"][0]["tasks"][TASK] == {
        "records": 10, "positives": 3, "val_metric": 0.7, "selected": "C = 1 of 13",
    }  # fmt: skip


def test_a_result_is_read_as_it_was_written(tmp_path):
    run = _run("a", 1, np.arange(6, dtype=np.float32).reshape(3, 2) / 7, loss=math.nan, speed=3.0)
    run.save(tmp_path / "results" / "a.npz")
    again = ArmRun.load(tmp_path / "results" / "a.npz")
    np.testing.assert_array_equal(again.tasks[TASK].outputs, run.tasks[TASK].outputs)
    assert again.tasks[TASK].outputs.dtype == np.float32
    answers = again.tasks[TASK]
    assert (answers.selected, answers.records, answers.positives, answers.val_metric) == ("C = 1 of 13", 10, 3, 0.7)
    assert math.isnan(again.facts["loss"])
    assert (again.arm, again.seed, again.twin, again.config, again.facts["speed"]) == (
        "a",
        1,
        "random net",
        "digest",
        3,
    )


def write_as_before(path, words, arrays):
    """Writes an archive as it was before studies had one table of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, told=np.frombuffer(json.dumps(words).encode(), np.uint8), allow_pickle=False, **arrays)


def test_a_result_from_before_studies_had_one_table_is_read(tmp_path):
    scores = np.float32([[0.5, -1.0], [2.0, 3.5]])
    task = {"records": 12, "positives": None, "val_metric": 0.25, "selected": "C = 1 of 13", "scores": None}
    words = {
        "arm": "a", "seed": 3, "twin": "random net", "config": "digest", "facts": {"loss": None, "steps": 2.0},
        "tasks": {"age": task},
    }  # fmt: skip
    write_as_before(tmp_path / "a.npz", words, {"scores0": scores})
    run = ArmRun.load(tmp_path / "a.npz")
    assert (run.arm, run.seed, run.twin, run.config, run.facts["steps"]) == ("a", 3, "random net", "digest", 2.0)
    answers = run.tasks["age"]
    np.testing.assert_array_equal(answers.outputs, scores)
    assert (answers.records, answers.positives, answers.val_metric, answers.selected) == (12, None, 0.25, "C = 1 of 13")
    run.save(tmp_path / "again.npz")
    before, after = (np.load(tmp_path / name) for name in ("a.npz", "again.npz"))
    assert sorted(before.files) == sorted(after.files)
    assert json.loads(after["told"].tobytes()) == json.loads(before["told"].tobytes()), "older programs read it too"


def test_a_damaged_result_is_named(tmp_path):
    path = tmp_path / "a.npz"
    _run("a", 1, np.zeros(3, np.float32)).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"a\.npz.*damaged.*remove it"):
        ArmRun.load(path)


def test_a_result_without_scores_is_damaged_unless_it_says_why(tmp_path):
    task = {"records": 12, "positives": None, "val_metric": 0.25, "selected": "C = 1 of 13", "scores": None}
    words = {"arm": "a", "seed": 3, "twin": "random net", "config": "digest", "facts": {}, "tasks": {"age": task}}
    for name, more in (("before", {}), ("empty", {"reason": ""})):
        write_as_before(tmp_path / f"{name}.npz", {**words, "tasks": {"age": {**task, **more}}}, {})
        with pytest.raises(DataError, match=rf"{name}\.npz: this result is damaged \('scores'\); remove it"):
            ArmRun.load(tmp_path / f"{name}.npz")
    # Those of another task do not stand for them.
    two = {**words, "tasks": {"age": task, "sex": task}}
    write_as_before(tmp_path / "two.npz", two, {"scores0": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match="this result is damaged"):
        ArmRun.load(tmp_path / "two.npz")
    write_as_before(tmp_path / "said.npz", {**words, "tasks": {"age": {**task, "reason": "diverged"}}}, {})
    said = ArmRun.load(tmp_path / "said.npz").tasks["age"]
    assert (said.outputs, said.reason, said.records) == (None, "diverged", 12)


def test_an_unknown_baseline_is_refused_by_name():
    assert checked_baselines(["demographics", "supervised"]) == ("supervised", "demographics")
    assert checked_baselines([]) == ()
    with pytest.raises(ConfigError, match=r"--baselines=boosted,trees: 'trees' is unknown; there are: supervised, int"):
        checked_baselines(["boosted", "trees"])
    with pytest.raises(ConfigError, match=r"'random' is unknown"):
        checked_baselines(["random"])


@pytest.fixture(scope="module")
def asked_of_a_dataset(stored_dataset):
    """Settings, recordings and the labelled records of a question."""
    config = tiny_config.get_config()
    config.data.dir = str(stored_dataset[0].directory)
    config.data.train_folds, config.data.val_folds, config.data.test_folds = (1, 2, 3, 4, 5, 6), (7, 8), (9, 10)
    config.encoder.widths = (4,)
    config.probe.supervised.update({"steps": 2, "batch_size": 4, "eval_every": 1})
    settings = settings_of(config)
    recordings = open_recordings(settings.data)
    task = parse_task("lvef<55")
    data = probe_data(recordings.index, recordings.split, task=task, label_fraction=0.7, seed=1)
    return settings, recordings, data


#: The only strength where a fit is compared: choosing one is tested elsewhere, and near-equal ones would be a lottery.
STRENGTH = 0.1


def _logistic_by_hand(values, data):
    """Returns log odds of the test records of a logistic regression on imputed and scaled values."""
    imputer = SimpleImputer(strategy="median", add_indicator=True)
    model = make_pipeline(imputer, StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=5000, tol=1e-10))
    model.fit(values[data.train.records], data.train.labels)
    return model.decision_function(values[data.test.records])


@pytest.fixture(scope="module")
def measured(asked_of_a_dataset):
    """Measurements of all records, made outside of the studies."""
    _, recordings, _ = asked_of_a_dataset
    records = np.arange(recordings.index.num_records)
    return median_beat.measure(recordings.store.read(records), sampling_rate_hz=100, progress=False)


def _answers(asked_of_a_dataset, name, **more):
    settings, recordings, data = asked_of_a_dataset
    return _answered(name, settings, recordings, {"first": data}, seed=1, **more)["first"]


def _answered(name, settings, recordings, tasks, *, seed, **more):
    models = study_models([name], settings, recordings, tasks, seed=seed, progress=False, **more)
    return answer_tasks(name, models, tasks, seed=seed)


def test_age_and_sex_answer_as_scikit_learn_fits_them(asked_of_a_dataset, monkeypatch):
    monkeypatch.setattr(kinds.Binary, "strengths", (STRENGTH,))
    _, recordings, data = asked_of_a_dataset
    values = np.stack([np.asarray(recordings.index.label(name), float) for name in ("age_years", "sex")], axis=1)
    found = _answers(asked_of_a_dataset, "demographics")
    np.testing.assert_allclose(found.outputs, _logistic_by_hand(values, data), rtol=0, atol=1e-3)
    assert found.outputs.std() > 0.05
    assert found.outputs.dtype == np.float32
    assert found.val_outputs is None
    assert (found.records, found.positives) == (len(data.train.records), data.train.positives)


def test_intervals_answer_as_scikit_learn_fits_them(asked_of_a_dataset, measured, monkeypatch):
    monkeypatch.setattr(kinds.Binary, "strengths", (STRENGTH,))
    _, _, data = asked_of_a_dataset
    found = _answers(asked_of_a_dataset, "intervals").outputs
    expected = _logistic_by_hand(measured.values.astype(float), data)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3)
    assert found.std() > 0.2


def test_the_median_beat_answers_as_components_by_hand(asked_of_a_dataset, measured, monkeypatch):
    monkeypatch.setattr(kinds.Binary, "strengths", (STRENGTH,))
    _, _, data = asked_of_a_dataset
    beats = measured.median_beats.reshape(len(measured.values), -1).astype(float)
    rr = measured.values[:, median_beat.NAMES.index("rr")].astype(float)
    beats, rr = (np.where(np.isnan(each), np.nanmedian(each[data.train.records], 0), each) for each in (beats, rr))
    mean = beats[data.train.records].mean(axis=0)
    _, _, axes = np.linalg.svd(beats[data.train.records] - mean, full_matrices=False)
    number = min(40, len(data.train.records) - 1)
    found = _answers(asked_of_a_dataset, "median_beat").outputs
    expected = _logistic_by_hand(np.c_[(beats - mean) @ axes[:number].T, rr], data)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3)
    assert found.std() > 0.2


def test_boosted_trees_answer_as_they_are_fitted_alone(asked_of_a_dataset, measured, monkeypatch, tmp_path):
    monkeypatch.setattr(boosted, "_TREES", 5)
    trees = functools.partial(HistGradientBoostingClassifier, min_samples_leaf=2)
    monkeypatch.setattr(boosted, "HistGradientBoostingClassifier", trees)
    _, _, data = asked_of_a_dataset
    train, val, test = (measured.values[part.records] for part in (data.train, data.val, data.test))
    kind = kind_of(data.task)
    examples = Examples(
        kind=kind, train=train, targets=data.train.labels, val=val, val_targets=data.val.labels,
    )  # fmt: skip
    expected = fit_boosted(examples, seed=1).predict(test)
    found = _answers(asked_of_a_dataset, "boosted", folder=tmp_path)
    np.testing.assert_array_equal(found.outputs, expected.astype(np.float32))
    assert found.outputs.std() > 0.01
    # What was measured serves every other model, seed and draw of labels.
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("measurements-")
    settings, recordings, _ = asked_of_a_dataset
    monkeypatch.setattr(median_beat, "measure", None)
    fewer = probe_data(recordings.index, recordings.split, task=data.task, label_fraction=0.4, seed=0)
    answers = _answered("median_beat", settings, recordings, {"fewer": fewer}, seed=0, folder=tmp_path)
    assert len(answers["fewer"].outputs) == len(data.test.records)


# Training with labels alone is a part of `test_a_whole_study` in `test_label_efficiency.py`.
@pytest.mark.slow
def test_labels_alone_train_the_encoder_of_the_arms(asked_of_a_dataset, monkeypatch):
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    _, _, data = asked_of_a_dataset
    with jax.numpy_dtype_promotion("standard"):
        trained, random = (_answers(asked_of_a_dataset, name) for name in ("supervised", "random"))
    assert trained.outputs.shape == random.outputs.shape == data.test.labels.shape
    assert trained.selected.startswith("step ")
    assert random.selected.startswith("C = ")
    assert not np.array_equal(trained.outputs, random.outputs)


REASON = "training with labels diverged"


def _failing_for(title, error):
    """Returns a function that stands for `StudyModels.answers`, and fails for one question."""
    answers_of = StudyModels.answers

    def answers(self, name, data, *, seed):
        if data.task.title == title:
            raise error
        return answers_of(self, name, data, seed=seed)

    return answers


def test_a_question_without_a_model_takes_nothing_from_the_others(asked_of_a_dataset, monkeypatch, tmp_path):
    monkeypatch.setattr(kinds.Binary, "strengths", (STRENGTH,))
    settings, recordings, data = asked_of_a_dataset
    other = probe_data(recordings.index, recordings.split, task=parse_task("age_years>55"), label_fraction=0.7, seed=1)
    tasks = {"lost": data, "kept": other}

    def answer(error):
        with monkeypatch.context() as patch:
            patch.setattr(StudyModels, "answers", _failing_for(data.task.title, error))
            return _answered("demographics", settings, recordings, tasks, seed=1)

    with pytest.raises(DataError, match="a shard is damaged"):
        answer(DataError("a shard is damaged"))
    found = answer(DataError(REASON, reason=NO_MODEL))
    assert list(found) == ["lost", "kept"]
    lost, kept = found.values()
    assert (lost.outputs, lost.reason, lost.records) == (None, REASON, len(data.train.records))
    alone = _answered("demographics", settings, recordings, {"kept": other}, seed=1)["kept"]
    np.testing.assert_array_equal(kept.outputs, alone.outputs)
    assert kept.reason == ""

    # It is kept with its reason, and read back.
    run = ArmRun(arm="a", seed=1, twin="random net", config="digest", tasks=found, facts={"loss": 2.0})
    run.save(tmp_path / "a.npz")
    assert np.load(tmp_path / "a.npz").files == ["told", "scores1"]
    again = ArmRun.load(tmp_path / "a.npz")
    assert list(again.tasks) == ["lost", "kept"]
    for before, after in zip(found.values(), again.tasks.values(), strict=True):
        np.testing.assert_equal(vars(after), vars(before))

    # In the table it is missing, for this reason; the other question has its numbers.
    twin = dataclasses.replace(
        run, arm="random net", twin="", tasks=dict.fromkeys(tasks, Answers(outputs=data.test.labels.astype(np.float32)))
    )
    twin.tasks["kept"] = dataclasses.replace(alone)
    second = dataclasses.replace(again, seed=2, tasks={"lost": twin.tasks["lost"], "kept": kept})
    results = measure_arms([twin, dataclasses.replace(twin, seed=2), again], tasks, labels_only={}, resamples=100)
    key = Key("a", "AUROC", "lost", 0.7)
    for each in (key, key._replace(seed=1), key._replace(minus="random net"), key._replace(minus="random net", seed=1)):
        assert math.isnan(results[each].estimate)
        assert results[each].reason == REASON
    assert (of_seeds(results, key), lost_seeds(results, key)) == ({}, 1)
    assert results[key._replace(task="kept")].estimate == roc_auc_score(other.test.labels, kept.outputs)
    assert results[key._replace(model="random net")].estimate == 1

    def report(*runs):
        given = {"failed": {}, "missing": [], "labels_only": {}, "resamples": 100, "cautions": ()}
        write_report(runs, recordings, tasks, out=tmp_path, command="python -m launch.ablate …", **given)
        stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        (of_a,) = [each["tasks"] for each in stored["runs"] if (each["arm"], each["seed"]) == ("a", 1)]
        assert of_a["lost"]["reason"] == REASON
        assert of_a["lost"]["val_metric"] is None
        assert "reason" not in of_a["kept"]
        return (tmp_path / "report.md").read_text(encoding="utf-8")

    assert f"n/a ({REASON})" in report(twin, again)
    # With a seed that has one it is the mean of that, and says that one is missing.
    page = report(twin, dataclasses.replace(twin, seed=2), again, second)
    assert "n/a" not in page
    assert "(1 seed missing)" in page


def test_where_no_arm_has_a_model_for_a_question_the_page_says_so(cohort, stored_dataset, tmp_path):
    runs, tasks = cohort
    lost = Answers(outputs=None, reason=REASON, records=10)
    runs = [dataclasses.replace(run, tasks={**run.tasks, "lost": lost}) for run in runs]
    tasks = {**tasks, "lost": tasks[TASK]}
    recordings = open_recordings(DataSettings(dir=str(stored_dataset[0].directory)))
    given = {"failed": {}, "missing": [], "labels_only": {}, "resamples": 100, "cautions": ()}
    write_report(runs, recordings, tasks, out=tmp_path, command="", **given)
    assert (tmp_path / "report.md").read_text(encoding="utf-8").count(f"n/a ({REASON})") >= 3
    rows = read_results(tmp_path)
    assert {rows[key].reason for key in rows if key.task == "lost"} == {REASON}
    assert rows[_key("a")].estimate > 0.5


def test_the_page_searches_the_rows_once(cohort, stored_dataset, tmp_path, monkeypatch):
    searches, seeds = [], vars(Rows)["seeds"]
    search = seeds.func

    def counted(rows):
        searches.append(len(rows))
        return search(rows)

    monkeypatch.setattr(seeds, "func", counted)
    runs, tasks = cohort
    recordings = open_recordings(DataSettings(dir=str(stored_dataset[0].directory)))
    given = {"failed": {}, "missing": [], "labels_only": {}, "resamples": 100, "cautions": ()}
    write_report(runs, recordings, tasks, out=tmp_path, command="", **given)
    assert searches == [len(read_results(tmp_path))]
