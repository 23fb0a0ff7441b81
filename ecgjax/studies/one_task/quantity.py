"""Measures a quantity: agreement of predicted and true values, and errors in groups of patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ecgjax.data.labels import MIN_EVENTS, ProbeData
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.regression import bland_altman
from ecgjax.evaluation.metrics.weighting import ratio
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.results import Key
from ecgjax.studies.one_task.supplement import Measured, Report, Supplement


class Quantity(Supplement):
    """Measurements of a quantity; see `Supplement`."""

    gaps = ("MAE", "bias")
    in_unit = ("RMSE", "MAE", "bias")

    def measure(
        self, models: Mapping[str, Answers], data: ProbeData, report: Report, *, embeddings: SplitFeatures
    ) -> tuple[dict[Key, Interval], dict[str, Any]]:
        """Computes bias and limits of agreement of every model on one record per patient, if there are three or more.

        Args and result are those of `Supplement.measure`; there are facts alone, `agreement` by model.
        """
        del report, embeddings
        # The intervals of Bland and Altman take records as independent.
        rows, labels = one_a_patient(data.test.patients), data.test.labels
        outputs = {name: each for name, answers in models.items() if (each := answers.outputs) is not None}
        if len(rows) < 3:
            return {}, {"agreement": {}}
        return {}, {"agreement": {name: bland_altman(labels[rows], each[rows]) for name, each in outputs.items()}}

    def of_group(self, answers: Answers, data: ProbeData, mask: np.ndarray) -> Measured:
        """Measures errors in a group of patients, in the quantity's unit; see `Supplement.of_group`."""
        if mask.sum() < MIN_EVENTS or answers.outputs is None:
            return Measured({}, reason="too few records")
        error = answers.outputs - data.test.labels
        return Measured({"MAE": ratio(mask * np.abs(error), mask), "bias": ratio(mask * error, mask)})


def one_a_patient(patients: np.ndarray) -> np.ndarray:
    """Returns the row of each patient's first record, `int64[patients]`, in ascending order."""
    return np.sort(np.unique(patients, return_index=True)[1])
