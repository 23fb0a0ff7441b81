"""Models of a study: how each is trained and chosen, without the records that are held out."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.physiology import median_beat
from ecgjax.errors import ConfigError
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.evaluation.models.fitted import Examples
from ecgjax.evaluation.models.kinds import KINDS
from ecgjax.settings.probe import AttentionSettings
from ecgjax.settings.sections import tree_of
from ecgjax.studies import cross_validation
from ecgjax.studies.compared_models import compared_models
from ecgjax.studies.cross_validation import Fitted
from ecgjax.studies.model_names import PLAIN
from ecgjax.studies.models import StudyModels
from ecgjax.studies.report.cross_validation_page import write_report
from tests.ecgjax.studies.cross_validation.small_study import RATE_HZ

RNG = np.random.default_rng(0)


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
