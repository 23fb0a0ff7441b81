"""Cross-validation: what is asked, what is refused, what stands beside the encoders, and a whole small study."""

import dataclasses
import functools
import json
import re
import shutil
import types

import jax
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from configs import cross_validation as default_method
from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax import cross_validate as entry
from ecgjax.data.recordings import open_recordings
from ecgjax.data.settings import DataSettings
from ecgjax.data.tasks import BinaryTask, parse_task
from ecgjax.defaults import settings_of
from ecgjax.encoders.from_config import create_split
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features import digests, frozen_encoder
from ecgjax.evaluation.models import boosted
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.evaluation.models.fitted import Examples
from ecgjax.evaluation.models.kinds import KINDS, NO_MODEL
from ecgjax.evaluation.results import Key, Rows, lost_seeds, of_seeds, read_results
from ecgjax.export.model_folder import export_run
from ecgjax.leakage import guard
from ecgjax.leakage.trained_on import RECORDS_FILE, open_pretraining_records, pretraining_records
from ecgjax.settings.probe import AttentionSettings
from ecgjax.settings.sections import read, tree_of
from ecgjax.studies import cross_validation, pretrained_runs
from ecgjax.studies.compared_models import ComparedModel, compared_models
from ecgjax.studies.cross_validation import Fitted, Study
from ecgjax.studies.model_names import PLAIN
from ecgjax.studies.models import StudyModels
from ecgjax.studies.pretrained_runs import PretrainedRun
from ecgjax.studies.questions import Problem, Question, ask
from ecgjax.studies.report.cross_validation_page import _untrained, _words, write_report
from ecgjax.studies.report.seed_tables import entry as text_of
from tests.data_pipelines.test_link import build, record
from tests.support import tiny_config
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run

RATE_HZ = 100
RNG = np.random.default_rng(0)


