"""Probe tasks: rules, missing labels, and fractions drawn by patient."""

import types

import numpy as np
import pytest

from data_pipelines.errors import DataError
from ecgjax.data.labels import LabelledRecords, ProbeData, draw_patients, of_common_classes, probe_data
from ecgjax.data.tasks import BinaryTask, MultiLabelTask


@pytest.mark.parametrize(
    ("rule", "threshold", "expected"),
    [("below", 40.0, [1, 0, 0, np.nan]), ("above", 40.0, [0, 0, 1, np.nan])],
)
def test_rules_are_strict_and_keep_missing(rule, threshold, expected):
    task = BinaryTask(label="lvef", rule=rule, threshold=threshold)
    np.testing.assert_array_equal(task.answer(np.array([39.9, 40.0, 40.1, np.nan], np.float32)), expected)
    assert task.title == {"below": "lvef<40", "above": "lvef>40"}[rule]


def test_present_takes_zeros_and_ones_only():
    task = BinaryTask(label="superdiagnostic:NORM", rule="present")
    np.testing.assert_array_equal(task.answer(np.array([0, 1, np.nan], np.float32)), [0, 1, np.nan])
    with pytest.raises(DataError, match="ask below or above a value, as in --task='superdiagnostic:NORM<40'"):
        task.answer(np.array([0, 55], np.float32))


@pytest.mark.parametrize(
    ("rule", "threshold", "message"),
    [
        ("under", 40.0, "--task: a rule of 'lvef' is 'under'; there are: below, above, present"),
        ("below", np.nan, "--task='lvef<nan': the threshold must be a finite number"),
        ("above", None, "--task='lvef>None': the threshold must be a finite number"),
    ],
)
def test_refuses_another_rule(rule, threshold, message):
    with pytest.raises(DataError, match=message):
        BinaryTask(label="lvef", rule=rule, threshold=threshold)


def _patients(count=200, visits=3):
    codes = np.random.default_rng(0).permutation(np.repeat(np.arange(count), visits))
    return codes, np.array([f"p{code:04d}" for code in codes])


def test_fractions_are_drawn_by_patient_and_nested():
    codes, ids = _patients()
    drawn = {f: draw_patients(codes, patient_ids=ids, fraction=f, seed=0) for f in (0.01, 0.05, 0.1, 0.5, 1.0)}
    for fraction, mask in drawn.items():
        chosen = np.unique(codes[mask])
        assert len(chosen) == round(fraction * 200)
        np.testing.assert_array_equal(mask, np.isin(codes, chosen))
    for small, large in zip(list(drawn.values())[:-1], list(drawn.values())[1:], strict=True):
        assert (large | ~small).all()


def test_draw_depends_on_the_ids_alone():
    codes, ids = _patients()
    mask = draw_patients(codes, patient_ids=ids, fraction=0.2, seed=3)
    order = np.random.default_rng(1).permutation(len(codes))
    recoded = np.random.default_rng(2).permutation(200)[codes]
    again = draw_patients(recoded[order], patient_ids=ids[order], fraction=0.2, seed=3)
    np.testing.assert_array_equal(mask[order], again)
    assert (mask != draw_patients(codes, patient_ids=ids, fraction=0.2, seed=4)).any()


def test_draw_is_the_same_on_every_machine():
    ids = np.array([f"p{i}" for i in range(10)])
    mask = draw_patients(np.arange(10), patient_ids=ids, fraction=0.3, seed=0)
    assert ids[mask].tolist() == ["p5", "p6", "p8"]


def test_a_patients_rank_survives_newcomers():
    codes, ids = _patients()
    chosen = set(ids[draw_patients(codes, patient_ids=ids, fraction=0.5, seed=0)])
    half = codes < 100
    of_half = set(ids[half][draw_patients(codes[half], patient_ids=ids[half], fraction=0.5, seed=0)])
    # 50 of the first 100 and 100 of all 200, by one ranking: they agree but for the shift of the cut.
    assert len({name for name in of_half ^ chosen if name < "p0100"}) < 20


