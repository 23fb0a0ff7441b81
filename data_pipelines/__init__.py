"""Turns raw recordings into global batches, with NumPy only and no model code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.system.late_names import late_names
from data_pipelines.version import __version__

if TYPE_CHECKING:
    from data_pipelines.errors import DataError, RecordError
    from data_pipelines.prepared.copies_of import Links, open_links
    from data_pipelines.prepared.dataset import Dataset, open_dataset
    from data_pipelines.prepared.joint import JointDataset, join
    from data_pipelines.recording import Recording
    from data_pipelines.records import STORED_LEADS, EcgRecord, SignalFormat
    from data_pipelines.shards.dataset_build import build_dataset
    from data_pipelines.signals.recipe import RECIPES
    from data_pipelines.storage.store import Store, open_store
    from data_pipelines.streaming.batches import batches
    from data_pipelines.streaming.sampler import Sampler

__all__ = [
    "DataError",
    "Dataset",
    "EcgRecord",
    "JointDataset",
    "Links",
    "RECIPES",
    "RecordError",
    "Recording",
    "STORED_LEADS",
    "Sampler",
    "SignalFormat",
    "Store",
    "__version__",
    "batches",
    "build_dataset",
    "join",
    "open_dataset",
    "open_links",
    "open_store",
]

#: Module of each public name, which is imported when the name is first used.
_MODULES = {
    "DataError": "data_pipelines.errors",
    "Dataset": "data_pipelines.prepared.dataset",
    "EcgRecord": "data_pipelines.records",
    "JointDataset": "data_pipelines.prepared.joint",
    "Links": "data_pipelines.prepared.copies_of",
    "RECIPES": "data_pipelines.signals.recipe",
    "RecordError": "data_pipelines.errors",
    "Recording": "data_pipelines.recording",
    "STORED_LEADS": "data_pipelines.records",
    "Sampler": "data_pipelines.streaming.sampler",
    "SignalFormat": "data_pipelines.records",
    "Store": "data_pipelines.storage.store",
    "batches": "data_pipelines.streaming.batches",
    "build_dataset": "data_pipelines.shards.dataset_build",
    "join": "data_pipelines.prepared.joint",
    "open_dataset": "data_pipelines.prepared.dataset",
    "open_links": "data_pipelines.prepared.copies_of",
    "open_store": "data_pipelines.storage.store",
}

__getattr__, __dir__ = late_names(__name__, _MODULES, others=globals())
