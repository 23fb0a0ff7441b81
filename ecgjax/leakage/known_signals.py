"""Signals of records that an encoder was pretrained on, read from those of their data sets that can still be opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.duplicates.signature import band_of
from data_pipelines.errors import DataError
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.storage.store import Store, open_store
from ecgjax.data.recordings import Recordings
from ecgjax.leakage.trained_on import PretrainingRecords, Source


class KnownSignals:
    """Reads the bands (signals between 3 and 20 Hz) of pretraining records from the data sets that could be opened.

    The argument `places` of all methods holds indices into the list of pretraining records, `int64[n]`.

    Args:
        trained_on: List of the encoder's pretraining records.
        datasets: Data sets by fingerprint, from `reachable`.
    """

    def __init__(self, trained_on: PretrainingRecords, datasets: Mapping[str, Dataset]):
        self._trained_on, self._datasets = trained_on, datasets
        self._stores: dict[str, Store] = {}

    def here(self, places: np.ndarray) -> np.ndarray:
        """Returns whether the data set of each pretraining record could be opened, `bool[n]`."""
        there = np.array([each.fingerprint in self._datasets for each in self._trained_on.sources])
        return there[self._source(places)]

    def names(self, places: np.ndarray) -> list[str]:
        """Returns the names of the data sets that the pretraining records belong to, each once."""
        return list(dict.fromkeys(self._trained_on.sources[which].name for which in self._source(places)))

    def bands(self, places: np.ndarray) -> list[np.ndarray]:
        """Returns the band of each pretraining record, `f32[8, samples]`, as `signature.band_of` computes it."""
        # Signals are read data set by data set, and each is put where it was asked for.
        bands: list[np.ndarray] = [np.empty(0)] * len(places)
        of_source = self._source(places)
        for which in np.unique(of_source):
            source, at = self._trained_on.sources[which], np.flatnonzero(of_source == which)
            dataset, records = self._datasets[source.fingerprint], self._trained_on.number[places[at]]
            for place, band in zip(at.tolist(), bands_of(self._store(source), dataset, records), strict=True):
                bands[place] = band
        return bands

    def _source(self, places: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._trained_on.starts, places, side="right") - 1

    def _store(self, source: Source) -> Store:
        if source.fingerprint not in self._stores:
            self._stores[source.fingerprint] = open_store(self._datasets[source.fingerprint].directory)
        return self._stores[source.fingerprint]


def reachable(trained_on: PretrainingRecords, recordings: Recordings, directories: Sequence[str]) -> dict[str, Dataset]:
    """Returns, by fingerprint, the data sets that were trained on and can be opened.

    Args:
        trained_on: List of the encoder's pretraining records.
        recordings: Recordings of the evaluation, whose data sets may be among them.
        directories: Folders in which other data sets may lie; those that no longer exist are skipped.
    """
    wanted = {source.fingerprint for source in trained_on.sources}
    found = {dataset.fingerprint: dataset for dataset in recordings.datasets}
    for directory in directories:
        try:
            dataset = open_dataset(dataset_folder(directory))
        except DataError:
            continue  # It was moved or removed since; cautions tell that its signals were not compared.
        found.setdefault(dataset.fingerprint, dataset)
    return {fingerprint: dataset for fingerprint, dataset in found.items() if fingerprint in wanted}


def bands_of(store: Store, of: Dataset | Recordings, records: np.ndarray) -> list[np.ndarray]:
    """Returns the band of each record, `f32[8, samples]`, as `signature.band_of` computes it from the recorded samples.

    Args:
        store: Store that holds the signals.
        of: Data set or recordings that the records belong to.
        records: Numbers of the records, `int64[n]`.
    """
    rate_hz, valid_start, valid_samples = of.format.sampling_rate_hz, of.index.valid_start, of.index.valid_samples
    return [
        band_of(signal, sampling_rate_hz=rate_hz, valid_start=int(start), valid_samples=int(count))
        for signal, start, count in zip(store.read(records), valid_start[records], valid_samples[records], strict=True)
    ]
