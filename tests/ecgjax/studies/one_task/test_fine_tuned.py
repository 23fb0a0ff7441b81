"""What a fine-tuned network is worth: labels that allow no training, calibration and thresholds, counts."""

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import f1_score

from data_pipelines.errors import DataError
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask, QuantityTask
from ecgjax.evaluation.models.answers import Answers, load_archive
from ecgjax.evaluation.results import Key
from ecgjax.studies.one_task.fine_tuned import (
    PREDICTIONS_FILE,
    answering_head,
    cautions_of,
    check_trainable,
    counts,
    measure,
    results_table,
    write_predictions,
)
from ecgjax.studies.one_task.supplement import Report

RNG = np.random.default_rng(0)
CLASSES = ("AF", "NORM", "RARE")


def _data(train, val, test, task=None, classes=()):
    start, parts = 0, {}
    for name, labels in (("train", train), ("val", val), ("test", test)):
        rows = np.arange(start, start + len(labels))
        parts[name] = LabelledRecords(records=rows, labels=np.asarray(labels), patients=rows, unlabelled=0)
        start += len(labels)
    task = task or BinaryTask(label="lvef", rule="below", threshold=40.0)
    return ProbeData(
        task=task, **parts, label_fraction=1.0, seed=0, train_available=parts["train"], excluded={}, classes=classes
    )


def _multilabel(*, rare_in_training=0):
    sides = [RNG.integers(0, 2, (60, 3)) for _ in range(3)]
    sides[0][:, 2] = 0
    sides[0][:rare_in_training, 2] = 1
    return _data(*sides, task=MultiLabelTask(task="findings"), classes=CLASSES)


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ([1] + 9 * [0], [0, 1], r"lvef<40 cannot be trained: 1 positive training record, and 2 are needed"),
        ([0] + 9 * [1], [0, 1], "1 negative training record, and 2 are needed"),
        (5 * [0, 1], [0, 0], "0 positive validation records, and 1 are needed"),
        (
            [0, 1, 0, 1],
            [0, 1],
            r"config\.training\.batch_size=8 is more than the 4 labelled training records of 'lvef<40'",
        ),
    ],
)
def test_labels_with_which_nothing_can_be_trained_are_refused(train, val, message):
    with pytest.raises(DataError, match=message):
        check_trainable(_data(train, val, [0, 1]), batch_size=8)


def test_classes_that_cannot_be_trained_are_left_out_and_named():
    data, said = check_trainable(_multilabel(rare_in_training=1), batch_size=8)
    assert data.classes == ("AF", "NORM")
    assert [part.labels.shape for part in (data.train, data.val, data.test)] == [(60, 2)] * 3
    assert said == (
        "findings:*: classes that cannot be trained are left out: RARE (1 positive training record, and 2 are needed).",
    )
    assert check_trainable(_multilabel(rare_in_training=2), batch_size=8)[1] == ()
    with pytest.raises(DataError, match="no class can be trained"):
        check_trainable(
            _data(*[np.zeros((9, 2), int)] * 3, task=MultiLabelTask(task="findings"), classes=CLASSES[:2]), batch_size=8
        )


def test_calibration_and_threshold_come_from_validation_and_take_the_offset_off():
    labels = RNG.integers(0, 2, 400)
    log_odds = 2 * labels - 1 + RNG.normal(0, 1, 400)
    data = _data([0, 1], labels[:200], labels[200:])
    outputs = (0.5 * log_odds + 0.7)[:, None]
    head = answering_head(data, outputs[:200], offset=np.array([0.7]), selected="step 3", folds=(9,))
    (output,) = head.outputs
    assert (output.offset, output.records, output.positives) == (0.7, 200, labels[:200].sum())
    assert head.chosen_on == "the 200 validation records, fold 9"
    val = head.answers(outputs[:200])
    # A fit of slope and intercept leaves the mean probability at the prevalence.
    assert val.mean() == pytest.approx(labels[:200].mean(), abs=1e-3)
    every = [f1_score(labels[:200], val >= each) for each in np.unique(val)]
    assert f1_score(labels[:200], val >= output.threshold) == pytest.approx(max(every))
    by_hand = special.expit(output.slope * (outputs[200:, 0] - 0.7) + output.intercept)
    np.testing.assert_allclose(head.answers(outputs[200:]), by_hand, rtol=1e-12)


def test_scores_that_rank_no_better_than_chance_all_become_the_prevalence():
    labels = np.tile([0, 0, 1], 30)
    head = answering_head(
        _data([0, 1], labels, labels), -5.0 * labels[:, None], offset=np.zeros(1), selected="", folds=(9,)
    )
    np.testing.assert_allclose(head.answers(np.array([[-50.0], [50.0]])), 1 / 3, atol=1e-6)


