"""Finds the nearest training records of every training record of a data set, and stores them in DIR/neighbours_SPACE.

DIR/neighbours_SPACE/
neighbours.npy      int32[record, k], record numbers, the nearest first; -1 where there are fewer
distances.npy       f32[record, k], distances between the components of both; NaN where there are fewer
neighbours.json     space, folds, counts, versions, the data set's fingerprint, and a digest of what it was made of
SHA256SUMS          digests of these three

A neighbour is a record of another patient. Records of the other folds have no neighbours and are none, so that nothing
learnt from the table comes from validation or test.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.likeness.components import NUM_COMPONENTS, Components
from data_pipelines.likeness.nearest_records import nearest
from data_pipelines.likeness.spaces import SPACES, Recorded, vector_of
from data_pipelines.prepared.copies_of import open_links
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.storage.store import opened_once
from data_pipelines.system.atomic_directory import exclusive_staging, publish, written_whole
from data_pipelines.system.digests import write_digests
from data_pipelines.system.kept_chunks import KeptChunk, begin_or_go_on, chunks_of, compute_rest
from data_pipelines.system.npy_files import write_npy

#: Version of spaces, components and search, to be raised when they change: stored neighbours are then found again.
NEIGHBOURS_VERSION = 1

#: Folder of the neighbours inside a data set by space, and the table of contents in each.
NEIGHBOUR_DIRS: Mapping[str, str] = {space: f"neighbours_{space}" for space in SPACES}
NEIGHBOURS_FILE = "neighbours.json"

_NUMBERS_FILE, _DISTANCES_FILE = "neighbours.npy", "distances.npy"

#: Names of all files of such a folder.
NEIGHBOUR_FILES = (_NUMBERS_FILE, _DISTANCES_FILE, NEIGHBOURS_FILE)

#: Numbers of records that are kept together once their vectors are made, or their neighbours found.
RECORDS_PER_CHUNK = 4096

# Numbers of records that a worker makes vectors of, or finds neighbours of, at a time.
_VECTORS_PER_TASK, _SEARCHES_PER_TASK = 64, 1024

_RECORDS_FILE, _GROUPS_FILE, _POINTS_FILE = "records.npy", "groups.npy", "points.npy"
_POINT_RECORDS_FILE, _POINT_GROUPS_FILE, _EXPLAINED_FILE = "point_records.npy", "point_groups.npy", "explained.npy"

#: Function of a title and a total, whose context yields a function that is told how many further records are done.
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def no_bar(title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Shows no progress."""
    del title, total
    return nullcontext(lambda num_records: None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighbourSearch:
    """What is searched for.

    Attributes:
        space: Space in which records are compared, a key of `spaces.SPACES`.
        k: Number of neighbours of a record.
        train_folds: Folds of the training records, which alone have neighbours and are some.
        val_folds: Folds of validation; training records whose group is there are left out.
        test_folds: Folds of test, likewise.
        links: File of the links, by which one person's records under several ids are one group; None for none.
    """

    space: str
    k: int = 5
    train_folds: tuple[int, ...]
    val_folds: tuple[int, ...] = ()
    test_folds: tuple[int, ...] = ()
    links: Path | None = None

    def folds(self) -> dict[str, list[int]]:
        """Returns the folds by side, as values of JSON."""
        return {side: sorted(getattr(self, f"{side}_folds")) for side in ("train", "val", "test")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighbourTable:
    """Neighbours of a data set's records.

    Attributes:
        numbers: Record numbers of the neighbours, the nearest first, `int32[record, k]`, memory-mapped; −1 where there
            are fewer, as for every record that is not trained on.
        distances: Distances to them, `f32[record, k]`, memory-mapped, in deviations of a lead; NaN there.
        card: Contents of `neighbours.json`.
    """

    numbers: np.ndarray
    distances: np.ndarray
    card: Mapping[str, Any]


def neighbours_command(dataset: Dataset, space: str) -> str:
    """Returns the command that finds the neighbours of a data set's records."""
    return f"python -m data_pipelines.neighbours --dataset={dataset.directory} --space={space}"


def open_neighbours(dataset: Dataset, space: str) -> NeighbourTable:
    """Opens the neighbours of a data set's records.

    Args:
        dataset: Data set.
        space: Space in which they were searched.

    Raises:
        DataError: The neighbours were never searched, the search is not finished, or they belong to another state of
            the data set or another definition, or are damaged.
    """
    folder, again = dataset.directory / NEIGHBOUR_DIRS[space], neighbours_command(dataset, space)
    path = folder / NEIGHBOURS_FILE
    if not path.is_file():
        unfinished = neighbours_staging(dataset.directory, space).exists()
        state = "is not finished" if unfinished else "was not made"
        raise DataError(f"{dataset.directory}: the search for neighbours by {space} {state}; run {again}")
    remedy = f"remove it and run {again}"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        found, fingerprint, folds, k = (card[name] for name in ("version", "fingerprint", "fold_digest", "k"))
        numbers, distances = (np.load(folder / name, mmap_mode="r") for name in (_NUMBERS_FILE, _DISTANCES_FILE))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: damaged ({error}); {remedy}") from error
    if found != NEIGHBOURS_VERSION:
        raise DataError(
            f"{folder}: was made by version {found} of the search, this ecgjax has version {NEIGHBOURS_VERSION}; "
            f"{remedy}"
        )
    if (fingerprint, folds) != (dataset.fingerprint, _digest(np.asarray(dataset.index.fold))):
        raise DataError(f"{folder}: was made of another state of this data set (stale); {remedy}")
    shape = (dataset.index.num_records, k)
    for name, array, dtype in ((_NUMBERS_FILE, numbers, np.int32), (_DISTANCES_FILE, distances, np.float32)):
        if array.dtype != dtype or array.shape != shape:
            raise DataError(
                f"{folder / name}: holds {array.dtype}{list(array.shape)} where {np.dtype(dtype)}{list(shape)} belongs "
                f"(damaged); {remedy}"
            )
    return NeighbourTable(numbers=numbers, distances=distances, card=card)


def neighbours_staging(directory: Path, space: str) -> Path:
    """Returns the directory in which a search is kept until it is whole."""
    return directory / f"{NEIGHBOUR_DIRS[space]}.building"


def find_neighbours(
    directory: Path | str,
    search: NeighbourSearch,
    *,
    num_workers: int,
    bar: Bar = no_bar,
    records_per_chunk: int = RECORDS_PER_CHUNK,
) -> bool:
    """Finds the neighbours of every training record into `DIR/neighbours_SPACE`, unless they are there.

    What is done is kept chunk by chunk in `DIR/neighbours_SPACE.building`, where it takes 8 kB a record of ten seconds:
    a run after an interrupted one goes on from there.

    Args:
        directory: Directory of the data set.
        search: What is searched for.
        num_workers: Number of processes that make vectors and search.
        bar: Function that shows how much is done.
        records_per_chunk: Number of records that are kept together; a run that asks for another number starts anew.

    Returns:
        Whether anything was searched.

    Raises:
        DataError: The data set is damaged or lacks the folds, what is there is stale, damaged or of another search,
            another process is searching, a worker died, or the training records cannot be compared.
    """
    dataset = open_dataset(directory)
    records, groups = _training_side(dataset, search)
    request = _request(dataset, search, records, groups)
    folder, staging = (
        dataset.directory / NEIGHBOUR_DIRS[search.space],
        neighbours_staging(dataset.directory, search.space),
    )
    if folder.exists():
        _check_same(open_neighbours(dataset, search.space), request, folder, search)
        return False
    with exclusive_staging(staging, resume=True):
        if folder.exists():  # Another process has just finished.
            return False
        begin_or_go_on(staging, request | {"records_per_chunk": records_per_chunk})
        _save(staging / _RECORDS_FILE, records)
        _save(staging / _GROUPS_FILE, groups)
        if not (staging / _POINTS_FILE).is_file():
            _make_points(dataset, search.space, staging, num_workers=num_workers, bar=bar, per_chunk=records_per_chunk)
        found = _search_all(staging, search.k, num_workers=num_workers, bar=bar, per_chunk=records_per_chunk)
        making = staging / folder.name
        shutil.rmtree(making, ignore_errors=True)
        _assemble(dataset, staging, found, making, card=request)
        publish(making, folder, retired=staging / "replaced")
    return True


def _training_side(dataset: Dataset, search: NeighbourSearch) -> tuple[np.ndarray, np.ndarray]:
    """Returns the training records, `int64[m]`, ascending, and the group of each, `int32[m]`."""
    linked = None if search.links is None else open_links(search.links).of(dataset)
    split = dataset.index.split(
        train_folds=search.train_folds, val_folds=search.val_folds, test_folds=search.test_folds, links=linked
    )
    group = dataset.index.group if linked is None else linked.group
    return split.train, np.asarray(group[split.train], np.int32)


def _request(dataset: Dataset, search: NeighbourSearch, records: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    request = {
        "version": NEIGHBOURS_VERSION,
        "fingerprint": dataset.fingerprint,
        "fold_digest": _digest(np.asarray(dataset.index.fold)),
        "space": search.space,
        "k": search.k,
        "most_components": NUM_COMPONENTS,
        "folds": search.folds(),
        "linked": search.links is not None,
    }
    return request | {"made_of": _digest(records, groups, text=json.dumps(request))}


def _digest(*columns: np.ndarray, text: str = "") -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for column in columns:
        digest.update(np.ascontiguousarray(column, "<i8").data)
    return digest.hexdigest()


def _check_same(table: NeighbourTable, request: Mapping[str, Any], folder: Path, search: NeighbourSearch) -> None:
    if table.card.get("made_of") != request["made_of"]:
        raise DataError(
            f"{folder}: holds the {table.card['k']} nearest of {_in_words(table.card['folds'])}, and k={search.k} of "
            f"{_in_words(search.folds())} were asked for, or other links; remove it and search again"
        )


def _in_words(folds: Mapping[str, Sequence[int]]) -> str:
    return "folds " + ", ".join(f"{side} {','.join(map(str, own)) or 'none'}" for side, own in folds.items())


def _save(path: Path, array: np.ndarray) -> None:
    with written_whole(path, making=path.with_suffix(".tmp")) as file:
        np.save(file, array)


def _make_points(dataset: Dataset, space: str, staging: Path, *, num_workers: int, bar: Bar, per_chunk: int) -> None:
    """Makes the vectors of all training records, and of these their principal components."""
    num_records = len(np.load(staging / _RECORDS_FILE, mmap_mode="r"))
    chunks = chunks_of(
        staging, num_records=num_records, records_per_chunk=per_chunk, names=("vectors",), prefix="vectors"
    )
    work = functools.partial(_vectors, dataset.directory, dataset.fingerprint, space, staging)
    with bar(f"reading {space}", num_records) as tell:
        compute_rest(chunks, work, records_per_task=_VECTORS_PER_TASK, num_workers=num_workers, progress=tell)
    has_place = np.concatenate([_has_place(chunk.reload()[0]) for chunk in chunks] or [np.zeros(0, bool)])
    components = Components.fit(lambda: _placed(chunks))
    for name, made_of in ((_POINT_RECORDS_FILE, _RECORDS_FILE), (_POINT_GROUPS_FILE, _GROUPS_FILE)):
        _save(staging / name, np.load(staging / made_of)[has_place])
    _save(staging / _EXPLAINED_FILE, components.explained)
    making = staging / "points.tmp"
    shape = (int(has_place.sum()), len(components.axes))
    write_npy(making, map(components.transform, _placed(chunks)), dtype=np.dtype(np.float32), shape=shape)
    making.replace(staging / _POINTS_FILE)


def _placed(chunks: Sequence[KeptChunk]) -> Iterator[np.ndarray]:
    """Yields the vectors of the records that have a place in the space, `f32[n, samples, lead]`."""
    for chunk in chunks:
        (vectors,) = chunk.reload()
        if len(placed := vectors[_has_place(vectors)]):
            yield placed


def _has_place(vectors: np.ndarray) -> np.ndarray:
    return np.isfinite(vectors).any(axis=(1, 2))


def _vectors(directory: Path, fingerprint: str, space: str, staging: Path, places: range) -> tuple[np.ndarray]:
    """Returns the vectors of the training records at some places of their list, `f32[n, samples, lead]`."""
    dataset, store = opened_once(directory, fingerprint)
    records = np.load(staging / _RECORDS_FILE, mmap_mode="r")[places.start : places.stop]
    index = dataset.index
    starts, lengths = (np.asarray(column[records]).tolist() for column in (index.valid_start, index.valid_samples))
    recorded = map(Recorded, store.read(np.asarray(records)), starts, lengths)
    return (np.stack([vector_of(SPACES[space], each, dataset.format) for each in recorded]),)


def _search_all(staging: Path, k: int, *, num_workers: int, bar: Bar, per_chunk: int) -> list[KeptChunk]:
    num_points = len(np.load(staging / _POINTS_FILE, mmap_mode="r"))
    names = ("places", "distances")
    chunks = chunks_of(staging, num_records=num_points, records_per_chunk=per_chunk, names=names, prefix="found")
    with bar("searching", num_points) as tell:
        work = functools.partial(_neighbours, staging, k)
        compute_rest(chunks, work, records_per_task=_SEARCHES_PER_TASK, num_workers=num_workers, progress=tell)
    return chunks


def _neighbours(staging: Path, k: int, places: range) -> tuple[np.ndarray, np.ndarray]:
    points, groups = np.load(staging / _POINTS_FILE, mmap_mode="r"), np.load(staging / _POINT_GROUPS_FILE)
    found = nearest(points, groups, np.arange(places.start, places.stop), k=k)
    return found.places, found.distances


def _assemble(
    dataset: Dataset, staging: Path, found: Sequence[KeptChunk], folder: Path, *, card: Mapping[str, Any]
) -> None:
    point_records = np.load(staging / _POINT_RECORDS_FILE)
    k, shape = card["k"], (dataset.index.num_records, card["k"])
    numbers, distances = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
    for chunk in found:
        places, apart = chunk.reload()
        of_chunk = point_records[chunk.records.start : chunk.records.stop]
        numbers[of_chunk] = np.where(places >= 0, point_records[np.maximum(places, 0)], -1)
        distances[of_chunk] = np.where(places >= 0, apart, np.nan)
    folder.mkdir()
    np.save(folder / _NUMBERS_FILE, numbers)
    np.save(folder / _DISTANCES_FILE, distances)
    explained = np.load(staging / _EXPLAINED_FILE)
    whole = dict(card) | {
        "num_records": len(numbers),
        "num_training_records": len(np.load(staging / _RECORDS_FILE, mmap_mode="r")),
        "num_with_a_place": len(point_records),
        "num_with_all_neighbours": int(np.count_nonzero(numbers[:, k - 1] >= 0)),
        "components": len(explained),
        "explained": float(explained.sum()),
        "median_distance": list(_medians(distances[point_records])),
        "simulated": dataset.simulated,
        "written_with": {package: version(package) for package in ("neurokit2", "numpy", "scipy")},
    }
    (folder / NEIGHBOURS_FILE).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    write_digests(folder, sorted(NEIGHBOUR_FILES))


def _medians(distances: np.ndarray) -> Iterator[float]:
    """Yields the median distance of the first, second, … neighbour, as far as there are any."""
    for column in distances.T:
        if len(known := column[np.isfinite(column)]):
            yield float(np.median(known))
