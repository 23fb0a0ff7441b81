"""Which records stand in the global batch of a step: pure functions of the step.

Nothing is remembered from one step to the next, so a run resumed at a step, or spread over other processes, sees
exactly the records it would have seen. Batches run on over the ends of epochs: every epoch is whole, whatever the
batch size.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.permutation import derive_key, permute

#: Version of the orders below; part of every fingerprint.
SAMPLING_VERSION = 1

# Branches of an epoch's key.
_ORDER_OF_UNITS, _ORDER_WITHIN_PATIENT = 0, 1


class Sampler(Protocol):
    """Step to record numbers.

    Attributes:
        batch_size: rows of a global batch.
        examples_per_epoch: rows of an epoch.
    """

    batch_size: int
    examples_per_epoch: int

    def record_numbers(self, step: int) -> np.ndarray:
        """Returns `int64[batch_size]`: the record in each global row at this step; a pure function."""
        ...

    def fingerprint(self) -> str:
        """Returns a hex digest of everything that `record_numbers` depends on."""
        ...


class RecordSampler:
    """Every record once an epoch, in an order of its own each epoch."""

    def __init__(self, *, records: np.ndarray, batch_size: int, seed: int):
        """Keeps the records.

        Args:
            records: `int64[m]`, record numbers to draw from.
            batch_size: rows of a global batch; may exceed `m`, then a batch spans epochs.
            seed: another seed, other orders.

        Raises:
            DataError: no records, or a batch size below one.
        """
        self._records = _checked_records(records, batch_size)
        self._seed = seed
        self.batch_size = batch_size
        self.examples_per_epoch = len(self._records)

    def record_numbers(self, step: int) -> np.ndarray:
        """Returns `int64[batch_size]`: the record in each global row at this step."""
        epoch, position = np.divmod(_positions(step, self.batch_size), len(self._records))
        return self._records[permute(position, size=len(self._records), key=derive_key(self._seed, epoch))]

    def fingerprint(self) -> str:
        """Returns a hex digest of everything that `record_numbers` depends on."""
        return _fingerprint("records", self._seed, self.batch_size, self._records)


class PatientSampler:
    """Units of `records_per_patient` records of one patient in adjacent rows.

    An epoch cuts each patient's n records, in an order of their own, into ⌈n / k⌉ units of k; the last unit wraps
    around to the patient's first ones. So in an epoch each record of the patient comes ⌊u·k / n⌋ or ⌈u·k / n⌉
    times, u = ⌈n / k⌉: once or twice where n ≥ k. Records within a unit are distinct where n ≥ k; a patient with fewer
    repeats them. Units of all patients are put in one random order each epoch.
    """

    def __init__(
        self, *, records: np.ndarray, patients: np.ndarray, records_per_patient: int, batch_size: int, seed: int
    ):
        """Groups the records by patient.

        Args:
            records: `int64[m]`, record numbers to draw from.
            patients: `int[m]`, the patient of each of them.
            records_per_patient: k, rows of a unit.
            batch_size: rows of a global batch, a multiple of k.
            seed: another seed, other orders.

        Raises:
            DataError: no records, patients of another length, or a batch size that is no multiple of k.
        """
        records = _checked_records(records, batch_size)
        patients = np.asarray(patients)
        if patients.shape != records.shape:
            raise DataError(f"{len(patients)} patients given for {len(records)} records; give the patient of each")
        if records_per_patient < 1 or batch_size % records_per_patient:
            raise DataError(
                f"batch_size={batch_size} is not a multiple of records_per_patient={records_per_patient}, so a "
                "patient's records would be torn apart; change one of them"
            )
        by_patient = np.argsort(patients, kind="stable")
        self._records = records[by_patient]
        self._first = np.flatnonzero(np.diff(patients[by_patient], prepend=patients[by_patient][0] - 1))
        self._count = np.diff(self._first, append=len(records))
        # Unit number of each patient's first unit, and after the last the number of all.
        self._first_unit = np.concatenate([[0], np.cumsum(-(-self._count // records_per_patient))])
        self._seed = seed
        self.records_per_patient = records_per_patient
        self.batch_size = batch_size
        self.examples_per_epoch = int(self._first_unit[-1]) * records_per_patient

    def record_numbers(self, step: int) -> np.ndarray:
        """Returns `int64[batch_size]`: the record in each global row at this step."""
        k, num_units = self.records_per_patient, int(self._first_unit[-1])
        epoch, position = np.divmod(_positions(step, self.batch_size // k), num_units)
        key = derive_key(self._seed, epoch)
        unit = permute(position, size=num_units, key=derive_key(key, _ORDER_OF_UNITS))
        patient = np.searchsorted(self._first_unit, unit, side="right") - 1
        start_in_patient = (unit - self._first_unit[patient]) * k
        patient_key = derive_key(derive_key(key, _ORDER_WITHIN_PATIENT), patient)
        count = np.repeat(self._count[patient], k)
        slot = (start_in_patient[:, None] + np.arange(k)).ravel() % count
        chosen = permute(slot, size=count, key=np.repeat(patient_key, k))
        return self._records[np.repeat(self._first[patient], k) + chosen]

    def fingerprint(self) -> str:
        """Returns a hex digest of everything that `record_numbers` depends on."""
        return _fingerprint(
            "patients", self._seed, self.batch_size, self.records_per_patient, self._records, self._first
        )


def _checked_records(records: np.ndarray, batch_size: int) -> np.ndarray:
    records = np.asarray(records)
    if records.ndim != 1 or not np.issubdtype(records.dtype, np.integer):
        raise TypeError(f"records are a vector of record numbers, got {records.dtype}{records.shape}")
    if len(records) == 0:
        raise DataError("no records to draw from; check the folds asked for")
    if batch_size < 1:
        raise DataError(f"batch_size={batch_size}; it must be at least 1")
    return records.astype(np.int64)


def _positions(step: int, count: int) -> np.ndarray:
    if step < 0:
        raise ValueError(f"steps count from 0, got {step}")
    return np.arange(step * count, (step + 1) * count, dtype=np.int64)


def _fingerprint(kind: str, *parts: int | np.ndarray) -> str:
    digest = hashlib.blake2b(f"{kind} {SAMPLING_VERSION}".encode(), digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"[{len(part)}]".encode())
            digest.update(np.ascontiguousarray(part).astype("<i8").data)
        else:
            digest.update(f" {part}".encode())
    return digest.hexdigest()
