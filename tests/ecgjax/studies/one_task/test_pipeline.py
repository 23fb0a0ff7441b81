"""The experiment on one question: models fitted on the same records, and every number of every kind."""

import dataclasses
import math
import types

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

from data_pipelines.physiology.median_beat import NAMES as MEASUREMENTS
from ecgjax.data.groups import bands
from ecgjax.data.tasks import BinaryTask, MultiLabelTask, QuantityTask
from ecgjax.defaults import settings_of
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.metrics.clustered_auroc import FEW_PATIENTS, clustered_auroc_interval
from ecgjax.evaluation.models import boosted, kinds
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import Key
from ecgjax.studies import models as module
from ecgjax.studies.model_names import BESIDE, answerable, title_of
from ecgjax.studies.models import StudyModels
from ecgjax.studies.one_task.neighbours import POSITIVE, SAME_PATIENT
from ecgjax.studies.one_task.pipeline import SUPPLEMENTS, measure_task, supplement_of
from ecgjax.studies.one_task.supplement import Report, Supplement
from tests.support import tiny_config
from tests.support.resampled import auroc_of_pairs, bounds
from tests.support.toy_kinds import TOYS, toy_data

NUM = 320
RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(NUM // 2, 2)).repeat(2, axis=0) + 0.2 * RNG.normal(size=(NUM, 2))
PRESSURE = 14 + 5 * HIDDEN[:, 0]
SIDES = {"train": np.arange(120), "val": np.arange(120, 200), "test": np.arange(200, NUM)}
TEST, PATIENTS = SIDES["test"], SIDES["test"] // 2
AGE = np.tile([30.0, 30.0, 50.0, 50.0, np.nan, np.nan, 80.0, 80.0], NUM // 8)
SEX = (np.arange(NUM) // 2 % 2).astype(float)
WOMEN = SEX[TEST] == 1
REPORT = Report(
    resamples=200, seed=0, shuffles=2, progress=False,
    groups={
        "sex": np.where(WOMEN, "female", "male").astype(object),
        "age": bands(AGE[TEST], (40, 60, 75)),
        "site": np.array(["large"] * 111 + ["small"] * 9, object),
    },
)  # fmt: skip
TASKS = {
    "binary": BinaryTask(label="lvef", rule="below", threshold=40.0),
    "multilabel": MultiLabelTask(task="findings"),
    "quantity": QuantityTask(label="wedge_pressure"),
}
LABELS = {
    "binary": (HIDDEN[:, 0] > 0.5).astype(np.int64),
    "multilabel": np.stack([HIDDEN[:, 0] > 0.5, HIDDEN[:, 1] > 0.3], axis=1).astype(np.int64),
    "quantity": PRESSURE,
    "trend": PRESSURE,
    "pooled": np.stack([HIDDEN[:, 0] > 0.5, HIDDEN[:, 1] > 0.3], axis=1).astype(np.int64),
}


def _data(kind):
    classes = ("af", "lvh") if LABELS[kind].ndim == 2 else ()
    data = toy_data(kind, LABELS[kind], sides=SIDES, classes=classes)
    return data if kind in TOYS else dataclasses.replace(data, task=TASKS[kind])


class _Training:
    """Stands for a training of the network: its outputs are the truth and 1."""

    begins_at_probe = encoder_is_frozen = False

    def __init__(self, settings, *, optimizer, encoder, num_leads, kind, classes):
        self.made_for = settings, kind, classes

    def train(self, encoder, data, *, read, seed, probe, progress, title):
        self.trained_on, self.probe = data, probe
        labels = LABELS[data.task.kind]
        outputs = labels + 1 if data.task.kind == "quantity" else 4.0 * labels - 1.5
        return types.SimpleNamespace(
            scores=lambda signals: outputs[signals[:, 0, 0].astype(int)], val_metric=0.5, selected="step 5"
        )


def _features():
    """Embeddings that see what labels are made of, and measurements that see nothing."""
    numbers = np.broadcast_to(np.arange(NUM, dtype=np.int16)[:, None, None], (NUM, 4, 8))
    recordings = types.SimpleNamespace(
        store=types.SimpleNamespace(read=numbers.__getitem__),
        split=types.SimpleNamespace(train=SIDES["train"]),
        index=types.SimpleNamespace(label={"age_years": AGE, "sex": SEX}.__getitem__),
    )
    features = LabelledFeatures(recordings, np.arange(NUM), progress=False)
    draw, noise = np.random.default_rng(1), np.random.default_rng(5).normal(size=(NUM, 6))
    features.__dict__["_measured"] = draw.normal(size=(NUM, len(MEASUREMENTS) + 48))
    features.failures = {"no beat found": 2}

    def embeddings(encoder, *, name, settings):
        much = 0.3 if name == "pretrained" else 3.0
        return np.c_[HIDDEN + much * noise[:, :2], noise[:, 2:]].astype(np.float32)

    features.embeddings = embeddings
    return features


@pytest.fixture(scope="module")
def found():
    """Kind → its measured experiment, and the models that made the answers."""
    settings, out = settings_of(tiny_config.get_config()), {}
    pretrained = frozen_encoder.random_encoder(settings.encoder, layer="features", seed=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FineTuning", _Training)
        patch.setattr(frozen_encoder, "random_encoder", lambda *given, **more: pretrained)  # making one takes a while
        patch.setattr(boosted, "_TREES", 10)
        patch.setattr(kinds.MultiLabel, "strengths", (1e-3, 0.1))
        models = StudyModels(_features(), settings=settings, pretrained=pretrained, progress=False)
        for kind in TASKS:
            data = _data(kind)
            names = answerable(("pretrained", "nearest", *BESIDE), data.task)
            answers = {name: models.answers(name, data, seed=0) for name in names}
            embeddings = {
                name: models.features.of(models.embeddings(name, 0), data) for name in ("pretrained", "random")
            }
            out[kind] = measure_task(
                answers, data, REPORT, embeddings=embeddings, measurement_failures=models.features.failures
            )
    return out, models


def test_models_answer_the_same_records_in_the_order_of_tables(found):
    everything, models = found
    order = [
        "pretrained", "nearest", "random", "supervised", "intervals", "boosted", "median_beat", "demographics",
    ]  # fmt: skip
    for kind, one in everything.items():
        assert list(one.models) == [*order, *(["mean"] if kind == "quantity" else [])]
        for answers in one.models.values():
            assert answers.outputs.shape == one.data.test.labels.shape
            assert answers.val_outputs.shape == one.data.val.labels.shape
            assert answers.records == 120
            value = kind_of(one.data.task).value(one.data.val.labels, answers.val_outputs, classes=one.data.classes)
            if answers.selected != "step 5":
                np.testing.assert_allclose(answers.val_metric, value, atol=1e-9)
        assert one.models["supervised"].val_metric == 0.5
        training = models.training("random", one.data)
        assert training.made_for[1:] == (kind_of(one.data.task), one.data.classes)
        assert training.trained_on is one.data
        assert training.probe is None
        assert models.training("pretrained", one.data) is not training
        assert one.measurement_failures == {"no beat found": 2}
    np.testing.assert_array_equal(everything["quantity"].models["mean"].outputs, PRESSURE[SIDES["train"]].mean())
    # Measurements see nothing, and the pretrained encoder more than a random one.
    aurocs = {name: everything["binary"].value(name, "AUROC").estimate for name in order}
    assert aurocs["pretrained"] > max(aurocs["random"], 0.9)
    assert all(0.2 < aurocs[name] < 0.75 for name in ("intervals", "boosted", "median_beat", "demographics"))


def test_titles_say_what_kind_of_model_it_is():
    assert title_of("intervals", TASKS["quantity"]) == "intervals and amplitudes, ridge"
    assert title_of("median_beat", TASKS["binary"]) == "median beat and heart rate, logistic"
    assert title_of("demographics", TASKS["multilabel"]) == "age and sex, logistic"
    assert title_of("demographics", QuantityTask(label="age_years")) == "sex, ridge"
    assert title_of("mean", TASKS["quantity"]) == "mean of the training labels"


def _expected(kind, outputs):
    """Functions of rows of the test records, by metric."""
    truth = LABELS[kind][TEST]
    if kind == "binary":
        return {"AUROC": lambda rows: auroc_of_pairs(truth[rows], outputs[rows])}
    if kind == "multilabel":
        return {"macro AUROC": lambda rows: np.mean([auroc_of_pairs(truth[rows, c], outputs[rows, c]) for c in (0, 1)])}
    if kind == "pooled":
        return {"pooled AUROC": lambda rows: auroc_of_pairs(truth[rows].ravel(), outputs[rows].ravel())}
    correlation = lambda rows: np.corrcoef(truth[rows], outputs[rows])[0, 1]  # noqa: E731
    mae = lambda rows: mean_absolute_error(truth[rows], outputs[rows])  # noqa: E731
    if kind == "trend":
        return {"correlation": correlation, "MAE": mae}
    return {"R²": lambda rows: r2_score(truth[rows], outputs[rows]), "Pearson's r": correlation, "MAE": mae}


def _is(interval, by_hand):
    assert interval.estimate == pytest.approx(by_hand(np.arange(len(TEST))), abs=1e-9)
    np.testing.assert_allclose((interval.low, interval.high), bounds(PATIENTS, by_hand), atol=1e-9)


@pytest.mark.parametrize("kind", TASKS)
def test_every_metric_and_difference_is_over_patients_and_paired(found, kind):
    one = found[0][kind]
    ours, theirs = (_expected(kind, one.models[name].outputs) for name in ("pretrained", "random"))
    for metric, by_hand in ours.items():
        interval = one.value("pretrained", metric)
        if kind == "binary":  # of which few patients are positive
            assert interval.estimate == pytest.approx(by_hand(np.arange(120)), abs=1e-12)
        else:
            _is(interval, by_hand)
        _is(one.value("pretrained", metric, minus="random"), lambda rows: by_hand(rows) - theirs[metric](rows))  # noqa: B023
    primary = kind_of(one.data.task).primary
    assert one.compared == primary
    for name in one.models:
        if name != "pretrained":
            assert one.value("pretrained", primary, minus=name).estimate == pytest.approx(
                one.value("pretrained", primary).estimate - one.value(name, primary).estimate, abs=1e-12
            )
    assert not [key for key in one.results if key.minus in one.models and key.model != "pretrained"]
    assert {key.task for key in one.results} == {one.data.task.title}
    assert {(key.fraction, key.seed) for key in one.results} == {(1.0, None)}


def test_an_auroc_of_few_patients_has_another_interval(found):
    one = found[0]["binary"]
    labels, outputs = LABELS["binary"][TEST], one.models["random"].outputs
    assert len(np.unique(PATIENTS[labels == 1])) <= FEW_PATIENTS
    of_few = clustered_auroc_interval(labels, outputs, patients=PATIENTS)
    shown = one.value("random", "AUROC")
    assert (shown.low, shown.high, shown.resamples, shown.reason) == (of_few.low, of_few.high, 0, "")
    assert shown.estimate == pytest.approx(roc_auc_score(labels, outputs), abs=1e-12)


def test_positives_are_looked_for_where_a_record_has_one_yes_or_no(found):
    for kind, one in found[0].items():
        matches = [SAME_PATIENT, POSITIVE] if kind == "binary" else [SAME_PATIENT]
        assert [(each.encoder, each.match) for each in one.sought] == [
            (encoder, match) for encoder in ("pretrained", "random") for match in matches
        ]
        assert one.value("pretrained", "recall@5", part=SAME_PATIENT).estimate > 0.1
        assert list(one.embeddings) == ["pretrained", "random"]
        assert all(len(values) == len(TEST) for values in one.embeddings.values())


def test_every_kind_has_what_is_measured_of_it(found):
    assert {kind: list(one.facts) for kind, one in found[0].items()} == {
        "binary": ["thresholds", "shuffled_labels"],
        "multilabel": ["classes", "unscored"],
        "quantity": ["agreement"],
    }
    assert set(SUPPLEMENTS) == set(kinds.KINDS)
    for kind, one in found[0].items():
        assert supplement_of(one.data) is SUPPLEMENTS[kind]
        assert [group.group for group in one.groups] == [
            "female", "male", "below 40", "40 to 60", "75 and more", "missing", "large", "small"
        ]  # fmt: skip


# A kind that no module knows of.


@pytest.fixture
def toys(monkeypatch):
    for name, kind in TOYS.items():
        monkeypatch.setitem(kinds.KINDS, name, kind)


def _measured_toy(kind, **more):
    data = _data(kind)
    noise = {name: np.random.default_rng(seed).normal(size=LABELS[kind].shape) for seed, name in enumerate("pr")}
    answers = {
        "pretrained": Answers(outputs=(LABELS[kind] + noise["p"])[TEST]),
        "random": Answers(outputs=(LABELS[kind] + 4 * noise["r"])[TEST]),
        **more,
    }
    embeddings = {"pretrained": SplitFeatures(**{name: HIDDEN[rows] for name, rows in SIDES.items()})}
    return measure_task(answers, data, REPORT, embeddings=embeddings, measurement_failures={})


@pytest.mark.parametrize("kind", TOYS)
def test_a_new_kind_has_metrics_differences_groups_and_neighbours(toys, kind):
    one = _measured_toy(kind)
    assert type(supplement_of(one.data)) is Supplement
    ours, theirs = (_expected(kind, one.models[name].outputs) for name in ("pretrained", "random"))
    for metric, by_hand in ours.items():
        _is(one.value("pretrained", metric), by_hand)
        _is(one.value("random", metric), theirs[metric])
        _is(one.value("pretrained", metric, minus="random"), lambda rows: by_hand(rows) - theirs[metric](rows))  # noqa: B023
        _is(one.value("pretrained", metric, part="sex: female"), lambda rows: by_hand(rows[WOMEN[rows]]))  # noqa: B023
    assert (one.compared, one.facts) == (TOYS[kind].primary, {})
    groups = {group.part: group for group in one.groups}
    assert (groups["sex: female"].records, groups["sex: female"].patients) == (WOMEN.sum(), WOMEN.sum() // 2)
    assert (groups["site: small"].reason, groups["site: small"].counted) == ("too few records", None)
    assert not [key for key in one.results if key.part == "site: small"]
    assert not [key for key in one.results if key.part and key.minus], "no metric is compared with other records"
    assert [each.match for each in one.sought] == [SAME_PATIENT]
    # Nothing else: two models' metrics and a difference, seven groups that are large enough, one retrieval.
    assert len(one.results) == len(ours) * (3 + 7) + 3


def test_a_group_whose_labels_do_not_differ_is_counted_alone(toys, monkeypatch):
    labels = LABELS["trend"].copy()
    labels[TEST[WOMEN]] = 14.0
    monkeypatch.setitem(LABELS, "trend", labels)
    one = _measured_toy("trend")
    groups = {group.part: group for group in one.groups}
    assert groups["sex: female"].reason == "no value differs"
    assert not [key for key in one.results if key.part == "sex: female"]
    assert groups["sex: male"].reason == ""


def test_a_model_without_answers_has_no_rows(toys):
    one = _measured_toy("trend", nearest=Answers(outputs=None, reason="no label"))
    assert not [key for key in one.results if "nearest" in (key.model, key.minus)]
    assert "nearest" in one.models
    with pytest.raises(ValueError, match="there are no answers: no label"):
        _measured_toy("trend", pretrained=Answers(outputs=None, reason="no label"))


def test_a_number_that_was_not_measured_is_an_error(found):
    one = found[0]["binary"]
    with pytest.raises(KeyError):
        one.value("pretrained", "R²")
    assert one.results[Key("pretrained", "AUROC", "lvef<40")] is one.value("pretrained", "AUROC")
    assert math.isfinite(one.value("pretrained", "AUROC").estimate)
