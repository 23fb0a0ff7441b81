"""Which records a step gets: whole epochs, patients together, a pure function of the step and of the rows asked for."""

import collections

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.streaming.orders import MixtureOrder, PatientOrder, RecordOrder, component_seed
from data_pipelines.streaming.sampler import Sampler


def by_record(records, *, batch_size, seed=0):
    return Sampler(RecordOrder(records, seed=seed), batch_size=batch_size)


def by_patient(records, patients, *, k, batch_size, seed=0):
    order = PatientOrder(records, patients=patients, records_per_patient=k, seed=seed)
    return Sampler(order, batch_size=batch_size)


def drawn(sampler, num_rows):
    steps = -(-num_rows // sampler.batch_size)
    return np.concatenate([sampler.record_numbers(step) for step in range(steps)])[:num_rows]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 20, 33, 64])
@pytest.mark.parametrize("num_records", [1, 2, 3, 20])
def test_every_epoch_holds_every_record_once_whatever_the_batch_size(num_records, batch_size):
    records = np.arange(100, 100 + num_records)
    sampler = by_record(records, batch_size=batch_size, seed=5)
    assert sampler.examples_per_epoch == num_records
    epochs = drawn(sampler, 40 * num_records).reshape(40, num_records)
    assert (np.sort(epochs, axis=1) == records).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == {1: 1, 2: 2, 3: 6, 20: 40}[num_records]