@pytest.mark.parametrize("spread", [1e-3, 1e-6, 1e-10])
def test_scores_that_hardly_differ_are_calibrated_or_all_become_the_prevalence(spread):
    labels = np.tile([0, 0, 1], 30)
    outputs = 40 + spread * (labels + RNG.normal(0, 0.1, 90))[:, None]
    head = answering_head(_data([0, 1], labels, labels), outputs, offset=np.zeros(1), selected="", folds=(9,))
    answers = head.answers(outputs)
    if spread == 1e-10:
        assert head.outputs[0].threshold is None
        np.testing.assert_allclose(answers, 1 / 3, atol=1e-6)
    else:
        assert head.outputs[0].slope > 1e3
        assert answers[labels == 1].min() > 0.9
        assert answers[labels == 0].max() < 0.1


def test_a_head_that_answers_alike_for_all_decides_nothing_and_says_so():
    labels = np.tile([0, 0, 1], 30)
    data, outputs = _data([0, 1], labels, labels), -5.0 * labels[:, None] + RNG.normal(0, 1, (90, 1))
    head = answering_head(data, outputs, offset=np.zeros(1), selected="", folds=(9,))
    assert head.outputs[0].threshold is None
    (said,) = cautions_of(head)
    assert said.startswith("THE MODEL DOES NOT ANSWER lvef<40: on the 90 validation records the scores of the 30 pos")
    answers = Answers(
        outputs=outputs[:, 0], val_outputs=outputs[:, 0], val_metric=0.1, selected="", records=2, positives=1
    )
    metrics = {
        key.metric for key in measure(answers, data, Report(resamples=100, seed=0, groups={}), head=head).results
    }
    assert "AUROC" in metrics
    assert not {"sensitivity", "specificity", "PPV", "ECE"} & metrics


def test_few_validation_records_of_a_label_are_told():
    labels = np.array(3 * [1] + 40 * [0])
    outputs = (labels + RNG.normal(0, 0.5, len(labels)))[:, None]
    head = answering_head(_data([0, 1], labels, labels), outputs, offset=np.zeros(1), selected="", folds=(9,))
    assert cautions_of(head) == (
        "lvef<40: step, calibration and threshold rest on 3 positive and 40 negative validation records.",
    )


@pytest.mark.parametrize("kind", ["binary", "multilabel", "quantity"])
def test_every_kind_is_measured_and_its_predictions_are_kept(kind, tmp_path):
    if kind == "quantity":
        sides = [RNG.normal(60, 10, 60) for _ in range(3)]
        data = _data(*sides, task=QuantityTask(label="age_years"))
        val, test = ((part.labels + RNG.normal(0, 3, 60))[:, None] for part in (data.val, data.test))
    else:
        data = _multilabel(rare_in_training=9) if kind == "multilabel" else _data(*RNG.integers(0, 2, (3, 60)))
        val, test = (
            3 * part.labels.reshape(60, -1) + RNG.normal(0, 2, (60, part.labels.size // 60))
            for part in (data.val, data.test)
        )
    head = answering_head(data, val, offset=np.zeros(val.shape[1]), selected="step 1", unit="")
    shaped = [each if kind == "multilabel" else each[:, 0] for each in (test, val)]
    answers = Answers(outputs=shaped[0], val_outputs=shaped[1])
    found = measure(answers, data, Report(resamples=100, seed=0, groups={}), head=head)
    primary = {"binary": "AUROC", "multilabel": "macro AUROC", "quantity": "R²"}[kind]
    value = found.results[Key("finetuned", primary, data.task.title)]
    assert value.low < value.estimate < value.high
    assert not {key.model for key in found.results} - {"finetuned", "treat_all"}
    rows = {row[0]: row[2] for row in results_table(found, data).rows}
    if kind == "binary":
        share = data.test.labels.mean()
        assert rows["AUPRC"] == f"{share:.3f} (prevalence)"
        assert counts(data)["test"]["prevalence"] == share
    assert rows[primary] == ("0" if kind == "quantity" else "0.500")
    write_predictions(
        tmp_path, head, data, val_outputs=val, test_outputs=test, record_ids=lambda rows: rows.astype(str)
    )
    arrays = load_archive(tmp_path / PREDICTIONS_FILE, lambda words, arrays: arrays | words)
    np.testing.assert_array_equal(arrays["test_answers"], head.answers(test))
    np.testing.assert_array_equal(arrays["test_records"].astype(int), data.test.records)
    assert arrays["question"] == data.task.title
