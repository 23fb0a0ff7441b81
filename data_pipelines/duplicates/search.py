"""Finds which records of one or several data sets are copies or belong together; `copies_of.py` keeps the result.

The search is a module of its own because it loads signal processing, which is not needed to open links.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from data_pipelines.duplicates.copies import Copy, Traces, find_suspects, verify_suspects
from data_pipelines.duplicates.near_duplicates import Match, candidates, verify
from data_pipelines.duplicates.signature import band_of
from data_pipelines.errors import DataError
from data_pipelines.prepared.copies_of import PAIR_FIELDS, LinkedDataset, Links
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.prepared.index import by_first_appearance, components
from data_pipelines.prepared.shared_contents import own_codes, shared_by_many
from data_pipelines.storage.store import Store, open_store


def link(
    datasets: Sequence[Dataset],
    *,
    patient_namespaces: Sequence[str] | None = None,
    stores: Sequence[Store] | None = None,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Links:
    """Finds exact and near-duplicates within and across data sets, and the groups that they and shared patients form.

    The result depends only on the records, not on the order in which they are stored.

    Args:
        datasets: Data sets to link; their rates and lengths may differ.
        patient_namespaces: Name of the patient numbering of each data set; equal names mean that the same numbers are
            the same patients. None if every data set has its own numbering.
        stores: Stores of the data sets; None to open them.
        progress: Function that is told the phase, how much of it is done, and its total.

    Raises:
        DataError: A data set is given twice, or the number of namespaces is wrong.

    Returns:
        The pairs of duplicates, and for every record its group (records that share a patient or a recording, directly
        or through others) and its copies.
    """
    namespaces = _namespaces(datasets, patient_namespaces)
    stores = [open_store(dataset.directory) for dataset in datasets] if stores is None else stores
    starts = np.concatenate([[0], np.cumsum([dataset.index.num_records for dataset in datasets])])
    first_of = _first_of_content(datasets, starts)
    exact = np.flatnonzero(first_of != np.arange(starts[-1]))
    unique = np.setdiff1d(np.arange(starts[-1]), exact)
    # The order is fixed by the contents, so that rounding cannot depend on where a record is stored. Records of equal
    # content count as one here.
    unique = unique[np.lexsort(_contents(datasets)[unique].T)]
    signatures = np.concatenate([np.asarray(dataset.index.signature) for dataset in datasets])[unique]
    done = 0

    def searched(rows: int) -> None:
        nonlocal done
        done += rows
        progress("searching", done, len(unique))

    found = candidates(signatures, progress=searched)
    read_bands = _Bands(datasets, stores, starts)
    rows = [
        (first_of[number], number, True, 1.0, 1.0, 0.0, 1.0, _seconds(datasets, starts, number), False)
        for number in exact.tolist()
    ]

    def row_of(one: int, two: int, match: Match, *, reordered: bool) -> tuple:
        ends = (unique[one], unique[two])
        match = match if ends[0] < ends[1] else match.turned()
        return (*sorted(ends), False, *dataclasses.astuple(match), reordered)

    compared = verify(found, lambda numbers: read_bands(unique[numbers]))
    for number, (one, two, match) in enumerate(compared, start=1):
        progress("comparing", number, len(found.first))
        if match.is_near_duplicate:
            rows.append(row_of(one, two, match, reordered=False))
    for copy in _reordered_copies(datasets, unique, read_bands):
        rows.append(row_of(copy.query, copy.known, copy.match, reordered=True))
    pairs = _pairs(rows, starts)
    edges = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
    copies = _components(edges, num_nodes=int(starts[-1]))
    patient = _patients(datasets, namespaces)
    group = _components(_by_common(_identifying(datasets, starts, copies), patient), num_nodes=int(starts[-1]))
    return Links(
        datasets=tuple(
            LinkedDataset(
                name=dataset.card["name"],
                directory=str(dataset.directory),
                fingerprint=dataset.fingerprint,
                patient_namespace=namespace,
                num_records=int(stop - start),
                group=group[start:stop],
                copy=copies[start:stop],
            )
            for dataset, namespace, start, stop in zip(datasets, namespaces, starts[:-1], starts[1:], strict=True)
        ),
        pairs=pairs,
        num_candidates=len(found.first),
        num_crowded=found.crowded,
    )


def _reordered_copies(datasets: Sequence[Dataset], unique: np.ndarray, read_bands: _Bands) -> Iterator[Copy]:
    """Yields the pairs of records that are copies with their leads in another order.

    Args:
        datasets: Data sets in joint order.
        unique: Joint numbers of records of different content, `int64[n]`; the numbers of a `Copy` are positions in it.
        read_bands: Reader of bands by joint number.
    """
    indexes = [dataset.index for dataset in datasets]
    if any(index.order_free_signature is None or index.envelope is None for index in indexes):
        return  # Data sets of earlier versions lack what such copies are found by.
    traces = Traces(
        signature=np.concatenate([np.asarray(index.order_free_signature) for index in indexes])[unique],
        envelope=np.concatenate([np.asarray(index.envelope) for index in indexes])[unique],
    )

    def read(numbers: np.ndarray) -> list[np.ndarray]:
        return read_bands(unique[numbers])

    suspects = find_suspects(traces, traces)
    once = suspects.query < suspects.known
    suspects = dataclasses.replace(
        suspects, **{name: getattr(suspects, name)[once] for name in ("query", "known", "lag_s", "sure")}
    )
    for copy in verify_suspects(suspects, read_queries=read, read_known=read):
        if copy.reordered:
            yield copy


class _Bands:
    """Reads the bands of records of several data sets by joint number: one data set's numbers follow another's."""

    def __init__(self, datasets: Sequence[Dataset], stores: Sequence[Store], starts: np.ndarray):
        self._datasets, self._stores, self._starts = datasets, stores, starts

    def __call__(self, numbers: np.ndarray) -> list[np.ndarray]:
        bands: dict[int, np.ndarray] = {}
        position = np.searchsorted(self._starts, numbers, side="right") - 1
        for which in np.unique(position):
            dataset, at = self._datasets[which], np.flatnonzero(position == which)
            records = numbers[at] - self._starts[which]
            for place, record, signal in zip(at.tolist(), records, self._stores[which].read(records), strict=True):
                bands[place] = band_of(
                    signal,
                    sampling_rate_hz=dataset.format.sampling_rate_hz,
                    valid_start=int(dataset.index.valid_start[record]),
                    valid_samples=int(dataset.index.valid_samples[record]),
                )
        return [bands[place] for place in range(len(numbers))]


def _namespaces(datasets: Sequence[Dataset], given: Sequence[str] | None) -> list[str]:
    seen: dict[str, Dataset] = {}
    for dataset in datasets:
        if dataset.fingerprint in seen:
            message = f"{dataset.directory}: the same data set as {seen[dataset.fingerprint].directory}; give one"
            raise DataError(message)
        seen[dataset.fingerprint] = dataset
    if given is None:
        return [f"{dataset.card['name']} {dataset.fingerprint}" for dataset in datasets]
    if len(given) != len(datasets):
        raise DataError(f"{len(given)} patient namespaces for {len(datasets)} data sets; give one for each, or none")
    return list(given)


def _contents(datasets: Sequence[Dataset]) -> np.ndarray:
    return np.concatenate([np.asarray(dataset.index.content_hash) for dataset in datasets])


def _first_of_content(datasets: Sequence[Dataset], starts: np.ndarray) -> np.ndarray:
    """Returns for every record the joint number of the first one with equal content, `int64[n]`.

    First is the record of the earliest data set, and of the smallest id within it.

    Args:
        datasets: Data sets in joint order.
        starts: Joint number of the first record of each data set, followed by their total, `int64[datasets + 1]`.
    """
    contents = _contents(datasets)
    order = np.concatenate(
        [start + np.argsort(dataset.index.record_id) for dataset, start in zip(datasets, starts[:-1], strict=True)]
    )
    words = np.ascontiguousarray(contents[order]).view(f"V{contents.shape[1]}").ravel()
    _, first, code = np.unique(words, return_index=True, return_inverse=True)
    first_of = np.empty(len(order), np.int64)
    first_of[order] = order[first[code]]
    return first_of


def _seconds(datasets: Sequence[Dataset], starts: np.ndarray, number: int) -> float:
    which = int(np.searchsorted(starts, number, side="right")) - 1
    dataset = datasets[which]
    return float(dataset.index.valid_samples[number - starts[which]] / dataset.format.sampling_rate_hz)


def _pairs(rows: list[tuple], starts: np.ndarray) -> np.ndarray:
    pairs = np.empty(len(rows), list(PAIR_FIELDS))
    numbers = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
    for column, side in enumerate(("first", "second")):
        which = np.searchsorted(starts, numbers[:, column], side="right") - 1
        pairs[f"{side}_dataset"], pairs[f"{side}_record"] = which, numbers[:, column] - starts[which]
    for column, (name, _) in enumerate(PAIR_FIELDS[4:], start=2):
        pairs[name] = [row[column] for row in rows]
    return np.sort(pairs, order=[name for name, _ in PAIR_FIELDS[:4]])


def _patients(datasets: Sequence[Dataset], namespaces: Sequence[str]) -> np.ndarray:
    patients = [
        (namespace, patient)
        for dataset, namespace in zip(datasets, namespaces, strict=True)
        for patient in dataset.index.patient_id.tolist()
    ]
    code = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return np.array([code[patient] for patient in patients], np.int64)


def _identifying(datasets: Sequence[Dataset], starts: np.ndarray, copy: np.ndarray) -> np.ndarray:
    """Returns for every record a code that equal copies share, `int64[n]`.

    A content that many patients of one data set share identifies nobody (`shared_contents.py`): each of its records has
    a code of its own.

    Args:
        datasets: Data sets in joint order.
        starts: Joint number of the first record of each data set.
        copy: Number of each record's set of copies, `int32[n]`.
    """
    many = np.zeros(int(copy.max()) + 1, bool)
    for dataset, start in zip(datasets, starts, strict=False):
        own = copy[start : start + dataset.index.num_records]
        many[own[shared_by_many(own, np.asarray(dataset.index.patient))]] = True
    return own_codes(copy, many[copy])


def _by_common(*labels: np.ndarray) -> np.ndarray:
    """Returns edges from every record to the first with the same label, for each kind of label: `int64[edges, 2]`."""
    edges = []
    for label in labels:
        _, first, code = np.unique(label, return_index=True, return_inverse=True)
        edges.append(np.stack([first[code], np.arange(len(label))], axis=1))
    return np.concatenate(edges)


def _components(edges: np.ndarray, *, num_nodes: int) -> np.ndarray:
    """Returns the connected component of every node, numbered by first appearance: `int32[nodes]`."""
    return by_first_appearance(components((edges[:, 0], edges[:, 1]), num_nodes=num_nodes))