def people(seed, count, *, prefix):
    """Two records each of simulated people, every second of them old and a woman."""
    settings = {"visits_per_patient": (2, 2), "sampling_rate_hz": RATE_HZ, "seconds": 10.0}
    signals = Cohort(CohortConfig(seed=seed, num_patients=count, **settings)).simulate(0, 2 * count).signal
    return [
        dataclasses.replace(
            record(signal, f"{prefix}{number}", patient=f"{prefix}{number // 2}", fold=1 + number // 2 % 10),
            age_years=float(40 + 30 * (number // 2 % 2)),
            sex=number // 2 % 2,
        )
        for number, signal in enumerate(signals)
    ]


@pytest.fixture(scope="module")
def trained_on_set(tmp_path_factory):
    return build(tmp_path_factory.mktemp("pretraining"), "clinic", people(1, 20, prefix="a"), rate=RATE_HZ)


@pytest.fixture(scope="module")
def tested_set(tmp_path_factory):
    return build(tmp_path_factory.mktemp("test"), "hospital", people(2, 24, prefix="b"), rate=RATE_HZ)


@pytest.fixture(scope="module")
def leaking_set(tmp_path_factory):
    """The same with a record that was trained on, under another's name."""
    (leak, *_) = people(1, 20, prefix="a")
    records = [*people(2, 24, prefix="b"), dataclasses.replace(leak, record_id="leak", patient_id="somebody")]
    return build(tmp_path_factory.mktemp("leaking"), "hospital", records, rate=RATE_HZ)


@pytest.fixture(scope="module")
def runs(trained_on_set):
    """Two encoders of one kind, pretrained for no step at all."""
    config = tiny_config.get_config()
    config.encoder.widths = (4,)
    config.data.dir = str(trained_on_set.directory)
    config.probe.supervised.update({"steps": 2, "batch_size": 4, "eval_every": 1})
    settings = settings_of(config)
    recordings = open_recordings(settings.data)
    listed = pretraining_records(recordings, recordings.split.train, run="f00d")
    return [
        PretrainedRun(
            title=title,
            settings=settings,
            encoder=frozen_encoder.Encoder(
                create_split(settings.encoder, seed=seed),
                num_leads=settings.encoder.num_leads,
                step=5,
                trained_on=lambda: listed,
            ),
            recordings=recordings,
        )
        for title, seed in (("one", 7), ("two", 8))
    ]


def method(**changed):
    config = default_method.get_config()
    config.update({"outer_folds": 3, "inner_folds": 2, "strengths": (1e-3, 0.1), "min_positives": 4, "resamples": 100})
    return read(entry.Method, config.to_dict() | changed)


@pytest.fixture(scope="module")
def recordings(tested_set):
    return entry.open_whole(str(tested_set.directory), links="")


@pytest.fixture
def begin(runs, recordings, monkeypatch, tmp_path):
    """Begins a study of few trees, or goes on with it."""
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    monkeypatch.setattr(boosted, "_TREES", 3)
    # Trees would not grow on so few records.
    trees = functools.partial(HistGradientBoostingClassifier, min_samples_leaf=2)
    monkeypatch.setattr(boosted, "HistGradientBoostingClassifier", trees)

    def begin(tasks=("female",), *, of=runs, folder=tmp_path / "cv", baselines=PLAIN, alone=None, **changed):
        return Study(
            of, recordings, tasks=tasks, method=method(**changed), folder=folder, baselines=baselines, alone=alone,
            progress=False,
        )  # fmt: skip

    return begin


def _titles(study):
    return [model.title for model in study.models]


TITLES_OF_PLAIN = ["intervals and amplitudes", "boosted trees", "median beat", "age and sex"]


def test_a_whole_study(runs, recordings, begin, tmp_path, monkeypatch):
    apart, cautions = entry.keep_apart(runs, recordings, overlaps="refuse")
    assert cautions == ()
    assert len(apart.split.train) == 48
    tasks = ("age_years>55", "female")
    with jax.numpy_dtype_promotion("standard"):
        first = begin(tasks)
        answers = first.run(fractions=[0.5, 1.0], seeds=2)
    titles = [*TITLES_OF_PLAIN, "random resnet18", "one", "two"]
    assert _titles(first) == titles, "encoders of one kind share a random twin"
    assert set(answers) == {
        Fitted(title, problem, fraction, seed)
        for title in titles for problem in ("age_years>55", "sex=1") for fraction in (0.5, 1.0) for seed in (0, 1)
    }  # fmt: skip
    labels = first.problems["sex=1"].labels
    np.testing.assert_array_equal(labels, recordings.index.sex[recordings.split.train])
    folder = tmp_path / "cv" / "models"
    files = {path.name for path in (folder / "random-resnet18").iterdir()}
    assert files == {"study.json", "features-seed0.npy", "features-seed1.npy", "scores"}
    assert not np.array_equal(*(np.load(folder / "random-resnet18" / f"features-seed{seed}.npy") for seed in (0, 1)))
    assert {path.name for path in (folder / "age-and-sex").iterdir()} == {"study.json", "scores"}, (
        "age and sex depend on the question"
    )

    searches, search = [], vars(Rows)["seeds"].func
    with monkeypatch.context() as patch:
        patch.setattr(vars(Rows)["seeds"], "func", lambda rows: searches.append(len(rows)) or search(rows))
        tables, page = write_report(
            first, answers, runs=runs, cautions=("Beware.",), command="python -m ecgjax.cross_validate …"
        )
    assert searches == [len(read_results(tmp_path / "cv"))], "rows are searched once for all tables"
    html = page.read_text(encoding="utf-8")
    for part in (*titles, "Beware.", "ecgjax.cross_validate …", "100 % of labels", "two minus random resnet18"):
        assert part in html
    # Long titles are broken over lines of the first column.
    first_column = " ".join(line[:30].strip() for line in tables.splitlines())
    for part in ("one minus random resnet18", *(f"two minus {title}" for title in TITLES_OF_PLAIN)):
        assert part in first_column
    assert max(map(len, tables.splitlines())) <= 80
    first_line = (tmp_path / "cv" / "report.md").read_text(encoding="utf-8").splitlines()[0]
    # Two questions at two fractions are counted, and a table has each.
    assert "of 4 questions." in first_line
    assert "Not compared" not in first_line
    for part in ("Verdict by question", "What may be concluded. Tested were", "tested in turn"):
        assert part in html
    assert "labels alone" not in tables, "of models that take no part nothing is said"
    rows = read_results(tmp_path / "cv")
    np.testing.assert_equal(
        {key: vars(value) for key, value in rows.items()},
        {key: vars(value) for key, value in first.measure(answers).items()},
    )
    by_seed = [
        np.mean([roc_auc_score(labels[r.folds == fold], r.outputs[r.folds == fold]) for fold in range(3)])
        for r in (answers[Fitted("one", "sex=1", 1.0, seed)] for seed in (0, 1))
    ]
    mean = Key("one", "AUROC", "female")
    assert rows[mean].estimate == pytest.approx(np.mean(by_seed), abs=1e-12)
    assert of_seeds(rows, mean) == pytest.approx(dict(enumerate(by_seed)), abs=1e-12)
    stored = json.loads((tmp_path / "cv" / "results.json").read_text(encoding="utf-8"))
    assert stored["models"] == dict(zip(titles, [*PLAIN, "random", "pretrained", "pretrained"], strict=True))
    assert [Fitted(*(each[name] for name in Fitted._fields)) for each in stored["probes"]] == list(answers)

    # What is there is not made again; more is made beside it; another study is refused.
    monkeypatch.setattr(StudyModels, "values", None)
    monkeypatch.setattr(StudyModels, "answers", None)
    monkeypatch.setattr(cross_validation, "cross_validate", None)
    again = begin(tasks).run(fractions=[1.0], seeds=2)
    for fitted, result in again.items():
        np.testing.assert_array_equal(result.outputs, answers[fitted].outputs)
    with pytest.raises(TypeError):
        begin(tasks).run(fractions=[0.25], seeds=1)
    with pytest.raises(ConfigError, match="holds another study: method differ"):
        begin(tasks, outer_folds=4)
    begin(tasks, resamples=300)
    retrained = dataclasses.replace(runs[0], encoder=runs[1].encoder)
    with pytest.raises(ConfigError, match="holds another study: weights differ"):
        begin(of=[retrained])


def test_every_baseline_takes_part_unless_others_are_asked_for(runs, recordings):
    def titles(of, **asked):
        models = compared_models(of, recordings, recordings.split.train, layer="features", progress=False, **asked)
        return [model.title for model in models]

    assert titles(runs) == [*TITLES_OF_PLAIN, "random resnet18", "labels only resnet18", "one", "two"]
    assert titles(runs, baselines=()) == ["random resnet18", "one", "two"]
    assert titles(runs[:1], baselines=("boosted",)) == ["boosted trees", "random resnet18", "one"]
    alone = runs[0].settings
    assert titles([], alone=alone) == [*TITLES_OF_PLAIN, "random resnet18", "labels only resnet18"]
    assert titles([], alone=alone, baselines=("demographics",)) == ["age and sex", "random resnet18"]
    assert titles(runs[:1], alone=alone, baselines=()) == ["random resnet18", "one"], "a run has its own encoder"


def test_encoders_are_compared_with_all_that_was_not_pretrained(runs, recordings):
    models = {
        model.title: model
        for model in compared_models(runs, recordings, recordings.split.train, layer="features", progress=False)
    }
    plain, grid = (*TITLES_OF_PLAIN, "intervals and median beat"), "best of a grid with random resnet18"
    assert models["one"].against == ("random resnet18", "labels only resnet18", *plain, grid)
    assert models["random resnet18"].against == plain
    assert models["labels only resnet18"].against == models["boosted trees"].against == ()


def test_models_of_measurements_answer_as_scikit_learn_fits_them(begin, recordings):
    study = begin(of=[], strengths=(0.1,))
    answers = study.run(fractions=[1.0], seeds=1)
    records, (problem,) = recordings.split.train, study.problems.values()
    measured = median_beat.measure(recordings.store.read(records), sampling_rate_hz=RATE_HZ, progress=False)
    # Sex is asked: age alone remains.
    values = {"age and sex": recordings.index.age_years[records, None], "intervals and amplitudes": measured.values}
    for title, features in values.items():
        found = answers[Fitted(title, "sex=1", 1.0, 0)]
        expected = np.empty(len(records))
        for fold in range(3):
            train, held_out = found.folds != fold, found.folds == fold
            imputer = SimpleImputer(strategy="median", add_indicator=True)
            model = make_pipeline(imputer, StandardScaler(), LogisticRegression(C=0.1, max_iter=5000, tol=1e-10))
            model.fit(features[train], problem.labels[train])
            expected[held_out] = model.decision_function(features[held_out])
        np.testing.assert_allclose(found.outputs, expected, rtol=0, atol=5e-3)
        assert found.outputs.std() > 0.2
        assert found.chosen == (0.1,) * 3


def test_boosted_trees_are_chosen_on_the_first_inner_fold_and_trained_on_the_others(begin, recordings):
    study = begin(of=[], baselines=("boosted",))
    found = study.run(fractions=[1.0], seeds=2)[Fitted("boosted trees", "sex=1", 1.0, 1)]
    records, labels = recordings.split.train, study.problems["sex=1"].labels
    values = median_beat.measure(recordings.store.read(records), sampling_rate_hz=RATE_HZ, progress=False).values
    expected = np.empty(len(records), np.float32)
    for fold in range(3):
        train, held_out = np.flatnonzero(found.folds != fold), np.flatnonzero(found.folds == fold)
        division = StratifiedGroupKFold(n_splits=2, shuffle=True, random_state=1)
        inner, val = next(iter(division.split(values[train], labels[train], study.patients[train])))
        assert not {*study.patients[train[inner]]} & {*study.patients[train[val]]}
        assert not {*study.patients[train]} & {*study.patients[held_out]}
        examples = Examples(
            kind=KINDS["binary"], train=values[train[inner]], targets=labels[train[inner]], val=values[train[val]],
            val_targets=labels[train[val]],
        )  # fmt: skip
        expected[held_out] = fit_boosted(examples, seed=1).predict(values[held_out])
    np.testing.assert_array_equal(found.outputs, expected)
    assert all(found.outputs[found.folds == fold].std() > 0.01 for fold in range(3))
    assert (found.chosen, found.unchosen) == ((), 0)


def test_what_is_held_out_has_no_say_in_any_model_that_answers_it(runs, begin):
    study = begin(of=runs[:1], baselines=(*PLAIN, "supervised"))
    (problem,) = study.problems.values()
    folds = study.patients % 3
    train, held_out = np.flatnonzero(folds), np.flatnonzero(folds == 0)
    nonsense, patients = problem.labels.copy(), study.patients
    nonsense[held_out] = RNG.integers(0, 2, len(held_out))
    assert not np.array_equal(nonsense, problem.labels)
    others = problem.labels.copy()
    others[train] = RNG.permutation(others[train])

    def outputs(model, labels):
        found = study._answer_fold(model, dataclasses.replace(problem, labels=labels), 0)(train, held_out)
        assert not found.reason
        return found.outputs

    with jax.numpy_dtype_promotion("standard"):
        for model in study.models:
            study.patients = patients
            honest = outputs(model, problem.labels)
            assert honest.shape == held_out.shape
            assert honest.std() > 0
            assert not np.array_equal(outputs(model, others), honest), "those of the training records have one"
            study.patients = patients.copy()
            study.patients[held_out] = patients[train[0]]
            np.testing.assert_array_equal(outputs(model, nonsense), honest, err_msg=model.title)


READOUTS = ("mean", "attention", "fusion")
GRID = ("resnet18:small seed=3 widths=(4,) kernel=3",)


def _with_attention(runs, **changed):
    """The runs with attention pools that are trained for a few steps."""
    attention = AttentionSettings(queries=1, steps=4, eval_every=2, weight_decays=(0.0,), batch_size=8)
    return [
        dataclasses.replace(
            run,
            settings=dataclasses.replace(
                run.settings, probe=dataclasses.replace(run.settings.probe, attention=attention, **changed)
            ),
        )
        for run in runs
    ]


def test_readouts_are_compared_with_the_random_encoder_s_and_with_the_linear_probe(runs, recordings):
    models = {
        model.title: model
        for model in compared_models(
            runs, recordings, recordings.split.train, layer="features", readouts=(*READOUTS, "finetuned"), grid=GRID,
            baselines=(), progress=False,
        )
    }  # fmt: skip
    words = ["linear on the mean token", "attention pool on tokens", "linear with intervals and median beat"]
    assert list(models) == [
        "intervals and median beat", "random resnet18", *(f"random resnet18, {each}" for each in words),
        "best of a grid with random resnet18",
        *(title for run in ("one", "two") for title in (run, *(f"{run}, {each}" for each in (*words, "fine-tuned")))),
    ]  # fmt: skip
    against = models[f"two, {words[1]}"].against
    assert {f"random resnet18, {words[1]}", "two", "intervals and median beat"} < {*against}
    assert "random resnet18" not in against
    assert "random resnet18" in models["two, fine-tuned"].against
    folders = [model.folder for model in models.values()]
    assert len({*folders}) == len(folders)


@pytest.mark.slow
def test_what_is_held_out_has_no_say_in_any_readout_and_no_fold_is_computed_twice(runs, begin, monkeypatch, tmp_path):
    study = begin(of=_with_attention(runs[:1]), baselines=(), readouts=READOUTS, grid=GRID)
    (problem,) = study.problems.values()
    folds = study.patients % 3
    train, held_out = np.flatnonzero(folds), np.flatnonzero(folds == 0)
    nonsense = problem.labels.copy()
    nonsense[held_out] = 1 - nonsense[held_out]
    with jax.numpy_dtype_promotion("standard"):
        for model in study.models:
            honest, other = (
                study._answer_fold(model, dataclasses.replace(problem, labels=labels), 0)(train, held_out).outputs
                for labels in (problem.labels, nonsense)
            )
            assert honest.std() > 0
            np.testing.assert_array_equal(other, honest, err_msg=model.title)
        answers = study.run(fractions=[1.0], seeds=1)
    rows = study.measure(answers)
    differences = {(key.model, key.minus) for key in rows if key.minus}
    fused = "one, linear with intervals and median beat"
    assert {(fused, "intervals and median beat"), (fused, "one"), ("one", "best of a grid with random resnet18")} < {
        *differences
    }
    text = write_report(study, answers, runs=runs[:1], cautions=(), command="again")[1].with_name("report.md")
    assert "Difference from the same readout of the random encoder" in text.read_text(encoding="utf-8")
    # A folder goes on without readouts and with them; another grid is another model.
    monkeypatch.setattr(cross_validation, "cross_validate", None)
    again = begin(of=_with_attention(runs[:1]), baselines=(), readouts=READOUTS, grid=GRID)
    assert again.run(fractions=[1.0], seeds=1).keys() == answers.keys()
    assert begin(of=runs[:1], baselines=()).run(fractions=[1.0], seeds=1)
    with pytest.raises(ConfigError, match="holds another study: grid differ"):
        begin(of=runs[:1], baselines=(), grid=(*GRID, "resnet18:small seed=9"))


def test_a_grid_is_chosen_by_inner_folds(begin, runs, monkeypatch):
    study = begin(of=runs[:1], baselines=(), grid=GRID)
    (problem,) = study.problems.values()
    (grid,) = (model for model in study.models if model.name == "random_grid")
    own = problem.labels[:, None] + 0.01 * RNG.normal(size=(len(problem.labels), 1))
    noise = RNG.normal(size=own.shape)
    train, held_out = np.flatnonzero(study.patients % 3), np.flatnonzero(study.patients % 3 == 0)
    monkeypatch.setattr(StudyModels, "grid", lambda self, seed: {"noise": noise, "good": own, "more": noise[::-1]})
    found = study._answer_fold(grid, problem, 0)(train, held_out)
    assert roc_auc_score(problem.labels[held_out], found.outputs) == 1


def test_labels_alone_are_trained_and_chosen_on_other_patients(runs, begin, recordings, monkeypatch):
    asked, answers_of = [], StudyModels.answers

    def remember(self, name, data, *, seed):
        asked.append((self, name, data))
        return answers_of(self, name, data, seed=seed)

    monkeypatch.setattr(StudyModels, "answers", remember)
    study = begin(of=runs[:1], baselines=("supervised",))
    model = next(each for each in study.models if each.name == "supervised")
    with jax.numpy_dtype_promotion("standard"):
        found = study._answers(Fitted(model.title, "sex=1", 1.0, 1), model, study.problems["sex=1"])
    assert [name for _, name, _ in asked] == ["supervised"] * 3
    assert len({id(models) for models, *_ in asked}) == 1, "one compilation serves all folds"
    for fold, (_, _, data) in enumerate(asked):
        sides = [{*part.patients.tolist()} for part in (data.train, data.val, data.test)]
        assert len(set.union(*sides)) == sum(map(len, sides)), "no patient is on two sides"
        np.testing.assert_array_equal(data.test.records, study.records[found.folds == fold])
        every = np.concatenate([part.records for part in (data.train, data.val, data.test)])
        np.testing.assert_array_equal(np.sort(every), study.records)
        for part in (data.train, data.val, data.test):
            np.testing.assert_array_equal(part.labels, recordings.index.sex[part.records])
    assert np.isfinite(found.outputs).all()


def test_a_model_that_labels_do_not_give_is_missing_and_said(begin, monkeypatch):
    def diverged(self, name, data, *, seed):
        raise DataError("training with labels diverged", reason=NO_MODEL)

    study = begin(of=[], baselines=("boosted", "demographics"))
    with monkeypatch.context() as patch:
        patch.setattr(StudyModels, "answers", _raising(DataError("a shard is damaged")))
        with pytest.raises(DataError, match="a shard is damaged"):
            study.run(fractions=[1.0], seeds=1)
    monkeypatch.setattr(StudyModels, "answers", diverged)
    answers = study.run(fractions=[1.0], seeds=1)
    missing = answers[Fitted("boosted trees", "sex=1", 1.0, 0)]
    assert (missing.outputs, missing.reason) == (None, "fold 1: training with labels diverged")
    again = study.run(fractions=[1.0], seeds=1)[Fitted("boosted trees", "sex=1", 1.0, 0)]
    assert (again.outputs, again.reason) == (None, missing.reason), "it is kept with its reason"
    (said,) = _untrained(answers)
    assert said.text == (
        "Not trained for boosted trees: sex=1 at 100 %, seed 0: fold 1: training with labels diverged."
    )
    rows = study.measure(answers)
    assert rows[Key("boosted trees", "AUROC", "female")].reason == f"sex=1: {missing.reason}"
    everything = {fitted: missing for fitted in answers}
    assert _untrained(everything)[0].text.startswith("Not trained for any model: sex=1 at 100 %")


def _raising(error):
    def function(*args, **kwargs):
        raise error

    return function


def test_a_folder_from_before_there_were_baselines_goes_on(runs, recordings, begin, monkeypatch, tmp_path):
    records, patients = recordings.split.train, np.asarray(recordings.index.group[recordings.split.train])
    encoder, norm = tree_of(runs[0].settings.encoder), runs[0].recordings
    norm_digest = digests.of_arrays(norm.datasets[0].index.content_hash[norm.split.train])
    of_norm = {"batch_norm_records": norm_digest, "layer": "features"}
    identities = {
        "": {
            "data": list(recordings.fingerprints),
            "records": digests.of_arrays(records, patients),
            "method": {
                "outer_folds": 3, "inner_folds": 2, "strengths": [1e-3, 0.1], "min_positives": 4, "layer": "features",
                "resamples": None,
            },
        },
        "models/median-beat": {"title": "median beat", "median_beat": [median_beat.MEDIAN_BEAT_RATE_HZ, RATE_HZ]},
        "models/random-resnet18": {"title": "random resnet18", "encoder": encoder, **of_norm},
        "models/one": {"title": "one", "weights": digests.of_weights(runs[0].encoder.split), **of_norm},
    }  # fmt: skip
    labels = recordings.index.sex[records].astype(np.int64)
    scores = {name: np.arange(48, dtype=np.float32) * (1 + place) for place, name in enumerate(identities)}
    folds = np.arange(48) // 2 % 3
    for name, identity in identities.items():
        folder = tmp_path / "cv" / name
        folder.mkdir(parents=True)
        (folder / "study.json").write_text(json.dumps(identity), encoding="utf-8")
        if name:
            (folder / "scores").mkdir()
            told = {"chosen": [0.1, 0.1, 1e-3], "unchosen": 0, "records": 32.0, "positives": 15, "reason": ""}
            digest = digests.of_arrays(np.arange(48), labels)[:8]
            np.savez(
                folder / "scores" / f"sex_is_1-1-seed0-{digest}.npz",
                told=np.frombuffer(json.dumps(told).encode(), np.uint8), folds=folds, scores=scores[name],
                allow_pickle=False,
            )  # fmt: skip
    monkeypatch.setattr(cross_validation, "cross_validate", None)
    answers = begin(of=runs[:1], baselines=("median_beat",)).run(fractions=[1.0], seeds=1)
    assert [fitted.model for fitted in answers] == ["median beat", "random resnet18", "one"]
    for (fitted, found), name in zip(answers.items(), list(identities)[1:], strict=True):
        np.testing.assert_array_equal(found.outputs, scores[name], err_msg=fitted.model)
        np.testing.assert_array_equal(found.folds, folds)
        assert (found.chosen, found.records, found.positives) == ((0.1, 0.1, 1e-3), 32.0, 15)
    # The baselines of today stand beside it.
    begin(of=runs[:1], baselines=PLAIN)


def test_a_damaged_archive_is_named(begin, tmp_path):
    study = begin(of=[], baselines=("demographics",))
    study.run(fractions=[1.0], seeds=1)
    (path,) = (tmp_path / "cv" / "models" / "age-and-sex" / "scores").iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"{path.name}: this result is damaged .* remove it to make it again"):
        study.run(fractions=[1.0], seeds=1)


class Given:
    """Flags as `absl` holds them."""

    def __init__(self, **given):
        defaults = {
            "workdir": [], "encoder": "", "baselines": ["demographics"], "links": "", "task": ["female"],
            "fractions": ["1"], "seeds": 1, "overlaps": "refuse",
            "model": [], "statistics": None, "pretraining_data": [], "anonymous": False,
        }  # fmt: skip
        vars(self).update(defaults | given)

    def __getitem__(self, name):
        return types.SimpleNamespace(value=getattr(self, name))


@pytest.fixture
def give(tested_set, tmp_path, monkeypatch):
    """Gives the command some flags; one encoder is the smallest."""
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)

    def give(**given):
        flags = Given(
            dataset=str(tested_set.directory), out=str(tmp_path / "out"), config=tree_of(method()), **given
        )  # fmt: skip
        monkeypatch.setattr(entry, "flags", types.SimpleNamespace(FLAGS=flags))
        with jax.numpy_dtype_promotion("standard"):
            entry.main([])
        return json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))

    return give


