"""A small study from begin to end, what stands beside the encoders, and what is measured of it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from ecgjax import cross_validate as entry
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import digests
from ecgjax.evaluation.models.kinds import NO_MODEL
from ecgjax.evaluation.results import Key, Rows, of_seeds, read_results
from ecgjax.settings.sections import tree_of
from ecgjax.studies import cross_validation, pretrained_runs
from ecgjax.studies.compared_models import compared_models
from ecgjax.studies.cross_validation import Fitted
from ecgjax.studies.model_names import PLAIN
from ecgjax.studies.models import StudyModels
from ecgjax.studies.report.cross_validation_page import _untrained, write_report
from tests.ecgjax.studies.cross_validation.small_study import RATE_HZ, method
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run


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
    assert "4 comparisons (2 questions at 2 shares of the labels)" in first_line
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


def test_studies_of_encoders_without_batch_norm_go_on_whatever_records_they_named():
    before = {"title": "one", "weights": "f00d", "batch_norm_records": "beef", "layer": "features"}
    now = cross_validation._upgraded(before, without_batch_norm=True)
    assert now == {**before, "batch_norm_records": None}
    assert cross_validation._upgraded(before, without_batch_norm=False) == before


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
