"""What `config.json` and the card of an exported model say of its head: question, calibration, thresholds, labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_pipelines.system.visible_text import visible
from ecgjax.export.licence_terms import data_of
from ecgjax.finetuning.answering_head import TrainedHead, structure_of
from ecgjax.pages.json_values import plain
from ecgjax.pages.markdown import format_table

#: How outputs become answers, for readers without ecgjax.
_LOG_ODDS = "logit p = slope * (output - offset) + intercept; the answer is yes where p >= threshold"
_VALUES = "the output is the value in the unit"

_NO_FINDING = (
    "This is a research model and not a medical device. A probability or a value is no finding about a patient, and a "
    "threshold here is a convention of a study and no advice to treat or not to treat."
)
_ELSEWHERE = (
    "Probabilities hold where as many records are positive as in the table, and recordings are alike. Elsewhere they "
    "are too high or too low, and thresholds with them: docs/using_a_model.md of ecgjax, Another hospital, says what "
    "to do."
)


def head_object(head: TrainedHead) -> dict[str, Any]:
    """Returns the object `head` of `config.json`.

    Args:
        head: Head with its weights, and what it answers.
    """
    about, structure = head.about, structure_of(head.split)
    return {
        "question": about.question,
        "kind": about.kind,
        "unit": about.unit,
        "structure": structure.name,
        "hidden": structure.hidden,
        "input": "features",
        "formula": _LOG_ODDS if about.log_odds else _VALUES,
        "outputs": [dataclasses.asdict(output) for output in about.outputs],
        "calibration": about.calibration,
        "threshold_rule": about.threshold_rule,
        "chosen_on": about.chosen_on,
        "selected": about.selected,
        "data": data_of(about.data),
        "training": plain(dict(about.training)),
    }


def head_lines(head: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the card that say what a head answers.

    Args:
        head: Object `head` of `config.json`.
    """
    is_value = head["kind"] == "quantity"
    on = f" on {head['chosen_on']}" if head["chosen_on"] else ""
    layers = "one linear layer" if head["hidden"] is None else f"two linear layers with {head['hidden']:,} between them"
    simulated = [dataset["name"] for dataset in head["data"] if dataset["simulated"]]
    lines = [
        *([f"**SIMULATED: the labels of {' and '.join(simulated)} are of no patients.**", ""] if simulated else []),
        f"- Question: {head['question']}, answered by {_form(head)}.",
        f"- Head: {layers}, on the encoder's features; {head['selected'] or 'nothing is said of how it was chosen'}.",
    ]
    if not is_value:
        lines += [
            f"- Calibration: {head['calibration'] or 'none, probabilities are as they were trained'}"
            f"{f', fitted{on}' if on and head['calibration'] else ''}; {head['formula'].partition(';')[0]}.",
            f"- Threshold: {head['threshold_rule'] or 'none was chosen'}"
            f"{f', chosen{on}' if on and head['threshold_rule'] else ''}; the answer is yes from the threshold on.",
        ]
    return [*map(visible, lines), "", _table(head), "", *([] if is_value else [_ELSEWHERE, ""]), _NO_FINDING]


def _form(head: Mapping[str, Any]) -> str:
    if head["kind"] == "quantity":
        return f"a value{' in ' + head['unit'] if head['unit'] else ', in the unit of its labels'}"
    if head["kind"] == "multilabel":
        return f"a probability for each of {len(head['outputs'])} classes"
    return "the probability of a yes"


def _table(head: Mapping[str, Any]) -> str:
    if head["kind"] == "quantity":
        rows = [(dataset["name"], f"{dataset['records']:,}", f"{dataset['patients']:,}") for dataset in head["data"]]
        return format_table(("labels of", "records", "patients"), [tuple(map(visible, row)) for row in rows])
    header = ("answer", "threshold", "prevalence", "positive", "records", "slope", "intercept", "offset")
    return format_table(header, [tuple(map(visible, _row(output))) for output in head["outputs"]])


def _row(output: Mapping[str, Any]) -> tuple[str, ...]:
    records, positives, threshold = (output[name] for name in ("records", "positives", "threshold"))
    known = bool(records) and positives is not None
    return (
        output["name"],
        "none" if threshold is None else f"{threshold:.4g}",
        f"{positives / records:.4g}" if known else "not known",
        f"{positives:,}" if known else "not known",
        f"{records:,}" if records else "not known",
        *(f"{output[name]:.4g}" for name in ("slope", "intercept", "offset")),
    )
