"""Defines the random order of patients in which a shuffled packed copy holds the records of a data set."""

from __future__ import annotations

import numpy as np

from data_pipelines.prepared.index import by_first_appearance
from data_pipelines.streaming.permutation import derive_key, permute

# This word derives the key of the order; it is none of those that the orders of training derive theirs by.
_ORDER_OF_PATIENTS = -3

# So many patients are permuted at a time, so that those of a hundred million records take little memory.
_PATIENTS_AT_A_TIME = 2**20


def shuffled_patients(patient: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns records in a random order of their patients, those of one patient behind each other.

    Let P patients be numbered 0 … P − 1 in the order of their first records. The t-th patient of the order is number
    permute(t; P) with the key derive_key(seed, −3), for t = 0 … P − 1; and a patient's records follow each other by
    record number. So the order is a pure function of the seed and of which records are of one patient, whatever the
    patients' ids or codes are, the machine and the sizes of shards.

    Args:
        patient: Code of every record's patient, `int[n]`.
        seed: Seed of the order, an integer that is taken modulo 2⁶⁴.

    Returns:
        The record number at every place of the order, `int64[n]`.
    """
    number = by_first_appearance(np.asarray(patient))
    num_patients = int(number.max()) + 1
    key = derive_key(seed, _ORDER_OF_PATIENTS)
    turn = np.empty(num_patients, np.int32)
    for start in range(0, num_patients, _PATIENTS_AT_A_TIME):
        turns = np.arange(start, min(start + _PATIENTS_AT_A_TIME, num_patients))
        turn[permute(turns, size=num_patients, key=key)] = turns
    return np.argsort(turn[number], kind="stable")
