"""The index of a prepared data set: one array per column, and the splits and duplicates that follow from them.

Everything that decides which record is used for what reads only the index and never a signal. Columns are plain `.npy`
files beside an `index.json` and are memory-mapped, so that even an index of a hundred million records opens at once.
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

from data_pipelines import records
from data_pipelines.errors import DataError
from data_pipelines.prepared.shared_contents import own_codes, shared_by_many
from data_pipelines.prepared.splitting import Linked, Split, split_linked, split_of
from data_pipelines.system.counted import counted, named
from data_pipelines.system.near_names import meant_or_else
from data_pipelines.system.npy_files import write_npy
from data_pipelines.system.plain_names import why_elsewhere

#: Folder of the index inside a data set, and the table of contents within it.
INDEX_DIR = "index"
INDEX_FILE = "index.json"

#: Value of `duplicate_of` for a record that is the first with its content.
NOT_A_DUPLICATE = -1

#: Columns that every index has, with their types; `<U` is fixed-width text. Scalars and tasks have further columns.
COLUMNS: Mapping[str, str] = {
    **dict.fromkeys(("record_id", "patient_id"), "<U"),
    **dict.fromkeys(("patient", "group"), "<i4"),
    "fold": "<i2",
    "sex": "|i1",
    "age_years": "<f4",
    "content_hash": "|u1",
    "duplicate_of": "<i8",
    **dict.fromkeys(("valid_start", "valid_samples", "quality", "clipped_samples"), "<i4"),
    "signature": "|i1",
}

#: Columns that were added later and that older data sets do not have; an index lists which it has.
LATER_COLUMNS: Mapping[str, str] = {
    **dict.fromkeys(("order_free_signature", "envelope"), "|i1"),
    "recording": "<i4",
    **dict.fromkeys(("recording_seconds", "start_seconds"), "<f8"),
}

#: Labels that every data set has besides its own scalars and tasks.
DEMOGRAPHIC_LABELS = ("age_years", "sex")

_HASH_BYTES = 16

_RECORDS_PER_DIGEST = 1 << 16

#: Number of values per record in columns with several.
COLUMN_WIDTHS: Mapping[str, int] = {
    "content_hash": _HASH_BYTES,
    "signature": records.SIGNATURE_BYTES,
    "order_free_signature": records.SIGNATURE_BYTES,
    "envelope": records.ENVELOPE_SAMPLES,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A multi-label task over all records.

    Attributes:
        classes: Names of the classes, in column order.
        values: Labels of 0 and 1, `int8[record, class]`, or -1 where the record has no label of the task.
    """

    classes: tuple[str, ...]
    values: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Columns of a data set in stored order; a record's number is its position.

    Attributes:
        record_id: Id of every record, `str[n]`.
        patient_id: Id of every record's patient, `str[n]`.
        patient: Code of every record's patient id, `int32[n]`, from 0 to the number of patients - 1.
        group: Group of every record, `int32[n]`; records that share a patient or have equal signals, directly or
            through others, share one.
        fold: Fold of every record, `int16[n]`, -1 where the data set assigns none.
        sex: Sex of every record's patient, `int8[n]`: 0 male, 1 female, -1 unknown.
        age_years: Age of every record's patient, `f32[n]`, NaN where unknown.
        content_hash: Hash of every stored signal, `uint8[n, 16]`.
        duplicate_of: Number of the first record with an equal signal, `int64[n]`, -1 for that first record itself.
        valid_start: Position of the first recorded sample, `int32[n]`.
        valid_samples: Number of recorded samples from `valid_start` on, `int32[n]`.
        quality: Flags of the signal's quality, `int32[n]`, from `quality.QualityFlag`.
        clipped_samples: Number of samples at the limit of what can be stored, `int32[n]`.
        signature: Signature for finding near-duplicates, `int8[n, 192]` (`signature.py`).
        scalars: Scalar labels by name, each `f32[n]`, NaN where missing.
        tasks: Multi-label tasks by name.
        order_free_signature: Signature for finding copies with any order of leads, `int8[n, 192]` (`order_free.py`);
            None in data sets older than this column.
        envelope: Envelope for telling copies with any order of leads from other records, `int8[n, 256]`; None in
            data sets older than this column.
        recording: Code of every record's recording, `int32[n]`; records with equal codes are pieces of one recording,
            of one patient. None in data sets older than this column.
        recording_seconds: Length of the recording that a record was taken from in seconds, `f64[n]`, NaN where unknown;
            None in data sets older than this column.
        start_seconds: Time of the first recorded sample within the recording in seconds, `f64[n]`, NaN where unknown;
            None in data sets older than this column.
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
        """All names that `label` accepts."""
        of_tasks = (f"{name}:{label}" for name, task in self.tasks.items() for label in task.classes)
        return (*DEMOGRAPHIC_LABELS, *self.scalars, *of_tasks)

    def label(self, name: str) -> np.ndarray:
        """Returns one label of every record.

        Args:
            name: Name of a scalar (`"lvef"`), a class of a task (`"superdiagnostic:NORM"`), `"age_years"` or `"sex"`.

        Returns:
            The label, `f32[n]`; classes are 0 or 1, sex is 1 for female, and missing values are NaN.

        Raises:
            DataError: The data set has no such label.
        """
        scalars = {**self.scalars, "age_years": self.age_years}
        if name == "sex":
            return _nan_where(np.asarray(self.sex), self.sex == records.SEX_UNKNOWN)
        if name in scalars:
            return np.array(scalars[name], np.float32)
        task, _, label = name.partition(":")
        if task in self.tasks and label in self.tasks[task].classes:
            values = np.asarray(self.tasks[task].values[:, self.tasks[task].classes.index(label)])
            return _nan_where(values, values == records.LABEL_MISSING)
        known = meant_or_else(name, self.labels, f"it has {', '.join(self.labels)}")
        raise DataError(f"no label '{name}' in this data set{known}")

    def split(
        self,
        *,
        train_folds: Iterable[int],
        val_folds: Iterable[int] = (),
        test_folds: Iterable[int] = (),
        links: Linked | None = None,
    ) -> Split:
        """Splits by fold so that no patient and no content is on two sides.

        Duplicates by content are left out. A training record is also left out if its group has a record in val or test,
        and a validation record if its group has one in test.

        Args:
            train_folds: Folds to train on.
            val_folds: Folds to select models on.
            test_folds: Folds to report results on.
            links: Links of this data set, from `copies_of.Links.of`. With them, near-duplicates count as duplicates,
                and groups are joint groups. Of the duplicates on one side, the first by record id is kept. `joint.join`
                splits several data sets at once.

        Raises:
            DataError: A fold is on two sides, or has no record.
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
        """Raises `DataError` if a fold is on two sides or has no record.

        Args:
            sides: Folds of the sides `train`, `val` and `test`.
        """
        named = [fold for folds in sides.values() for fold in folds]
        if twice := sorted({fold for fold in named if named.count(fold) > 1}):
            raise DataError(f"fold {', '.join(map(str, twice))} is given to two of train, val and test")
        folds, counts = np.unique(self.fold, return_counts=True)
        if absent := sorted(set(named) - set(folds.tolist())):
            raise DataError(_absent_folds(absent, dict(zip(folds.tolist(), counts.tolist(), strict=True))))

    def fingerprint(self, signal_format: records.SignalFormat) -> str:
        """Returns a hexadecimal digest of what a model can depend on: layout, format, contents, patients in order."""
        digest = hashlib.blake2b(digest_size=16)
        numbers = (records.LAYOUT_VERSION, signal_format.sampling_rate_hz, signal_format.num_samples)
        digest.update("{} {} {}\n".format(*numbers).encode())
        digest.update(np.ascontiguousarray(self.content_hash).data)
        # The ids are hashed in chunks, since a hundred million texts would not fit into memory.
        for start in range(0, self.num_records, _RECORDS_PER_DIGEST):
            digest.update(b"\n" if start else b"")
            digest.update("\n".join(self.patient_id[start : start + _RECORDS_PER_DIGEST].tolist()).encode())
        return digest.hexdigest()


def _absent_folds(absent: Sequence[int], counts: Mapping[int, int]) -> str:
    present = [f"{fold} ({counted(count, 'record')})" for fold, count in counts.items() if fold != records.NO_FOLD]
    if records.NO_FOLD in counts:
        present.append(f"{counted(counts[records.NO_FOLD], 'record')} without a fold")
    return (
        f"no record is in {named(list(map(str, absent)), 'fold')}; this data set has {', '.join(present)}. Name "
        "folds that it has (config.data.train_folds, val_folds, test_folds), or deal its patients to folds 1 to 10 "
        "with python -m data_pipelines.build --builder=prepared --folds=stratified (or --folds=hash)"
    )


def _nan_where(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    return np.where(missing, np.float32(np.nan), values.astype(np.float32))


def key_codes(keys: np.ndarray) -> np.ndarray:
    """Returns codes, `int32[n]`, of keys (`uint8[n, 16]`) such as those of patients, numbered by first appearance."""
    return by_first_appearance(np.unique(_as_words(keys), return_inverse=True)[1])


def duplicates(content_hash: np.ndarray) -> np.ndarray:
    """Finds records with equal signals.

    Args:
        content_hash: Hashes of the stored signals, `uint8[n, 16]`.

    Returns:
        The number of the first record with the same signal, `int64[n]`, or -1 for that first record itself.
    """
    _, first, code = np.unique(_as_words(content_hash), return_index=True, return_inverse=True)
    first_of = first[code]
    return np.where(first_of == np.arange(len(code)), NOT_A_DUPLICATE, first_of).astype(np.int64)


def duplicate_pairs(index: Index) -> list[list[str]]:
    """Returns pairs of record ids: every record that repeats a signal, and the first record with this signal."""
    numbers = np.flatnonzero(index.duplicate_of != NOT_A_DUPLICATE)
    first = index.duplicate_of[numbers]
    return [[str(index.record_id[one]), str(index.record_id[other])] for one, other in zip(numbers, first, strict=True)]


def groups(patient: np.ndarray, content_hash: np.ndarray) -> np.ndarray:
    """Groups records that share a patient or have equal signals, directly or through others.

    A signal that many patients have (`shared_contents.py`) does not join its records.

    Args:
        patient: Codes of the patients, `int32[n]`.
        content_hash: Hashes of the stored signals, `uint8[n, 16]`.

    Returns:
        The group of each record, `int32[n]`, numbered by first appearance.
    """
    content = content_codes(content_hash)
    content = own_codes(content, shared_by_many(content, patient))
    num_patients, num_contents = int(patient.max()) + 1, int(content.max()) + 1
    # The nodes of the graph are patients and contents, and every record is an edge.
    size = num_patients + num_contents
    ends = (patient, num_patients + content)
    return by_first_appearance(components(ends, num_nodes=size)[patient])


def components(ends: tuple[np.ndarray, np.ndarray], *, num_nodes: int) -> np.ndarray:
    """Returns the number of every node's connected component, `int32[nodes]`.

    Args:
        ends: Nodes at the two ends of each edge, `int[edges]` each.
        num_nodes: Number of nodes.
    """
    graph = scipy.sparse.coo_array((np.ones(len(ends[0]), np.int8), ends), shape=(num_nodes, num_nodes))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1]


def content_codes(content_hash: np.ndarray) -> np.ndarray:
    """Returns codes, `int64[n]` from 0 on, of signals by their hashes, `uint8[n, 16]`."""
    return np.unique(_as_words(content_hash), return_inverse=True)[1]


def _as_words(content_hash: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(content_hash).view(f"V{_HASH_BYTES}").ravel()


def by_first_appearance(codes: np.ndarray) -> np.ndarray:
    """Returns codes renumbered by first appearance, `int32[n]`; equal codes stay equal."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse]


