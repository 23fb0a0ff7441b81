"""Report section that draws test records and their nearest neighbours in the embedding space as ECGs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.paper.draw import MM_PER_MILLIVOLT, MM_PER_SECOND, draw_ecg
from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings, unit_of
from ecgjax.data.tasks import BinaryTask
from ecgjax.evaluation.metrics.retrieval import nearest_records
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.pages.digits import with_unit
from ecgjax.pages.page import Block, Paragraph, Picture, Section

#: Number of neighbours that are drawn for each query record.
NEIGHBOURS = 3

#: Resolution of ECGs that are too large for lines: an enlarged one is still sharp enough to measure.
_PIXELS_PER_MM = 6


def neighbour_section(
    recordings: Recordings, data: ProbeData, embeddings: np.ndarray, *, seed: int, anonymous: bool = False
) -> Section:
    """Returns a section with two test records, chosen at random, and the test records nearest to each.

    The kind of the task decides which records are chosen, such as a positive and a negative one.

    Args:
        recordings: Recordings that the records belong to.
        data: Labelled records of the task.
        embeddings: Embeddings of the test records by the pretrained encoder, `[test records, dim]`.
        seed: Seed of the choice.
        anonymous: Whether records are shown without their ids.

    Raises:
        DataError: An embedding is not finite, or zero.
    """
    test, generator = data.test, np.random.default_rng(seed)
    which, examples = kind_of(data.task).examples(data)
    queries = {name: int(generator.choice(rows)) for name, rows in examples if len(rows)}
    found = nearest_records(
        embeddings, queries=np.array(list(queries.values()), np.int64), apart=test.patients, k=NEIGHBOURS
    )
    describe = _describer(recordings, data, anonymous=anonymous)
    blocks: list[Block] = [
        Paragraph(
            f"Shown are {which}, drawn at random with seed {seed}. Each is followed by the test "
            "records of other patients that are nearest to it by the cosine of the pretrained encoder's embeddings. "
            f"The paper has {MM_PER_SECOND:g} mm/s and {MM_PER_MILLIVOLT:g} mm/mV and is shown true to scale: a large "
            "box of 5 mm is 0.2 s wide and 0.5 mV high. A click, or Enter on the selected picture, enlarges it."
        )
    ]
    for (name, query), (rows, cosines) in zip(queries.items(), found, strict=True):
        blocks.append(Paragraph(f"{name} and its {len(rows)} nearest neighbours:"))
        draw = functools.partial(_picture, recordings, anonymous=anonymous)
        blocks.append(draw(int(test.records[query]), "Query", describe(query)))
        for rank, (row, cosine) in enumerate(zip(rows, cosines, strict=True), start=1):
            says = f"Neighbour {rank}, cosine {cosine:.3f}"
            blocks.append(draw(int(test.records[row]), says, describe(int(row))))
    return Section("ECGs of nearest neighbours", blocks)


def _describer(recordings: Recordings, data: ProbeData, *, anonymous: bool) -> Callable[[int], str]:
    """Returns a function of a test record's row that describes the record by its id, label, age and sex.

    Patient ids are not shown, because reports are passed on.
    """
    index, task, names = recordings.index, data.task, {"age_years", "sex"}
    if isinstance(task, BinaryTask) and task.rule != "present":
        names.add(task.label)
    columns = {name: index.label(name) for name in names}

    def describe(row: int) -> str:
        record = int(data.test.records[row])
        values: dict[str, Any] = {name: float(column[record]) for name, column in columns.items()}
        age, sex = values.pop("age_years"), values.pop("sex")
        parts = [kind_of(task).answer_text(task, data.test.labels[row], classes=data.classes)]
        parts += [f"{name} {with_unit(value, unit_of(name, recordings))}" for name, value in values.items()]
        parts.append("age unknown" if math.isnan(age) else f"{age:.0f} years")
        parts.append({0.0: "male", 1.0: "female"}.get(sex, "sex unknown"))
        return f"{_name(recordings, record, anonymous=anonymous)} ({', '.join(parts)})"

    return describe


def _name(recordings: Recordings, record: int, *, anonymous: bool) -> str:
    return "a record" if anonymous else f"record {recordings.index.record_id[record]}"


def _picture(recordings: Recordings, record: int, rank: str, description: str, *, anonymous: bool) -> Picture:
    index = recordings.index
    figure = draw_ecg(
        recordings.store.read(np.array([record]))[0],
        sampling_rate_hz=recordings.format.sampling_rate_hz,
        title=[f"{rank}: {_name(recordings, record, anonymous=anonymous)}"],
        valid_start=int(index.valid_start[record]),
        valid_samples=int(index.valid_samples[record]),
        simulated=recordings.simulated,
        pixels_per_mm=_PIXELS_PER_MM,
    )
    alt, caption = f"Twelve-lead ECG of {description}.", f"{rank}: {description}."
    return Picture(figure=figure, alt=alt, caption=caption, dpi=figure.dpi, to_scale=True)