def test_without_a_run_the_models_beside_encoders_are_tested_alone(give, monkeypatch, tmp_path, capsys):
    tiny = tmp_path / "tiny.py"
    tiny.write_text(
        "from tests.support import tiny_config\n"
        "def get_config():\n"
        "    config = tiny_config.get_config()\n"
        "    config.encoder.name, config.encoder.widths = 'resnet18', (4,)\n"
        "    return config\n",
        encoding="utf-8",
    )
    given = []

    def remember(*args, alone, **kwargs):
        given.append(alone)
        return Study(*args, alone=alone, **kwargs)

    monkeypatch.setattr(entry, "Study", remember)
    stored = give(encoder=str(tiny))
    assert stored["models"] == {"age and sex": "demographics", "random resnet18": "random"}
    assert tree_of(given[0].encoder)["widths"] == (4,)
    rows = read_results(tmp_path / "out")
    assert {(key.model, key.minus) for key in rows} == {
        ("age and sex", ""), ("random resnet18", ""), ("random resnet18", "age and sex"),
    }  # fmt: skip
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "random resnet18 minus age and sex" in report
    assert "Pretraining runs" not in report
    assert "is set by the recordings of this data set" in report
    assert "age and sex" in capsys.readouterr().out


# An export is evaluated without its run in `test_evaluate_anywhere.py`, and without a run it is cross-validated above.
@pytest.mark.slow
def test_an_exported_model_is_tested_without_its_run_and_its_recordings(give, trained_on_set, tmp_path, capsys):
    run = write_run(tmp_path / "run", tiny(trained_on_set.directory), steps=(6,))
    model = export_run(run, tmp_path / "model", formats=())
    shutil.rmtree(run)
    stored = give(model=[str(model)])
    assert stored["models"] == {"age and sex": "demographics", "random resnet18": "random", "model": "pretrained"}
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(stored["cautions"][0])
    assert said.startswith(guard.UNCHECKED)
    (words,) = stored["batch_norm"]
    assert words.startswith("model: Batch norm of the pretrained encoder has its stored statistics")
    assert "those of the tested fold among them" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match=r"holds another study: batch_norm_records differ"):
        give(model=[str(model)], statistics="evaluation")


