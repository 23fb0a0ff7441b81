"""Models without an encoder, for the cells of a study: age and sex, measurements, the median beat."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.pipeline import Pipeline

from data_pipelines.physiology.median_beat import NAMES
from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import Task
from ecgjax.evaluation.features.cache import kept_measurements
from ecgjax.evaluation.features.features import SplitFeatures, interval_preprocessor, preprocessed
from ecgjax.evaluation.features.measurements import demographic_columns, median_beat_preprocessor
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.evaluation.models.linear import FrozenProbe, fit_linear

Plain = Literal["age_sex", "intervals", "median_beat"]

#: Names of the models, in the order of tables.
PLAIN: tuple[Plain, ...] = ("age_sex", "intervals", "median_beat")


class PlainModels:
    """Fits the models and applies them; the records are measured once, when a model first needs it.

    Args:
        recordings: Recordings of the study.
        records: Numbers of all labelled records, `int64[n]`.
        task: Task of the models.
        folder: Folder of the kept measurements.
        progress: Whether progress bars are drawn.
    """

    def __init__(self, recordings: Recordings, records: np.ndarray, *, task: Task, folder: Path, progress: bool = True):
        self._recordings, self._records, self._task = recordings, records, task
        self._folder, self._progress = folder, progress

    def scores(
        self, name: Plain, data: ProbeData, *, train: np.ndarray, val: np.ndarray, test: np.ndarray, seed: int
    ) -> tuple[FrozenProbe, np.ndarray]:
        """Fits a model on training records, with hyperparameters chosen on validation, and scores test records.

        Args:
            name: Name of the model, `"age_sex"`, `"intervals"` or `"median_beat"`.
            data: Labelled records.
            train: Places of the training records among all labelled records, `int64[...]`.
            val: Places of the validation records among all labelled records, `int64[...]`.
            test: Places of the test records among all labelled records, `int64[...]`.
            seed: Seed of the trees.

        Raises:
            DataError: The labels give no model, or the measurements' file is damaged.
        """
        if name == "intervals":
            measured, _ = self._measured
            probe = fit_boosted(
                data.task.kind,
                measured[train],
                data.train.labels,
                val_features=measured[val],
                val_targets=data.val.labels,
                classes=data.classes,
                seed=seed,
            )
            return probe, probe.predict(measured[test])
        known: np.ndarray
        preprocessor: Pipeline
        if name == "age_sex":
            known, preprocessor = self._demographics, interval_preprocessor()
        else:
            known, preprocessor = self._median_beats, median_beat_preprocessor(train_records=len(train))
        values = preprocessed(SplitFeatures(train=known[train], val=known[val], test=known[test]), preprocessor)
        probe = fit_linear(
            data.task.kind,
            values.train,
            data.train.labels,
            val_features=values.val,
            val_targets=data.val.labels,
            classes=data.classes,
        )
        return probe, probe.predict(values.test)

    @functools.cached_property
    def _measured(self) -> tuple[np.ndarray, np.ndarray]:
        return kept_measurements(
            self._folder,
            self._records,
            read=self._recordings.store.read,
            datasets=self._recordings.fingerprints,
            sampling_rate_hz=self._recordings.format.sampling_rate_hz,
            progress=self._progress,
        )

    @functools.cached_property
    def _median_beats(self) -> np.ndarray:
        values, beats = self._measured
        return np.c_[beats, values[:, NAMES.index("rr")]]

    @functools.cached_property
    def _demographics(self) -> np.ndarray:
        columns = [column for column, _ in demographic_columns(self._task)]
        return np.stack([self._recordings.index.label(column)[self._records] for column in columns], axis=1)
