"""Features of the probe's records: embeddings of a frozen encoder, or measured intervals and amplitudes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from data_pipelines.physiology.median_beat import measure
from ecgjax.data.labels import ProbeData

#: Reads stored signals: record numbers `int64[n]` → `int16[n, time, lead]`.
Read = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitFeatures:
    """Features of the labelled records of each split, `[records, features]`, in the order of `ProbeData`."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def map_records(
    function: Callable[[np.ndarray], np.ndarray],
    records: np.ndarray,
    *,
    read: Read,
    batch_size: int,
    title: str,
    progress: bool = True,
) -> np.ndarray:
    """Applies a function to the signals of many records, a batch at a time.

    Every batch has the same size, so that a compiled function compiles once; the last is filled up with its own last
    record.

    Args:
        function: Function that maps `int16[batch, time, lead]` to `[batch, ...]`, row by row.
        records: Record numbers, `int64[n]`.
        read: Function that reads stored signals.
        batch_size: Number of records in a batch.
        title: Title of the progress bar.
        progress: Whether a progress bar is drawn on a terminal.

    Returns:
        Results in the order of the records, `[n, ...]`.
    """
    results = []
    with tqdm(total=len(records), desc=title, unit="ECG", disable=None if progress else True) as bar:
        for start in range(0, len(records), batch_size):
            batch = records[start : start + batch_size]
            filled = np.pad(batch, (0, batch_size - len(batch)), mode="edge")
            results.append(np.asarray(function(read(filled)))[: len(batch)])
            bar.update(len(batch))
    return np.concatenate(results)


def split_features(
    function: Callable[[np.ndarray], np.ndarray],
    data: ProbeData,
    *,
    read: Read,
    batch_size: int,
    title: str,
    progress: bool = True,
) -> SplitFeatures:
    """Applies a function, such as an encoder's `embed`, to the labelled records of every split by `map_records`."""
    parts = (data.train, data.val, data.test)
    records = np.concatenate([part.records for part in parts])
    features = map_records(function, records, read=read, batch_size=batch_size, title=title, progress=progress)
    return _divide(features, data)


def interval_features(
    data: ProbeData, *, read: Read, sampling_rate_hz: int, progress: bool = True
) -> tuple[SplitFeatures, SplitFeatures, Mapping[str, int]]:
    """Measures intervals and amplitudes of the labelled records and computes their median beats.

    Args:
        data: Labelled records.
        read: Function that reads stored signals.
        sampling_rate_hz: Sampling rate of the signals in Hz.
        progress: Whether a progress bar is drawn on a terminal.

    Returns:
        The measurements (columns `median_beat.NAMES`); the median beats, `f32[records, samples, lead]`, NaN where a
        beat could not be computed; and the number of failed records by reason.
    """
    records = np.concatenate([part.records for part in (data.train, data.val, data.test)])
    found = measure(read(records), sampling_rate_hz=sampling_rate_hz, progress=progress)
    return _divide(found.values, data), _divide(found.median_beats, data), found.failures


def preprocessed(values: SplitFeatures, preprocessor: TransformerMixin) -> SplitFeatures:
    """Fits a preprocessor on the training records and applies it to all: each split becomes `f64[n, d]`."""
    train = preprocessor.fit_transform(np.asarray(values.train, np.float64))
    val, test = (preprocessor.transform(np.asarray(each, np.float64)) for each in (values.val, values.test))
    return SplitFeatures(train=train, val=val, test=test)


def interval_preprocessor() -> Pipeline:
    """Returns the baseline's preprocessor, which imputes training medians, marks what was missing, and scales."""
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )


def _divide(features: np.ndarray, data: ProbeData) -> SplitFeatures:
    train, val = len(data.train.records), len(data.val.records)
    return SplitFeatures(train=features[:train], val=features[train : train + val], test=features[train + val :])