def test_a_group_of_several_ids_goes_as_one():
    codes, ids = np.array([0, 0, 1, 2]), np.array(["b", "a", "c", "d"])
    for seed in range(20):
        mask = draw_patients(codes, patient_ids=ids, fraction=0.34, seed=seed)
        assert mask[0] == mask[1]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, np.nan])
def test_refuses_fractions_outside(fraction):
    with pytest.raises(DataError, match="label_fraction"):
        draw_patients(np.arange(3), patient_ids=np.array(["a", "b", "c"]), fraction=fraction, seed=0)


def _index():
    lvef = np.array([30, 60, np.nan, 35, 55, 20, 70, np.nan, 39, 61], np.float32)

    def label(name):
        if name != "lvef":
            raise DataError(f"no label '{name}' in this data set; it has lvef")
        return lvef

    return types.SimpleNamespace(
        group=np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), patient_id=np.array(list("aabcdefghi")), label=label
    )


def _split(**changes):
    parts = {"train": np.arange(5), "val": np.array([5, 6]), "test": np.array([7, 8, 9]), "excluded": {"duplicate": 2}}
    return types.SimpleNamespace(**{**parts, **changes})


def test_labels_of_a_split():
    data = probe_data(
        _index(), _split(), task=BinaryTask(label="lvef", rule="below", threshold=40.0), label_fraction=1.0, seed=0
    )
    np.testing.assert_array_equal(data.train.records, [0, 1, 3, 4])
    np.testing.assert_array_equal(data.train.labels, [1, 0, 1, 0])
    np.testing.assert_array_equal(data.train.patients, [0, 0, 2, 3])
    assert (data.train.unlabelled, data.train.num_patients, data.train.positives) == (1, 3, 2)
    np.testing.assert_array_equal(data.test.records, [8, 9])
    assert data.test.unlabelled == 1
    assert data.excluded == {"duplicate": 2}


def test_unknown_label_lists_the_known_ones():
    with pytest.raises(DataError, match="it has lvef"):
        probe_data(_index(), _split(), task=BinaryTask(label="ef", rule="present"), label_fraction=1.0, seed=0)


def test_a_split_without_labels_is_an_error():
    with pytest.raises(DataError, match=r"none of the 1 records of the test split .* config.data.test_folds"):
        probe_data(
            _index(), _split(test=np.array([7])), task=BinaryTask(label="lvef", rule="below", threshold=40.0),
            label_fraction=1.0, seed=0,
        )  # fmt: skip


def _of_classes(*positives):
    """Records of which 30, of every split alike, have so many positives of each class."""
    labels = np.stack([np.arange(30) < number for number in positives], axis=1).astype(np.int64)
    part = LabelledRecords(records=np.arange(30), labels=labels, patients=np.arange(30), unlabelled=0)
    parts = dict.fromkeys(("train", "val", "test", "train_available"), part)
    task, classes = MultiLabelTask(task="diagnosis"), tuple("abcd"[: len(positives)])
    return ProbeData(task=task, **parts, label_fraction=1.0, seed=0, excluded={}, classes=classes)


def test_classes_with_too_few_test_records_of_either_label_are_not_asked():
    data, said = of_common_classes(_of_classes(10, 9, 20, 21))
    assert data.classes == ("a", "c")
    for part in (data.train, data.val, data.test, data.train_available):
        np.testing.assert_array_equal(part.labels.sum(axis=0), [10, 20])
    assert said == ("diagnosis:*: not asked, for fewer than 10 positive or negative test records: b, d.",)
    whole = _of_classes(10, 20)
    assert of_common_classes(whole) == (whole, ())
    rare, said = of_common_classes(_of_classes(3, 29))
    assert rare.classes == ("a", "b")
    assert said == ("diagnosis:*: every class has fewer than 10 positive or negative test records, which tell little.",)