def test_studies_of_encoders_without_batch_norm_go_on_whatever_records_they_named():
    before = {"title": "one", "weights": "f00d", "batch_norm_records": "beef", "layer": "features"}
    now = cross_validation._upgraded(before, without_batch_norm=True)
    assert now == {**before, "batch_norm_records": None}
    assert cross_validation._upgraded(before, without_batch_norm=False) == before


def test_without_a_run_and_without_a_config_the_encoder_is_the_default_one(give, monkeypatch):
    given = []
    monkeypatch.setattr(entry, "Study", lambda *args, alone, **kwargs: given.append(alone) or _stop())
    with pytest.raises(KeyboardInterrupt):
        give()
    assert tree_of(given[0]) == tree_of(entry.RunSettings())


def _stop():
    raise KeyboardInterrupt


def test_an_encoder_beside_runs_and_unknown_baselines_are_refused(give, monkeypatch):
    monkeypatch.setattr(entry, "open_whole", None)
    with pytest.raises(ConfigError, match=r"--encoder is the encoder of a cross-validation without --workdir"):
        give(encoder="simclr", workdir=["a"])
    with pytest.raises(ConfigError, match=r"--baselines=boosted,trees: 'trees' is unknown; there are: supervised, int"):
        give(baselines=["boosted", "trees"])
    with pytest.raises(ConfigError, match=r"--encoder=simcrl: there is no config file simcrl.* recipes are: .*simclr"):
        give(encoder="simcrl")
    with pytest.raises(
        ConfigError, match=r"--encoder=simclr:tiny: after the colon of --encoder .*small, patients; not 'tiny'"
    ):
        give(encoder="simclr:tiny")
    with pytest.raises(ConfigError, match=r"--task=… is needed"):
        give(task=[])


