"""Report section on decisions at thresholds, and calibration, for several classes."""

from __future__ import annotations

from collections.abc import Sequence

from ecgjax.pages.page import Folded, Paragraph, Section, Table
from ecgjax.studies.answers import ClassesOperating, ClassOperating
from ecgjax.studies.class_operating import CHALLENGE
from ecgjax.studies.operating import RESAMPLES, SPECIFICITY

#: Metrics of a class that are shown in the table on calibration.
_CALIBRATION = ("Brier", "slope", "intercept")

#: Titles of columns, by the metric's name where the two differ.
_TITLES = {
    f"sensitivity at {SPECIFICITY:g}": f"sensitivity at {SPECIFICITY:g} specificity",
    "specificity there": "specificity reached",
    "Brier": "Brier score",
    "slope": "calibration slope",
    "intercept": "calibration intercept",
}

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
        _classes_table(operating.classes, columns, caption=f"{what} for every class, pretrained encoder's probe")
        for what, columns in (("Decisions", decisions), ("Calibration", _CALIBRATION))
    ]
    long = len(operating.classes) > _LONG
    return Section(
        "Decisions at a threshold, and calibration",
        [
            _models_table(operating),
            Paragraph(_how(operating)),
            *(Folded(table.caption, [table]) if long else table for table in tables),
            Paragraph(
                "F1, sensitivity and specificity are those at the threshold shown. Sensitivity at "
                f"{SPECIFICITY:g} specificity is that at the lowest threshold with this specificity on validation; the "
                "specificity that it reaches on the test records stands beside it. A calibrated model has a slope of 1 "
                "(below 1, predictions are too extreme) and an intercept of 0 (above 0, predictions are too low)."
            ),
        ],
    )


def _how(operating: ClassesOperating) -> str:
    without = [f"{each.name} ({each.reason})" for each in operating.classes if each.reason]
    measured = len(operating.classes) - len(without)
    text = (
        "For every class, log odds are scaled and shifted on validation (Platt scaling), and the threshold with the "
        f"best F1 is chosen there. Macro F1 is the plain mean over the {measured} of {len(operating.classes)} classes "
        f"that have both labels in the validation and in the test records. Intervals rest on at most {RESAMPLES} "
        "resamples; differences are paired."
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
        header += [name, "pretrained minus this model"]
    rows = []
    for model in operating.models:
        cells = [model.title]
        for name in names:
            cells.append(str(model.metrics[name]))
            cells.append(model.differences[name].signed() if name in model.differences else "")
        rows.append(cells)
    return Table(header=header, rows=rows, caption="Decisions on all classes")


def _classes_table(classes: Sequence[ClassOperating], names: Sequence[str], *, caption: str) -> Table:
    rows = []
    for each in classes:
        threshold = "" if each.threshold is None else f"{each.threshold:.3f}"
        cells = [str(each.metrics[name]) for name in names] if each.metrics else _nothing(each.reason, len(names))
        rows.append((each.name, f"{each.val_positives:,} / {each.positives:,}", threshold, *cells))
    header = ("class", "positive in validation / test", "threshold", *(_TITLES.get(name, name) for name in names))
    return Table(header=header, rows=rows, caption=caption)


def _nothing(reason: str, columns: int) -> list[str]:
    return [f"n/a ({reason})", *[""] * (columns - 1)][:columns]
