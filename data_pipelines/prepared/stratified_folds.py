"""Folds of whole patients in which every label is as frequent as it can be in all.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011)
with patients in place of records: the rarest label is dealt out first, each of its patients to the fold that lacks it
most, and where that is even, to the fold that lacks records most. Nothing is drawn: the same patients and labels give
the same folds, in whatever order they come.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse

from data_pipelines.metadata.demographics import NUM_FOLDS

#: Ways to deal patients to folds.
DEALINGS = ("hash", "stratified")

#: Parts of equal size that a label of many values is cut into.
_NUM_PARTS = 4

_LABELS_SHOWN = 8


def label_indicators(scalars: Mapping[str, np.ndarray], tasks: Mapping[str, np.ndarray]) -> scipy.sparse.csr_array:
    """Returns what folds should have equal shares of, as one column each: `bool[record, indicator]`.

    Args:
        scalars: `f32[n]` by name, NaN where missing: of 0 and 1 both become an indicator, of others each quarter.
        tasks: `int8[n, classes]` by name: 1 becomes an indicator.
    """
    columns = []
    for values in scalars.values():
        values = np.asarray(values, np.float64)
        present = ~np.isnan(values)
        if np.isin(values[present], (0, 1)).all():
            columns += [scipy.sparse.coo_array((values == value)[:, None]) for value in (0, 1)]
            continue
        edges = np.quantile(values[present], np.linspace(0, 1, _NUM_PARTS + 1)[1:-1])
        part = np.where(present, np.searchsorted(edges, values), -1)
        columns += [scipy.sparse.coo_array((part == number)[:, None]) for number in range(_NUM_PARTS)]
    columns += [scipy.sparse.coo_array(np.asarray(values) == 1) for values in tasks.values()]
    return scipy.sparse.csr_array(scipy.sparse.hstack(columns, dtype=np.int32))


def dealt_note(labels: Sequence[str]) -> str:
    """Returns what a card says of folds that were dealt here."""
    shown = ", ".join(labels[:_LABELS_SHOWN]) + (" …" if len(labels) > _LABELS_SHOWN else "")
    return f"patients were dealt to folds 1 to {NUM_FOLDS}, stratified by {shown}"


def stratified_folds(
    patient: np.ndarray, patient_ids: Sequence[str], indicators: scipy.sparse.csr_array, *, num_folds: int = NUM_FOLDS
) -> np.ndarray:
    """Deals patients to folds.

    Args:
        patient: `int[n]`, of every record the position of its patient in `patient_ids`.
        patient_ids: ids of the patients, which decide between those that are alike.
        indicators: `[n, indicator]`, from `label_indicators`.
        num_folds: number of folds.

    Returns:
        `int16[patients]`, from 1 on.
    """
    num_patients = len(patient_ids)
    num_records = np.bincount(patient, minlength=num_patients)
    joined = scipy.sparse.csr_array(
        (np.ones(len(patient), np.int32), (patient, np.arange(len(patient)))), shape=(num_patients, len(patient))
    )
    # Whether a patient has a label at all: ten records of one patient are worth little more than one.
    has = scipy.sparse.csr_array((joined @ indicators) > 0)
    digests = [hashlib.blake2b(text.encode(), digest_size=8, person=b"ecgjax strata").digest() for text in patient_ids]
    # Patients of many records first: what they unbalance can still be made up for.
    rank = np.lexsort((np.array(digests, "S8"), -num_records))
    dealer = _Dealer(has, num_records, num_folds)
    dealer.deal(rank)
    return dealer.fold + np.int16(1)


class _Dealer:
    """Deals patients one by one; the state is in lists, for single entries of arrays are slow to read."""

    def __init__(self, has: scipy.sparse.csr_array, num_records: np.ndarray, num_folds: int):
        self.fold = np.full(len(num_records), -1, np.int16)
        self._has, self._num_records = has, num_records.tolist()
        patients = np.asarray(has.sum(axis=0)).ravel()
        self._left = patients.tolist()
        self._wanted = [[count / num_folds] * num_folds for count in self._left]
        self._records_wanted = [sum(self._num_records) / num_folds] * num_folds

    def deal(self, rank: np.ndarray) -> None:
        """Deals all patients, those of equal claim in the order of `rank`."""
        columns = scipy.sparse.csc_array(self._has[rank])
        labels = [(count, label) for label, count in enumerate(self._left) if count]
        heapq.heapify(labels)
        while labels:
            count, label = heapq.heappop(labels)
            if count != self._left[label]:  # Others of its patients were dealt meanwhile.
                if self._left[label]:
                    heapq.heappush(labels, (self._left[label], label))
                continue
            for place in columns.indices[columns.indptr[label] : columns.indptr[label + 1]].tolist():
                patient = int(rank[place])
                if self.fold[patient] < 0:
                    self._put(patient, self._wanted[label])
        for patient in rank.tolist():
            if self.fold[patient] < 0:
                self._put(patient, self._records_wanted)

    def _put(self, patient: int, wanted: list[float]) -> None:
        records = self._records_wanted
        most = max(wanted)
        fold = max((number for number, want in enumerate(wanted) if want == most), key=records.__getitem__)
        self.fold[patient] = fold
        records[fold] -= self._num_records[patient]
        for label in self._has.indices[self._has.indptr[patient] : self._has.indptr[patient + 1]].tolist():
            self._wanted[label][fold] -= 1
            self._left[label] -= 1