def test_no_record_of_the_data_set_has_a_say_in_how_another_is_embedded(runs, recordings, monkeypatch):
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    records, task = recordings.split.train, parse_task("female")
    whole, half = (
        [
            (model.title, model.models().values(model.name, task, 0))
            for model in compared_models(runs[:1], recordings, part, layer="features", progress=False)
            if model.name not in ("boosted", "supervised")
        ]
        for part in (records, records[:20])
    )
    assert len(whole) == 5
    for (title, all_of_them), (_, some) in zip(whole, half, strict=True):
        np.testing.assert_allclose(some, all_of_them[:20], rtol=1e-5, atol=1e-5, err_msg=title)


@pytest.fixture
def recalibrated_on(monkeypatch):
    """Every read function and record numbers that batch norm was recalibrated on."""
    seen, recalibrate = [], frozen_encoder.recalibrate_batch_norm

    def noted(encoder, read, *, records, **further):
        seen.append((read, records))
        return recalibrate(encoder, read, records=records, **further)

    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    monkeypatch.setattr(frozen_encoder, "recalibrate_batch_norm", noted)
    return seen


def _recalibrations(models, seen):
    """Returns what each model of an encoder is recalibrated on, by its title, where its head begins at a probe."""
    found = {}
    for model in models:
        if model.encoder:
            model.models().features._recalibrated = []  # Of encoders that models share, each is looked at by itself.
            if model.name == "supervised":
                model.models()._start("random", 0, recalibrated=True)
            else:
                model.models().values(model.name, parse_task("female"), 0)
            (found[model.title],) = seen
            seen.clear()
    return found