def test_golden_batches():
    # Part of every run's result: a change breaks resuming and needs a new SAMPLING_VERSION.
    records = np.arange(100, 120)
    of_records = by_record(records, batch_size=8, seed=5)
    assert of_records.record_numbers(4).tolist() == [106, 118, 101, 112, 117, 109, 115, 116]
    of_patients = by_patient(records, np.arange(20) // 3, k=2, batch_size=8, seed=5)
    assert of_patients.record_numbers(4).tolist() == [114, 112, 103, 104, 112, 113, 117, 115]


def test_another_seed_another_order():
    first, second = (by_record(np.arange(1000), batch_size=1000, seed=seed) for seed in (0, 1))
    assert np.mean(first.record_numbers(0) == second.record_numbers(0)) < 0.02


def test_steps_far_ahead_are_as_good_as_the_first():
    sampler = by_record(np.arange(12), batch_size=12)
    assert np.array_equal(np.sort(sampler.record_numbers(10**12)), np.arange(12))


# Patients with 1 to 6 records, their numbers and codes interleaved and far apart.
COUNTS = {3: 1, 10: 2, 11: 3, 500: 4, 7: 5, 2: 6}
PATIENTS = np.random.default_rng(0).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
RECORDS = 1000 + 3 * np.arange(len(PATIENTS))


def check_epochs_of_patients(records, patients, *, k, units_a_batch, seed):
    """Compares four epochs with the documented multiset, and every unit with what a unit is."""
    patient_of = dict(zip(records.tolist(), patients.tolist(), strict=True))
    counts = collections.Counter(patients.tolist())
    sampler = by_patient(records, patients, k=k, batch_size=k * units_a_batch, seed=seed)
    units_of = {patient: -(-count // k) for patient, count in counts.items()}
    assert sampler.examples_per_epoch == k * sum(units_of.values())
    for epoch in drawn(sampler, 4 * sampler.examples_per_epoch).reshape(4, -1, k):
        of_unit = np.vectorize(patient_of.get)(epoch)
        assert (of_unit == of_unit[:, :1]).all()
        assert collections.Counter(of_unit[:, 0].tolist()) == units_of
        times = collections.Counter(epoch.ravel().tolist())
        for record in records.tolist():
            least, rest = divmod(units_of[patient_of[record]] * k, counts[patient_of[record]])
            assert least <= times[record] <= least + (rest > 0)
        for unit, patient in zip(epoch, of_unit[:, 0].tolist(), strict=True):
            assert len(set(unit.tolist())) == min(k, counts[patient])


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("units_a_batch", [1, 3, 50])
def test_an_epoch_of_patients_is_the_documented_multiset(k, units_a_batch):
    check_epochs_of_patients(RECORDS, PATIENTS, k=k, units_a_batch=units_a_batch, seed=2)


def test_epochs_of_random_patients_short_ones_too():
    generator = np.random.default_rng(1)
    for _ in range(60):
        num_records = int(generator.integers(1, 25))
        records = generator.permutation(1000)[:num_records]
        patients = generator.integers(0, int(generator.integers(1, num_records + 1)), num_records)
        k, units_a_batch, seed = generator.integers(1, [6, 12, 10**6]).tolist()
        check_epochs_of_patients(records, patients, k=k, units_a_batch=units_a_batch, seed=seed)


@pytest.mark.parametrize("num_records", [1, 2, 3, 7])
def test_one_patient_alone(num_records):
    check_epochs_of_patients(np.arange(num_records), np.full(num_records, 9), k=4, units_a_batch=3, seed=0)


def test_pairs_of_a_patient_change_from_epoch_to_epoch():
    sampler = by_patient(np.arange(4), np.zeros(4, int), k=2, batch_size=4)
    pairs = collections.Counter(
        frozenset(unit) for step in range(300) for unit in sampler.record_numbers(step).reshape(2, 2).tolist()
    )
    assert len(pairs) == 6
    assert min(pairs.values()) > 60  # 100 expected, standard deviation 8


def test_one_record_a_patient_draws_every_record_once():
    sampler = by_patient(RECORDS, PATIENTS, k=1, batch_size=21)
    assert np.array_equal(np.sort(sampler.record_numbers(3)), RECORDS)


def mixture_of_records(batch_size):
    parts = [RecordOrder(np.arange(30) + 100 * part, seed=component_seed(3, part)) for part in range(2)]
    return Sampler(MixtureOrder(parts, weights=(3, 1), block=24, seed=3), batch_size=batch_size)


def balanced_pairs(batch_size):
    classes = [
        PatientOrder(np.arange(30) + 100 * label, patients=np.arange(30) // 3, records_per_patient=2,
                     seed=component_seed(3, label)) for label in range(3)
    ]  # fmt: skip
    return Sampler(MixtureOrder(classes, block=batch_size // 2, seed=3), batch_size=batch_size)


SAMPLERS = {
    "records": lambda: by_record(np.arange(50), batch_size=64, seed=1),
    "patients": lambda: by_patient(RECORDS, PATIENTS, k=2, batch_size=64, seed=1),
    "triples of patients": lambda: by_patient(RECORDS, PATIENTS, k=4, batch_size=64, seed=1),
    "mixture": lambda: mixture_of_records(64),
    "balanced pairs": lambda: balanced_pairs(64),
}


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_a_step_depends_on_nothing_but_itself(make):
    forwards, sampler = make(), make()
    expected = [forwards.record_numbers(step).tolist() for step in range(10)]
    assert [sampler.record_numbers(step).tolist() for step in reversed(range(10))] == expected[::-1]
    assert len(set(map(tuple, expected))) == 10


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_rows_asked_for_are_those_of_the_whole_batch(make):
    sampler, generator = make(), np.random.default_rng(0)
    for step in (0, 3, 10**7):
        whole = sampler.record_numbers(step)
        assert whole.dtype == np.int64
        assert whole.shape == (64,)
        for num_rows in (1, 5, 64, 200):
            rows = generator.integers(0, 64, num_rows).astype(generator.choice([np.int32, np.int64]))
            found = sampler.record_numbers(step, rows)
            assert found.dtype == np.int64
            np.testing.assert_array_equal(found, whole[rows])
        assert sampler.record_numbers(step, np.empty(0, np.int64)).shape == (0,)


@pytest.mark.parametrize("num_processes", [1, 2, 8, 64])
@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_the_rows_of_all_processes_are_the_global_batch(make, num_processes, permuted):
    rows = np.arange(64)
    if permuted:
        rows = np.random.default_rng(num_processes).permutation(64)
    whole = make().record_numbers(11)
    together = np.empty_like(whole)
    for own in np.split(rows, num_processes):
        together[own] = make().record_numbers(11, own)
    np.testing.assert_array_equal(together, whole)


@pytest.mark.parametrize("batch_size", [4, 64, 70])
def test_balanced_batches_hold_as_much_of_every_class(batch_size):
    sampler = balanced_pairs(batch_size)
    for step in range(12):
        units_of_class = np.bincount(sampler.record_numbers(step)[::2] // 100, minlength=3)
        assert set(units_of_class.tolist()) <= {batch_size // 2 // 3, -(-batch_size // 2 // 3)}


def test_an_epoch_of_a_mixture_is_as_long_as_the_epochs_of_its_components():
    assert mixture_of_records(8).examples_per_epoch == 60
    assert balanced_pairs(8).examples_per_epoch == 3 * 10 * 4


def test_only_what_is_asked_for_is_computed():
    class Counting(RecordOrder):
        computed = 0

        def units(self, positions):
            self.computed += len(positions)
            return super().units(positions)

    order = Counting(np.arange(10**5), seed=0)
    Sampler(order, batch_size=65536).record_numbers(3, np.arange(1024, 2048))
    assert order.computed == 1024


def test_a_batch_that_tears_patients_apart_is_refused():
    with pytest.raises(DataError, match=r"batch_size=9 is not a multiple of 2, .*records_per_patient"):
        by_patient(RECORDS, PATIENTS, k=2, batch_size=9)


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(DataError, match="no records to draw from; check the folds"):
        by_record(np.empty(0, np.int64), batch_size=2)
    with pytest.raises(DataError, match="batch_size=0"):
        by_record(np.arange(3), batch_size=0)
    with pytest.raises(TypeError, match="vector of record numbers"):
        by_record(np.array([True, False]), batch_size=1)
    with pytest.raises(DataError, match="2 patients given for 3 records"):
        by_patient(np.arange(3), np.arange(2), k=1, batch_size=1)
    with pytest.raises(ValueError, match="count from 0"):
        by_record(np.arange(3), batch_size=1).record_numbers(-1)
    for row in (-1, 4):
        with pytest.raises(ValueError, match=r"a batch has 0 … 3"):
            by_record(np.arange(9), batch_size=4).record_numbers(0, np.array([row]))


def test_fingerprints_tell_apart_everything_that_changes_the_batches():
    patients = {"k": 2, "batch_size": 4}
    prints = [
        by_record(RECORDS, batch_size=4).fingerprint(),
        by_record(RECORDS[::-1], batch_size=4).fingerprint(),
        by_record(RECORDS, batch_size=8).fingerprint(),
        by_record(RECORDS, batch_size=4, seed=1).fingerprint(),
        by_patient(RECORDS, PATIENTS, **patients).fingerprint(),
        by_patient(RECORDS, np.roll(PATIENTS, 1), **patients).fingerprint(),
        by_patient(RECORDS, PATIENTS, k=4, batch_size=4).fingerprint(),
        by_patient(RECORDS, PATIENTS, **patients, seed=1).fingerprint(),
        mixture_of_records(8).fingerprint(),
        mixture_of_records(16).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert by_record(RECORDS.astype(np.int32), batch_size=4).fingerprint() == prints[0]
    assert by_patient(RECORDS, PATIENTS, **patients).fingerprint() == prints[4]
