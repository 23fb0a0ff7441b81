"""Retrieval of the test records' neighbours, on embeddings whose answer is known."""

import numpy as np
import pytest

from ecgjax.evaluation.metrics.retrieval import retrieval
from ecgjax.evaluation.results import Key
from ecgjax.studies.one_task.neighbours import POSITIVE, SAME_PATIENT, Sought, neighbourhoods
from tests.support.resampled import bounds

RNG = np.random.default_rng(0)
PATIENTS = np.repeat(np.arange(40), 2)
LABELS = np.repeat(np.arange(40) % 4 == 0, 2).astype(int)
EMBEDDINGS = {
    "identity": np.repeat(RNG.normal(size=(40, 8)), 2, axis=0) + 0.01 * RNG.normal(size=(80, 8)),
    "diagnosis": RNG.normal(size=(80, 8)) * 0.1 + LABELS[:, None] * np.eye(8)[0] * 5,
}


def _found(embeddings=EMBEDDINGS, *, labels=LABELS, patients=PATIENTS):
    return neighbourhoods(embeddings, task="af", labels=labels, patients=patients, resamples=200, seed=0)


def _of(rows, encoder, metric, match):
    return rows[Key(encoder, metric, "af", part=match)]


def test_neighbours_of_one_patient_and_of_one_label():
    rows, sought = _found()
    assert sought == [
        Sought("identity", SAME_PATIENT, 80), Sought("identity", POSITIVE, LABELS.sum()),
        Sought("diagnosis", SAME_PATIENT, 80), Sought("diagnosis", POSITIVE, LABELS.sum()),
    ]  # fmt: skip
    assert _of(rows, "identity", "recall@1", SAME_PATIENT).estimate == 1
    assert _of(rows, "diagnosis", "recall@1", POSITIVE).estimate == 1
    assert _of(rows, "identity", "recall@1", POSITIVE).estimate < 0.8
    assert {key.metric for key in rows} == {"recall@1", "recall@5", "MRR"}
    assert len(rows) == 12


def test_intervals_are_over_the_patients_of_the_queries():
    rows, _ = _found()
    codes = np.where(LABELS == 1, -1, np.arange(80))
    found = retrieval(EMBEDDINGS["identity"], codes, ks=(1, 5), apart=PATIENTS)
    np.testing.assert_array_equal(found.queries, np.flatnonzero(LABELS))
    for metric, hits in (("recall@1", found.recall[1]), ("recall@5", found.recall[5]), ("MRR", found.reciprocal_rank)):
        interval = _of(rows, "identity", metric, POSITIVE)
        assert interval.estimate == pytest.approx(hits.mean(), abs=1e-12)
        by_hand = bounds(PATIENTS[found.queries], lambda drawn: hits[drawn].mean())  # noqa: B023
        np.testing.assert_allclose((interval.low, interval.high), by_hand, atol=1e-12)


def test_without_labels_only_patients_are_looked_for():
    rows, sought = _found(labels=None)
    assert [each.match for each in sought] == [SAME_PATIENT] * 2
    assert {key.part for key in rows} == {SAME_PATIENT}


def test_where_no_record_has_a_match_that_is_said():
    rows, sought = _found(labels=np.zeros(80, int), patients=np.arange(80))
    assert rows == {}
    assert [each.queries for each in sought] == [0] * 4
