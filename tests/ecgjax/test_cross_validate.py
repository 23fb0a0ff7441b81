"""The cross-validation of frozen encoders: what is asked, what is refused, and a whole small study."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from configs import cross_validation as default_method
from data_pipelines.errors import DataError
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax import cross_validate as entry
from ecgjax.data.recordings import open_recordings
from ecgjax.data.settings import DataSettings
from ecgjax.defaults import settings_of
from ecgjax.encoders.from_config import create_split
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.models.out_of_fold import OutOfFold
from ecgjax.leakage.trained_on import pretraining_records
from ecgjax.settings.sections import read
from ecgjax.studies import cross_validation
from ecgjax.studies.cross_validation import BASELINE, PretrainedRun
from ecgjax.studies.cross_validation_statistics import Findings, Fitted, findings_table
from ecgjax.studies.questions import Problem, Question, ask
from ecgjax.studies.report.cross_validation_page import write_report
from tests.data_pipelines.test_link import build, record
from tests.support import tiny_config

RATE_HZ = 100


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


def test_a_whole_study(runs, tested_set, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    recordings, cautions = entry.keep_apart(
        runs, entry.open_whole(str(tested_set.directory), links=""), overlaps="refuse"
    )
    assert cautions == ()
    assert len(recordings.split.train) == 48

    def study(tasks=("age_years>55", "female"), **changed):
        return entry.Study(
            runs, recordings, tasks=tasks, method=method(**changed), folder=tmp_path / "cv", progress=False
        )

    with jax.numpy_dtype_promotion("standard"):
        first = study()
        results = first.run(fractions=[0.5, 1.0], seeds=2)
    titles = [BASELINE, "random resnet18", "one", "two"]
    assert [model.title for model in first.models] == titles, "encoders of one kind share a random twin"
    assert set(results) == {
        Fitted(title, problem, fraction, seed)
        for title in titles for problem in ("age_years>55", "sex=1") for fraction in (0.5, 1.0) for seed in (0, 1)
    }  # fmt: skip
    labels = first.problems["sex=1"].labels
    np.testing.assert_array_equal(labels, recordings.index.sex[recordings.split.train])
    folder = tmp_path / "cv" / "models"
    files = {path.name for path in (folder / "random-resnet18").iterdir()}
    assert files == {"study.json", "features-seed0.npy", "features-seed1.npy", "scores"}
    assert not np.array_equal(*(np.load(folder / "random-resnet18" / f"features-seed{seed}.npy") for seed in (0, 1)))

    tables, page = write_report(
        results, runs=runs, models=first.models, recordings=recordings, questions=first.questions,
        problems=first.problems, method=dataclasses.asdict(first.method), cautions=cautions, folder=tmp_path / "cv",
        command="python -m ecgjax.cross_validate …",
    )  # fmt: skip
    html = page.read_text(encoding="utf-8")
    for part in (*titles, "one − random resnet18", f"two − {BASELINE}", "ecgjax.cross_validate …", "100 % of labels"):
        assert part in html
    assert "two − random resnet18" in tables
    stored = json.loads((tmp_path / "cv" / "results.json").read_text(encoding="utf-8"))
    one = next(
        each for each in stored["findings"]
        if (each["question"], each["fraction"], each["model"], each["other"]) == ("female", 1.0, "one", "")
    )  # fmt: skip
    by_seed = [
        np.mean([roc_auc_score(labels[r.folds == fold], r.scores[r.folds == fold]) for fold in range(3)])
        for r in (results[Fitted("one", "sex=1", 1.0, seed)] for seed in (0, 1))
    ]
    assert one["mean"]["estimate"] == pytest.approx(np.mean(by_seed), abs=1e-12)

    # What is there is not made again; more is made beside it; another study is refused.
    monkeypatch.setattr(cross_validation, "map_records", None)
    monkeypatch.setattr(entry, "cross_validate", None)
    again = study().run(fractions=[1.0], seeds=2)
    for fitted, result in again.items():
        np.testing.assert_array_equal(result.scores, results[fitted].scores)
    with pytest.raises(TypeError):
        study().run(fractions=[0.25], seeds=1)
    with pytest.raises(ConfigError, match="holds another study: method differ"):
        study(outer_folds=4)
    study(resamples=300)
    retrained = dataclasses.replace(runs[0], encoder=runs[1].encoder)
    with pytest.raises(ConfigError, match="holds another study: weights differ"):
        entry.Study([retrained], recordings, tasks=["female"], method=method(), folder=tmp_path / "cv", progress=False)


def test_no_record_of_the_data_set_has_a_say_in_how_another_is_embedded(runs, tested_set, monkeypatch):
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    recordings = entry.open_whole(str(tested_set.directory), links="")
    records = recordings.split.train
    with jax.numpy_dtype_promotion("standard"):
        for model in cross_validation.frozen_models(runs[:1], recordings, records, layer="features", progress=False):
            whole, half = model.features(0), None
            for part in cross_validation.frozen_models(
                runs[:1], recordings, records[:20], layer="features", progress=False
            ):
                half = part.features(0) if part.title == model.title else half
            np.testing.assert_allclose(half, whole[:20], rtol=1e-5, atol=1e-5)


def test_batch_norm_is_set_by_real_recordings_where_there_are_any(runs, stored_dataset):
    simulated = stored_dataset[0]
    data = DataSettings(dir=f"{simulated.directory},{runs[0].recordings.datasets[0].directory}")
    recordings = open_recordings(data)
    # What a test makes is marked as simulated, however it is made.
    real = dataclasses.replace(recordings.datasets[1], simulated=False)
    recordings = dataclasses.replace(recordings, datasets=(recordings.datasets[0], real))
    both = dataclasses.replace(runs[0], recordings=recordings)
    assert [made for _, _, made in both.pretrained_on] == [True, False]
    assert len(both.norm_records) == both.pretrained_on[1][1]
    assert both.norm_records.min() >= simulated.index.num_records
    alone = dataclasses.replace(both, recordings=open_recordings(DataSettings(dir=str(simulated.directory))))
    np.testing.assert_array_equal(alone.norm_records, alone.recordings.split.train)


def test_records_that_an_encoder_has_seen(runs, leaking_set):
    whole = entry.open_whole(str(leaking_set.directory), links="")
    assert len(whole.split.train) == 49
    with pytest.raises(ConfigError, match=r"one: 1 of the 49 .* equal recordings \('leak' .*--overlaps=drop"):
        entry.keep_apart(runs, whole, overlaps="refuse")
    dropped, cautions = entry.keep_apart(runs, whole, overlaps="drop")
    assert len(dropped.split.train) == 48
    assert "leak" not in dropped.index.record_id[dropped.split.train]
    assert any("they are left out for all models" in caution for caution in cautions)
    marked, cautions = entry.keep_apart(runs, whole, overlaps="mark")
    assert len(marked.split.train) == 49
    assert sum("1 of the 49" in caution for caution in cautions) == 2, "each run is named"
    unlisted = [dataclasses.replace(runs[0], encoder=runs[0].encoder.with_stats(runs[0].encoder.split.stats))]
    unlisted[0].encoder.trained_on = None
    assert "is not listed" in entry.keep_apart(unlisted, whole, overlaps="refuse")[1][0]


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
    with pytest.raises(DataError, match="is a quantity; ask above or below a value"):
        ask(index, numbers, ["height"], min_positives=5, folds=5)


RNG = np.random.default_rng(0)
PATIENTS = np.repeat(np.arange(80), 2)
PROBLEMS = {
    name: Problem(name=name, rows=np.arange(10 * number, 160), labels=(RNG.random(160 - 10 * number) < 0.4).astype(int))
    for number, name in enumerate(("a", "b"))
}


def result_of(problem, *, signal, reason=""):
    labels = problem.labels
    scores = (signal * labels + RNG.normal(size=len(labels))).astype(np.float32)
    return OutOfFold(
        scores=None if reason else scores, folds=(PATIENTS[problem.rows] % 4), chosen=(0.1,) * 4, unchosen=0,
        records=90.0, positives=30, reason=reason,
    )  # fmt: skip


def test_findings_are_means_over_folds_classes_and_seeds():
    results = {
        Fitted(model, name, 1.0, seed): result_of(problem, signal=signal)
        for model, signal in (("strong", 1.5), ("weak", 0.5))
        for name, problem in PROBLEMS.items()
        for seed in range(3)
    }
    question = Question(title="both", problems=("a", "b"), left_out={})
    findings = Findings(results, problems=PROBLEMS, patients=PATIENTS, resamples=400)

    def by_hand(model, seed):
        values = []
        for name, problem in PROBLEMS.items():
            each = results[Fitted(model, name, 1.0, seed)]
            values += [
                roc_auc_score(problem.labels[each.folds == fold], each.scores[each.folds == fold]) for fold in range(4)
            ]
        return np.mean(values)

    found = findings.find(question, fraction=1.0, model="strong", other="weak")
    expected = [by_hand("strong", seed) - by_hand("weak", seed) for seed in range(3)]
    assert list(found.answer.by_seed.values()) == pytest.approx(expected, abs=1e-12)
    assert found.answer.mean.estimate == pytest.approx(np.mean(expected), abs=1e-12)
    assert 0 < found.answer.mean.low < np.mean(expected) < found.answer.mean.high
    assert found.title == "strong − weak"
    assert found.text.startswith(f"{np.mean(expected):+.3f} [")
    same = findings.find(question, fraction=1.0, model="weak", other="weak")
    assert (same.answer.mean.low, same.answer.mean.high) == (0, 0), "differences are paired"

    # A seed in which one of the two cannot be trained is missing in both, and said.
    results[Fitted("weak", "b", 1.0, 1)] = result_of(PROBLEMS["b"], signal=1.0, reason="fold 1: no records")
    findings = Findings(results, problems=PROBLEMS, patients=PATIENTS, resamples=400)
    found = findings.find(question, fraction=1.0, model="strong", other="weak")
    assert list(found.answer.by_seed) == [0, 2]
    assert found.without == {1: "b: fold 1: no records"}
    assert "(1 seeds missing)" in findings_table([found]).rows[0][1]
    nothing = findings.find(question, fraction=0.1, model="strong")
    assert nothing.answer is None
    assert nothing.text == "n/a (not made yet)"


def test_settings_that_make_no_sense_are_refused(runs, tested_set, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.inner_folds=1 is not possible"):
        method(inner_folds=1)
    with pytest.raises(ConfigError, match=r"there is no setting config\.folds; did you mean"):
        method(folds=5)
    with pytest.raises(ConfigError, match="must have at least 1 elements"):
        method(strengths=())
    with pytest.raises(ConfigError, match="names a run twice"):
        cross_validation.open_runs(["a", "./a"], layer="features", format=runs[0].recordings.format)
    with pytest.raises(ConfigError, match="is not the folder of a pretraining run"):
        cross_validation.open_runs([str(tmp_path)], layer="features", format=runs[0].recordings.format)
    assert cross_validation._titles(["/x/a/seed0", "/x/b/seed0"]) == ["a/seed0", "b/seed0"]


def test_recordings_of_another_rate_are_refused(runs, monkeypatch):
    monkeypatch.setattr(cross_validation.defaults, "settings_of_run", lambda workdir: runs[0].settings)
    other = dataclasses.replace(runs[0].recordings.format, sampling_rate_hz=200)
    with pytest.raises(ConfigError, match=r"1000 samples at 100 Hz, --dataset has 1000 at 200 Hz"):
        cross_validation.open_runs(["a"], layer="features", format=other)
