"""Parts of an evaluation's page that differ between kinds of tasks: the base class."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure

from ecgjax.pages.page import Block, Section
from ecgjax.studies.one_task.calibrated import SPECIFICITY
from ecgjax.studies.one_task.pipeline import OneTask
from ecgjax.studies.report.embedding_map import EmbeddingMap, values_map_figure

#: Titles of columns, by metric: decisions at the stricter of the two thresholds, and calibration.
STRICT = {
    f"sensitivity at {SPECIFICITY:g}": f"sensitivity at {SPECIFICITY:g} specificity",
    "specificity there": "specificity reached",
}
CALIBRATION = {"Brier": "Brier score", "slope": "calibration slope", "intercept": "calibration intercept"}

#: Words on slope and intercept of a logistic recalibration.
SLOPE = (
    "A calibrated model has a slope of 1 (below 1, predictions are too extreme) and an intercept of 0 (above 0, "
    "predictions are too low)."
)


class Parts:
    """Parts of the page that depend on the kind of the task; kinds with parts of their own have a subclass.

    Attributes:
        of_groups: Sentences under the table of groups, on its metrics.
    """

    of_groups: ClassVar[str] = ""

    def results(self, one: OneTask) -> list[Block]:
        """Returns what follows the table of results on the page, such as curves.

        Args:
            one: Results of the models.
        """
        del one
        return []

    def sections(self, one: OneTask) -> list[Section]:
        """Returns the sections that stand between the results and the groups of patients.

        Args:
            one: Results of the models.
        """
        del one
        return []

    def map(self, one: OneTask, projected: EmbeddingMap, *, title: str) -> tuple[Figure, str]:
        """Draws a map of embeddings coloured by label, or by the sum of the labels where a record has several.

        Args:
            one: Results of the models.
            projected: Map of the test records.
            title: Title above the map.

        Returns:
            The figure, and a phrase that says what its colours mean.
        """
        task, labels = one.data.task, np.asarray(one.data.test.labels, np.float64)
        name, values = quantity_name(one), labels
        if labels.ndim > 1:
            name, values = f"sum of the labels of {task.title}", labels.sum(axis=1)
        figure = values_map_figure(projected, values=values, name=name, title=title, seed=one.report.seed)
        return figure, name if labels.ndim > 1 else task.title


def quantity_name(one: OneTask) -> str:
    """Returns the title of the predicted quantity, with its unit."""
    return f"{one.data.task.title} ({one.report.unit})" if one.report.unit else one.data.task.title