def test_batch_norm_of_a_run_and_of_its_twins_is_set_by_the_run_s_own_recordings(runs, recordings, recalibrated_on):
    one, two = runs
    # Of its own store, and of other records.
    other = open_recordings(two.settings.data)
    split = dataclasses.replace(other.split, train=other.split.train[1::2])
    two = dataclasses.replace(two, recordings=dataclasses.replace(other, split=split))
    models = compared_models([one, two], recordings, recordings.split.train, layer="features", progress=False)
    found = _recalibrations(models, recalibrated_on)
    run_of = dict.fromkeys(("random resnet18", "labels only resnet18", "one"), one)
    run_of |= dict.fromkeys(("random resnet18 #2", "labels only resnet18 #2", "two"), two)
    assert found.keys() == run_of.keys()
    for title, (read_signals, records) in found.items():
        run = run_of[title]
        assert read_signals.__self__ is run.recordings.store, title
        np.testing.assert_array_equal(records, run.recordings.split.train, err_msg=title)
        np.testing.assert_array_equal(read_signals(records[:3]), run.recordings.store.read(records[:3]))
        assert not np.array_equal(read_signals(records[:3]), recordings.store.read(records[:3]))


def test_batch_norm_of_an_encoder_without_a_run_is_set_by_the_tested_records(runs, recordings, recalibrated_on):
    alone, records = runs[0].settings, recordings.split.train[1:]
    models = compared_models([], recordings, records, layer="features", alone=alone, progress=False)
    found = _recalibrations(models, recalibrated_on)
    assert found.keys() == {"random resnet18", "labels only resnet18"}
    for read_signals, numbers in found.values():
        np.testing.assert_array_equal(numbers, records)
        np.testing.assert_array_equal(read_signals(numbers), recordings.store.read(records))


def _trained_with(run, **changed):
    """Returns a run with other settings of its optimiser (`weight_decay`) or of its training with labels."""
    settings = run.settings
    if "weight_decay" in changed:
        return dataclasses.replace(
            run, settings=dataclasses.replace(settings, optimizer=dataclasses.replace(settings.optimizer, **changed))
        )
    supervised = dataclasses.replace(settings.probe.supervised, **changed)
    probe = dataclasses.replace(settings.probe, supervised=supervised)
    return dataclasses.replace(run, settings=dataclasses.replace(settings, probe=probe))


@pytest.mark.parametrize("changed", [{"weight_decay": 0.3}, {"steps": 7}], ids=["weight_decay", "steps"])
def test_encoders_that_are_trained_with_labels_in_two_ways_are_each_compared_with_their_own(
    runs, begin, tmp_path, changed
):
    one, two = runs[0], _trained_with(runs[1], **changed)

    def of_labels(of):
        """Returns title, folder and identity of the model that each run is compared with, by the run's title."""
        models = begin(of=of, baselines=("supervised",)).models
        beside = {model.title: model for model in models if model.name == "supervised"}
        found = {}
        for model in models:
            if model.name == "pretrained":
                assert [title for title in model.against if title in beside] == [model.labels_only]
                own = beside[model.labels_only]
                found[model.title] = (own.title, own.folder, own.identity)
        assert {title for title, *_ in found.values()} == set(beside), "none stands beside no run"
        return found

    first = of_labels([one, two])
    assert first == of_labels([two, one])
    titles = [title for title, *_ in first.values()]
    assert len({*titles}) == len({folder for _, folder, _ in first.values()}) == 2
    assert all(title.startswith("labels only resnet18 (") for title in titles)
    for run in (one, two):
        *_, identity = first[run.title]
        assert identity["training"] == tree_of(run.settings.probe.supervised)
        assert identity["optimizer"]["weight_decay"] == run.settings.optimizer.weight_decay
    folder = tmp_path / "cv" / "models"
    before = {path.name for path in folder.iterdir()}
    assert {path for _, path, _ in first.values()} <= before
    alone = of_labels([two])
    assert alone["two"][0] == "labels only resnet18"
    assert {path.name for path in folder.iterdir()} == before | {"labels-only-resnet18"}
    # What was begun goes on.
    assert of_labels([one, two]) == first
    study = json.loads((folder / "labels-only-resnet18" / "study.json").read_text(encoding="utf-8"))
    assert study["training"] == json.loads(json.dumps(tree_of(two.settings.probe.supervised)))


