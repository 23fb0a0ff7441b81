"""The flow of recordings and patients from the archive to the models, as TRIPOD+AI asks for it (item 20a).

References:
    Collins et al., "TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use regression
    or machine learning methods", BMJ 385 (2024) e078378.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_pipelines.prepared.dataset import Dataset
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.pages.digits import percent
from ecgjax.pages.page import Block, Paragraph, Section, Table

_HEADER = ("step", "recordings", "patients")

#: What stands for a number that no data set stores.
_UNKNOWN = "–"

#: Why records are left out of the splits, in words, in the order in which it is decided.
_LEFT_OUT: Mapping[str, str] = {
    "other_fold": "left out: in folds that are not used",
    "duplicate": "left out: copies of a recording that is kept",
    "group_in_test": "left out of validation: patient or recording is in test too",
    "group_in_val_or_test": "left out of training: patient or recording is in validation or test too",
}

_SIDES = {"train": "training", "val": "validation", "test": "test"}

Row = tuple[str, str, str]


def flow_section(recordings: Recordings, questions: Mapping[str, ProbeData], *, folds: bool = True) -> Section:
    """Returns the section on the flow of recordings, from the archive to the folds and to those with a label.

    Args:
        recordings: Recordings of the study with their split.
        questions: Labelled records of each question, by its title; empty where the study tells them elsewhere.
        folds: Whether the split has training, validation and test records; otherwise all records are tested in turn.
    """
    rows = [row for dataset in recordings.datasets for row in _stored(dataset, named=len(recordings.datasets) > 1)]
    rows += _left_out(recordings)
    for name, words in _SIDES.items():
        records = getattr(recordings.split, name)
        if folds or len(records):
            step = f"{words} folds" if folds else "tested in turn"
            rows.append((step, f"{len(records):,}", _patients(recordings, records)))
    blocks: list[Block] = [Table(header=_HEADER, rows=rows, caption="From the archive to the folds")]
    for title, data in questions.items():
        blocks.append(Table(header=_HEADER, rows=_labelled(data), caption=f"From the folds to the models: {title}"))
    words = (
        "A dash marks what is not stored: patients are known of stored recordings alone. In folds they are counted as "
        "groups that are never divided: one person, or several whose recordings are copies of each other."
    )
    return Section("Flow of recordings", [*blocks, Paragraph(words)])


def _stored(dataset: Dataset, *, named: bool) -> list[Row]:
    """Returns the rows of one data set, from its archive to what is stored."""
    card, summary = dataset.card, dataset.card["summary"]
    of = f" of {card['name']}" if named else ""
    records_in = int(summary["records_in"])
    recordings_in = int(summary.get("recordings_in", records_in))
    quarantined = {str(reason): int(count) for reason, count in summary["quarantined"].items()}
    rows = [(f"recordings in the archive{of}", f"{recordings_in:,}", _UNKNOWN)]
    if recordings_in != records_in:
        rows.append((f"records cut from them{of}", f"{records_in:,}", _UNKNOWN))
    rows += [(f"quarantined{of}: {reason}", f"{count:,}", _UNKNOWN) for reason, count in quarantined.items()]
    rows += [] if quarantined else [(f"quarantined{of}", "0", _UNKNOWN)]
    if other := records_in - sum(quarantined.values()) - int(card["num_records"]):
        rows.append((f"not stored for other reasons{of}", f"{other:,}", _UNKNOWN))
    return [*rows, (f"stored{of}", f"{card['num_records']:,}", f"{card['num_patients']:,}")]


def _left_out(recordings: Recordings) -> list[Row]:
    """Returns the rows of records that are left out of the splits, in the order in which it is decided."""
    found, order = recordings.split.excluded, list(_LEFT_OUT)
    reasons = sorted(found, key=lambda reason: order.index(reason) if reason in order else len(order))
    return [
        (_LEFT_OUT.get(reason, f"left out: {reason.replace('_', ' ')}"), f"{found[reason]:,}", _UNKNOWN)
        for reason in reasons
        if found[reason]
    ]


def _patients(recordings: Recordings, records: np.ndarray) -> str:
    return f"{len(np.unique(np.asarray(recordings.index.group[records]))):,}"


def _labelled(data: ProbeData) -> list[Row]:
    """Returns the rows of one question, from the folds to what models are trained with, chosen by and tested on."""
    rows: list[Row] = []
    sides = {"training": data.train_available, "validation": data.val, "test": data.test}
    for words, part in sides.items():
        rows.append((f"{words}, without a label", f"{part.unlabelled:,}", _UNKNOWN))
        rows.append((f"{words}, with a label", *_counts(part)))
        if words == "training" and data.label_fraction != 1:
            rows.append((f"training, drawn ({percent(data.label_fraction)} of the patients)", *_counts(data.train)))
    return rows


def _counts(part: LabelledRecords) -> tuple[str, str]:
    return f"{len(part.records):,}", f"{part.num_patients:,}"
