"""The recordings that `config.data` names and their split, the same for pretraining and for evaluation.

They may come from one data set or from several; no code after this module needs to know which.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.buckets.addresses import local_path
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.prepared.copies_of import Links, open_links
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.prepared.index import Index
from data_pipelines.prepared.joint import JointIndex, join
from data_pipelines.prepared.splitting import Split
from data_pipelines.records import SignalFormat
from data_pipelines.storage.joint_store import JointStore
from data_pipelines.storage.store import Store, open_store
from ecgjax.data.settings import DataSettings
from ecgjax.data.tasks import MultiLabelTask, Task
from ecgjax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recordings:
    """Opened recordings of one data set, or of several whose record numbers are consecutive.

    Attributes:
        datasets: Data sets in the order of `config.data.dir`.
        index: Index over all records; with links, its groups are the joint ones.
        format: Sampling rate and length of all records.
        store: Store of the signals of all records.
        split: Split by the folds of `config.data`, without records that belong together on two sides.
        linked: Whether near-duplicates were taken into account, not only equal signals.
    """

    datasets: tuple[Dataset, ...]
    index: Index | JointIndex
    format: SignalFormat
    store: Store
    split: Split
    linked: bool

    @property
    def name(self) -> str:
        """Names of the data sets, joined by " + "."""
        return " + ".join(dataset.card["name"] for dataset in self.datasets)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Fingerprint of each data set, in the order of `datasets`."""
        return tuple(dataset.fingerprint for dataset in self.datasets)

    @property
    def simulated(self) -> bool:
        """Whether any of the data sets was simulated."""
        return any(dataset.simulated for dataset in self.datasets)

    def dataset_of(self, records: np.ndarray) -> np.ndarray:
        """Returns the index in `datasets` of the data set of each record, `int64[n]`; records are in any order."""
        ends = np.cumsum([dataset.index.num_records for dataset in self.datasets])
        return np.searchsorted(ends, records, side="right")

    def by_dataset(self, records: np.ndarray) -> list[np.ndarray]:
        """Divides record numbers, `int64[n]`, ascending, into those of each data set, in the order of `datasets`."""
        return np.split(records, np.searchsorted(self.dataset_of(records), np.arange(1, len(self.datasets))))

    def numbers_by_dataset(self, records: np.ndarray) -> list[tuple[Dataset, np.ndarray]]:
        """Returns each data set with the numbers of its records within it, from joint numbers `int64[n]`, ascending."""
        starts = np.cumsum([0, *(dataset.index.num_records for dataset in self.datasets[:-1])])
        parts = zip(self.datasets, self.by_dataset(records), starts, strict=True)
        return [(dataset, own - start) for dataset, own, start in parts]


def open_recordings(data: DataSettings) -> Recordings:
    """Opens data sets, their stores, and the links between their records where `data.links` names some.

    Args:
        data: Settings of the data.

    Raises:
        ConfigError: `dir` names no data set, a fold is given twice, or there are no training folds.
        DataError: A file of a data set is missing, unfinished, damaged or stale, a data set lacks the folds, or data
            sets cannot be joined.
    """
    directories = data.directories
    if not all(directories):
        raise ConfigError(
            f"config.data.dir={data.dir!r} names no data set: give what python -m data_pipelines.build --out=DIR made, "
            "or several such folders with commas between"
        )
    _check_folds(data)
    directories = tuple(map(dataset_folder, directories))
    datasets = [open_dataset(directory) for directory in directories]
    links = open_links(local_path(data.links, flag="config.data.links")) if data.links else None
    index, split = _one(datasets[0], links, data) if len(datasets) == 1 else _several(datasets, links, data)
    stores = [
        open_store(directory, kind=data.store, allow_bad_shards=data.allow_bad_shards) for directory in directories
    ]
    return Recordings(
        datasets=tuple(datasets),
        index=index,
        format=datasets[0].format,
        store=stores[0] if len(stores) == 1 else JointStore(stores),
        split=split,
        linked=links is not None,
    )


def _check_folds(data: DataSettings) -> None:
    """Raises a `ConfigError` for folds that are given twice, and for an empty set of folds to train on."""
    sides = {f"config.data.{name}_folds": getattr(data, f"{name}_folds") for name in ("train", "val", "test")}
    seen: dict[int, str] = {}
    for name, folds in sides.items():
        for fold in folds:
            if fold in seen:
                raise ConfigError(
                    f"{name}={folds}: fold {fold} is given twice, also to {seen[fold]}; give it to one side"
                )
            seen[fold] = name
    if not data.train_folds:
        raise ConfigError("config.data.train_folds=() names no fold to train on")


def _one(dataset: Dataset, links: Links | None, data: DataSettings) -> tuple[Index, Split]:
    linked = None if links is None else links.of(dataset)
    split = dataset.index.split(
        train_folds=data.train_folds, val_folds=data.val_folds, test_folds=data.test_folds, links=linked
    )
    return dataset.index if linked is None else dataclasses.replace(dataset.index, group=linked.group), split


def _several(datasets: list[Dataset], links: Links | None, data: DataSettings) -> tuple[JointIndex, Split]:
    joint = join(datasets, links=links)
    return joint.index, joint.split(train_folds=data.train_folds, val_folds=data.val_folds, test_folds=data.test_folds)


def unit_asked(task: Task, recordings: Recordings) -> str:
    """Returns the unit of the label that a question is about; empty for classes, and where the cards give none."""
    return "" if isinstance(task, MultiLabelTask) else unit_of(task.label, recordings)


def unit_of(label: str, recordings: Recordings) -> str:
    """Returns the unit of a label from the data sets' cards; it is empty where these give none, or different ones."""
    if label == "age_years":
        return "years"
    units = {dataset.card["scalars"].get(label, {}).get("unit", "") for dataset in recordings.datasets}
    return units.pop() if len(units) == 1 else ""
