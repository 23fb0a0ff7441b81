"""Sections of a report on the training of a run: its curve, and the augmented views of a few records."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ecgjax.augmentations.geodesic import towards_others
from ecgjax.augmentations.partners import preview_partners
from ecgjax.augmentations.views import Recorded, Views
from ecgjax.data.recordings import Recordings
from ecgjax.data.row_metadata import label_column
from ecgjax.defaults import RunSettings
from ecgjax.keys import row_keys
from ecgjax.leads import prepare
from ecgjax.pages.page import Picture, Section
from ecgjax.studies.report.figures import augmented_views, metric_series, training_curve
from ecgjax.training.run_log.metrics_file import read_metrics

#: Number of records whose augmented views are drawn.
_PREVIEWED = 2


def curve_sections(workdir: Path) -> list[Section]:
    """Returns a list with the section on a run's training curve; empty where the run has no metrics.

    Args:
        workdir: Folder of the run.
    """
    metrics = metric_series(read_metrics(workdir))
    if not metrics:
        return []
    alt = "Loss of training and validation, and similarities of the pairs of a batch, over the steps of the training."
    return [Section("Training curve", [Picture(figure=training_curve(metrics), alt=alt)])]


def views_section(settings: RunSettings, recordings: Recordings, *, anonymous: bool = False) -> Section:
    """Returns the section with a few training records and the views that a pretraining draws of them.

    Args:
        settings: Settings of the run.
        recordings: Recordings of the evaluation.
        anonymous: Whether records are shown without their ids.
    """
    train = recordings.split.train
    records = train[:: max(1, len(train) // _PREVIEWED)][:_PREVIEWED]
    signals, recorded = _stored(recordings, records)
    keys = row_keys(settings.seed, 0, jnp.arange(len(records), dtype=jnp.int32), stream="views")
    rate_hz = recordings.format.sampling_rate_hz
    views = Views(settings.augment, num_views=settings.views.num, rate_hz=rate_hz)
    moved = views.moves_between_recordings
    towards = _towards(settings.columns.task, recordings, records) if moved else None
    augmented = np.asarray(views(keys, signals, recorded=recorded, towards=towards))
    drawn = [(f"view {number + 1}", augmented[:, number]) for number in range(augmented.shape[1])]
    original, pictures = np.asarray(prepare(signals, num_leads=12)), []
    for row, record in enumerate(records):
        title = f"number {row + 1} here" if anonymous else str(recordings.index.record_id[record])
        here = [(name, each[row : row + 1]) for name, each in drawn]
        figure = augmented_views(original[row : row + 1], here, sampling_rate_hz=rate_hz, titles=[title])
        alt = f"Twelve leads of training record {title} as recorded, and of each of its augmented views beside it."
        caption = f"Training record {title} and its augmented views."
        pictures.append(Picture(figure=figure, alt=alt, caption=caption, vector=False, dpi=96))
    return Section("Augmented views", pictures)


def _towards(question: str, recordings: Recordings, records: np.ndarray) -> jax.Array:
    """Returns, for each recording, a training recording of the other label, of which augmentation mixes in a part.

    Args:
        question: Task whose label is meant.
        recordings: Recordings of the evaluation.
        records: Record numbers, `int64[n]`.
    """
    others = preview_partners(label_column(question, recordings), records, among=recordings.split.train)
    (signal, recorded), (signals, others_recorded) = (_stored(recordings, numbers) for numbers in (records, others))
    rate_hz = recordings.format.sampling_rate_hz
    return towards_others(signal, signals, recorded=recorded, others_recorded=others_recorded, rate_hz=rate_hz)


def _stored(recordings: Recordings, records: np.ndarray) -> tuple[jax.Array, Recorded]:
    columns = (recordings.index.valid_start, recordings.index.valid_samples)
    recorded = Recorded(*(jnp.asarray(column[records]) for column in columns))
    return jnp.asarray(recordings.store.read(records)), recorded
