"""Report section on decisions at thresholds, and calibration, for several classes."""

from __future__ import annotations

from collections.abc import Sequence

from ecgjax.pages.page import Folded, Paragraph, Section, Table
from ecgjax.studies.answers import ClassesOperating, ClassOperating
from ecgjax.studies.class_operating import CHALLENGE
from ecgjax.studies.operating import RESAMPLES, SPECIFICITY

#: Metrics of a class that are shown in the table on calibration.
_CALIBRATION = ("Brier", "slope", "intercept")

#: Number of classes above which a table is folded.
_LONG = 30


def class_section(operating: ClassesOperating) -> Section:
    """Lays out how models decide on classes, and how the pretrained encoder's probe is calibrated.

    Args:
        operating: Decisions on a multi-label task.
    """
    names = next((tuple(each.metrics) for each in operating.classes if each.metrics), ())
    decisions = [name for name in names if name not in _CALIBRATION]
    tables = [
        _classes_table(operating.classes, columns, caption=f"{what} of every class, pretrained encoder's probe")
        for what, columns in (("Decisions", decisions), ("Calibration", _CALIBRATION))
    ]
    long = len(operating.classes) > _LONG
    return Section(
        "At a threshold, and calibration",
        [
            _models_table(operating),
            Paragraph(_how(operating)),
            *(Folded(table.caption, [table]) if long else table for table in tables),
            Paragraph(
                f"F1, sensitivity and specificity are at the threshold beside them; sensitivity at {SPECIFICITY:g} is "
                "at the lowest one with that specificity on validation, and the specificity reached on the test "
                "records stands beside it. Right are a slope of 1 (below, predictions are too extreme) and an "
                "intercept of 0 (above, they are too low)."
            ),
        ],
    )


def _how(operating: ClassesOperating) -> str:
    without = [f"{each.name} ({each.reason})" for each in operating.classes if each.reason]
    measured = len(operating.classes) - len(without)
    text = (
        "Log odds of every class are scaled and shifted on validation (Platt), and its threshold chosen there, that of "
        f"the best F1. Macro F1 is the plain mean over the {measured} of {len(operating.classes)} classes that have "
        f"both labels in the validation and in the test records. Intervals are of {RESAMPLES} resamples at most; "
        "differences are paired."
    )
    if without:
        text += f" Left out: {'; '.join(without)}."
    if operating.unscored:
        missing = ", ".join(operating.unscored[:3]) + (" and others" if len(operating.unscored) > 3 else "")
        return f"{text} No {CHALLENGE}: its classes {missing} are not in this task ({len(operating.unscored)} of 26)."
    return (
        f"{text} The {CHALLENGE} is that of PhysioNet's challenge on its 26 classes, at the same thresholds: 1 for the "
        "right answers, 0 for answering sinus rhythm every time; a class without a threshold is never answered."
    )


def _models_table(operating: ClassesOperating) -> Table:
    names = tuple(operating.models[0].metrics)
    header = ["model"]
    for name in names:
        header += [name, "pretrained − this"]
    rows = []
    for model in operating.models:
        cells = [model.title]
        for name in names:
            cells.append(str(model.metrics[name]))
            cells.append(model.differences[name].signed() if name in model.differences else "")
        rows.append(cells)
    return Table(header=header, rows=rows, caption="Deciding on all classes")


def _classes_table(classes: Sequence[ClassOperating], names: Sequence[str], *, caption: str) -> Table:
    rows = []
    for each in classes:
        threshold = "" if each.threshold is None else f"{each.threshold:.3f}"
        cells = [str(each.metrics[name]) for name in names] if each.metrics else _nothing(each.reason, len(names))
        rows.append((each.name, f"{each.val_positives:,} / {each.positives:,}", threshold, *cells))
    header = ("class", "positive in validation / test", "threshold", *names)
    return Table(header=header, rows=rows, caption=caption)


def _nothing(reason: str, columns: int) -> list[str]:
    return [f"n/a ({reason})", *[""] * (columns - 1)][:columns]
