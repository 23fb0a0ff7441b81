"""The random order of patients is the documented one, whatever ids and codes they have, and keeps patients together."""

import numpy as np
import pytest

from data_pipelines.packing import patient_order
from data_pipelines.packing.patient_order import shuffled_patients
from data_pipelines.streaming.permutation import derive_key, permute


def patients_of(num_records, *, seed=0, num_patients=60):
    """Codes of patients whose records do not all lie together."""
    return np.random.default_rng(seed).integers(0, num_patients, num_records)


def by_hand(patient, *, seed):
    """The order as its description says, without vectors."""
    appearing = list(dict.fromkeys(patient.tolist()))
    key = derive_key(seed, -3)
    turns = [int(permute(np.array([turn]), size=len(appearing), key=key)[0]) for turn in range(len(appearing))]
    return [record for turn in turns for record, code in enumerate(patient.tolist()) if code == appearing[turn]]


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
@pytest.mark.parametrize(
    "patient", [patients_of(200), np.arange(50), np.zeros(5, np.int32)], ids=["mixed", "one", "all"]
)
def test_the_order_is_the_documented_one(patient, seed, monkeypatch):
    monkeypatch.setattr(patient_order, "_PATIENTS_AT_A_TIME", 16)
    order = shuffled_patients(patient, seed=seed)
    assert order.dtype == np.int64
    assert order.tolist() == by_hand(patient, seed=seed)
    assert sorted(order.tolist()) == list(range(len(patient)))


def test_records_of_a_patient_lie_behind_each_other_and_patients_anywhere():
    patient = np.sort(patients_of(5000, num_patients=1000))
    lying = patient[shuffled_patients(patient, seed=1)]
    assert np.count_nonzero(np.diff(lying)) == len(np.unique(patient)) - 1
    assert abs(np.corrcoef(np.arange(5000), lying)[0, 1]) < 0.1
    assert not np.array_equal(lying, patient[shuffled_patients(patient, seed=2)])


def test_only_who_is_one_patient_matters():
    patient = patients_of(300)
    renamed = np.random.default_rng(1).permutation(1000)[patient].astype(np.int32)
    np.testing.assert_array_equal(shuffled_patients(patient, seed=3), shuffled_patients(renamed, seed=3))
