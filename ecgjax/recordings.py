"""The recordings that `config.data` names, and how they are divided: the same for pretraining and for evaluation."""

from __future__ import annotations

import dataclasses

import ml_collections

from data_pipelines.dataset import Dataset, open_dataset
from data_pipelines.links import open_links
from data_pipelines.splitting import Split
from data_pipelines.store import Store, open_store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recordings:
    """Opened recordings.

    Attributes:
        dataset: with links, the groups of its index are the joint ones.
        store: its signals.
        split: by `config.data`'s folds, nothing that belongs together on two sides.
        linked: whether near-duplicates were taken into account, not only equal contents.
    """

    dataset: Dataset
    store: Store
    split: Split
    linked: bool


def open_recordings(data: ml_collections.ConfigDict) -> Recordings:
    """Opens a data set, its store, and the links between its records where `data.links` names some.

    Args:
        data: `config.data`, as in `configs/simclr_ptbxl.py`.

    Raises:
        DataError: a part is missing, unfinished, damaged or stale, or the folds do not fit.
    """
    dataset = open_dataset(data.dir)
    links = open_links(data.links).of(dataset) if data.links else None
    split = dataset.index.split(
        train_folds=data.train_folds, val_folds=data.val_folds, test_folds=data.test_folds, links=links
    )
    if links is not None:
        dataset = dataclasses.replace(dataset, index=dataclasses.replace(dataset.index, group=links.group))
    return Recordings(
        dataset=dataset, store=open_store(data.dir, kind=data.store), split=split, linked=links is not None
    )
