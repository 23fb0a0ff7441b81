"""Inputs of the models of an experiment: embeddings, scores of a network, and measurements of the same records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from data_pipelines.physiology.median_beat import NAMES as MEASUREMENTS
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.evaluation.features.features import Read, SplitFeatures, interval_features, map_records, split_features
from ecgjax.evaluation.features.measurements import demographic_features, median_beat_features

#: Number of records that are embedded or scored at a time.
_BATCH = 256


class FrozenEncoder(Protocol):
    """An encoder in inference mode."""

    def embed(self, signals: np.ndarray) -> np.ndarray:
        """Returns `f32[n, d]` for `int16[n, time, lead]`, row by row."""


class Classifier(Protocol):
    """A network trained on labels.

    Attributes:
        selected: Description of the criterion that its step was chosen by.
    """

    selected: str

    def scores(self, signals: np.ndarray) -> np.ndarray:
        """Returns `f32[n]`, larger for the positive class, or `f32[n, classes]`, for `int16[n, time, lead]`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainFeatures:
    """Features that need no network.

    Attributes:
        intervals: Intervals and amplitudes that a cardiologist would measure, with the columns `median_beat.NAMES`.
        median_beat: Samples of the median beat, lead beside lead, and in the last column the RR interval.
        demographics: Columns of age in years and of sex; one that the task asks for is left out.
        demographics_name: Names of the columns that are there, in words, such as `"age and sex"`.
        failures: Number of records by the reason why intervals or amplitudes are missing.
    """

    intervals: SplitFeatures
    median_beat: SplitFeatures
    demographics: SplitFeatures
    demographics_name: str
    failures: Mapping[str, int]


def embedded(
    encoders: Mapping[str, FrozenEncoder], data: ProbeData, *, read: Read, progress: bool
) -> dict[str, SplitFeatures]:
    """Embeds the labelled records by every encoder.

    Args:
        encoders: Encoders by name.
        data: Labelled records.
        read: Function that reads stored signals.
        progress: Whether progress bars are drawn.
    """
    return {
        name: split_features(
            encoder.embed, data, read=read, batch_size=_BATCH, title=f"embeddings, {name}", progress=progress
        )
        for name, encoder in encoders.items()
    }


def supervised_scores(
    train_supervised: Callable[..., Classifier], data: ProbeData, *, read: Read, seed: int, progress: bool
) -> tuple[np.ndarray, np.ndarray, str]:
    """Trains a network with the labels alone.

    Args:
        train_supervised: Function that trains a network and takes by name `read`, `seed`, the records, labels and
            patients of train, and the records and labels of validation, to select a step on.
        data: Labelled records.
        read: Function that reads stored signals.
        seed: Seed of the training.
        progress: Whether progress bars are drawn.

    Returns:
        Scores of the validation records and of the test records, `f64[n]` or `f64[n, classes]`, and the description of
        the criterion that the network's step was selected by.
    """
    network = train_supervised(
        read=read,
        train_records=data.train.records,
        train_labels=data.train.labels,
        train_patients=data.train.patients,
        val_records=data.val.records,
        val_labels=data.val.labels,
        seed=seed,
    )

    def scores(part: LabelledRecords, name: str) -> np.ndarray:
        title = f"scores, labels only, {name}"
        found = map_records(network.scores, part.records, read=read, batch_size=_BATCH, title=title, progress=progress)
        return np.asarray(found, np.float64)

    return scores(data.val, "validation"), scores(data.test, "test"), network.selected


def plain_features(
    data: ProbeData, *, read: Read, sampling_rate_hz: int, demographics: np.ndarray, progress: bool
) -> PlainFeatures:
    """Measures the labelled records.

    Args:
        data: Labelled records.
        read: Function that reads stored signals.
        sampling_rate_hz: Sampling rate of the signals in Hz.
        demographics: Age in years and sex (1 female, 0 male) of all records of the data set, `f32[records, 2]`, NaN
            where unknown.
        progress: Whether progress bars are drawn.
    """
    intervals, beats, failures = interval_features(
        data, read=read, sampling_rate_hz=sampling_rate_hz, progress=progress
    )
    parts = {"train": data.train, "val": data.val, "test": data.test}
    of_patients = SplitFeatures(**{name: demographics[part.records] for name, part in parts.items()})
    known, name = demographic_features(of_patients, data.task)
    return PlainFeatures(
        intervals=intervals,
        median_beat=median_beat_features(beats, intervals, rr_column=MEASUREMENTS.index("rr")),
        demographics=known,
        demographics_name=name,
        failures=failures,
    )
