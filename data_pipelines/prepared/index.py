"""The index of a prepared data set: one array per column, and the splits and duplicates that follow from them.

Everything that decides which record is used for what reads the index and never a signal. Columns are plain `.npy`
files beside an `index.json`, memory-mapped when opened, so that a hundred million records open at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.lib.format import open_memmap

from data_pipelines.errors import DataError
from data_pipelines.prepared.shared_contents import own_codes, shared_by_many
from data_pipelines.prepared.splitting import Linked, Split, split_linked, split_of
from data_pipelines.records import (
    ENVELOPE_SAMPLES,
    LABEL_MISSING,
    LAYOUT_VERSION,
    NO_FOLD,
    SEX_UNKNOWN,
    SIGNATURE_BYTES,
    SignalFormat,
)
from data_pipelines.system.near_names import meant
from data_pipelines.system.npy_files import write_npy
from data_pipelines.system.plain_names import why_elsewhere

#: Folder of the index inside a data set, and its table of contents.
INDEX_DIR = "index"
INDEX_FILE = "index.json"

#: Value of `duplicate_of` for a record that is the first with its content.
NOT_A_DUPLICATE = -1

#: Columns every index has, with their types; `<U` are fixed-width text. Scalars and tasks come on top.
COLUMNS: Mapping[str, str] = {
    "record_id": "<U",
    "patient_id": "<U",
    "patient": "<i4",
    "group": "<i4",
    "fold": "<i2",
    "sex": "|i1",
    "age_years": "<f4",
    "content_hash": "|u1",
    "duplicate_of": "<i8",
    "valid_start": "<i4",
    "valid_samples": "<i4",
    "quality": "<i4",
    "clipped_samples": "<i4",
    "signature": "|i1",
}

#: Columns that data sets built before they were thought of do not have; an index says which it has.
LATER_COLUMNS: Mapping[str, str] = {
    "order_free_signature": "|i1",
    "envelope": "|i1",
    "recording": "<i4",
    "recording_seconds": "<f8",
    "start_seconds": "<f8",
}

#: Labels that every data set has beside its own scalars and tasks.
DEMOGRAPHIC_LABELS = ("age_years", "sex")

_HASH_BYTES = 16

_RECORDS_PER_DIGEST = 1 << 16

#: Columns with several numbers a record, and how many.
COLUMN_WIDTHS: Mapping[str, int] = {
    "content_hash": _HASH_BYTES,
    "signature": SIGNATURE_BYTES,
    "order_free_signature": SIGNATURE_BYTES,
    "envelope": ENVELOPE_SAMPLES,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A multi-label task over all records.

    Attributes:
        classes: class names in column order.
        values: `int8[record, class]` of 0 and 1, or -1 where the record has no label of the task.
    """

    classes: tuple[str, ...]
    values: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Columns of a data set in stored order; the record number is the position.

    Attributes:
        record_id: `str[n]`.
        patient_id: `str[n]`.
        patient: `int32[n]`, a code for each patient id, 0 to the number of patients - 1.
        group: `int32[n]`: records that share a patient or a content, directly or through others, share a group.
        fold: `int16[n]`, -1 where the data set assigns none.
        sex: `int8[n]`, 0 male, 1 female, -1 unknown.
        age_years: `f32[n]`, NaN where unknown.
        content_hash: `uint8[n, 16]` of the stored signal.
        duplicate_of: `int64[n]`: -1, or the number of the first record with equal content.
        valid_start: `int32[n]`, first recorded sample.
        valid_samples: `int32[n]`, recorded samples from there on.
        quality: `int32[n]`, `quality.QualityFlag`s.
        clipped_samples: `int32[n]`, samples at the limit of what can be stored.
        signature: `int8[n, 192]`, by which near-duplicates are found (`signature.py`).
        scalars: `f32[n]` by name, NaN where missing.
        tasks: multi-label tasks by name.
        order_free_signature: `int8[n, 192]`, by which copies are found whatever the order of their leads
            (`order_free.py`); None in a data set built before there was one.
        envelope: `int8[n, 256]`, by which such copies are told from other records; None likewise.
        recording: `int32[n]`, a code for each recording: records of one are pieces of it, and one patient's; None
            likewise.
        recording_seconds: `f64[n]`, length of the recording that a record was taken from, NaN where unknown; None
            likewise.
        start_seconds: `f64[n]`, where in the recording the first recorded sample lies, NaN where unknown; None
            likewise.
    """

    record_id: np.ndarray
    patient_id: np.ndarray
    patient: np.ndarray
    group: np.ndarray
    fold: np.ndarray
    sex: np.ndarray
    age_years: np.ndarray
    content_hash: np.ndarray
    duplicate_of: np.ndarray
    valid_start: np.ndarray
    valid_samples: np.ndarray
    quality: np.ndarray
    clipped_samples: np.ndarray
    signature: np.ndarray
    scalars: Mapping[str, np.ndarray]
    tasks: Mapping[str, Task]
    order_free_signature: np.ndarray | None = None
    envelope: np.ndarray | None = None
    recording: np.ndarray | None = None
    recording_seconds: np.ndarray | None = None
    start_seconds: np.ndarray | None = None

    @property
    def num_records(self) -> int:
        """Number of records."""
        return len(self.record_id)

    @property
    def num_patients(self) -> int:
        """Number of patients."""
        return int(self.patient.max()) + 1

    @property
    def labels(self) -> tuple[str, ...]:
        """Every name that `label` takes."""
        of_tasks = (f"{name}:{label}" for name, task in self.tasks.items() for label in task.classes)
        return (*DEMOGRAPHIC_LABELS, *self.scalars, *of_tasks)

    def label(self, name: str) -> np.ndarray:
        """Returns one label of every record.

        Args:
            name: a scalar (`"lvef"`), a class of a task (`"superdiagnostic:NORM"`), `"age_years"` or `"sex"`.

        Returns:
            `f32[n]`; classes are 0 or 1, sex is 1 for female; NaN where missing.

        Raises:
            DataError: no such label.
        """
        if name == "age_years":
            return np.array(self.age_years, np.float32)
        if name == "sex":
            return _nan_where(np.asarray(self.sex), self.sex == SEX_UNKNOWN)
        if name in self.scalars:
            return np.array(self.scalars[name], np.float32)
        task, _, label = name.partition(":")
        if task in self.tasks and label in self.tasks[task].classes:
            values = np.asarray(self.tasks[task].values[:, self.tasks[task].classes.index(label)])
            return _nan_where(values, values == LABEL_MISSING)
        raise DataError(
            f"no label '{name}' in this data set{meant(name, self.labels)}; it has {', '.join(self.labels)}"
        )

    def split(
        self,
        *,
        train_folds: Iterable[int],
        val_folds: Iterable[int] = (),
        test_folds: Iterable[int] = (),
        links: Linked | None = None,
    ) -> Split:
        """Splits by fold so that no patient and no content is on two sides.

        Duplicates by content are left out; so is a record whose group also has a record on a side that is judged
        later: train yields to val and test, val yields to test.

        Args:
            train_folds: folds to train on.
            val_folds: folds to select on.
            test_folds: folds to report on.
            links: `copies_of.Links.of` this data set: near-duplicates then count as duplicates, and groups are the
                joint ones. Of duplicates on one side the first by record id stays. `joint.join` splits several data
                sets at once.

        Raises:
            DataError: a fold on two sides, or one that no record has.
        """
        sides = {"train": tuple(train_folds), "val": tuple(val_folds), "test": tuple(test_folds)}
        self.check_folds(sides)
        if links is not None:
            (split,) = split_linked([self.fold], record_ids=[self.record_id], linked=[links], sides=[sides])
            return split
        return split_of(
            {name: np.isin(self.fold, folds) for name, folds in sides.items()},
            unique=np.asarray(self.duplicate_of) == NOT_A_DUPLICATE,
            group=np.asarray(self.group),
        )

    def check_folds(self, sides: Mapping[str, tuple[int, ...]]) -> None:
        """Raises `DataError` if a fold is on two sides, or no record is in it."""
        named = [fold for folds in sides.values() for fold in folds]
        twice = sorted({fold for fold in named if named.count(fold) > 1})
        if twice:
            raise DataError(f"fold {', '.join(map(str, twice))} is given to two of train, val and test")
        folds, counts = np.unique(self.fold, return_counts=True)
        absent = sorted(set(named) - set(folds.tolist()))
        if absent:
            raise DataError(_absent_folds(absent, dict(zip(folds.tolist(), counts.tolist(), strict=True))))

    def fingerprint(self, signal_format: SignalFormat) -> str:
        """Returns the hex digest of what a model can see here: layout, format, contents and patients in order."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{LAYOUT_VERSION} {signal_format.sampling_rate_hz} {signal_format.num_samples}\n".encode())
        digest.update(np.ascontiguousarray(self.content_hash).data)
        # Piece by piece: a hundred million texts at once would not fit the memory.
        for start in range(0, self.num_records, _RECORDS_PER_DIGEST):
            digest.update(b"\n" if start else b"")
            digest.update("\n".join(self.patient_id[start : start + _RECORDS_PER_DIGEST].tolist()).encode())
        return digest.hexdigest()


