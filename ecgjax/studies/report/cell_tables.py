"""Tables of cells beyond the primary metric: other metrics, and every class of a multi-label task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecgjax.data.tasks import Kind
from ecgjax.evaluation.metrics.multilabel import by_class
from ecgjax.evaluation.models import selection
from ecgjax.evaluation.models.plain_models import Plain
from ecgjax.pages.page import Table
from ecgjax.studies.label_efficiency_statistics import TITLES
from ecgjax.studies.store import CellResult, Initialisation, Mode

_Group = tuple[float, Mode, Initialisation | Plain]


def other_metrics_table(
    results: Sequence[CellResult], *, kind: Kind, targets: np.ndarray, classes: Sequence[str] = (), unit: str = ""
) -> Table:
    """Returns the metrics other than the primary one, as mean ± standard deviation over seeds.

    Args:
        results: Results of the cells.
        kind: Kind of the task, `"binary"`, `"multilabel"` or `"quantity"`.
        targets: Labels of the test records, `[n]` or `[n, classes]`.
        classes: Names of the label columns of a multi-label task.
        unit: Unit of a quantity; empty if it has none.
    """
    rows, names = [], []
    for (fraction, mode, model), scores in _groups(results).items():
        found = [selection.estimates(kind, targets, each, classes=classes) for each in scores]
        names = [name for name in found[0] if name != selection.PRIMARY[kind]]
        spread = (_spread([each[name] for each in found]) for name in names)
        rows.append((f"{fraction:.3g}", TITLES[model, mode], *spread))
    header = (f"{name}, {unit}" if unit and name in ("RMSE", "MAE") else name for name in names)
    return Table(
        header=("fraction of labels", "model", *header), rows=rows, caption="Other metrics: mean ± SD over seeds"
    )


def classes_table(results: Sequence[CellResult], *, targets: np.ndarray, classes: Sequence[str]) -> Table:
    """Returns the AUROC of every class at the largest fraction, as mean ± standard deviation over seeds.

    Args:
        results: Results of the cells.
        targets: Labels of the test records, `[n, classes]`.
        classes: Names of the label columns.
    """
    groups = _groups(results)
    largest = max((fraction for fraction, _, _ in groups), default=1.0)
    models = {TITLES[group[2], group[1]]: scores for group, scores in groups.items() if group[0] == largest}
    found = {title: [by_class(targets, each, classes=classes) for each in scores] for title, scores in models.items()}
    values = {title: [each.estimates() for each in seeds] for title, seeds in found.items()}
    reasons = next((seeds[0].left_out for seeds in found.values()), {})
    rows = []
    for column, name in enumerate(classes):
        if name in reasons:
            cells = [f"n/a ({reasons[name]})", *[""] * (len(models) - 1)]
        else:
            cells = [_spread([seed[name] for seed in seeds]) for seeds in values.values()]
        rows.append((name, f"{int(targets[:, column].sum()):,}", *cells))
    caption = f"AUROC of every class at {largest:.3g} of the labels: mean ± SD over seeds"
    return Table(header=("class", "positive in test", *models), rows=rows, caption=caption)


def _groups(results: Sequence[CellResult]) -> dict[_Group, list[np.ndarray]]:
    """Returns the scores of every seed, by fraction, mode and model, for the cells that have scores."""
    groups: dict[_Group, list[np.ndarray]] = {}
    for result in sorted(results, key=lambda r: (r.cell.fraction, r.cell.mode, r.cell.model, r.cell.seed)):
        if result.scores is not None:
            cell = result.cell
            groups.setdefault((cell.fraction, cell.mode, cell.model), []).append(result.scores)
    return groups


def _spread(values: Sequence[float]) -> str:
    if np.isnan(values).any():
        return "n/a"
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):z.3f}{deviation}"
