"""The sampler that settings ask for.

It draws single records, from anywhere or from windows of blocks on the disk, or patients with several records of each.
It draws from all records alike, from data sets with given weights, or from every answer to a question equally often.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.streaming.block_order import BlockOrder
from data_pipelines.streaming.neighbour_order import NeighbourOrder
from data_pipelines.streaming.orders import (
    MixtureOrder,
    Order,
    PatientOrder,
    RecordOrder,
    component_seed,
    smallest_block,
)
from data_pipelines.streaming.sampler import Sampler
from data_pipelines.system.counted import counted
from ecgjax.data.neighbours import neighbour_column
from ecgjax.data.recordings import Recordings
from ecgjax.data.settings import ColumnSettings, SamplingSettings
from ecgjax.data.tasks import parse_task
from ecgjax.errors import ConfigError

#: Leaf that names the question of balanced batches.
BALANCE = "config.sampling.balance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Mixture:
    """Components that a sampler draws from.

    Attributes:
        titles: Names of the components in words.
        records: Record numbers of each component, `int64[m]`.
        weights: Shares of the components; None for equal ones.
        without_label: Number of records that belong to no component.
    """

    titles: tuple[str, ...]
    records: tuple[np.ndarray, ...]
    weights: tuple[float, ...] | None = None
    without_label: int = 0


class SampledSide:
    """One side of a split (training or validation), and how records are drawn from it.

    Args:
        settings: Settings of the sampling.
        recordings: Recordings that records are drawn from.
        records: Record numbers of the side, `int64[m]`, ascending.
        weights: Shares of the data sets in every batch; empty where every record is drawn equally often.
        columns: Settings of the columns, which name the space of the neighbours that are drawn together; None for
            those at their defaults.

    Raises:
        ConfigError: The settings contradict each other.
        DataError: A data set has no records on this side, or there is nothing to balance.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        recordings: Recordings,
        records: np.ndarray,
        *,
        weights: tuple[float, ...] = (),
        columns: ColumnSettings | None = None,
    ):
        if weights and settings.balance:
            raise ConfigError(f"config.data.weights and {BALANCE} both say how often a recording is drawn; give one")
        _check_shuffle(settings, mixed=bool(weights) or bool(settings.balance))
        if settings.balance and settings.name == "neighbours":
            raise ConfigError(
                f"config.sampling.name='neighbours' draws a recording with its neighbour, whatever its answer, and "
                f"{BALANCE} as many of each answer: leave one of them out"
            )
        self._columns = ColumnSettings() if columns is None else columns
        self._settings, self._recordings, self._side = settings, recordings, records
        self._mixture: _Mixture | None = None
        if weights:
            self._mixture = _by_dataset(weights, recordings, records)
        elif settings.balance:
            self._mixture = _by_answer(settings.balance, recordings, records)

    @functools.cached_property
    def records(self) -> np.ndarray:
        """Numbers of the records that are drawn from, `int64[n]`, ascending."""
        return self._side if self._mixture is None else np.unique(np.concatenate(self._mixture.records))

    @functools.cached_property
    def patients_with_others(self) -> tuple[int, int]:
        """Number of patients with two or more of the records that are drawn from, and number of all patients.

        Units of several records come from one component of a mixture: a patient counts in each component that has
        records of theirs, and only with these. Where records are drawn one by one, any two records of a patient
        may be in one batch.
        """
        units = self._settings.name == "patients" and self._settings.records_per_patient > 1
        apart = self._mixture.records if self._mixture is not None and units else (self.records,)
        counts = [np.unique(self._recordings.index.group[own], return_counts=True)[1] for own in apart]
        return sum(int(np.count_nonzero(count > 1)) for count in counts), sum(len(count) for count in counts)

    @property
    def with_neighbours(self) -> int:
        """Number of the records that have a neighbour, drawn together or not.

        Raises:
            DataError: Neighbours were not searched.
        """
        return int(np.count_nonzero((self._neighbours[self.records] >= 0).any(axis=1)))

    @functools.cached_property
    def _neighbours(self) -> np.ndarray:
        return neighbour_column(self._columns, self._recordings)

    def sampler(self, *, batch_size: int, seed: int) -> Sampler:
        """Returns a sampler of this side.

        Args:
            batch_size: Number of recordings of the global batch.
            seed: Seed of the order.

        Raises:
            ConfigError: The way of sampling is unknown.
            DataError: The batch size would divide a unit, the components cannot be mixed, or neighbours that are drawn
                together were not searched.
        """
        if self._mixture is None:
            return Sampler(self._order(self._side, seed=seed), batch_size=batch_size)
        orders = [
            self._order(own, seed=component_seed(seed, number)) for number, own in enumerate(self._mixture.records)
        ]
        # Every batch holds the components' shares, unless it is too small for the smallest of them.
        units_a_batch = max(1, batch_size // orders[0].unit_size)
        weights = self._mixture.weights
        block = units_a_batch if weights is None else smallest_block(weights, multiple_of=units_a_batch)
        return Sampler(MixtureOrder(orders, weights=weights, block=block, seed=seed), batch_size=batch_size)

    def describe(self) -> list[str]:
        """Returns a printable line for every component and one for what is left out; none where nothing is mixed."""
        if self._mixture is None:
            return []
        titles, weights = self._mixture.titles, np.array(self._mixture.weights or np.ones(len(self._mixture.titles)))
        lines = [
            f"{title}: {share:.3g} of every batch from {counted(len(own), 'recording')}"
            for title, own, share in zip(titles, self._mixture.records, weights / weights.sum(), strict=True)
        ]
        if self._mixture.without_label:
            left = counted(self._mixture.without_label, "recording")
            lines.append(f"{left} without the label {'is' if self._mixture.without_label == 1 else 'are'} left out")
        return lines

    def _order(self, records: np.ndarray, *, seed: int) -> Order:
        settings = self._settings
        name = settings.name
        if settings.shuffle == "blocks":
            stored = self._recordings.store.in_stored_order(records)
            return BlockOrder(stored, block=settings.block, window=settings.window, seed=seed)
        if name == "records":
            return RecordOrder(records, seed=seed)
        if name == "patients":
            return PatientOrder(
                records,
                patients=self._recordings.index.group[records],
                records_per_patient=self._settings.records_per_patient,
                seed=seed,
            )
        if name == "neighbours":
            return NeighbourOrder(records, neighbours=self._neighbours[records], seed=seed)
        raise ConfigError(f"config.sampling.name={name!r} is unknown; there are: records, patients, neighbours")


def _check_shuffle(settings: SamplingSettings, *, mixed: bool) -> None:
    if settings.shuffle != "blocks" or (settings.name == "records" and not mixed):
        return
    other = f"config.data.weights or {BALANCE}" if mixed else f"config.sampling.name={settings.name!r}"
    raise ConfigError(
        f"config.sampling.shuffle='blocks' draws single recordings in the order of the disk, and {other} does not: "
        "leave one of them out"
    )


def _by_dataset(weights: tuple[float, ...], recordings: Recordings, records: np.ndarray) -> _Mixture:
    directories = tuple(str(dataset.directory) for dataset in recordings.datasets)
    if len(weights) != len(directories):
        raise ConfigError(
            f"config.data.weights={weights} are {len(weights)} for {len(directories)} data sets "
            f"({', '.join(directories)}); give one for each, or () to draw every recording equally often"
        )
    parts = recordings.by_dataset(records)
    for directory, own in zip(directories, parts, strict=True):
        if not len(own):
            raise DataError(
                f"{directory}: no record of it is on this side of the split, so it can have no weight; give other folds"
            )
    return _Mixture(titles=directories, records=tuple(parts), weights=weights)


def _by_answer(question: str, recordings: Recordings, records: np.ndarray) -> _Mixture:
    task = parse_task(question, asked_by=BALANCE)
    if task.kind == "multilabel":
        raise ConfigError(f"{BALANCE}={question!r} has several answers a record; name one class, as in 'TASK:CLASS'")
    answers = task.targets(recordings.index)[records]
    if task.kind == "quantity" and not (np.isnan(answers) | (answers == np.rint(answers))).all():
        raise DataError(
            f"label {question!r} has values that are no whole numbers, and so no classes: ask below or above a value, "
            f"as in {BALANCE}='{question}<40'"
        )
    classes = np.unique(answers[~np.isnan(answers)])
    without = int(np.isnan(answers).sum())
    if len(classes) < 2:
        raise DataError(
            f"of {len(records):,} records {without:,} have no answer to {BALANCE}={question!r} and the others all have "
            f"{'the same one' if len(classes) else 'none'}; there is nothing to balance"
        )
    return _Mixture(
        titles=tuple(f"{task.title} = {label:g}" for label in classes),
        records=tuple(records[answers == label] for label in classes),
        without_label=without,
    )
