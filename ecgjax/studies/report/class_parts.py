"""Parts of the page of a task with several classes: every class's AUROC, decisions at thresholds, and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ecgjax.data.labels import MIN_EVENTS, common_classes
from ecgjax.pages.page import Block, Folded, Paragraph, Picture, Section, Table
from ecgjax.studies.model_names import REFERENCE
from ecgjax.studies.one_task.calibrated import RESAMPLES, SPECIFICITY
from ecgjax.studies.one_task.multilabel import BY_CLASS, CHALLENGE, ClassCounts
from ecgjax.studies.one_task.pipeline import OneTask
from ecgjax.studies.report.embedding_map import EmbeddingMap, map_figure
from ecgjax.studies.report.forest import Row, forest
from ecgjax.studies.report.parts import CALIBRATION, SLOPE, STRICT, Parts
from ecgjax.studies.report.report_tables import MINUS, cell, titles

#: Titles of columns, by metric, in the table on decisions.
_DECISIONS = {"F1": "F1", "sensitivity": "sensitivity", "specificity": "specificity", **STRICT}

#: Number of classes above which tables and figures are folded.
_LONG = 30


class ClassParts(Parts):
    """Parts of the page of a task with several classes; see `Parts`."""

    of_groups = (
        f"The macro AUROC is the mean over the classes with at least {MIN_EVENTS} positive and negative test records "
        "in the group. These classes differ between groups: do not compare the means without a look at the number of "
        "classes."
    )

    def results(self, one: OneTask) -> list[Block]:
        """Returns a paragraph on the classes that macro metrics leave out."""
        counts: Sequence[ClassCounts] = one.facts["classes"]
        common = common_classes(one.data.test.labels)
        rare = [each.name for column, each in enumerate(counts) if not each.reason and column not in common]
        text = (
            f"Macro metrics are plain means over the {sum(not each.reason for each in counts)} of {len(counts)} "
            f"classes that have both labels in the test records.{_left_out([(c.name, c.reason) for c in counts])}"
        )
        if rare:
            text += f" Fewer than {MIN_EVENTS} positive or negative test records: {', '.join(rare)}"
            text += f"; models are compared by the macro AUROC of the other {len(common)} classes." if common else "."
        return [Paragraph(text)]

    def sections(self, one: OneTask) -> list[Section]:
        """Returns the section on single classes, and the section on decisions and calibration."""
        decisions = Section("Decisions at a threshold, and calibration", _decisions(one))
        return [Section("Results by class", _classes(one)), decisions]

    def map(self, one: OneTask, projected: EmbeddingMap, *, title: str) -> tuple[Figure, str]:
        """Draws a map of embeddings coloured by the class with the most positive test records; see `Parts.map`."""
        labels = one.data.test.labels
        column = int(np.argmax(labels.sum(axis=0)))
        figure = map_figure(projected, labels=labels[:, column], title=title, seed=one.report.seed)
        return figure, f"{one.data.classes[column]}, the class with the most positive test records"


def _classes(one: OneTask) -> list[Block]:
    counts: Sequence[ClassCounts] = one.facts["classes"]
    models = {name: title for name, title in titles(one).items() if name in BY_CLASS}
    rows = []
    for each in counts:
        numbers = (f"{each.train_positives:,}", f"{each.positives:,} ({each.patients:,})")
        cells = [cell(one, name, "AUROC", part=each.name) for name in models]
        cells.append(cell(one, REFERENCE, "AUROC", minus="random", part=each.name))
        rows.append((each.name, *numbers, *(_nothing(each.reason, len(cells)) if each.reason else cells)))
    header = (
        "class", "positive in training", "positive in test (patients)", *models.values(), "pretrained minus random",
    )  # fmt: skip
    blocks: list[Block] = [Table(header=header, rows=rows, caption="AUROC of every class")]
    if few := [each.name for each in counts if not each.reason and each.positives < MIN_EVENTS]:
        blocks.append(Paragraph(f"Fewer than {MIN_EVENTS} positive test records, which tell little: {', '.join(few)}."))
    if unlearned := [each.name for each in counts if not each.train_positives]:
        blocks.append(Paragraph(f"Without a positive training record, hence not learned: {', '.join(unlearned)}."))
    picture = Picture(
        figure=_classes_figure(one),
        alt="AUROC of every class, pretrained and random encoder, as in the table.",
        caption="Linear probes on the pretrained and on the random encoder; brackets count positive test records.",
    )
    return [*blocks, Folded("Figure: AUROC of every class", [picture]) if len(rows) > _LONG else picture]


def _classes_figure(one: OneTask) -> Figure:
    rows = [
        Row(f"{each.name} ({each.positives:,})", one.value(name, "AUROC", part=each.name), group=f"{name} encoder")
        for each in one.facts["classes"]
        for name in (REFERENCE, "random")
        if not each.reason and name in one.models
    ]
    return forest({"": rows}, xlabel="AUROC", line=0.5)


def _decisions(one: OneTask) -> list[Block]:
    counts: Sequence[ClassCounts] = one.facts["classes"]
    tables = [
        _classes_table(one, columns, caption=f"{what} for every class, pretrained encoder's probe")
        for what, columns in (("Decisions", _DECISIONS), ("Calibration", CALIBRATION))
    ]
    return [
        _models_table(one),
        Paragraph(_how(one)),
        *(Folded(table.caption, [table]) if len(counts) > _LONG else table for table in tables),
        Paragraph(
            "F1, sensitivity and specificity are those at the threshold shown. Sensitivity at "
            f"{SPECIFICITY:g} specificity is that at the lowest threshold with this specificity on validation; the "
            f"specificity that it reaches on the test records stands beside it. {SLOPE}"
        ),
    ]


def _models_table(one: OneTask) -> Table:
    metrics = dict.fromkeys(
        key.metric for key in one.results if key.metric.startswith("macro F1") or key.metric == CHALLENGE
    )
    header = ["model"]
    for metric in metrics:
        header += [metric, MINUS]
    rows = []
    for name, title in titles(one).items():
        cells = [title]
        for metric in metrics:
            cells += [cell(one, name, metric), cell(one, REFERENCE, metric, minus=name)]
        rows.append(cells)
    return Table(header=header, rows=rows, caption="Decisions on all classes")


def _classes_table(one: OneTask, columns: dict[str, str], *, caption: str) -> Table:
    rows = []
    for each in one.facts["classes"]:
        threshold = "" if each.threshold is None else f"{each.threshold:.3f}"
        cells = [cell(one, REFERENCE, metric, part=each.name) for metric in columns]
        cells = _nothing(each.undecided, len(columns)) if each.undecided else cells
        rows.append((each.name, f"{each.val_positives:,} / {each.positives:,}", threshold, *cells))
    header = ("class", "positive in validation / test", "threshold", *columns.values())
    return Table(header=header, rows=rows, caption=caption)


def _how(one: OneTask) -> str:
    counts, missing = one.facts["classes"], one.facts["unscored"]
    text = (
        "For every class, log odds are scaled and shifted on validation (Platt scaling), and the threshold with the "
        f"best F1 is chosen there. Macro F1 is the plain mean over the {sum(not each.undecided for each in counts)} of "
        f"{len(counts)} classes that have both labels in the validation and in the test records. Intervals rest on at "
        f"most {RESAMPLES} resamples; differences are paired.{_left_out([(c.name, c.undecided) for c in counts])}"
    )
    if missing:
        names = ", ".join(missing[:3]) + (" and others" if len(missing) > 3 else "")
        return f"{text} No {CHALLENGE}: its classes {names} are not in this task ({len(missing)} of 26)."
    return (
        f"{text} The {CHALLENGE} is that of PhysioNet's challenge on its 26 classes, at the same thresholds: 1 for the "
        "right answers, 0 for answering sinus rhythm every time; a class without a threshold is never answered."
    )


def _left_out(reasons: Sequence[tuple[str, str]]) -> str:
    without = [f"{name} ({reason})" for name, reason in reasons if reason]
    return f" Left out: {'; '.join(without)}." if without else ""


def _nothing(reason: str, columns: int) -> list[str]:
    return [f"n/a ({reason})", *[""] * (columns - 1)]
