"""Linear probes for several tasks on one frozen encoder; every record is embedded only once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.features import map_records
from ecgjax.evaluation.models.linear import fit_linear
from ecgjax.studies.ablation_statistics import TaskScores

#: Number of records that are embedded at a time.
_BATCH = 256


def probe_tasks(
    encoder: frozen_encoder.Encoder,
    recordings: Recordings,
    tasks: Mapping[str, ProbeData],
    *,
    seed: int,
    title: str,
    progress: bool = True,
) -> dict[str, TaskScores]:
    """Fits a linear probe for each task, selects it on validation, and scores the test records.

    Args:
        encoder: Pretrained or random encoder; its batch norm is recalibrated on unaugmented training records.
        recordings: Recordings that the tasks are about.
        tasks: Labelled records of each task, by the task's name.
        seed: Seed of the draw of records that batch norm is recalibrated on.
        title: Title of the progress bar.
        progress: Whether a progress bar is drawn.

    Returns:
        Result of each task's probe, by the task's name.

    Raises:
        DataError: The labels of a task do not allow a probe.
    """
    read = recordings.store.read
    encoder = frozen_encoder.recalibrate_batch_norm(encoder, read, records=recordings.split.train, seed=seed)
    parts = [part.records for data in tasks.values() for part in (data.train, data.val, data.test)]
    records = np.unique(np.concatenate(parts))
    embeddings = map_records(encoder.embed, records, read=read, batch_size=_BATCH, title=title, progress=progress)

    def of(numbers: np.ndarray) -> np.ndarray:
        return embeddings[np.searchsorted(records, numbers)]

    found = {}
    for name, data in tasks.items():
        kind = data.task.kind
        probe = fit_linear(
            kind,
            of(data.train.records),
            data.train.labels,
            val_features=of(data.val.records),
            val_targets=data.val.labels,
            classes=data.classes,
        )
        found[name] = TaskScores(
            records=len(data.train.records),
            positives=None if kind == "quantity" else int(np.max(data.train.labels.sum(axis=0))),
            val_metric=probe.val_metric,
            selected=probe.selected,
            scores=np.asarray(probe.predict(of(data.test.records)), np.float32),
        )
    return found
