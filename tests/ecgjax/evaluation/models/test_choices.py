"""What hyperparameters are chosen on: whose labels decide, how many, and what is said where they allow nothing."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask, QuantityTask
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.models.answers import examples_of
from ecgjax.evaluation.models.choices import FOLDS, labelled_folds, strength_of, to_choose_by
from ecgjax.evaluation.models.kinds import KINDS, NO_MODEL
from ecgjax.evaluation.models.linear import Strength, fit_linear

RNG = np.random.default_rng(0)
NUM = 400
PATIENTS = np.repeat(np.arange(NUM // 2), 2)
IDS = np.array([f"p{number}" for number in PATIENTS])
FEATURES = RNG.normal(size=(NUM, 10))
HIDDEN = FEATURES[:, :2] + RNG.normal(size=(NUM, 2))
TRAIN, VAL, TEST = np.arange(0, 120), np.arange(120, 320), np.arange(320, NUM)
TASKS = {
    "binary": (BinaryTask(label="lvef", rule="below", threshold=40.0), (HIDDEN[:, 0] > 0.5).astype(int), ()),
    "multilabel": (MultiLabelTask(task="findings"), (HIDDEN > 0).astype(int), ("a", "b")),
    "quantity": (QuantityTask(label="wedge_pressure"), 10 + HIDDEN[:, 0], ()),
}


def _data(kind="binary", *, train=TRAIN, fraction=0.1, labels=None, **changes):
    task, own, classes = TASKS[kind]
    labels = own if labels is None else labels
    parts = {
        name: LabelledRecords(records=rows, labels=labels[rows], patients=PATIENTS[rows], unlabelled=0)
        for name, rows in (("train", train), ("val", VAL), ("test", TEST))
    }
    given = {"train_available": parts["train"], "label_fraction": fraction, "seed": 3, "excluded": {}, **parts}
    return ProbeData(task=task, classes=classes, **{**given, **changes})


def _features():
    return SplitFeatures(train=FEATURES[TRAIN], val=FEATURES[VAL], test=FEATURES[TEST])


def _chosen(data, **strength):
    return fit_linear(examples_of(_features(), data), strength=strength_of(data, **{"fixed": None, **strength}))


@pytest.mark.parametrize("kind", TASKS)
def test_patients_are_in_one_fold_of_about_the_same_size(kind):
    folds = labelled_folds(_data(kind))
    assert all(len({*folds[PATIENTS[TRAIN] == patient].tolist()}) == 1 for patient in {*PATIENTS[TRAIN].tolist()})
    sizes = np.bincount(folds)
    assert len(sizes) == FOLDS
    assert sizes.min() > 0
    np.testing.assert_array_equal(folds, labelled_folds(_data(kind)))


def test_the_strength_on_folds_is_that_of_loops_with_scikit_learn():
    data = _data()
    found, folds, losses = _chosen(data, select="labelled"), labelled_folds(data), []
    for c in KINDS["binary"].strengths:
        of_folds = []
        for fold in range(FOLDS):
            inner, held_out = TRAIN[folds != fold], TRAIN[folds == fold]
            scaler = StandardScaler().fit(FEATURES[inner])
            model = LogisticRegression(C=c, max_iter=5000, tol=1e-8)
            model.fit(scaler.transform(FEATURES[inner]), TASKS["binary"][1][inner])
            probabilities = model.predict_proba(scaler.transform(FEATURES[held_out]))[:, 1]
            of_folds.append(log_loss(TASKS["binary"][1][held_out], probabilities))
        losses.append(np.mean(of_folds))
    c = KINDS["binary"].strengths[int(np.argmin(losses))]
    assert found.selected == f"C = {c:.2g} of 13, lowest loss on 5 folds of the labelled training patients"
    assert found.criterion == pytest.approx(-min(losses), abs=1e-4)
    scaler = StandardScaler().fit(FEATURES[TRAIN])
    model = LogisticRegression(C=c, max_iter=5000).fit(scaler.transform(FEATURES[TRAIN]), data.train.labels)
    expected = model.decision_function(scaler.transform(FEATURES[TEST]))
    np.testing.assert_allclose(found.predict(FEATURES[TEST]), expected, atol=1e-3)


@pytest.mark.parametrize("kind", TASKS)
def test_validation_labels_choose_nothing_where_the_labelled_patients_do(kind):
    data, permuted = _data(kind), np.random.default_rng(1).permutation(len(VAL))
    other = dataclasses.replace(data, val=dataclasses.replace(data.val, labels=data.val.labels[permuted]))
    for select, same in (("labelled", True), ("validation", False)):
        one, two = (_chosen(each, select=select) for each in (data, other))
        assert (one.selected == two.selected) == same, select
        if same:
            assert one.criterion == two.criterion
            np.testing.assert_array_equal(one.predict(FEATURES[TEST]), two.predict(FEATURES[TEST]))


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("select", ["validation", "labelled"])
def test_a_fixed_strength_is_that_of_scikit_learn_and_nothing_chooses_it(kind, select):
    data = _data(kind)
    found = _chosen(data, select=select, fixed=0.03)
    assert found.selected == "C = 0.03, fixed"
    scaler = StandardScaler().fit(FEATURES[TRAIN])
    train, test = scaler.transform(FEATURES[TRAIN]), scaler.transform(FEATURES[TEST])
    if kind == "quantity":
        expected = Ridge(alpha=1 / 0.03).fit(train, data.train.labels).predict(test)
    else:
        columns = data.train.labels.reshape(len(TRAIN), -1).T
        scores = [LogisticRegression(C=0.03).fit(train, column).decision_function(test) for column in columns]
        expected = np.stack(scores, axis=1).reshape(len(TEST), *data.train.labels.shape[1:])
    np.testing.assert_allclose(found.predict(FEATURES[TEST]), expected, atol=1e-3)
    assert np.isfinite(found.criterion)


def test_a_part_of_validation_is_as_small_as_the_labels_and_grows_with_them():
    small, large = (
        to_choose_by(_data(fraction=fraction), select="validation_part", patient_ids=IDS).val for fraction in (0.1, 0.5)
    )
    assert (small.num_patients, large.num_patients) == (10, 50)
    assert {*small.records} < {*large.records} < {*VAL}
    np.testing.assert_array_equal(small.labels, TASKS["binary"][1][small.records])
    whole = _data(fraction=1.0)
    np.testing.assert_array_equal(to_choose_by(whole, select="validation_part", patient_ids=IDS).val.records, VAL)
    assert to_choose_by(whole, select="validation", patient_ids=IDS) is whole


@pytest.mark.parametrize("kind", TASKS)
def test_other_models_choose_on_a_fold_of_the_labelled_patients_and_train_on_the_others(kind):
    data = _data(kind)
    chosen = to_choose_by(data, select="labelled", patient_ids=IDS)
    np.testing.assert_array_equal(np.sort(np.r_[chosen.train.records, chosen.val.records]), TRAIN)
    assert not {*chosen.train.patients} & {*chosen.val.patients}
    np.testing.assert_array_equal(chosen.val.labels, TASKS[kind][1][chosen.val.records])
    assert chosen.test is data.test


def test_labels_of_one_patient_choose_the_strongest_regularisation_and_say_so():
    labels = np.zeros(NUM, int)
    labels[[0, 1, *VAL[:20], *TEST[:20]]] = 1  # One labelled training patient is positive.
    data = _data(labels=labels)
    found = _chosen(data, select="labelled")
    assert found.selected == "C = 1e-05 of 13, the strongest: too few labelled patients to choose by"
    with pytest.raises(DataError, match=r"config\.probe\.select=labelled: no fold of the labelled") as caught:
        to_choose_by(data, select="labelled", patient_ids=IDS)
    assert caught.value.reason == NO_MODEL


@pytest.mark.parametrize("select", ["labelled", "validation_part"])
def test_labels_of_one_class_are_said_and_are_no_stack_trace(select):
    data = _data(labels=np.zeros(NUM, int))

    def fit():
        chosen = data if select == "labelled" else to_choose_by(data, select=select, patient_ids=IDS)
        features = SplitFeatures(
            train=FEATURES[chosen.train.records], val=FEATURES[chosen.val.records], test=FEATURES[TEST]
        )
        return fit_linear(examples_of(features, chosen), strength=strength_of(chosen, select=select, fixed=None))

    with pytest.raises(DataError, match="no model can be fitted") as caught:
        fit()
    assert caught.value.reason == NO_MODEL


def test_the_fewest_records_of_a_fit_are_those_without_the_largest_fold():
    assert Strength(folds=np.array([0, 0, 0, 1, 2])).fewest(5) == 2
    assert Strength().fewest(5) == Strength(folds=np.zeros(5, int)).fewest(5) == 5


def test_a_class_without_both_labels_scores_zero_on_folds_too():
    labels = TASKS["multilabel"][1].copy()
    labels[TRAIN, 1] = 0
    scores = _chosen(_data("multilabel", labels=labels), select="labelled").predict(FEATURES[TEST])
    assert (scores[:, 1] == 0).all()
    assert scores[:, 0].std() > 0
