"""Report section with test records and their nearest neighbours drawn as ECGs: what an encoder takes to be similar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipelines.paper.draw import MM_PER_MILLIVOLT, MM_PER_SECOND, draw_ecg
from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import BinaryTask, Kind
from ecgjax.evaluation.metrics.retrieval import nearest_records
from ecgjax.pages.page import Block, Paragraph, Picture, Section

#: Number of neighbours that are drawn for each query record.
NEIGHBOURS = 3

#: Fraction of true size at which ECGs are shown; two then fit side by side on a screen.
_SCALE = 0.5
_PIXELS_PER_MM = 4


def neighbour_section(recordings: Recordings, data: ProbeData, embeddings: np.ndarray, *, seed: int) -> Section:
    """Draws two test records, chosen at random, and the test records nearest to each.

    For a binary task these are a positive and a negative record, and for a quantity one record each from the highest
    and the lowest tenth of the values. For a multi-label task the first has at least one of the classes, if
    any record has one.

    Args:
        recordings: Recordings that the records belong to.
        data: Labelled records of the task.
        embeddings: Embeddings of the test records by the pretrained encoder, `[test records, dim]`.
        seed: Seed of the choice.

    Raises:
        DataError: An embedding is not finite, or zero.
    """
    test, generator = data.test, np.random.default_rng(seed)
    queries = {name: int(generator.choice(rows)) for name, rows in _asked(data) if len(rows)}
    found = nearest_records(
        embeddings, queries=np.array(list(queries.values()), np.int64), apart=test.patients, k=NEIGHBOURS
    )
    describe = _Describer(recordings, data)
    blocks: list[Block] = [
        Paragraph(
            f"Shown are {_WHICH[data.task.kind]}, drawn at random with seed {seed}. Each is followed by the test "
            "records of other patients that are nearest to it by the cosine of the pretrained encoder's embeddings. "
            f"The paper has {MM_PER_SECOND:g} mm/s and {MM_PER_MILLIVOLT:g} mm/mV and is shown at {_SCALE:.0%} of its "
            "size: a large box is .2 s wide and .5 mV high."
        )
    ]
    for (name, query), (rows, cosines) in zip(queries.items(), found, strict=True):
        blocks.append(Paragraph(f"{name} and its {len(rows)} nearest neighbours:"))
        blocks.append(_picture(recordings, int(test.records[query]), "Query", describe(query)))
        for rank, (row, cosine) in enumerate(zip(rows, cosines, strict=True), start=1):
            says = f"Neighbour {rank}, cosine {cosine:.3f}"
            blocks.append(_picture(recordings, int(test.records[row]), says, describe(int(row))))
    return Section("ECGs of nearest neighbours", blocks)


_WHICH: Mapping[Kind, str] = {
    "binary": "a positive and a negative test record",
    "quantity": "a test record from the highest and one from the lowest tenth of the values",
    "multilabel": "two test records, the first with at least one of the classes if there is such a record",
}


def _asked(data: ProbeData) -> list[tuple[str, np.ndarray]]:
    """Returns a description of each query record, and the rows that it is drawn from."""
    labels = data.test.labels
    if data.task.kind == "binary":
        return [(f"A {name} record", np.flatnonzero(labels == label)) for name, label in _ANSWERS]
    if data.task.kind == "quantity":
        low, high = np.quantile(labels, (0.1, 0.9))
        return [
            ("A record from the highest tenth", np.flatnonzero(labels >= high)),
            ("A record from the lowest tenth", np.flatnonzero(labels <= low)),
        ]
    return [
        ("A record with at least one class", np.flatnonzero(labels.any(axis=1))),
        ("Any record", np.arange(len(labels))),
    ]


_ANSWERS = (("positive", 1), ("negative", 0))


class _Describer:
    """Describes a test record by its label, and by the patient's age and sex.

    Patients are not named, because reports are passed on.
    """

    def __init__(self, recordings: Recordings, data: ProbeData):
        self._index, self._test, self._task, self._classes = recordings.index, data.test, data.task, data.classes
        names = {"age_years", "sex"}
        if isinstance(data.task, BinaryTask) and data.task.rule != "present":
            names.add(data.task.label)
        self._values = {name: self._index.label(name) for name in names}

    def __call__(self, row: int) -> str:
        record = int(self._test.records[row])
        values: dict[str, Any] = {name: float(column[record]) for name, column in self._values.items()}
        age, sex = values.pop("age_years"), values.pop("sex")
        parts = [self._answer(self._test.labels[row])]
        parts += [f"{name} {value:.4g}" for name, value in values.items()]
        parts.append("age unknown" if math.isnan(age) else f"{age:.0f} years")
        parts.append({0.0: "male", 1.0: "female"}.get(sex, "sex unknown"))
        return f"record {self._index.record_id[record]} ({', '.join(parts)})"

    def _answer(self, label: Any) -> str:
        if self._task.kind == "quantity":
            return f"{self._task.title} {label:.4g}"
        if self._task.kind == "multilabel":
            found = [name for name, positive in zip(self._classes, label, strict=True) if positive]
            return f"classes: {' and '.join(found) or 'none'}"
        return f"{self._task.title}: {'yes' if label else 'no'}"


def _picture(recordings: Recordings, record: int, rank: str, description: str) -> Picture:
    index = recordings.index
    figure = draw_ecg(
        recordings.store.read(np.array([record]))[0],
        sampling_rate_hz=recordings.format.sampling_rate_hz,
        title=[f"{rank}: record {index.record_id[record]}"],
        valid_start=int(index.valid_start[record]),
        valid_samples=int(index.valid_samples[record]),
        simulated=recordings.simulated,
        pixels_per_mm=_PIXELS_PER_MM,
    )
    return Picture(
        figure=figure,
        alt=f"Twelve-lead ECG of {description}.",
        caption=f"{rank}: {description}.",
        vector=False,
        dpi=figure.dpi,
        scale=_SCALE,
    )