def column_shape(name: str) -> tuple[int, ...]:
    """Returns the shape of a record's value in a column of `COLUMNS` or `LATER_COLUMNS`."""
    return (COLUMN_WIDTHS[name],) if name in COLUMN_WIDTHS else ()


def save_column(folder: Path, name: str, values: np.ndarray) -> None:
    """Writes a column of the index to its file."""
    write_npy(folder / f"{name}.npy", [values], dtype=values.dtype, shape=values.shape)


def save_contents(
    folder: Path,
    *,
    num_records: int,
    scalars: Sequence[str],
    tasks: Mapping[str, Sequence[str]],
    later: Iterable[str] = LATER_COLUMNS,
) -> None:
    """Writes the table of contents of an index; it is written last, since columns without it are no index.

    Args:
        folder: Folder of the index.
        num_records: Length of every column.
        scalars: Names of the scalars, in the order of their columns.
        tasks: Classes of every task, in the order of their columns.
        later: Columns of `LATER_COLUMNS` that the index has.
    """
    of_labels = (*map(scalar_column, range(len(scalars))), *map(task_column, range(len(tasks))))
    contents = {
        "num_records": num_records,
        "columns": sorted([*COLUMNS, *later, *of_labels]),
        "scalars": list(scalars),
        "tasks": {name: list(classes) for name, classes in tasks.items()},
    }
    (folder / INDEX_FILE).write_text(json.dumps(contents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def open_index(folder: Path) -> Index:
    """Opens an index; its columns are memory-mapped, and checked for type and length.

    Raises:
        DataError: A column is missing, truncated or of another type or length.
    """
    try:
        contents = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        num_records, tasks, scalars = contents["num_records"], contents["tasks"], contents["scalars"]
        later = {name: kind for name, kind in LATER_COLUMNS.items() if name in contents["columns"]}
        # To isinstance, true would be a whole number too.
        if type(num_records) is not int or num_records < 1 or not all(isinstance(name, str) for name in scalars):
            raise ValueError("its number of records or names of scalars are none")
        tasks = {name: tuple(map(str, classes)) for name, classes in tasks.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder / INDEX_FILE}: missing or damaged ({error}); {_REBUILD}") from error

    def column(name: str, kind: str, *shape: int) -> np.ndarray:
        return _open_column(folder / f"{name}.npy", kind, (num_records, *shape))

    return Index(
        **{name: column(name, kind, *column_shape(name)) for name, kind in {**COLUMNS, **later}.items()},
        scalars={name: column(scalar_column(position), "<f4") for position, name in enumerate(scalars)},
        tasks={
            name: Task(classes=classes, values=column(task_column(position), "|i1", len(classes)))
            for position, (name, classes) in enumerate(tasks.items())
        },
    )


_REBUILD = "build the data set again with --overwrite"


def _open_column(path: Path, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if (elsewhere := why_elsewhere(path)) is not None:
        raise DataError(f"{path}: this column of the index {elsewhere}")
    try:
        values = open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise DataError(f"{path}: this column of the index is missing; {_REBUILD}") from error
    except ValueError as error:
        raise DataError(f"{path}: this column of the index is truncated or damaged ({error}); {_REBUILD}") from error
    # The kind of a text is the beginning of its type, which ends with the width.
    if values.shape != shape or not values.dtype.str.startswith(kind):
        raise DataError(f"{path}: holds {values.dtype.str}{values.shape}, the index says {kind}{shape}; {_REBUILD}")
    return values


def scalar_column(position: int) -> str:
    """Returns the name of the column of the scalar at this position of the label schema."""
    # The file is named by position, since a label's name may not be possible as that of a file.
    return f"scalar_{position}"


def task_column(position: int) -> str:
    """Returns the name of the column of the task at this position of the label schema."""
    return f"task_{position}"
