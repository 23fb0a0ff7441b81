"""Converts a prepared data set by another recipe: to another rate, length or filter.

Everything but the signal is kept: ids, folds, labels, reports. The recipe works on the stored samples, so what the
first recipe removed is not restored; the card names both recipes and the data set that was converted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.builders.base import Quarantined, SourceCard, ecg_record
from data_pipelines.errors import DataError, RecordError
from data_pipelines.metadata.demographics import fold_of_patient
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.prepared.stratified_folds import dealt_note, label_indicators, stratified_folds
from data_pipelines.recording import Recording
from data_pipelines.records import STORED_LEADS, EcgRecord, LabelSchema, SignalFormat, content_hash
from data_pipelines.signals.conversion import stored_signal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.storage.array_record_shard import opened
from data_pipelines.storage.example_format import parse, seconds_of
from data_pipelines.storage.store import open_store


class PreparedSource:
    """The records of a prepared data set, in stored order; an item is a record number."""

    def __init__(self, directory: Path, *, recipe: SignalRecipe, folds: str | None = None):
        """Opens the data set and checks its shards.

        Args:
            directory: Directory that `python -m data_pipelines.build --out=` wrote, including its ArrayRecord shards.
            recipe: Recipe by which the stored signals are converted.
            folds: Way of assigning patients to new folds, one of `stratified_folds.DEALINGS`: `hash` (of the patient
                id) or `stratified`; None keeps the stored folds.

        Raises:
            DataError: The directory has no data set, or shards of it are missing, truncated or damaged.
        """
        dataset = open_dataset(directory)
        open_store(directory, kind="array_record")  # The packed copy has only the signals.
        card, before, form = dataset.card, dataset.card["recipe"], dataset.format
        self._dataset = dataset
        self._folds: np.ndarray | None = None
        self.recipe = dataclasses.replace(recipe, name=f"{recipe.name} after {before['name']}")
        self.signal_format = recipe.signal_format
        self.label_schema = LabelSchema(
            scalars=tuple(dataset.index.scalars),
            tasks={name: task.classes for name, task in dataset.index.tasks.items()},
            units={name: entry["unit"] for name, entry in card["scalars"].items() if entry["unit"]},
        )
        self.items = range(dataset.index.num_records)
        origin = (
            f"converted from a prepared data set of {form.num_samples} samples at {form.sampling_rate_hz} Hz, recipe "
            f"{before['name']} version {before['version']}, fingerprint {dataset.fingerprint}"
        )
        self.card = SourceCard(
            name=card["name"],
            description=f"{card['description']} This copy was {origin}.",
            simulated=dataset.simulated,
            citation=card["citation"],
            license=card["license"],
            notes=(*card["summary"]["notes"], origin, *self._dealt(folds)),
            sex_reading=card["summary"].get("sex_reading", ""),
        )

    def reader(self) -> PreparedReader:
        """Returns a reader that converts records by their numbers."""
        return PreparedReader(
            shards=self._dataset.shards,
            bounds=tuple(itertools.accumulate(self._dataset.card["shard_lengths"], initial=0)),
            fingerprint=self._dataset.fingerprint,
            signal_format=self._dataset.format,
            label_schema=self.label_schema,
            recipe=self.recipe,
            folds=self._folds,
        )

    def _dealt(self, folds: str | None) -> tuple[str, ...]:
        """Computes new folds if `folds` is not None, and returns notes about them."""
        if folds is None:
            return ()
        self._folds = _dealt_folds(self._dataset, folds)
        # The first two labels, age and sex, are not stratified by.
        by = dealt_note(self._dataset.index.labels[2:]) if folds == "stratified" else "patients were dealt by a hash"
        return (f"{by}; what notes before this one say of folds is of the data set that this was made from",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedReader:
    """Reads stored records and converts their signals by a recipe; a record that cannot be converted is quarantined.

    Attributes:
        shards: ArrayRecord files, in stored order.
        bounds: Number of the first record of each shard, followed by the number of all records.
        fingerprint: Fingerprint of the data set, by which a build notices that its contents were replaced.
        signal_format: Format of the stored records.
        label_schema: Labels of the data set.
        recipe: Recipe by which the signals are converted.
        folds: New folds of all records, `int16[n]`; None keeps the stored ones.
    """

    shards: tuple[Path, ...]
    bounds: tuple[int, ...]
    fingerprint: str
    signal_format: SignalFormat
    label_schema: LabelSchema
    recipe: SignalRecipe
    folds: np.ndarray | None = None

    def __call__(self, items: Sequence[int]) -> Iterator[EcgRecord | Quarantined]:
        """Yields the converted record of every record number, in the given order, or a `Quarantined` in its place.

        Raises:
            DataError: A stored record is damaged.
        """
        shard_of = np.searchsorted(self.bounds, items, side="right") - 1
        for shard, members in itertools.groupby(zip(shard_of.tolist(), items, strict=True), key=lambda pair: pair[0]):
            positions = [number - self.bounds[shard] for _, number in members]
            for position, example in zip(positions, _examples(self.shards[shard], positions), strict=True):
                number = self.bounds[shard] + position
                yield self._converted(example, number, where=f"{self.shards[shard]}: record {position}")

    def _converted(self, example: bytes, number: int, *, where: str) -> EcgRecord | Quarantined:
        try:
            feature = parse(example)
            stored = _fields(feature, self.label_schema)
            signal = np.frombuffer(feature["signal"].bytes_list.value[0], np.int16).reshape(self.signal_format.shape)
            digest = feature["content_hash"].bytes_list.value[0]
            start, count = (feature[name].int64_list.value[0] for name in ("valid_start", "valid_samples"))
        except (KeyError, IndexError, ValueError, TypeError, EOFError) as error:
            raise DataError(
                f"{where} is no record of this data set ({type(error).__name__}: {error}); restore this shard, or "
                "build it again"
            ) from error
        if self.folds is not None:
            stored["fold"] = int(self.folds[number])
        if content_hash(signal) != digest:
            raise DataError(f"{where} has another content than its hash says; restore this shard, or build it again")
        recording = Recording(
            source=f"record '{stored['record_id']}'",
            signal=signal[start : start + count].astype(np.float64),
            sampling_rate_hz=float(self.signal_format.sampling_rate_hz),
            channels=STORED_LEADS,
            units=("uV",) * len(STORED_LEADS),
        )
        try:
            record = ecg_record(stored_signal(recording, recipe=self.recipe), **stored)
            return dataclasses.replace(record, **_place(feature, record.start_seconds))
        except RecordError as error:
            return Quarantined(record_id=stored["record_id"], reason=error.reason, message=str(error))


def _dealt_folds(dataset: Dataset, folds: str) -> np.ndarray:
    """Returns new folds, `int16[n]`; records that share a patient or have equal signals get the same fold.

    Args:
        dataset: Data set.
        folds: Way of assigning patients, `hash` or `stratified`.

    Raises:
        DataError: The data set has no labels to stratify by.
    """
    index = dataset.index
    # Records of one group must come into one fold, so the first patient's id stands for all of its people.
    _, first, group = np.unique(np.asarray(index.group), return_index=True, return_inverse=True)
    ids = np.asarray(index.patient_id[first]).tolist()
    if folds == "hash":
        return np.array([fold_of_patient(text) for text in ids], np.int16)[group]
    tasks = {name: task.values for name, task in index.tasks.items()}
    if not index.scalars and not tasks:
        raise DataError(f"--folds=stratified: {dataset.directory} has no labels to stratify by; leave it out")
    return stratified_folds(group, ids, label_indicators(index.scalars, tasks))[group]


def _examples(shard: Path, positions: Sequence[int]) -> Iterator[bytes]:
    try:
        with contextlib.closing(opened(shard)) as reader:
            for previous, position in zip([None, *positions], positions, strict=False):
                if previous is None or position != previous + 1:
                    reader.seek(position)
                yield reader.read()
    except (RuntimeError, ValueError, IndexError) as error:
        raise DataError(f"{shard}: cannot be read, it is damaged ({error}); restore it from a copy") from error


def _place(feature: Mapping[str, Any], start_seconds: float) -> dict[str, Any]:
    """Returns the fields of an `EcgRecord` on its position in the original recording that the data set was made from.

    Args:
        feature: Features of the stored record; those of older data sets do not include its position, which is then NaN.
        start_seconds: Start of the new record within the stored one, seconds.
    """
    if "recording_id" not in feature:
        return {"recording_seconds": math.nan, "start_seconds": math.nan}
    names = ("recording_microseconds", "start_microseconds")
    whole, start = (seconds_of(feature[name].int64_list.value[0]) for name in names)
    recording_id = feature["recording_id"].bytes_list.value[0].decode()
    return {"recording_id": recording_id, "recording_seconds": whole, "start_seconds": start + start_seconds}


def _fields(feature: Mapping[str, Any], schema: LabelSchema) -> dict[str, Any]:
    """Returns the fields of an `EcgRecord` that do not depend on its signal, by name.

    Args:
        feature: Features of the stored record.
        schema: Names of the labels.
    """
    return {
        **{name: feature[name].bytes_list.value[0].decode() for name in ("record_id", "patient_id", "report")},
        "age_years": feature["age_years"].float_list.value[0],
        **{name: feature[name].int64_list.value[0] for name in ("sex", "fold")},
        "scalars": {name: feature[f"scalars/{name}"].float_list.value[0] for name in schema.scalars},
        "tasks": {name: np.frombuffer(feature[f"tasks/{name}"].bytes_list.value[0], np.int8) for name in schema.tasks},
    }
