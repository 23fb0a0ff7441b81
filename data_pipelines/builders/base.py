"""A source of records, and the TFDS builder that writes any source as ArrayRecord shards, without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from tensorflow_datasets.core import writer
from tensorflow_datasets.core.features import Encoding

from data_pipelines.errors import DataError, RecordError
from data_pipelines.recipe import SignalRecipe
from data_pipelines.records import EcgRecord, LabelSchema, SignalFormat, content_hash
from data_pipelines.workers import map_ordered

#: Name of the one TFDS split of a data set ('all' is reserved by TFDS).
SPLIT = "ecgs"

#: Upper bound of a shard's size; small enough to move, large enough for sequential reads.
MAX_SHARD_BYTES = 128 * 2**20

#: Bytes of a record beside its signal: ids, labels, a report. A bound for sizing shards, not a limit.
_OTHER_BYTES_PER_RECORD = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A recording that could not be stored.

    Attributes:
        record_id: what the source calls it.
        reason: the slug of its `RecordError`.
        message: what is wrong and what to do, in plain words.
    """

    record_id: str
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceCard:
    """What to tell about a data set.

    Attributes:
        name: short name in lower case, also that of the TFDS dataset and its files.
        description: a paragraph for people, in which simulated sets say so.
        simulated: whether no patient was ever connected to any of it.
        citation: how to cite it, or empty.
        license: its licence, or empty where unknown.
        notes: remarks of this build that a reader of the summary should see.
    """

    name: str
    description: str
    simulated: bool
    citation: str = ""
    license: str = ""
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """One data set as its publisher ships it. A new data set is one such class, in one file.

    Attributes:
        card: what it is.
        recipe: what is done to every signal.
        signal_format: rate and length that follow from it.
        label_schema: names of its labels.
        num_items: how many results `records()` yields.
    """

    card: SourceCard
    recipe: SignalRecipe
    signal_format: SignalFormat
    label_schema: LabelSchema
    num_items: int

    def records(self) -> Iterator[EcgRecord | Quarantined]:
        """Yields every recording of the source, stored or quarantined, always in the same order."""
        ...


class Item(Protocol):
    """What a source reads one record from; picklable, and says its id even when reading fails."""

    record_id: str


ItemT = TypeVar("ItemT", bound=Item)


def read_items(
    read: Callable[[ItemT], EcgRecord], items: Sequence[ItemT], *, num_workers: int
) -> Iterator[EcgRecord | Quarantined]:
    """Reads items in order by several processes; an item whose reading raises `RecordError` is quarantined.

    Args:
        read: item to record; picklable.
        items: what to read.
        num_workers: processes; 0 or 1 reads in this one.
    """
    return map_ordered(functools.partial(_read_or_quarantine, read), items, num_workers=num_workers)


def _read_or_quarantine(read: Callable[[ItemT], EcgRecord], item: ItemT) -> EcgRecord | Quarantined:
    try:
        return read(item)
    except RecordError as error:
        return Quarantined(record_id=item.record_id, reason=error.reason, message=str(error))


def features(signal_format: SignalFormat, schema: LabelSchema) -> tfds.features.FeaturesDict:
    """Returns the TFDS features of a stored record; arrays are raw bytes, so that decoding is a copy."""

    def tensor(shape: tuple[int, ...], dtype: type) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=Encoding.BYTES)

    spec: dict[str, Any] = {
        "record_id": tfds.features.Text(),
        "patient_id": tfds.features.Text(),
        "signal": tensor(signal_format.shape, np.int16),
        "valid_start": tfds.features.Scalar(np.int32),
        "valid_samples": tfds.features.Scalar(np.int32),
        "age_years": tfds.features.Scalar(np.float32),
        "sex": tfds.features.Scalar(np.int8),
        "fold": tfds.features.Scalar(np.int16),
        "report": tfds.features.Text(),
        "content_hash": tensor((16,), np.uint8),
    }
    if schema.scalars:
        spec["scalars"] = {name: tfds.features.Scalar(np.float32) for name in schema.scalars}
    if schema.tasks:
        spec["tasks"] = {name: tensor((len(classes),), np.int8) for name, classes in schema.tasks.items()}
    return tfds.features.FeaturesDict(spec)


def example(record: EcgRecord, *, signal_format: SignalFormat, schema: LabelSchema) -> dict[str, Any]:
    """Returns a record as the example TFDS stores.

    Raises:
        DataError: the record does not fit the data set's format or schema, which is a fault of its source.
    """
    _check_record(record, signal_format, schema)
    fields: dict[str, Any] = {
        "record_id": record.record_id,
        "patient_id": record.patient_id,
        "signal": record.signal,
        "valid_start": record.valid_start,
        "valid_samples": record.valid_samples,
        "age_years": np.float32(record.age_years),
        "sex": np.int8(record.sex),
        "fold": np.int16(record.fold),
        "report": record.report,
        "content_hash": np.frombuffer(content_hash(record.signal), np.uint8),
    }
    if schema.scalars:
        fields["scalars"] = {name: np.float32(record.scalars[name]) for name in schema.scalars}
    if schema.tasks:
        fields["tasks"] = {name: record.tasks[name] for name in schema.tasks}
    return fields


