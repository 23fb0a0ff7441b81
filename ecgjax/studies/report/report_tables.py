"""Tables in the report of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import Kind
from ecgjax.evaluation.metrics.subgroups import GAPS, Subgroup
from ecgjax.pages.page import Table
from ecgjax.studies.comparison import Comparison
from ecgjax.studies.decision_curve import NetBenefit
from ecgjax.studies.neighbourhood import Neighbourhood
from ecgjax.studies.operating import SPECIFICITY, Operating

#: Words for each kind of match that `neighbourhood` looks for.
_SOUGHT = {
    "same patient": "another record of the same patient",
    "positive finds positive": "a positive record of another patient",
}


def results_table(comparison: Comparison) -> Table:
    """Returns the table of models."""
    header = ("model", "AUROC [95 % interval]", "pretrained minus this model", "AUPRC", "selected on validation")
    rows = [
        (
            row.title,
            str(row.auroc),
            "" if row.difference is None else row.difference.signed(),
            str(row.auprc),
            f"{row.val_auroc:.3f} ({row.selected})",
        )
        for row in comparison.rows
    ]
    control = comparison.control
    title = f"control: {len(control.aurocs)} probes on shuffled labels"
    rows.append((title, f"{control.mean:.3f} [{control.low:.3f}, {control.high:.3f}]", "", "", ""))
    return Table(header=header, rows=rows)


def question(data: ProbeData) -> str:
    """Returns the task and the fraction of training labels it is asked with, in words."""
    share = "all training labels" if data.label_fraction == 1 else f"{data.label_fraction:.3g} of the training labels"
    return f"{data.task.title}, {share}"


def splits_table(data: ProbeData) -> Table:
    """Returns the table of splits, with their sizes and the distribution of their labels."""
    header = {"binary": "positive", "multilabel": "positive for any class", "quantity": "mean ± SD [range]"}
    parts = (
        (f"train ({data.label_fraction:.3g} of the labelled patients)", data.train),
        ("train, all labelled", data.train_available),
        ("validation", data.val),
        ("test", data.test),
    )
    rows = [
        (
            title,
            f"{len(part.records):,}",
            f"{part.num_patients:,}",
            _answers(data.task.kind, part),
            f"{part.unlabelled:,}",
        )
        for title, part in parts
    ]
    return Table(header=("split", "records", "patients", header[data.task.kind], "left out (unlabelled)"), rows=rows)


def _answers(kind: Kind, part: LabelledRecords) -> str:
    labels = part.labels
    if kind == "quantity":
        return f"{labels.mean():.4g} ± {labels.std():.3g} [{labels.min():.4g}, {labels.max():.4g}]"
    positives = int((labels.any(axis=1) if kind == "multilabel" else labels).sum())
    return f"{positives:,} ({positives / len(labels):.1%})"


def operating_table(models: Sequence[Operating]) -> Table:
    """Returns the table of models with F1, sensitivity at a given specificity, and calibration."""
    header = (
        "model", "F1", f"sensitivity at {SPECIFICITY:g} specificity", "specificity reached", "Brier score",
        "calibration slope", "calibration intercept", "expected calibration error",
    )  # fmt: skip
    return Table(header=header, rows=[(model.title, *map(str, model.metrics.values())) for model in models])


def decisions_table(models: Sequence[Operating]) -> Table:
    """Returns the table of models' decisions at the threshold with the best F1 on validation."""
    header = ("model", "threshold", *models[0].decisions)
    rows = [(model.title, f"{model.threshold:.3f}", *map(str, model.decisions.values())) for model in models]
    return Table(header=header, rows=rows, caption="Decisions at the threshold with the best F1")


def net_benefit_table(models: Sequence[NetBenefit]) -> Table:
    """Returns the table of net benefits; those of treating everybody and nobody come last."""
    thresholds = tuple(models[0].benefits)
    header = ["model"]
    for threshold in thresholds:
        header += [f"treating from probability {threshold:g}", "difference from treating everybody"]
    rows = []
    for model in models:
        cells = [model.title]
        for threshold in thresholds:
            cells.append(str(model.benefits[threshold]))
            cells.append(model.over_all[threshold].signed() if threshold in model.over_all else "")
        rows.append(cells)
    nobody = [cell for _ in thresholds for cell in ("0", "")]
    return Table(header=header, rows=[*rows, ["treat nobody", *nobody]], caption="Net benefit per record")


def groups_table(groups: Sequence[Subgroup]) -> Table:
    """Returns the table of results by group of patients."""
    header = (
        "grouped by", "group", "records", "patients", "positive", "AUROC",
        "sensitivity", "difference from all other records",
        "false-positive rate", "difference from all other records",
        "mean probability minus frequency", "difference from all other records",
    )  # fmt: skip
    rows = []
    for group in groups:
        cells = [str(group.metrics["auroc"])] if group.metrics else [f"n/a ({group.reason})"]
        for name in GAPS:
            cells.append(str(group.metrics[name]) if name in group.metrics else "")
            cells.append(group.gaps[name].signed() if name in group.gaps else "")
        counts = (f"{number:,}" for number in (group.records, group.patients, group.events))
        rows.append((group.column, group.group, *counts, *cells))
    return Table(header=header, rows=rows)


def near_table(neighbourhoods: Sequence[Neighbourhood]) -> Table:
    """Returns the table of retrieval metrics."""
    names = list(dict.fromkeys(name for each in neighbourhoods for name in each.metrics))
    rows = [
        (
            each.encoder,
            _SOUGHT[each.sought],
            f"{each.queries:,}",
            *(str(each.metrics.get(name, "n/a")) for name in names),
        )
        for each in neighbourhoods
    ]
    return Table(header=("encoder", "match", "queries", *names), rows=rows)
