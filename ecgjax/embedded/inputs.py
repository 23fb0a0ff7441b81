"""What recordings are embedded from: files, by the reader and the checks of a build, or a prepared data set."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from data_pipelines.builders.base import Quarantined, Reader
from data_pipelines.builders.folder import FolderItem, FolderSource
from data_pipelines.errors import DataError
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset
from data_pipelines.readers.formats import FORMATS
from data_pipelines.records import SEX_NAMES
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.statements.declared import Declared
from data_pipelines.storage.store import Store, open_store
from data_pipelines.system.workers import map_ordered
from ecgjax.embedded.rows import Row
from ecgjax.model.preprocessor import difference, remedy_for

#: Number of recordings that a worker reads at a time.
CHUNK = 32


class Input(Protocol):
    """Recordings to embed.

    Attributes:
        num_items: Number of recordings, of which some may be quarantined.
        labels: Further columns by name, each with the type of its values.
        notes: Remarks that a reader of the summary should see.
        facts: Description of the input, for the provenance of the table.
    """

    num_items: int
    labels: dict[str, type]
    notes: tuple[str, ...]
    facts: dict[str, Any]

    def rows(self, *, num_workers: int, measure: bool) -> Generator[list[Row | Quarantined], None, None]:
        """Yields the recordings in order, some at a time.

        Args:
            num_workers: Number of processes that read.
            measure: Whether intervals and amplitudes are measured.
        """
        ...


class FileInput:
    """Recordings in a file or in all files below a folder.

    Args:
        path: File or folder.
        recipe: Recipe of the signals.
        labels: Table with the columns `record`, `patient_id` and others, or None.
        formats: Formats to take.
        declared: Facts that files of bare samples do not state.

    Raises:
        DataError: There is no recording, or the table does not fit them.
    """

    def __init__(
        self,
        path: Path,
        *,
        recipe: SignalRecipe,
        labels: Path | None = None,
        formats: Collection[str] = FORMATS,
        declared: Declared | None = None,
    ):
        self._root = path.parent if path.is_file() else path
        try:
            source = FolderSource(
                self._root,
                labels=labels,
                patient_field=None,
                name="input",
                recipe=recipe,
                formats=formats,
                declared=declared,
                only=path if path.is_file() else None,
            )
        except DataError as error:
            raise DataError(str(error).replace("is --source right?", "is --input right?")) from error
        scalars = source.label_schema.scalars
        own: dict[str, type] = {"patient_id": str, "age_years": float, "sex": str, **dict.fromkeys(scalars, float)}
        self.labels = own if labels else {}
        self.num_items = len(source.items)
        # What a build says of patients and folds is of no concern here.
        of_files = (note for note in source.card.notes if note.startswith(("files", "passed over", "what was")))
        self.notes = (*source.header_notes, *of_files)
        self.facts = {"input": path.name, "recordings": self.num_items}
        self._source, self._rate = source, recipe.sampling_rate_hz

    def rows(self, *, num_workers: int, measure: bool) -> Generator[list[Row | Quarantined], None, None]:
        """Yields the recordings in order, as `Input` says."""
        items = self._source.items
        slices = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
        work = functools.partial(
            _read_files,
            reader=self._source.reader(),
            root=self._root,
            labels=tuple(self.labels),
            measured_hz=self._rate if measure else None,
        )
        yield from map_ordered(work, slices, num_workers=min(num_workers, len(slices)), chunk_size=1)


def _read_files(
    items: Sequence[FolderItem],
    *,
    reader: Reader[FolderItem],
    root: Path,
    labels: tuple[str, ...],
    measured_hz: int | None,
) -> list[Row | Quarantined]:
    found: list[Row | Quarantined] = []
    # The processes share the cores, so a pool of threads in each would only slow them down.
    with threadpool_limits(limits=1):
        for item, result in zip(items, reader(items), strict=True):
            if isinstance(result, Quarantined):
                # The flag is one of a build.
                message = result.message.replace(" are asked for (--min_seconds)", " are what the model takes")
                found.append(dataclasses.replace(result, message=message))
                continue
            known = {
                "patient_id": result.patient_id,
                "age_years": result.age_years,
                "sex": SEX_NAMES[result.sex],
                **result.scalars,
            }
            row = Row(
                record=result.record_id,
                source="" if item.found is None else item.found.path.relative_to(root).as_posix(),
                signal=result.signal,
                valid_start=result.valid_start,
                valid_samples=result.valid_samples,
                labels={name: known[name] for name in labels},
            )
            found.append(row if measured_hz is None else row.with_measurements(sampling_rate_hz=measured_hz))
    return found


class DatasetInput:
    """Records of a prepared data set.

    Args:
        directory: Directory of the data set.
        recipe: Recipe that the records must be prepared by.

    Raises:
        DataError: The data set is damaged, or its records are prepared otherwise.
    """

    def __init__(self, directory: Path, *, recipe: SignalRecipe):
        dataset = open_dataset(directory)
        _check_recipe(directory, dataset.card["recipe"], recipe)
        self._directory, self._rate = directory, recipe.sampling_rate_hz
        self.num_items = dataset.index.num_records
        labels = dict.fromkeys(map(_column_of, dataset.index.labels), float)
        self.labels: dict[str, type] = {"patient_id": str, "fold": int, **labels}
        self.notes: tuple[str, ...] = (f"{dataset.card['name']} is SIMULATED",) if dataset.simulated else ()
        self.facts = {
            "input": dataset.card["name"],
            "fingerprint": dataset.fingerprint,
            "recordings": self.num_items,
            "simulated": dataset.simulated,
        }

    def rows(self, *, num_workers: int, measure: bool) -> Generator[list[Row | Quarantined], None, None]:
        """Yields the records in order, as `Input` says."""
        starts = range(0, self.num_items, CHUNK)
        ranges = [range(start, min(start + CHUNK, self.num_items)) for start in starts]
        work: Callable[[range], list[Row | Quarantined]] = functools.partial(
            _read_records, directory=self._directory, measured_hz=self._rate if measure else None
        )
        # Stored records are read faster than they could be sent from process to process.
        workers = min(num_workers, len(ranges)) if measure else 1
        yield from map_ordered(work, ranges, num_workers=workers, chunk_size=1)


def _column_of(label: str) -> str:
    """Returns the column of a label of a data set, which may be called like a column that is measured here."""
    return f"label_{label}"


def _read_records(records: range, *, directory: Path, measured_hz: int | None) -> list[Row | Quarantined]:
    opened = _opened(directory)
    index, name = opened.index, opened.name
    found: list[Row | Quarantined] = []
    for number, signal in zip(records, opened.store.read(np.array(records)), strict=True):
        row = Row(
            record=str(index.record_id[number]),
            source=name,
            signal=signal,
            valid_start=int(index.valid_start[number]),
            valid_samples=int(index.valid_samples[number]),
            labels={
                "patient_id": str(index.patient_id[number]),
                "fold": int(index.fold[number]),
                **{label: float(values[number]) for label, values in opened.labels.items()},
            },
        )
        found.append(row if measured_hz is None else row.with_measurements(sampling_rate_hz=measured_hz))
    return found


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A data set as a worker keeps it open."""

    name: str
    index: Any
    store: Store
    labels: dict[str, np.ndarray]


