"""The paragraph of a report on what may be concluded from it, and what may not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.system.counted import counted
from ecgjax.data.labels import LabelledRecords
from ecgjax.pages.page import Paragraph

#: Beginning of the paragraph.
TITLE = "What may be concluded."

#: What a study of one checkpoint with one draw of labels does not cover.
ONE_SEED = (
    "There is one pretraining run, one draw of labels and one seed: the intervals tell how far another sample of test "
    "patients would move the numbers, not how far another run would"
)

#: What is chosen on validation records in every study with a validation split.
ON_VALIDATION = (
    "On validation records were chosen the strengths of linear models, the sizes of trees, the steps of networks, and "
    "calibration and thresholds where there are any; on test records nothing, but that the best model is named by its "
    "value there, which flatters it"
)

#: What is chosen in a cross-validation, where there is no validation split.
BY_INNER_FOLDS = (
    "Strengths, trees and steps of networks were chosen by inner folds of the other patients, never by those tested; "
    "only the best model is named by its tested value, which flatters it"
)


def conclusions(*, cohort: str, simulated: bool, tested: str, seeds: str, chosen: str) -> Paragraph:
    """Returns the paragraph on what may be concluded.

    Args:
        cohort: Name of the data set.
        simulated: Whether any of its recordings are simulated.
        tested: Number of patients and records that were tested, in words.
        seeds: Clause on seeds, and on what intervals do not cover for that reason.
        chosen: Clause on what was chosen on which records.
    """
    of = (
        "a SIMULATED cohort: the numbers describe a simulator, and nothing here is a statement about patients"
        if simulated
        else "held out from all training"
    )
    return Paragraph(
        f"{TITLE} Tested were {tested} of {cohort}, {of}. {seeds}. {chosen}. Comparisons are not corrected for their "
        "number. It is not said how models do at another hospital, on other devices or in other years, nor that a "
        "decision by them would help anybody."
    )


def tested_words(parts: Sequence[LabelledRecords]) -> str:
    """Returns the number of patients and records that were tested in any of some parts, in words.

    Args:
        parts: Test records of each question.
    """
    patients, records = (
        len(np.unique(np.concatenate([getattr(part, name) for part in parts]))) for name in ("patients", "records")
    )
    return f"{counted(patients, 'patient')} ({counted(records, 'record')})"


def several_seeds(number: int, what: str) -> str:
    """Returns the clause on seeds of a study that may have several.

    Args:
        number: Number of seeds.
        what: What a seed changes, in words.
    """
    if number < 2:
        return f"There is one seed of {what}: the intervals tell of another sample of patients, not of another seed"
    return (
        f"There are {number} seeds of {what}: intervals over patients do not include the spread over seeds, which "
        "stands beside them"
    )
