"""Records that hyperparameters are chosen on: all of validation, a part of it, or labelled training records."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.data.labels import Column, LabelledRecords, ProbeData, draw_patients
from ecgjax.evaluation.models.kinds import NO_MODEL, kind_of
from ecgjax.evaluation.models.linear import Strength
from ecgjax.evaluation.models.nested_cross_validation import patient_folds

#: Number of folds of the labelled training patients to choose on; there are fewer where fewer patients have a label.
FOLDS = 5


def labelled_folds(data: ProbeData) -> np.ndarray:
    """Divides the labelled training patients into folds to choose hyperparameters on.

    A yes or no has about equal shares of positives in every fold.

    Args:
        data: Labelled records of a task, of which the training records alone are used.

    Returns:
        The fold of each training record, `int64[n]`; all are in fold 0 where too few patients have a label.
    """
    labels, patients = data.train.labels, data.train.patients
    if kind_of(data.task).yes_or_no:
        folds = min(FOLDS, *(len(np.unique(patients[labels == value])) for value in (0, 1)))
        if folds < 2:
            return np.zeros(len(labels), np.int64)
        return patient_folds(labels, patients, folds=folds, seed=data.seed % 2**32)
    every, code = np.unique(patients, return_inverse=True)
    return (np.random.default_rng(data.seed % 2**32).permutation(len(every)) % FOLDS)[code]


def strength_of(data: ProbeData, *, select: str, fixed: float | None) -> Strength:
    """Returns what decides the strength of a linear model.

    Args:
        data: Labelled records of a task.
        select: Value of `config.probe.select`.
        fixed: Value of `config.probe.strength`.
    """
    return Strength(fixed=fixed, folds=labelled_folds(data) if select == "labelled" else None)


def to_choose_by(data: ProbeData, *, select: str, patient_ids: Column) -> ProbeData:
    """Returns the records that a model is trained with and chosen on, as training and validation records.

    Args:
        data: Labelled records of a task.
        select: Value of `config.probe.select`. `validation` changes nothing. `validation_part` keeps of the validation
            patients the share that the labelled training patients are of theirs, drawn by the same seed. `labelled`
            chooses on the first of the folds of the labelled training patients that allows it and trains with the
            others, so that no validation label is used.
        patient_ids: Patient id of each record of the data set, by which a part of the patients is drawn.

    Raises:
        DataError: The labels of the drawn records do not define the primary metric.
    """
    if select == "validation_part":
        ids = patient_ids[data.val.records]
        drawn = draw_patients(data.val.patients, patient_ids=ids, fraction=data.label_fraction, seed=data.seed)
        return dataclasses.replace(data, val=_of(data.val, drawn))
    if select != "labelled":
        return data
    kind, folds = kind_of(data.task), labelled_folds(data)
    for fold in np.unique(folds):
        held_out = folds == fold
        if not kind.undefined(data.train.labels[held_out]) and not kind.undefined(data.train.labels[~held_out]):
            return dataclasses.replace(data, train=_of(data.train, ~held_out), val=_of(data.train, held_out))
    raise DataError(
        "no model can be chosen by config.probe.select=labelled: no fold of the labelled training patients has labels "
        "to train with and to choose by. Raise config.probe.label_fraction, or choose on validation",
        reason=NO_MODEL,
    )


def _of(part: LabelledRecords, rows: np.ndarray) -> LabelledRecords:
    return dataclasses.replace(part, records=part.records[rows], labels=part.labels[rows], patients=part.patients[rows])