def _absent_folds(absent: Sequence[int], counts: Mapping[int, int]) -> str:
    present = [f"{fold} ({count} records)" for fold, count in counts.items() if fold != NO_FOLD]
    if NO_FOLD in counts:
        present.append(f"{counts[NO_FOLD]} records without a fold")
    return (
        f"no record is in fold {', '.join(map(str, absent))}; this data set has {', '.join(present)}. Name folds that "
        "it has (config.data.train_folds, val_folds, test_folds), or deal its patients to folds 1 to 10 with "
        "python -m data_pipelines.build --builder=prepared --folds=stratified (or --folds=hash)"
    )


def _nan_where(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    return np.where(missing, np.float32(np.nan), values.astype(np.float32))


def key_codes(keys: np.ndarray) -> np.ndarray:
    """Returns `int32[n]` codes of keys (`uint8[n, 16]`), such as those of patients, numbered by first appearance."""
    return _by_first_appearance(np.unique(_as_words(keys), return_inverse=True)[1])


def duplicates(content_hash: np.ndarray) -> np.ndarray:
    """Finds equal contents.

    Args:
        content_hash: `uint8[n, 16]`.

    Returns:
        `int64[n]`: -1 for the first record of a content, else the number of that first record.
    """
    _, first, code = np.unique(_as_words(content_hash), return_index=True, return_inverse=True)
    first_of = first[code]
    return np.where(first_of == np.arange(len(code)), NOT_A_DUPLICATE, first_of).astype(np.int64)


def groups(patient: np.ndarray, content_hash: np.ndarray) -> np.ndarray:
    """Joins records that share a patient or a content, directly or through others.

    A content that many patients have (`shared_contents.py`) joins none of them.

    Args:
        patient: `int32[n]` codes.
        content_hash: `uint8[n, 16]`.

    Returns:
        `int32[n]` codes of the connected components, numbered by first appearance.
    """
    content = content_codes(content_hash)
    content = own_codes(content, shared_by_many(content, patient))
    num_patients, num_contents = int(patient.max()) + 1, int(content.max()) + 1
    # A graph of patients and contents in which every record is an edge.
    size = num_patients + num_contents
    edges = scipy.sparse.coo_array(
        (np.ones(len(patient), np.int8), (patient, num_patients + content)), shape=(size, size)
    )
    _, component = scipy.sparse.csgraph.connected_components(edges, directed=False)
    return _by_first_appearance(component[patient])


def content_codes(content_hash: np.ndarray) -> np.ndarray:
    """Returns `int64[n]` codes of contents (`uint8[n, 16]`), from 0 on."""
    return np.unique(_as_words(content_hash), return_inverse=True)[1]


def _as_words(content_hash: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(content_hash).view(f"V{_HASH_BYTES}").ravel()


def _by_first_appearance(codes: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse]


def column_shape(name: str) -> tuple[int, ...]:
    """Returns the shape of one record's value in a column of `COLUMNS` or `LATER_COLUMNS`."""
    return (COLUMN_WIDTHS[name],) if name in COLUMN_WIDTHS else ()


def save_column(folder: Path, name: str, values: np.ndarray) -> None:
    """Writes a whole column."""
    write_npy(folder / f"{name}.npy", [values], dtype=values.dtype, shape=values.shape)


def save_contents(
    folder: Path,
    *,
    num_records: int,
    scalars: Sequence[str],
    tasks: Mapping[str, Sequence[str]],
    later: Iterable[str] = LATER_COLUMNS,
) -> None:
    """Writes the table of contents of an index whose columns are all there: last, since it makes it one.

    Args:
        folder: of the index.
        num_records: length of every column.
        scalars: names of the scalars, in the order of their columns.
        tasks: classes of every task, in the order of their columns.
        later: which of `LATER_COLUMNS` it has.
    """
    contents = {
        "num_records": num_records,
        "columns": sorted(
            [*COLUMNS, *later, *map(scalar_column, range(len(scalars))), *map(task_column, range(len(tasks)))]
        ),
        "scalars": list(scalars),
        "tasks": {name: list(classes) for name, classes in tasks.items()},
    }
    (folder / INDEX_FILE).write_text(json.dumps(contents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def open_index(folder: Path) -> Index:
    """Opens an index, columns memory-mapped and checked for type and length.

    Raises:
        DataError: a column is missing, truncated or of another type or length.
    """
    try:
        contents = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        num_records, tasks, scalars = contents["num_records"], contents["tasks"], contents["scalars"]
        later = {name: kind for name, kind in LATER_COLUMNS.items() if name in contents["columns"]}
        if type(num_records) is not int or num_records < 1 or not all(isinstance(name, str) for name in scalars):
            raise ValueError("its number of records or names of scalars are none")
        tasks = {name: tuple(map(str, classes)) for name, classes in tasks.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder / INDEX_FILE}: missing or damaged ({error}); {_REBUILD}") from error
    return Index(
        **{
            name: _open_column(folder, name, kind, (num_records, *column_shape(name)))
            for name, kind in {**COLUMNS, **later}.items()
        },
        scalars={
            name: _open_column(folder, scalar_column(position), "<f4", (num_records,))
            for position, name in enumerate(scalars)
        },
        tasks={
            name: Task(
                classes=tuple(classes),
                values=_open_column(folder, task_column(position), "|i1", (num_records, len(classes))),
            )
            for position, (name, classes) in enumerate(tasks.items())
        },
    )


_REBUILD = "build the data set again with --overwrite"


def _open_column(folder: Path, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    path = folder / f"{name}.npy"
    elsewhere = why_elsewhere(path)
    if elsewhere is not None:
        raise DataError(f"{path}: this column of the index {elsewhere}")
    try:
        values = open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise DataError(f"{path}: this column of the index is missing; {_REBUILD}") from error
    except ValueError as error:
        raise DataError(f"{path}: this column of the index is truncated or damaged ({error}); {_REBUILD}") from error
    if values.shape != shape or not values.dtype.str.startswith(kind):
        raise DataError(f"{path}: holds {values.dtype.str}{values.shape}, the index says {kind}{shape}; {_REBUILD}")
    return values


def scalar_column(position: int) -> str:
    """Returns the name of the column of the scalar at this position of the label schema."""
    # By position, since a label may be named anything, also what no file can be.
    return f"scalar_{position}"


def task_column(position: int) -> str:
    """Returns the name of the column of the task at this position of the label schema."""
    return f"task_{position}"