@functools.lru_cache(maxsize=1)
def _opened(directory: Path) -> _Opened:
    dataset = open_dataset(directory)
    # A label is made of the whole column, which would take long for every chunk of records.
    labels = {_column_of(name): dataset.index.label(name) for name in dataset.index.labels}
    return _Opened(dataset.card["name"], dataset.index, open_store(directory), labels)


def _check_recipe(directory: Path, stored: dict[str, Any], recipe: SignalRecipe) -> None:
    if unlike := difference(stored, recipe):
        raise DataError(
            f"--input={directory}: its records were prepared {unlike}; {remedy_for(recipe, str(directory))}"
        )


def open_input(
    path: str,
    *,
    recipe: SignalRecipe,
    labels: Path | None = None,
    formats: Collection[str] = FORMATS,
    declared: Declared | None = None,
) -> Input:
    """Returns the recordings in a file, in a folder, or in a prepared data set.

    Args:
        path: Path as a user wrote it, which may be the name of a WFDB record without extension; or address of a
            prepared data set in a bucket.
        recipe: Recipe of the signals.
        labels: Table with the columns `record`, `patient_id` and others; not for a data set.
        formats: Formats of files to take.
        declared: Facts that files of bare samples do not state.

    Raises:
        DataError: There is nothing at the path that can be embedded, or it does not fit what was said of it.
    """
    # Of what lies in buckets, data sets are read; files of recordings would come one by one.
    found = Path(dataset_folder(path, flag="input"))
    if not found.exists():
        # WFDB names a record without extension, as do its own tools.
        header = found.with_name(f"{found.name}.hea")
        if not header.is_file():
            raise DataError(
                f"--input={path}: no such file or folder, and no WFDB record of this name ({header} is not there); "
                "check the path"
            )
        found = header
    directory = found.parent if found.name == CARD_FILE else found
    if not (directory / CARD_FILE).is_file():
        return FileInput(found, recipe=recipe, labels=labels, formats=formats, declared=declared)
    if labels is not None or declared not in (None, Declared()):
        flag = "--labels" if labels is not None else "--declared_…"
        raise DataError(
            f"{flag} is for files, and --input={path} is a data set, which has its own labels, rates and units; leave "
            "it out"
        )
    return DatasetInput(directory, recipe=recipe)