def test_what_a_training_with_labels_does_not_take_over_makes_no_other(runs, recordings):
    optimizer = dataclasses.replace(runs[1].settings.optimizer, learning_rate=0.7)
    other = dataclasses.replace(runs[1], settings=dataclasses.replace(runs[1].settings, optimizer=optimizer))
    models = compared_models(
        [runs[0], other], recordings, recordings.split.train, layer="features", baselines=("supervised",),
        progress=False,
    )  # fmt: skip
    assert [model.title for model in models] == ["random resnet18", "labels only resnet18", "one", "two"]
    assert {model.labels_only for model in models} == {"labels only resnet18"}


@pytest.mark.parametrize("with_runs", [True, False], ids=["runs", "alone"])
def test_trainings_with_labels_that_cannot_be_are_refused_before_anything_is_begun(runs, begin, tmp_path, with_runs):
    two = _trained_with(runs[1], head_start="probe", head="mlp")
    given = {"of": [runs[0], two]} if with_runs else {"of": [], "alone": two.settings}
    with pytest.raises(ConfigError, match=r"^config\.probe\.supervised: head_start='probe' is for head='linear'"):
        begin(baselines=("supervised",), **given)
    assert not (tmp_path / "cv").exists()
    begin(baselines=("demographics",), **given)


def test_batch_norm_is_set_by_real_recordings_where_there_are_any(runs, stored_dataset):
    simulated = stored_dataset[0]
    data = DataSettings(dir=f"{simulated.directory},{runs[0].recordings.datasets[0].directory}")
    recordings = open_recordings(data)
    # What a test makes is marked as simulated, however it is made.
    real = dataclasses.replace(recordings.datasets[1], simulated=False)
    recordings = dataclasses.replace(recordings, datasets=(recordings.datasets[0], real))
    both = dataclasses.replace(runs[0], recordings=recordings)
    assert [made for _, _, made in both.pretrained_on] == [True, False]
    assert len(both.norm.records) == both.pretrained_on[1][1]
    assert both.norm.records.min() >= simulated.index.num_records
    alone = dataclasses.replace(both, recordings=open_recordings(DataSettings(dir=str(simulated.directory))))
    np.testing.assert_array_equal(alone.norm.records, alone.recordings.split.train)


def test_records_that_an_encoder_has_seen(runs, leaking_set):
    whole = entry.open_whole(str(leaking_set.directory), links="")
    assert len(whole.split.train) == 49
    with pytest.raises(ConfigError, match=r"one: 1 of the 49 .* 1 equal recording \('leak' .*--overlaps=drop"):
        entry.keep_apart(runs, whole, overlaps="refuse")
    dropped, cautions = entry.keep_apart(runs, whole, overlaps="drop")
    assert len(dropped.split.train) == 48
    assert "leak" not in dropped.index.record_id[dropped.split.train]
    assert any("they are left out for all models" in caution for caution in cautions)
    marked, cautions = entry.keep_apart(runs, whole, overlaps="mark")
    assert len(marked.split.train) == 49
    assert sum("1 of the 49" in caution for caution in cautions) == 2, "each run is named"
    unlisted = [dataclasses.replace(runs[0], encoder=dataclasses.replace(runs[0].encoder, trained_on=None))]
    assert "is not listed" in entry.keep_apart(unlisted, whole, overlaps="refuse")[1][0]


@pytest.mark.parametrize("damaged", [False, True], ids=["lost", "damaged"])
def test_a_list_that_cannot_be_read_is_said_where_overlaps_are_marked(runs, leaking_set, tmp_path, damaged):
    whole = entry.open_whole(str(leaking_set.directory), links="")
    if damaged:
        (tmp_path / RECORDS_FILE).write_bytes(b"no list")
    listed = functools.partial(open_pretraining_records, tmp_path, run="f00d", digest=None)
    lost = dataclasses.replace(runs[0], encoder=dataclasses.replace(runs[0].encoder, trained_on=listed))
    words = "is damaged" if damaged else "is missing"
    for overlaps in ("refuse", "drop"):
        with pytest.raises(CheckpointError, match=words):
            entry.keep_apart([lost, runs[1]], whole, overlaps=overlaps)
    marked, cautions = entry.keep_apart([lost, runs[1]], whole, overlaps="mark")
    np.testing.assert_array_equal(marked.split.train, whole.split.train)
    (said,) = [caution for caution in cautions if "one" in caution.split()]
    assert re.match(r"Whether records here were pretrained on by one is not known: ", said)
    assert words in said
    assert any(caution.startswith("two: 1 of the 49") for caution in cautions), "the other run is still looked at"


@dataclasses.dataclass
class MadeUpIndex:
    """Labels of a hundred records of fifty patients."""

    answers: dict

    def __post_init__(self):
        self.group = np.arange(100) // 2
        self.patient_id = np.array([f"p{code}" for code in self.group])
        self.labels = tuple(self.answers)

    def label(self, name):
        return np.asarray(self.answers[name], np.float32)


def test_rare_classes_are_left_out_and_named():
    numbers = np.arange(100)
    index = MadeUpIndex(
        {
            "super:A": np.where(numbers < 3, np.nan, numbers % 3 == 0),
            "super:B": numbers < 12,
            "super:C": numbers < 8,
            "super:D": numbers < 5,
            "height": numbers,
        }
    )
    problems, questions = ask(index, numbers, ["super:A=1", "super:*"], min_positives=7, folds=5)
    assert list(problems) == ["super:A", "super:B"]
    assert questions[0] == Question(title="super:A=1", problems=("super:A",), left_out={})
    assert questions[1].left_out == {
        "super:C": "positive records of 4 patients alone",
        "super:D": "5 positive records",
    }
    assert [question.metric for question in questions] == ["AUROC", "macro AUROC"]
    np.testing.assert_array_equal(problems["super:A"].rows, numbers[3:])
    np.testing.assert_array_equal(problems["super:B"].labels, numbers < 12)
    with pytest.raises(DataError, match=r"--task='super:C=1' cannot be .* super:C: 8 positive records"):
        ask(index, numbers, ["super:C=1"], min_positives=10, folds=5)
    with pytest.raises(DataError, match="is a quantity and no yes or no; ask above or below a value"):
        ask(index, numbers, ["height"], min_positives=5, folds=5)


