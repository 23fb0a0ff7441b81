"""Joins several data sets of one rate and length; record numbers continue from one data set to the next."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.copies_of import Links
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.prepared.index import NOT_A_DUPLICATE, Index, components, duplicates
from data_pipelines.prepared.shared_contents import shared_by_many
from data_pipelines.prepared.splitting import SIDES, Linked, Split, split_linked
from data_pipelines.records import SignalFormat
from data_pipelines.system.near_names import meant_or_else


class JointColumn:
    """A column over the records of several data sets, without a copy of their columns."""

    def __init__(self, columns: Sequence[np.ndarray]):
        """Stores the columns of the data sets, each `[n, ...]`."""
        self._columns = tuple(columns)
        self._starts = list(itertools.accumulate(map(len, columns), initial=0))
        self.dtype = np.result_type(*columns)

    def __len__(self) -> int:
        """Returns the number of records of all data sets."""
        return self._starts[-1]

    def __getitem__(self, numbers: int | np.ndarray) -> np.ndarray:
        """Returns the values of some records, or of a single one.

        Args:
            numbers: Record numbers from 0 on, `int[n]` in any order, or a single number.

        Raises:
            IndexError: There is no record of some number.
        """
        numbers = np.asarray(numbers)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < len(self)):
            raise IndexError(f"records {numbers.min()} … {numbers.max()} asked for, there are 0 … {len(self) - 1}")
        flat = numbers.ravel()
        values = np.empty((len(flat), *self._columns[0].shape[1:]), self.dtype)
        column_of = np.searchsorted(self._starts, flat, side="right") - 1
        for number, (column, start) in enumerate(zip(self._columns, self._starts, strict=False)):
            rows = np.flatnonzero(column_of == number)
            values[rows] = column[flat[rows] - start]
        # The empty index turns the value of a single number into a scalar.
        return values.reshape(numbers.shape + values.shape[1:])[()]


def _joint(name: str) -> functools.cached_property[JointColumn]:
    return functools.cached_property(lambda self: JointColumn([getattr(index, name) for index in self.indices]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointIndex:
    """The parts of several data sets' indices that training and evaluation need.

    Attributes:
        indices: Indices of the data sets, in order.
        group: Group of every record over all data sets, `int32[n]`, as in `Index`; records of two data sets share a
            group if they have equal signals (with links, also if they show one recording), directly or through others.
    """

    indices: tuple[Index, ...]
    group: np.ndarray

    @property
    def num_records(self) -> int:
        """Number of records."""
        return len(self.group)

    #: Id of every record, `str[n]`; unique only within a data set.
    record_id = _joint("record_id")

    #: Id of every record's patient, `str[n]`; it identifies a person only within a data set.
    patient_id = _joint("patient_id")

    #: Fold of every record within its data set, `int16[n]`.
    fold = _joint("fold")

    #: Position of the first recorded sample, `int32[n]`.
    valid_start = _joint("valid_start")

    #: Number of recorded samples from `valid_start` on, `int32[n]`.
    valid_samples = _joint("valid_samples")

    @property
    def labels(self) -> tuple[str, ...]:
        """All names that `label` accepts: those of at least one data set."""
        return tuple(dict.fromkeys(name for index in self.indices for name in index.labels))

    def label(self, name: str) -> np.ndarray:
        """Returns one label of every record, `f32[n]`; NaN where it is missing, as in data sets without the label.

        Raises:
            DataError: No data set has such a label.
        """
        if name not in self.labels:
            known = meant_or_else(name, self.labels, f"they have {', '.join(self.labels)}")
            raise DataError(f"no label '{name}' in any of these data sets{known}")
        return np.concatenate(
            [
                index.label(name) if name in index.labels else np.full(index.num_records, np.nan, np.float32)
                for index in self.indices
            ]
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointDataset:
    """Several data sets as one.

    Attributes:
        datasets: Data sets in order.
        starts: Number of each data set's first record, followed by the number of all records, `int64[datasets + 1]`.
        format: Rate and length of all records.
        index: Index of all records.
        linked: Joint groups and copies of each data set's records.
    """

    datasets: tuple[Dataset, ...]
    starts: np.ndarray
    format: SignalFormat
    index: JointIndex
    linked: tuple[Linked, ...]

    def split(
        self, *, train_folds: Iterable[int], val_folds: Iterable[int] = (), test_folds: Iterable[int] = ()
    ) -> Split:
        """Splits all data sets by the same folds, so that records of one joint group are on one side in all of them.

        The rules are those of `Index.split`, with joint groups: of the duplicates on one side, the first by data set
        and record id is kept. A training record is left out if its group has a record in val or test of any data set,
        and a validation record if its group has one in test.

        Args:
            train_folds: Folds to train on.
            val_folds: Folds to select models on.
            test_folds: Folds to report results on.

        Raises:
            DataError: A fold is on two sides, or some data set does not have it.
        """
        sides = {"train": tuple(train_folds), "val": tuple(val_folds), "test": tuple(test_folds)}
        for dataset in self.datasets:
            try:
                dataset.index.check_folds(sides)
            except DataError as error:
                message = f"{dataset.directory}: {error}; give folds that all data sets have, or leave this one out"
                raise DataError(message) from error
        splits = split_linked(
            [np.asarray(dataset.index.fold) for dataset in self.datasets],
            record_ids=[dataset.index.record_id for dataset in self.datasets],
            linked=self.linked,
            sides=[sides] * len(self.datasets),
        )
        excluded: collections.Counter[str] = collections.Counter()
        for split in splits:
            excluded.update(split.excluded)
        placed = list(zip(splits, self.starts, strict=False))
        members = {side: np.concatenate([getattr(split, side) + start for split, start in placed]) for side in SIDES}
        return Split(**members, excluded=dict(excluded))


def join(datasets: Sequence[Dataset], *, links: Links | None = None) -> JointDataset:
    """Joins data sets into one.

    Patients of different data sets count as different people, unless they have equal signals in both, or links join
    them.

    Args:
        datasets: Data sets of one rate and length.
        links: Links between records of these data sets, and possibly others; without links, only equal signals are
            found.

    Raises:
        DataError: Rates or lengths differ, a data set is given twice, or the links belong to other data.
    """
    _check_joinable(datasets)
    linked = _equal_contents(datasets) if links is None else [links.of(dataset) for dataset in datasets]
    return JointDataset(
        datasets=tuple(datasets),
        starts=np.cumsum([0, *(dataset.index.num_records for dataset in datasets)], dtype=np.int64),
        format=datasets[0].format,
        index=JointIndex(
            indices=tuple(dataset.index for dataset in datasets), group=np.concatenate([each.group for each in linked])
        ),
        linked=tuple(linked),
    )


def _check_joinable(datasets: Sequence[Dataset]) -> None:
    first, *others = datasets
    for position, dataset in enumerate(others, start=1):
        if dataset.format != first.format:
            raise DataError(
                f"{first.directory} holds {_described(first)}, {dataset.directory} {_described(dataset)}; data sets "
                "are joined at one rate and length. Convert one of them: python -m data_pipelines.build "
                f"--builder=prepared --source={dataset.directory} --target_rate_hz={first.format.sampling_rate_hz} "
                f"--seconds={first.format.seconds:g} --out=DIR"
            )
        for other in datasets[:position]:
            if dataset.fingerprint == other.fingerprint:
                raise DataError(f"{dataset.directory}: the same data set as {other.directory}; give one")


def _described(dataset: Dataset) -> str:
    return f"{dataset.format.num_samples} samples at {dataset.format.sampling_rate_hz} Hz"


def _equal_contents(datasets: Sequence[Dataset]) -> list[Linked]:
    """Returns, by data set, the copies with equal signals and the groups that follow, within and across data sets.

    Signals that many patients of one data set share (`shared_contents.py`) join no groups, in any data set.
    """
    first_of = _first_of_content(np.concatenate([dataset.index.content_hash for dataset in datasets]))
    # The data sets' own groups already hold within each, so only contents of several data sets can join groups.
    own_groups = [np.asarray(dataset.index.group) for dataset in datasets]
    starts = np.cumsum([0, *(int(own.max()) + 1 for own in own_groups)])
    group = np.concatenate([own + start for own, start in zip(own_groups, starts, strict=False)])
    many = np.zeros(len(first_of), bool)
    for dataset, start in zip(datasets, np.cumsum([0, *map(len, own_groups)]), strict=False):
        own = first_of[start : start + dataset.index.num_records]
        many[own[shared_by_many(np.unique(own, return_inverse=True)[1], np.asarray(dataset.index.patient))]] = True
    equal = np.flatnonzero((first_of != np.arange(len(first_of))) & ~many[first_of])
    edges = (group[equal], group[first_of[equal]])
    component = components(edges, num_nodes=starts[-1])
    ends = np.cumsum([len(own) for own in own_groups])[:-1]
    groups, copies = np.split(component[group].astype(np.int32), ends), np.split(first_of, ends)
    return [Linked(group=own_group, copy=copy) for own_group, copy in zip(groups, copies, strict=True)]


def _first_of_content(content: np.ndarray) -> np.ndarray:
    """Returns the number of the first record with the same content, `int64[n]`.

    Args:
        content: Hashes of the contents, `uint8[n, 16]`.
    """
    # Numbers sort ten times as fast as byte strings, so only records with equal first halves are compared whole.
    _, code, count = np.unique(content[:, :8].copy().view(np.uint64).ravel(), return_inverse=True, return_counts=True)
    alike = np.flatnonzero(count[code] > 1)
    first_of = np.arange(len(content))
    if len(alike):
        duplicate_of = duplicates(content[alike])
        repeated = duplicate_of != NOT_A_DUPLICATE
        first_of[alike[repeated]] = alike[duplicate_of[repeated]]
    return first_of
