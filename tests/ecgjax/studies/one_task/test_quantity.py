"""A quantity: agreement on one record a patient, errors in groups."""

import dataclasses

import numpy as np
import pytest

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import QuantityTask
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.results import Key
from ecgjax.studies.one_task.quantity import Quantity, one_a_patient
from ecgjax.studies.one_task.supplement import REST, Report
from tests.support.resampled import bounds

NUM = 120
RNG = np.random.default_rng(0)
TRUTH = 14 + 5 * RNG.normal(size=NUM)
PATIENTS = RNG.permutation(np.arange(NUM) // 2) + 7
SITE = np.array(["A"] * 70 + ["B"] * 41 + ["C"] * 9, object)
REPORT = Report(resamples=200, seed=0, groups={"site": SITE}, progress=False)
NOTHING = SplitFeatures(train=np.zeros((0, 1)), val=np.zeros((0, 1)), test=np.zeros((0, 1)))
MODELS = {
    "pretrained": Answers(outputs=TRUTH + RNG.normal(size=NUM)),
    "supervised": Answers(outputs=TRUTH + 1),
    "mean": Answers(outputs=np.full(NUM, 14.0)),
    "untrained": Answers(outputs=None, reason="no label"),
}


def _data(truth=TRUTH, patients=PATIENTS):
    part = LabelledRecords(records=np.arange(len(truth)), labels=truth, patients=patients, unlabelled=0)
    return ProbeData(
        task=QuantityTask(label="wedge_pressure"), train=part, val=part, test=part, label_fraction=1.0, seed=0,
        train_available=part, excluded={},
    )  # fmt: skip


def test_one_record_a_patient_is_the_first():
    np.testing.assert_array_equal(one_a_patient(np.array([5, 3, 5, 3, 9])), [0, 1, 4])
    assert one_a_patient(np.zeros(0, int)).shape == (0,)


def test_agreement_takes_one_record_a_patient():
    rows, facts = Quantity().measure(MODELS, _data(), REPORT, embeddings=NOTHING)
    assert rows == {}
    first = [np.flatnonzero(code == PATIENTS)[0] for code in np.unique(PATIENTS)]
    assert list(facts["agreement"]) == ["pretrained", "supervised", "mean"]
    off_by_one = facts["agreement"]["supervised"]
    assert (off_by_one.number, off_by_one.bias) == (60, pytest.approx(1))
    assert off_by_one.upper - off_by_one.lower == pytest.approx(0, abs=1e-9)
    for name, agreement in facts["agreement"].items():
        difference = (MODELS[name].outputs - TRUTH)[first]
        assert agreement.bias == pytest.approx(difference.mean())
        assert agreement.upper == pytest.approx(difference.mean() + 1.959964 * difference.std(ddof=1), rel=1e-6)


def test_two_patients_have_no_limits_of_agreement():
    models = {"pretrained": Answers(outputs=np.arange(4.0))}
    _, facts = Quantity().measure(models, _data(np.arange(4.0), np.array([0, 0, 1, 1])), REPORT, embeddings=NOTHING)
    assert facts == {"agreement": {}}


def test_errors_by_group():
    rows, groups = Quantity().groups(MODELS, _data(), REPORT)
    error = MODELS["pretrained"].outputs - TRUTH
    assert [(group.group, group.records, group.counted, group.reason) for group in groups] == [
        ("A", 70, None, ""), ("B", 41, None, ""), ("C", 9, None, "too few records")
    ]  # fmt: skip
    for name in "AB":
        own = name == SITE
        assert next(group.patients for group in groups if group.group == name) == len(np.unique(PATIENTS[own]))
        for metric, of in (("MAE", np.abs(error)), ("bias", error)):
            key = Key("pretrained", metric, "wedge_pressure", part=f"site: {name}")
            for interval, by_hand in (
                (rows[key], lambda drawn: of[drawn[own[drawn]]].mean()),  # noqa: B023
                (
                    rows[key._replace(minus=REST)],
                    lambda drawn: of[drawn[own[drawn]]].mean() - of[drawn[~own[drawn]]].mean(),  # noqa: B023
                ),
            ):
                assert interval.estimate == pytest.approx(by_hand(np.arange(NUM)), abs=1e-12)
                np.testing.assert_allclose((interval.low, interval.high), bounds(PATIENTS, by_hand), atol=1e-9)
    assert len(rows) == 8


def test_a_group_of_nearly_all_has_nobody_to_compare_with():
    site = np.where(np.arange(NUM) < 111, "A", "C").astype(object)
    rows, _ = Quantity().groups(MODELS, _data(), dataclasses.replace(REPORT, groups={"site": site}))
    assert {(key.metric, key.part, key.minus) for key in rows} == {("MAE", "site: A", ""), ("bias", "site: A", "")}