PATIENTS = np.repeat(np.arange(80), 2)
PROBLEMS = {
    name: Problem(
        task=BinaryTask(label=name, rule="present"),
        rows=np.arange(10 * number, 160),
        labels=(RNG.random(160 - 10 * number) < 0.4).astype(int),
    )
    for number, name in enumerate(("x:a", "x:b"))
}


def result_of(problem, *, signal, reason=""):
    labels = problem.labels
    scores = (signal * labels + RNG.normal(size=len(labels))).astype(np.float32)
    return Answers(
        outputs=None if reason else scores, folds=(PATIENTS[problem.rows] % 4), chosen=(0.1,) * 4, unchosen=0,
        records=90.0, positives=30, reason=reason,
    )  # fmt: skip


@pytest.fixture
def made_up_study():
    """A study of three encoders, of which one is never pretrained and another is equal to it."""
    study = object.__new__(Study)
    kinds = {"random net": "random", "strong": "pretrained", "same": "pretrained"}
    study.models = [
        ComparedModel(name=name, title=title, encoder="net", labels_only="labels only net", identity={}, models=None)
        for title, name in kinds.items()
    ]
    study.problems, study.patients = PROBLEMS, PATIENTS
    study.questions = [Question(title="x:*", problems=("x:a", "x:b"), left_out={})]
    study.method = method(resamples=400)
    return study


def test_results_are_means_over_folds_classes_and_seeds(made_up_study):
    assert [problem.name for problem in PROBLEMS.values()] == list(PROBLEMS)
    answers = {
        Fitted(model, name, 1.0, seed): result_of(problem, signal=signal)
        for model, signal in (("strong", 1.5), ("random net", 0.5))
        for name, problem in PROBLEMS.items()
        for seed in range(3)
    }
    answers |= {key._replace(model="same"): each for key, each in answers.items() if key.model == "random net"}

    def by_hand(model, seed, names=PROBLEMS):
        values = []
        for name in names:
            problem, each = PROBLEMS[name], answers[Fitted(model, name, 1.0, seed)]
            values += [
                roc_auc_score(problem.labels[each.folds == fold], each.outputs[each.folds == fold]) for fold in range(4)
            ]
        return np.mean(values)

    rows = made_up_study.measure(answers)
    mean = Key("strong", "macro AUROC", "x:*", minus="random net")
    expected = [by_hand("strong", seed) - by_hand("random net", seed) for seed in range(3)]
    assert of_seeds(rows, mean) == pytest.approx(dict(enumerate(expected)), abs=1e-12)
    assert rows[mean].estimate == pytest.approx(np.mean(expected), abs=1e-12)
    assert 0 < rows[mean].low < np.mean(expected) < rows[mean].high
    assert text_of(rows, mean).startswith(f"{np.mean(expected):+.3f} [")
    same = rows[mean._replace(model="same")]
    assert (same.low, same.estimate, same.high) == (0, 0, 0), "differences are paired"
    # Of a question with several classes each has results of its own.
    for name in PROBLEMS:
        own = rows[Key("strong", "AUROC", name)]
        assert own.estimate == pytest.approx(np.mean([by_hand("strong", seed, [name]) for seed in range(3)]), abs=1e-12)

    # A seed in which one of the two cannot be trained is missing in both, and said.
    reason = "fold 1: no records"
    answers[Fitted("random net", "x:b", 1.0, 1)] = result_of(PROBLEMS["x:b"], signal=1.0, reason=reason)
    rows = made_up_study.measure(answers)
    assert list(of_seeds(rows, mean)) == [0, 2]
    assert lost_seeds(rows, mean) == 1
    assert rows[mean._replace(seed=1)].reason == f"x:b: {reason}"
    assert rows[mean].estimate == pytest.approx(np.mean([expected[0], expected[2]]), abs=1e-12)
    assert "(1 seeds missing)" in text_of(rows, mean)
    assert text_of(rows, mean._replace(fraction=0.1)) == "", "it is not made yet"


def test_settings_that_make_no_sense_are_refused(runs, tested_set, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.inner_folds=1 is not possible"):
        method(inner_folds=1)
    with pytest.raises(ConfigError, match=r"there is no setting config\.folds; did you mean"):
        method(folds=5)
    with pytest.raises(ConfigError, match="must have at least 1 elements"):
        method(strengths=())
    with pytest.raises(ConfigError, match="names a run twice"):
        pretrained_runs.open_runs(["a", "./a"], layer="features", recordings=runs[0].recordings)
    with pytest.raises(ConfigError, match="is not the folder of a pretraining run"):
        pretrained_runs.open_runs([str(tmp_path)], layer="features", recordings=runs[0].recordings)
    assert pretrained_runs._titles(["/x/a/seed0", "/x/b/seed0"]) == ["a/seed0", "b/seed0"]


def test_recordings_of_another_length_are_refused(trained_on_set, tmp_path):
    run = write_run(tmp_path / "run", tiny(trained_on_set.directory), steps=(6,))
    longer = make_simulated_dataset(tmp_path / "other", num_patients=12, rate=RATE_HZ, seconds=4)
    recordings = entry.open_whole(str(longer.directory), links="")
    with pytest.raises(ConfigError, match=r"1000 samples at 100 Hz, and simulated has 400 at 100 Hz: convert it"):
        pretrained_runs.open_runs([str(run)], layer="features", recordings=recordings)


def test_records_with_a_label_of_some_task_are_those_that_are_tested():
    problems = {
        name: Problem(task=BinaryTask(label=name, rule="below", threshold=1.0), rows=np.array(rows), labels=np.zeros(2))
        for name, rows in (("a", [1, 4]), ("b", [4, 6]))
    }
    study = types.SimpleNamespace(problems=problems, patients=np.array([0, 0, 1, 1, 2, 3, 3, 4]))
    tested = Study.labelled.fget(study)
    np.testing.assert_array_equal(tested, [1, 4, 6])
    recordings = types.SimpleNamespace(name="mine")
    method = dataclasses.asdict(cross_validation.Method())
    words = _words(recordings, study.patients, tested, {}, method)
    assert "8 records of 5 patients of mine" in words
    assert "Each of the 3 that have a label (of 3 patients) is tested" in words
