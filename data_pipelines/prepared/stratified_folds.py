"""Assigns whole patients to folds so that every label is as equally frequent in all folds as possible.

The method is iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data",
ECML PKDD 2011) with patients in place of records: the rarest label is handled first, and each of its patients is
assigned to the fold that lacks the label most, in a tie to the fold that lacks records most. Nothing is drawn at
random: the same patients and labels give the same folds, in any order.
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

#: Number of equally large parts that a label with many values is cut into.
_NUM_PARTS = 4

_LABELS_SHOWN = 8


def label_indicators(scalars: Mapping[str, np.ndarray], tasks: Mapping[str, np.ndarray]) -> scipy.sparse.csr_array:
    """Returns indicators whose shares should be equal in all folds, one per column, `bool[record, indicator]`.

    Args:
        scalars: Scalars by name, `f32[n]`, NaN where missing; for values 0 and 1 there are two indicators, for others
            one for each quarter of the values.
        tasks: Tasks by name, `int8[n, classes]`; each class becomes an indicator that is true for 1.
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
    """Returns the note of a card on folds from `stratified_folds`.

    Args:
        labels: Names of the labels that the folds are stratified by.
    """
    shown = ", ".join(labels[:_LABELS_SHOWN]) + (" …" if len(labels) > _LABELS_SHOWN else "")
    return f"patients were dealt to folds 1 to {NUM_FOLDS}, stratified by {shown}"


def stratified_folds(
    patient: np.ndarray, patient_ids: Sequence[str], indicators: scipy.sparse.csr_array, *, num_folds: int = NUM_FOLDS
) -> np.ndarray:
    """Assigns patients to folds.

    Args:
        patient: Position of every record's patient in `patient_ids`, `int[n]`.
        patient_ids: Ids of the patients, which break ties between equal patients.
        indicators: Indicators of the records from `label_indicators`, `[n, indicator]`.
        num_folds: Number of folds.

    Returns:
        The fold of every patient, `int16[patients]`, from 1 on.
    """
    num_patients = len(patient_ids)
    num_records = np.bincount(patient, minlength=num_patients)
    joined = scipy.sparse.csr_array(
        (np.ones(len(patient), np.int32), (patient, np.arange(len(patient)))), shape=(num_patients, len(patient))
    )
    # It counts only whether a patient has a label: ten records of one patient are worth little more than one.
    has = scipy.sparse.csr_array((joined @ indicators) > 0)
    digests = [hashlib.blake2b(text.encode(), digest_size=8, person=b"ecgjax strata").digest() for text in patient_ids]
    # Patients with many records come first, while later ones can still balance what they unbalance.
    rank = np.lexsort((np.array(digests, "S8"), -num_records))
    dealer = _Dealer(has, num_records, num_folds)
    dealer.deal(rank)
    return dealer.fold + np.int16(1)


class _Dealer:
    """Assigns patients to folds one by one; its state is in lists, since single entries of arrays are slow to read."""

    def __init__(self, has: scipy.sparse.csr_array, num_records: np.ndarray, num_folds: int):
        self.fold = np.full(len(num_records), -1, np.int16)
        self._has, self._num_records = has, num_records.tolist()
        patients = np.asarray(has.sum(axis=0)).ravel()
        self._left = patients.tolist()
        self._wanted = [[count / num_folds] * num_folds for count in self._left]
        self._records_wanted = [sum(self._num_records) / num_folds] * num_folds

    def deal(self, rank: np.ndarray) -> None:
        """Assigns all patients to `fold`, those with equal claims in the order of `rank`.

        Args:
            rank: Patients in order of precedence, `int64[patients]`.
        """
        columns = scipy.sparse.csc_array(self._has[rank])
        labels = [(count, label) for label, count in enumerate(self._left) if count]
        heapq.heapify(labels)
        while labels:
            count, label = heapq.heappop(labels)
            if count != self._left[label]:  # Other patients with this label were dealt meanwhile.
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
