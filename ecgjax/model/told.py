"""What a model says of itself in a few lines."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.records import STORED_LEADS
from data_pipelines.signals.conversion import MILLIVOLTS_PER_UNIT
from data_pipelines.signals.lead_checks import LOWEST_SOURCE_RATE_HZ
from data_pipelines.system.visible_text import visible
from ecgjax.finetuning.answering_head import AnsweringHead
from ecgjax.model.description import Description
from ecgjax.model.preprocessor import Preprocessor

_MOST_CHARACTERS = 120


def told(path: Path, about: Description, preprocessor: Preprocessor) -> str:
    """Returns what a model is, what it was trained on, and what it takes.

    Args:
        path: Folder of the model.
        about: Statements of the folder about the encoder.
        preprocessor: Preparation of recordings.
    """
    recipe = preprocessor.recipe
    statistics = f", {about.statistics} batch-norm statistics" if about.statistics else ""
    lines = [
        f"{about.architecture}: {about.dimension} numbers ({about.layer}) of a recording; tokens of "
        f"{about.token_dimension}, pooled by {about.pool}{statistics}",
        *([] if about.head is None else [_answers(about.head.about)]),
        f"from {path}, weights {about.weights_digest}",
        f"trained for {_training(about.training)}",
        *(f"trained on {_dataset(each)}" for each in about.data if isinstance(each, Mapping)),
        *([] if about.head is None else [f"fine-tuned on {_dataset(each)}" for each in about.head.about.data]),
        f"takes 8 or 12 leads by name in any order, at any rate of {LOWEST_SOURCE_RATE_HZ} Hz or more, in "
        f"{', '.join(MILLIVOLTS_PER_UNIT)}; {recipe.min_seconds:g} s or more",
        f"prepares by the recipe {recipe.name}, version {recipe.version}: {recipe.sampling_rate_hz} Hz, "
        f"{recipe.seconds:g} s, int16 µV, {', '.join(STORED_LEADS)}",
        *([preprocessor.length_rule] if preprocessor.length_rule else []),
        *([f"prepared otherwise were {', '.join(preprocessor.others)}"] if preprocessor.others else []),
    ]
    # The folder may be a stranger's: what it says is shown without what a terminal would obey.
    return "\n".join(["<ecgjax.Model", *(textwrap.indent(visible(line), "  ") for line in lines)]) + ">"


def _training(said: Mapping[str, object]) -> str:
    steps, exposures, epochs = (said.get(name) for name in ("steps", "exposures", "epochs"))
    in_epochs = f" ({epochs:.3g} epochs)" if isinstance(epochs, int | float) else ""
    return f"{_number(steps)} steps of {_number(said.get('batch_size'))}, {_number(exposures)} exposures{in_epochs}"


def _answers(head: AnsweringHead) -> str:
    """Returns which question is answered in which form, and from where on the answer is yes."""
    simulated = ", labels SIMULATED" if head.simulated else ""
    if not head.log_odds:
        unit = f" in {_text(head.unit)}" if head.unit else ""
        return f"answers {_text(head.question)} by a value{unit}{simulated}"
    each = f" for each of {len(head.classes)} classes" if head.has_classes else ""
    rule = f", {_text(head.threshold_rule)}" if head.threshold_rule else ""
    thresholds = [output.threshold for output in head.outputs]
    # A line of dozens of thresholds says nothing; `Model.thresholds` has them.
    some = [f"{threshold:.3g}" for threshold in thresholds if threshold is not None]
    yes = f"; yes from {some[0] if len(thresholds) == 1 else 'its threshold'} on{rule}" if some else "; no threshold"
    calibrated = f" after {_text(head.calibration)}" if head.calibration else ""
    return f"answers {_text(head.question)} by a probability{each}{calibrated}{yes}{simulated}"


def _dataset(said: Mapping[str, object]) -> str:
    simulated = ", SIMULATED" if said.get("simulated") else ""
    licence = f", licence {_text(said['licence'])}" if said.get("licence") else ""
    counts = f"{_number(said.get('records'))} records of {_number(said.get('patients'))} patients"
    return f"{_text(said.get('name'))}: {counts}{simulated}{licence}"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "an unknown number of"


def _text(value: object) -> str:
    return str(value)[:_MOST_CHARACTERS]
