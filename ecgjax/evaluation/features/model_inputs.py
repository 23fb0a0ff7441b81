"""What the models of an experiment look at: the same records through encoders, a network, and what can be measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from data_pipelines.physiology.median_beat import NAMES as MEASUREMENTS
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.evaluation.features.features import Read, SplitFeatures, interval_features, map_records, split_features
from ecgjax.evaluation.features.measurements import demographic_features, median_beat_features

#: Records embedded or scored at a time.
_BATCH = 256


class FrozenEncoder(Protocol):
    """An encoder in inference mode."""

    def embed(self, signals: np.ndarray) -> np.ndarray:
        """Returns `f32[n, d]` for `int16[n, time, lead]`, row by row."""


class Classifier(Protocol):
    """A network trained on labels.

    Attributes:
        selected: what its step was chosen by, in words.
    """

    selected: str

    def scores(self, signals: np.ndarray) -> np.ndarray:
        """Returns `f32[n]`, larger for the positive class, or `f32[n, classes]`, for `int16[n, time, lead]`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainFeatures:
    """What needs no network.

    Attributes:
        intervals: what a cardiologist would measure.
        median_beat: the median beat, and the heart rate.
        demographics: age in years and sex, `f32[n, 2]`, or the one of them that is not asked for.
        demographics_name: what these are.
        failures: records by reason why intervals or amplitudes are missing.
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
        encoders: by name.
        data: the labelled records.
        read: reads stored signals.
        progress: whether to say what is going on.
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
        train_supervised: takes `read`, the arrays of training records and of validation records to select on, and
            `seed`, all by name.
        data: the labelled records.
        read: reads stored signals.
        seed: of the training.
        progress: whether to say what is going on.

    Returns:
        Scores of the validation and of the test records, `f64[n]` or `f64[n, classes]`; and what it was selected by,
        in words.
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
        data: the labelled records.
        read: reads stored signals.
        sampling_rate_hz: of the signals.
        demographics: age in years and sex (1 female, 0 male) of all records of the data set, `f32[records, 2]`, NaN
            where unknown.
        progress: whether to say what is going on.
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
