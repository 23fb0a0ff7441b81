"""The head of an exported model as one more model of an evaluation: nothing of it is trained or chosen here."""

from __future__ import annotations

import numpy as np
from scipy import special

from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings, unit_of
from ecgjax.data.tasks import parse_task
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.features import Read, map_records
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.finetuning.answering_head import AnsweringHead
from ecgjax.model.applied import Model
from ecgjax.pretrained.source import EncoderSource

#: Smallest distance of a probability from 0 and 1, which have no log odds.
_CLOSEST = 1e-9


def head_of(source: EncoderSource, data: ProbeData) -> AnsweringHead | None:
    """Returns the head of an exported model if it answers the question of an evaluation, otherwise None.

    A head of several classes answers a question of some of them too.

    Args:
        source: Pretrained encoder.
        data: Labelled records of the task.
    """
    head = None if source.model is None else source.model.head
    if head is None or head.kind != data.task.kind:
        return None
    if head.has_classes:
        return head if data.classes and set(data.classes) <= set(head.classes) else None
    return head if parse_task(head.question) == data.task else None


def check_unit(head: AnsweringHead, data: ProbeData, recordings: Recordings) -> None:
    """Refuses a quantity in another unit than the head's.

    Args:
        head: Head that answers the question.
        data: Labelled records of the task.
        recordings: Recordings of the evaluation.

    Raises:
        ConfigError: Both units are known, and they differ.
    """
    unit = "" if head.log_odds else unit_of(data.task.title, recordings)
    if unit and head.unit and unit != head.unit:
        raise ConfigError(
            f"{data.task.title} is in {unit} in {recordings.name} and in {head.unit} in the exported head: convert the "
            "labels, and build the data set with them again"
        )


def head_answers(model: Model, data: ProbeData, *, read: Read, progress: bool = True) -> Answers:
    """Returns the answers of an exported model's own head, with its calibration and its thresholds.

    Args:
        model: Exported model whose head answers the question.
        data: Labelled records of the task.
        read: Function that reads stored signals.
        progress: Whether a progress bar is drawn.
    """
    head = model.head
    if head is None:
        raise ValueError("the model has no head")
    columns = [head.classes.index(name) for name in data.classes] if head.has_classes else [0]

    def answer(records: np.ndarray, side: str) -> np.ndarray:
        title = f"exported head, {side}"
        found = map_records(model.predict_prepared, records, read=read, title=title, progress=progress)
        found = found[:, columns] if head.has_classes else found
        return special.logit(np.clip(found, _CLOSEST, 1 - _CLOSEST)) if head.log_odds else found

    val = answer(data.val.records, "validation")
    own = [head.outputs[column].threshold for column in columns]
    return Answers(
        outputs=answer(data.test.records, "test"),
        val_outputs=val,
        val_metric=kind_of(data.task).value(data.val.labels, val),
        selected=f"as exported{head.selected and f': {head.selected}'}",
        thresholds=np.array([np.nan if each is None else each for each in own]) if head.log_odds else None,
    )


def seen_by_head(head: AnsweringHead, recordings: Recordings) -> tuple[str, ...]:
    """Returns a caution where a head was trained with labels of a data set that is judged.

    Args:
        head: Head that answers the question.
        recordings: Recordings of the evaluation.
    """
    known = {dataset.get("fingerprint") for dataset in head.data}
    names = [dataset.card["name"] for dataset in recordings.datasets if dataset.fingerprint in known]
    if not names:
        return ()
    return (
        f"The exported head was trained with labels of {' and '.join(names)} itself: of which records is not listed, "
        "and what it answers for them is no external validation.",
    )
