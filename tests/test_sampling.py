"""Which records a step gets: whole epochs, patients together, a pure function of the step."""

import collections

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.sampling import PatientSampler, RecordSampler


def drawn(sampler, num_rows):
    steps = -(-num_rows // sampler.batch_size)
    return np.concatenate([sampler.record_numbers(step) for step in range(steps)])[:num_rows]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 20, 33])
def test_every_epoch_holds_every_record_once_whatever_the_batch_size(batch_size):
    records = np.arange(100, 120)
    sampler = RecordSampler(records=records, batch_size=batch_size, seed=5)
    assert sampler.examples_per_epoch == 20
    epochs = drawn(sampler, 100).reshape(5, 20)
    assert (np.sort(epochs, axis=1) == records).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 5


def test_golden_batches():
    records = np.arange(100, 120)
    by_record = RecordSampler(records=records, batch_size=8, seed=5)
    assert by_record.record_numbers(4).tolist() == [106, 118, 101, 112, 117, 109, 115, 116]
    by_patient = PatientSampler(
        records=records, patients=np.arange(20) // 3, records_per_patient=2, batch_size=8, seed=5
    )
    assert by_patient.record_numbers(4).tolist() == [114, 112, 103, 104, 112, 113, 117, 115]


def test_order_of_steps_asked_for_does_not_matter():
    def make():
        return RecordSampler(records=np.arange(50), batch_size=16, seed=1)

    forwards, sampler = make(), make()
    expected = [forwards.record_numbers(step).tolist() for step in range(10)]
    assert [sampler.record_numbers(step).tolist() for step in reversed(range(10))] == expected[::-1]


def test_another_seed_another_order():
    first, second = (RecordSampler(records=np.arange(1000), batch_size=1000, seed=seed) for seed in (0, 1))
    assert np.mean(first.record_numbers(0) == second.record_numbers(0)) < 0.02


def test_steps_far_ahead_are_as_good_as_the_first():
    sampler = RecordSampler(records=np.arange(12), batch_size=12, seed=0)
    assert np.array_equal(np.sort(sampler.record_numbers(10**12)), np.arange(12))


# Patients with 1 to 6 records, their numbers and codes interleaved and far apart.
COUNTS = {3: 1, 10: 2, 11: 3, 500: 4, 7: 5, 2: 6}
PATIENTS = np.random.default_rng(0).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
RECORDS = 1000 + 3 * np.arange(len(PATIENTS))
PATIENT_OF = dict(zip(RECORDS.tolist(), PATIENTS.tolist(), strict=True))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("units_a_batch", [1, 3, 50])
def test_an_epoch_of_patients_is_the_documented_multiset(k, units_a_batch):
    sampler = PatientSampler(
        records=RECORDS, patients=PATIENTS, records_per_patient=k, batch_size=k * units_a_batch, seed=2
    )
    units_of = {patient: -(-count // k) for patient, count in COUNTS.items()}
    assert sampler.examples_per_epoch == k * sum(units_of.values())
    for epoch in drawn(sampler, 4 * sampler.examples_per_epoch).reshape(4, -1, k):
        patients = np.vectorize(PATIENT_OF.get)(epoch)
        assert (patients == patients[:, :1]).all()
        assert collections.Counter(patients[:, 0].tolist()) == units_of
        times = collections.Counter(epoch.ravel().tolist())
        for record in RECORDS.tolist():
            least, rest = divmod(units_of[PATIENT_OF[record]] * k, COUNTS[PATIENT_OF[record]])
            assert least <= times[record] <= least + (rest > 0)
        for unit, patient in zip(epoch, patients[:, 0].tolist(), strict=True):
            assert len(set(unit.tolist())) == min(k, COUNTS[patient])


def test_pairs_of_a_patient_change_from_epoch_to_epoch():
    sampler = PatientSampler(
        records=np.arange(4), patients=np.zeros(4, int), records_per_patient=2, batch_size=4, seed=0
    )
    pairs = collections.Counter(
        frozenset(unit) for step in range(300) for unit in sampler.record_numbers(step).reshape(2, 2).tolist()
    )
    assert len(pairs) == 6
    assert min(pairs.values()) > 60  # 100 expected, standard deviation 8


def test_one_record_a_patient_draws_every_record_once():
    sampler = PatientSampler(records=RECORDS, patients=PATIENTS, records_per_patient=1, batch_size=21, seed=0)
    assert np.array_equal(np.sort(sampler.record_numbers(3)), RECORDS)


def test_a_batch_that_tears_patients_apart_is_refused():
    with pytest.raises(DataError, match=r"batch_size=9 is not a multiple of records_per_patient=2"):
        PatientSampler(records=RECORDS, patients=PATIENTS, records_per_patient=2, batch_size=9, seed=0)


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(DataError, match="no records to draw from; check the folds"):
        RecordSampler(records=np.empty(0, np.int64), batch_size=2, seed=0)
    with pytest.raises(DataError, match="batch_size=0"):
        RecordSampler(records=np.arange(3), batch_size=0, seed=0)
    with pytest.raises(TypeError, match="vector of record numbers"):
        RecordSampler(records=np.array([True, False]), batch_size=1, seed=0)
    with pytest.raises(DataError, match="2 patients given for 3 records"):
        PatientSampler(records=np.arange(3), patients=np.arange(2), records_per_patient=1, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="count from 0"):
        RecordSampler(records=np.arange(3), batch_size=1, seed=0).record_numbers(-1)


def test_fingerprints_tell_apart_everything_that_changes_the_batches():
    def by_patient(**changes):
        asked = {"records": RECORDS, "patients": PATIENTS, "records_per_patient": 2, "batch_size": 4, "seed": 0}
        return PatientSampler(**(asked | changes)).fingerprint()

    def by_record(**changes):
        return RecordSampler(**({"records": RECORDS, "batch_size": 4, "seed": 0} | changes)).fingerprint()

    prints = [
        by_record(),
        by_record(records=RECORDS[::-1]),
        by_record(batch_size=8),
        by_record(seed=1),
        by_patient(),
        by_patient(patients=np.roll(PATIENTS, 1)),
        by_patient(records_per_patient=4),
        by_patient(seed=1),
    ]
    assert len(set(prints)) == len(prints)
    assert by_record(records=RECORDS.astype(np.int32)) == prints[0]
    assert by_patient() == prints[4]
