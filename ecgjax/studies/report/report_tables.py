"""Tables in the report of an evaluation that all kinds of tasks have, and the texts of their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import Key
from ecgjax.pages.digits import decimals_in, percent, share_in_words
from ecgjax.pages.page import Table
from ecgjax.studies.model_names import REFERENCE, title_of
from ecgjax.studies.one_task.neighbours import POSITIVE, SAME_PATIENT
from ecgjax.studies.one_task.pipeline import OneTask, supplement_of
from ecgjax.studies.one_task.supplement import REST
from ecgjax.studies.readouts import pairs_of

#: Title of a column of differences.
MINUS = "pretrained minus this model"

#: Words for each kind of match that `neighbours` looks for.
_SOUGHT = {SAME_PATIENT: "another record of the same patient", POSITIVE: "a positive record of another patient"}


def cell(one: OneTask, model: str, metric: str, *, minus: str = "", part: str = "") -> str:
    """Returns a number of the results as text, a difference with its sign; empty where it was not measured.

    Args:
        one: Results of the models.
        model: Key of the model.
        metric: Name of the metric.
        minus: Key of the model, or name of the records, whose value is subtracted; empty for none.
        part: Class, group or match that the number is about; empty for the whole task.
    """
    value = one.results.get(Key(model, metric, one.data.task.title, minus=minus, part=part))
    decimals = decimals_of(one) if metric in supplement_of(one.data).in_unit else 3
    return "" if value is None else value.signed(decimals) if minus else value.text(decimals)


def decimals_of(one: OneTask) -> int:
    """Returns the number of decimals of errors in the quantity's unit."""
    return decimals_in(one.report.unit, size=float(np.std(one.data.test.labels)))


def titles(one: OneTask) -> dict[str, str]:
    """Returns the titles of the models, by key."""
    return {name: title_of(name, one.data.task) for name in one.models}


def outputs_of(one: OneTask) -> dict[str, np.ndarray]:
    """Returns the predictions for the test records, `[n]` or `[n, classes]`, of every model that has any, by key."""
    return {name: outputs for name, answers in one.models.items() if (outputs := answers.outputs) is not None}


def titled(one: OneTask, metric: str) -> str:
    """Returns the title of a metric's column, with the quantity's unit for metrics in that unit."""
    unit = one.report.unit
    return f"{metric}, {unit}" if unit and metric in supplement_of(one.data).in_unit else metric


def results_table(one: OneTask) -> Table:
    """Returns the table of models, and of the control on shuffled labels where there is one."""
    data = one.data
    metrics = kind_of(data.task).metrics(data.test.labels, outputs_of(one)[REFERENCE], classes=data.classes)
    primary, *others = metrics
    differences, last = (
        MINUS if one.compared == primary else f"{one.compared}: {MINUS}",
        "validation metric (what was chosen)",
    )
    further = [titled(one, name) for name in others]
    header = ("model", f"{titled(one, primary)} [95 % interval]", differences, *further, last)
    rows = []
    for name, title in titles(one).items():
        answers, further = one.models[name], [cell(one, name, metric) for metric in others]
        value = cell(one, name, primary) or f"n/a ({answers.reason})"
        # The reason stands in the column of the primary metric.
        further = ["n/a" if text.startswith("n/a") else text for text in further]
        selected = f"{answers.val_metric:.3f} ({answers.selected})" if answers.selected else ""
        rows.append((title, value, cell(one, REFERENCE, one.compared, minus=name), *further, selected))
    if control := one.facts.get("shuffled_labels"):
        text = f"{control['mean']:.3f} [{control['low']:.3f}, {control['high']:.3f}]"
        empty = [""] * (len(header) - 2)
        rows.append((f"control: {len(control['aurocs'])} probes on shuffled labels", text, *empty))
    return Table(header=header, rows=rows)


def readouts_table(one: OneTask) -> Table:
    """Returns the table of paired differences that readouts add: what is gained by a readout, and by an embedding."""
    data, names = one.data, titles(one)
    pairs = pairs_of(tuple(one.models))
    rows = [(names[model], names[other], cell(one, model, one.compared, minus=other)) for model, other in pairs]
    header = ("model", "minus", f"difference in {one.compared} [95 % interval]")
    caption = f"Readouts of the encoder: {data.task.title}, paired differences"
    return Table(header=header, rows=rows, caption=caption)


def question(data: ProbeData) -> str:
    """Returns the title of a task with the fraction of training labels that models are trained with."""
    return f"{data.task.title}, {share_in_words(data.label_fraction)}"


def models_table(one: OneTask, columns: Mapping[str, str], *, caption: str = "", thresholds: bool = False) -> Table:
    """Returns a table of metrics of every model.

    Args:
        one: Results of the models.
        columns: Titles of the columns by metric.
        caption: Description of the table; may be empty.
        thresholds: Whether the models' thresholds are shown.
    """
    rows = []
    for name, title in titles(one).items():
        threshold = [f"{one.facts['thresholds'][name]:.3f}"] if thresholds else []
        rows.append((title, *threshold, *(cell(one, name, metric) for metric in columns)))
    header = ("model", *(["threshold"] if thresholds else []), *columns.values())
    return Table(header=header, rows=rows, caption=caption)


def splits_table(data: ProbeData) -> Table:
    """Returns the table of splits, with their sizes and the distribution of their labels."""
    kind = kind_of(data.task)
    drawn = f"train ({percent(data.label_fraction)} of the labelled patients)"
    parts = {drawn: data.train, "train, all labelled": data.train_available, "validation": data.val, "test": data.test}
    columns: dict[str, Callable[[tuple[str, LabelledRecords]], str]] = {
        "split": lambda row: row[0],
        "records": lambda row: f"{len(row[1].records):,}",
        "patients": lambda row: f"{row[1].num_patients:,}",
        kind.spread_title: lambda row: kind.spread(row[1].labels),
        "left out (unlabelled)": lambda row: f"{row[1].unlabelled:,}",
    }
    return Table.of(columns, parts.items())


def groups_table(one: OneTask) -> Table:
    """Returns the table of results by group of patients."""
    supplement, parts = supplement_of(one.data), {group.part for group in one.groups}
    # Where no group could be measured, the table still says what would have been.
    metrics = list(dict.fromkeys(key.metric for key in one.results if key.part in parts)) or [one.compared]
    header = ["grouped by", "group", "records", "patients", *([supplement.counted] if supplement.counted else [])]
    for metric in metrics:
        header += [titled(one, metric)]
        header += [f"difference from {REST}"] if metric in supplement.gaps else []
    rows = []
    for group in one.groups:
        counts = (group.records, group.patients, *([group.counted or 0] if supplement.counted else []))
        cells = []
        for metric in metrics:
            cells += [cell(one, REFERENCE, metric, part=group.part)]
            gap = cell(one, REFERENCE, metric, minus=REST, part=group.part)
            cells += [gap] if metric in supplement.gaps else []
        if group.reason:
            cells[0] = f"n/a ({group.reason})"
        rows.append((group.column, group.group, *(f"{number:,}" for number in counts), *cells))
    return Table(header=header, rows=rows)


def near_table(one: OneTask) -> Table:
    """Returns the table of retrieval metrics."""
    names = list(dict.fromkeys(key.metric for key in one.results if key.part in _SOUGHT))
    rows = []
    for each in one.sought:
        cells = [cell(one, each.encoder, name, part=each.match) or "n/a" for name in names]
        rows.append((each.encoder, _SOUGHT[each.match], f"{each.queries:,}", *cells))
    return Table(header=("encoder", "match", "queries", *names), rows=rows)