def _check_record(record: EcgRecord, signal_format: SignalFormat, schema: LabelSchema) -> None:
    faults = []
    if record.signal.shape != signal_format.shape or record.signal.dtype != np.int16:
        faults.append(f"signal is {record.signal.dtype}{record.signal.shape}, not int16{signal_format.shape}")
    if not 0 <= record.valid_start <= record.valid_start + record.valid_samples <= signal_format.num_samples:
        faults.append(f"valid samples {record.valid_start}+{record.valid_samples} lie outside the signal")
    if not record.record_id or not record.patient_id:
        faults.append("record and patient need an id")
    if set(record.scalars) != set(schema.scalars) or set(record.tasks) != set(schema.tasks):
        faults.append("labels differ from the label schema")
    if faults:
        raise DataError(f"record '{record.record_id}': {'; '.join(faults)} (a fault of its source's reader)")


class _UncompressedWriter(writer.ExampleWriter):
    """Writes ArrayRecord shards that need no decompression.

    TFDS's own adapter always compresses; random reads then spend 66 of some 80 µs a record in zstd, to save three
    tenths of the disk.
    """

    def write(self, path: epath.PathLike, examples: Iterable[tuple[Any, bytes]]) -> None:
        """Writes serialised examples in the order given; their keys are not kept.

        Raises:
            DataError: the disk is full, or fails.
        """
        shard = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
        try:
            for _, example in examples:
                with _disk_errors_named(path):
                    shard.write(example)
        finally:
            # What is still in memory is written here, so that a full disk may only show now.
            with _disk_errors_named(path):
                shard.close()


@contextlib.contextmanager
def _disk_errors_named(path: epath.PathLike) -> Iterator[None]:
    """Makes ArrayRecord's error about a disk that is full or cannot be written one that a user is told."""
    try:
        yield
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be written ({error}); make room, or choose another --out") from error


class EcgBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes a `Source` as a TFDS dataset of ArrayRecord shards, in the source's order.

    Shard by shard rather than `GeneratorBasedBuilder`, whose shuffling spills to disk through TensorFlow once a
    split is over 1 GiB, and which would hold that much in memory before.

    After `download_and_prepare()`, `quarantined` lists what could not be stored.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, source: Source, *, staging_dir: Path, progress: Callable[[Iterator], Iterator]):
        """Prepares to write under `staging_dir`; `progress` wraps the iterator of records (a progress bar)."""
        self.name = source.card.name
        self.quarantined: list[Quarantined] = []
        self._source = source
        self._progress = progress
        super().__init__(data_dir=staging_dir)

    def _example_writer(self) -> writer.ExampleWriter:
        return _UncompressedWriter(file_format=self.info.file_format)

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=self._source.card.description,
            features=features(self._source.signal_format, self._source.label_schema),
            citation=self._source.card.citation,
            license=self._source.card.license,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator]]]:
        del dl_manager  # Nothing is downloaded: the source lies on a disk.
        num_items = self._source.num_items
        record_bytes = math.prod(self._source.signal_format.shape) * 2 + _OTHER_BYTES_PER_RECORD
        num_shards = max(1, math.ceil(num_items * record_bytes / MAX_SHARD_BYTES))
        # One iterator for all shards: taking slices of an iterable (tqdm is one) would start or end it each time.
        results = iter(self._progress(self._source.records()))
        bounds = [round(num_items * shard / num_shards) for shard in range(num_shards + 1)]
        lengths: list[int | None] = [stop - start for start, stop in itertools.pairwise(bounds)]
        lengths[-1] = None  # The last takes all that is left, so that a source with too many results is noticed.
        return {SPLIT: [functools.partial(self._shard_examples, results, length) for length in lengths]}

    def _shard_examples(
        self, results: Iterator[EcgRecord | Quarantined], num_results: int | None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for result in itertools.islice(results, num_results):
            if isinstance(result, Quarantined):
                self.quarantined.append(result)
            else:
                yield (
                    result.record_id,
                    example(result, signal_format=self._source.signal_format, schema=self._source.label_schema),
                )


class _Info(tfds.core.DatasetInfo):
    """`DatasetInfo` that does not look for a precomputed copy of itself in TFDS's bucket."""

    def initialize_from_bucket(self) -> None:
        """Does nothing; the original leaves an empty temporary directory behind at every call."""
