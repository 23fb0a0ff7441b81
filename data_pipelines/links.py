"""Which records of one or several data sets belong together: exact and near-duplicates, joint groups, joint splits.

Records are linked that share a patient, a content or a recording, directly or through others, within a data set and
across. A patient id means a person only within its data set, unless data sets are said to number the same patients.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse

from data_pipelines.dataset import Dataset
from data_pipelines.errors import DataError
from data_pipelines.records import SIGNATURE_VERSION
from data_pipelines.splitting import SIDES, Linked, Split, split_linked
from data_pipelines.store import Store, open_store

#: Version of the file; a reader refuses another one.
LINKS_VERSION = 1

# What zip archives and NumPy raise where a file is not what it was: a flipped bit can claim another version
# of the format (NotImplementedError) or encryption (RuntimeError).
_DAMAGE = (
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)

#: A pair of records that show one recording. `exact` pairs have equal stored signals.
PAIR_FIELDS = (
    ("first_dataset", "<i4"),
    ("first_record", "<i8"),
    ("second_dataset", "<i4"),
    ("second_record", "<i8"),
    ("exact", "|b1"),
    ("correlation", "<f4"),
    ("agreement", "<f4"),
    ("lag_s", "<f4"),
    ("gain", "<f4"),
    ("overlap_s", "<f4"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkedDataset:
    """One data set of a `Links`.

    Attributes:
        name: of the data set.
        directory: where it was when linked; for messages only.
        fingerprint: of the data set.
        patient_namespace: data sets with one namespace number the same patients.
        num_records: of the data set.
        group: `int32[n]`, joint group of every record; equal numbers in two data sets are one group.
        copy: `int32[n]`, joint number of the recording; records with equal numbers are duplicates of each other.
    """

    name: str
    directory: str
    fingerprint: str
    patient_namespace: str
    num_records: int
    group: np.ndarray
    copy: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Links:
    """What belongs together in some data sets.

    Attributes:
        datasets: in the order they were given.
        pairs: structured array of `PAIR_FIELDS`.
        num_candidates: pairs whose signals were compared.
        num_crowded: records that had too many candidates to look at all of them.
    """

    datasets: tuple[LinkedDataset, ...]
    pairs: np.ndarray
    num_candidates: int
    num_crowded: int

    def of(self, dataset: Dataset) -> Linked:
        """Returns the groups and copies of a data set's records.

        Raises:
            DataError: the data set was not linked, or has changed since.
        """
        for linked in self.datasets:
            if linked.fingerprint == dataset.fingerprint and linked.num_records == dataset.index.num_records:
                return Linked(group=linked.group, copy=linked.copy)
        known = ", ".join(f"{linked.name} ({linked.directory})" for linked in self.datasets)
        raise DataError(
            f"{dataset.directory}: these links were made for {known}, and not for this data set as it is now "
            f"(fingerprint {dataset.fingerprint}); run python -m data_pipelines.link again"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folds:
    """Folds of one data set on each side of a split; a data set may have none on a side.

    Attributes:
        train: to train on.
        val: to select on.
        test: to report on.
    """

    train: Iterable[int] = ()
    val: Iterable[int] = ()
    test: Iterable[int] = ()


def link(
    datasets: Sequence[Dataset],
    *,
    patient_namespaces: Sequence[str] | None = None,
    stores: Sequence[Store] | None = None,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Links:
    """Finds exact and near-duplicates within and across data sets, and what belongs together through them.

    The result depends on what the records are, not on the order in which they are stored.

    Args:
        datasets: to link; rates and lengths may differ.
        patient_namespaces: one for each data set; equal ones number the same patients. Without, every data set has
            its own.
        stores: of the data sets; without, they are opened.
        progress: told of the phase, what of it is done, and its total.

    Raises:
        DataError: a data set given twice, or a wrong number of namespaces.
    """
    namespaces = _namespaces(datasets, patient_namespaces)
    stores = [open_store(dataset.directory) for dataset in datasets] if stores is None else stores
    starts = np.concatenate([[0], np.cumsum([dataset.index.num_records for dataset in datasets])])
    first_of = _first_of_content(datasets)
    exact = np.flatnonzero(first_of != np.arange(starts[-1]))
    unique = np.setdiff1d(np.arange(starts[-1]), exact)
    # One fixed order, so that rounding cannot depend on where a record is stored; equal contents are one record here.
    unique = unique[np.lexsort(_contents(datasets)[unique].T)]
    signatures = np.concatenate([np.asarray(dataset.index.signature) for dataset in datasets])[unique]
    done = 0

    def searched(rows: int) -> None:
        nonlocal done
        done += rows
        progress("searching", done, len(unique))

    # Here, because it loads signal processing, which those that only open links should not wait for.
    from data_pipelines.near_duplicates import candidates, verify

    found = candidates(signatures, progress=searched)
    read_bands = _Bands(datasets, stores, starts)
    rows = [
        (first_of[number], number, True, 1.0, 1.0, 0.0, 1.0, _seconds(datasets, starts, number)) for number in exact
    ]
    compared = verify(found, lambda numbers: read_bands(unique[numbers]))
    for number, (one, two, match) in enumerate(compared, start=1):
        progress("comparing", number, len(found.first))
        if match.is_near_duplicate:
            ends, match = (unique[one], unique[two]), match if unique[one] < unique[two] else match.turned()
            rows.append((*sorted(ends), False, *dataclasses.astuple(match)))
    pairs = _pairs(rows, starts)
    edges = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
    copy = _components(edges, num_nodes=int(starts[-1]))
    patient = _patients(datasets, namespaces)
    group = _components(_by_common(copy, patient), num_nodes=int(starts[-1]))
    return Links(
        datasets=tuple(
            LinkedDataset(
                name=dataset.card["name"],
                directory=str(dataset.directory),
                fingerprint=dataset.fingerprint,
                patient_namespace=namespace,
                num_records=int(stop - start),
                group=group[start:stop],
                copy=copy[start:stop],
            )
            for dataset, namespace, start, stop in zip(datasets, namespaces, starts[:-1], starts[1:], strict=True)
        ),
        pairs=pairs,
        num_candidates=len(found.first),
        num_crowded=found.crowded,
    )


def joint_split(datasets: Sequence[Dataset], links: Links, folds: Sequence[Folds]) -> list[Split]:
    """Splits several data sets at once so that no group is on two sides of any of them.

    Args:
        datasets: each one that `links` was made for, or some of them.
        links: of the data sets.
        folds: for each data set.

    Returns:
        A split for each data set, as of `Index.split`: of duplicates on one side one stays, the first by data set and
        record id; a record whose group is judged later, in whichever data set, is left out.

    Raises:
        DataError: stale links, a fold on two sides, or one that no record has.
    """
    if len(datasets) != len(folds):
        raise DataError(f"{len(folds)} sets of folds for {len(datasets)} data sets; give one for each")
    sides = [{name: tuple(getattr(each, name)) for name in SIDES} for each in folds]
    for dataset, own in zip(datasets, sides, strict=True):
        dataset.index.check_folds(own)
    return split_linked(
        [np.asarray(dataset.index.fold) for dataset in datasets],
        record_ids=[dataset.index.record_id for dataset in datasets],
        linked=[links.of(dataset) for dataset in datasets],
        sides=sides,
    )


def save_links(links: Links, path: Path | str) -> None:
    """Writes links as one file; a file already there is replaced at once or not at all."""
    path = Path(path)
    header = {
        "links_version": LINKS_VERSION,
        "signature_version": SIGNATURE_VERSION,
        "num_candidates": links.num_candidates,
        "num_crowded": links.num_crowded,
        "datasets": [
            {
                field.name: getattr(linked, field.name)
                for field in dataclasses.fields(LinkedDataset)
                if field.name not in ("group", "copy")
            }
            for linked in links.datasets
        ],
    }
    arrays = {"header": np.frombuffer(json.dumps(header, ensure_ascii=False).encode(), np.uint8), "pairs": links.pairs}
    for position, linked in enumerate(links.datasets):
        arrays |= {f"group_{position}": linked.group, f"copy_{position}": linked.copy}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f"{path.name}.{os.getpid()}.making")
    with making.open("wb") as file:
        file.write(content.getvalue())
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)


def open_links(path: Path | str) -> Links:
    """Reads what `save_links` wrote; the zip format's own checksums cover every byte of it.

    Raises:
        DataError: no such file, a damaged one, or one of another version.
    """
    path = Path(path)
    remedy = "make it again with python -m data_pipelines.link"
    if not path.is_file():
        raise DataError(f"{path}: no such file; {remedy}")
    try:
        # From memory, since NumPy leaves a file open that is no whole archive.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            if (header["links_version"], header["signature_version"]) != (LINKS_VERSION, SIGNATURE_VERSION):
                raise DataError(f"{path}: links of another version of ecgjax; {remedy}")
            return Links(
                datasets=tuple(
                    LinkedDataset(**linked, group=arrays[f"group_{position}"], copy=arrays[f"copy_{position}"])
                    for position, linked in enumerate(header["datasets"])
                ),
                pairs=arrays["pairs"],
                num_candidates=header["num_candidates"],
                num_crowded=header["num_crowded"],
            )
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path}: no links, or damaged ({error}); {remedy}") from error


class _Bands:
    """Reads records of several data sets by joint number."""

    def __init__(self, datasets: Sequence[Dataset], stores: Sequence[Store], starts: np.ndarray):
        self._datasets, self._stores, self._starts = datasets, stores, starts

    def __call__(self, numbers: np.ndarray) -> list[np.ndarray]:
        from data_pipelines.signature import band_of  # Likewise.

        bands: list[np.ndarray] = [None] * len(numbers)
        position = np.searchsorted(self._starts, numbers, side="right") - 1
        for which in np.unique(position):
            dataset, at = self._datasets[which], np.flatnonzero(position == which)
            records = numbers[at] - self._starts[which]
            for place, record, signal in zip(at, records, self._stores[which].read(records), strict=True):
                bands[place] = band_of(
                    signal,
                    sampling_rate_hz=dataset.format.sampling_rate_hz,
                    valid_start=int(dataset.index.valid_start[record]),
                    valid_samples=int(dataset.index.valid_samples[record]),
                )
        return bands


def _namespaces(datasets: Sequence[Dataset], given: Sequence[str] | None) -> list[str]:
    seen: dict[str, Dataset] = {}
    for dataset in datasets:
        if dataset.fingerprint in seen:
            raise DataError(
                f"{dataset.directory}: the same data set as {seen[dataset.fingerprint].directory}; give one"
            )
        seen[dataset.fingerprint] = dataset
    if given is None:
        return [f"{dataset.card['name']} {dataset.fingerprint}" for dataset in datasets]
    if len(given) != len(datasets):
        raise DataError(f"{len(given)} patient namespaces for {len(datasets)} data sets; give one for each, or none")
    return list(given)


def _contents(datasets: Sequence[Dataset]) -> np.ndarray:
    return np.concatenate([np.asarray(dataset.index.content_hash) for dataset in datasets])


def _first_of_content(datasets: Sequence[Dataset]) -> np.ndarray:
    """Returns for every record the first with its content, by data set and record id."""
    contents = _contents(datasets)
    rank = np.concatenate([[0], np.cumsum([dataset.index.num_records for dataset in datasets])])
    order = np.concatenate(
        [start + np.argsort(dataset.index.record_id) for dataset, start in zip(datasets, rank[:-1], strict=True)]
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
    codes: dict[tuple[str, str], int] = {}
    return np.array(
        [
            codes.setdefault((namespace, patient), len(codes))
            for dataset, namespace in zip(datasets, namespaces, strict=True)
            for patient in dataset.index.patient_id.tolist()
        ],
        np.int64,
    )


def _by_common(*labels: np.ndarray) -> np.ndarray:
    """Returns edges from every record to the first with the same label, for each kind of label: `int64[edges, 2]`."""
    edges = []
    for label in labels:
        _, first, code = np.unique(label, return_index=True, return_inverse=True)
        edges.append(np.stack([first[code], np.arange(len(label))], axis=1))
    return np.concatenate(edges)


def _components(edges: np.ndarray, *, num_nodes: int) -> np.ndarray:
    """Returns the connected component of every node, numbered by first appearance: `int32[nodes]`."""
    graph = scipy.sparse.coo_array((np.ones(len(edges), np.int8), edges.T), shape=(num_nodes, num_nodes))
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int32)[inverse]
