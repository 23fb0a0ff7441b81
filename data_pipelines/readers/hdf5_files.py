"""HDF5 files of one recording: a matrix of samples, and attributes that say what it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.readers import metadata
from data_pipelines.readers.arrays import (
    LEAD_NAMES,
    RATE_NAMES,
    SIGNAL_NAMES,
    UNIT_NAMES,
    matrix_recording,
    stated_number,
)
from data_pipelines.readers.contents import check_present, check_unpacked
from data_pipelines.readers.declared import Declared
from data_pipelines.readers.hdf5_own import check_own_samples
from data_pipelines.readers.hdf5_structure import check_heaps
from data_pipelines.readers.recording import Recording
from data_pipelines.readers.samples import VALUES_AT_ONCE, unreadable

# No recording has more leads, and no attribute more texts.
_MOST_TEXTS = 1000

# Metadata of a recording by the names attributes give it.
_FIELDS = {"patient_id": metadata.PATIENT_ID, "age": metadata.AGE, "sex": metadata.SEX}


def read_hdf5(path: Path | str, declared: Declared) -> Recording:
    """Reads an HDF5 file that holds one recording.

    The samples are the data set called one of `arrays.SIGNAL_NAMES`, or the file's only matrix of numbers. Rate, unit
    and lead names are attributes of it or of the file, named as in `arrays`; `patient_id`, `age` and `sex` as well.
    Files of many recordings are data sets of their own, with builders of their own (`builders/code15.py`).

    Args:
        path: the file.
        declared: what it does not state.

    Raises:
        RecordError: `missing_file`, `truncated_file`, `unreadable_header`, `missing_metadata` or `header_disagrees`.
    """
    path = Path(path)
    check_present(path)
    try:
        check_heaps(path)
        with h5py.File(path, "r") as file:
            dataset = _signal_of(file, path)
            attributes = {**_attributes(file), **_attributes(dataset)}
            samples = _samples_of(dataset, path)
    except RecordError:
        raise
    except Exception as error:  # On damaged files h5py raises OSError, RuntimeError, KeyError, ValueError, TypeError …
        raise RecordError(
            f"{path}: cannot be read as HDF5 ({error}); it is damaged or truncated: copy it again",
            reason="truncated_file",
        ) from error
    return matrix_recording(
        samples,
        path,
        declared,
        rate=stated_number(attributes, RATE_NAMES, path),
        unit=_first(attributes, UNIT_NAMES, str),
        leads=_first(attributes, LEAD_NAMES, _texts),
        fields={name: str(attributes[key]) for key, name in _FIELDS.items() if key in attributes},
    )


def _signal_of(file: h5py.File, path: Path) -> h5py.Dataset:
    found = {name: dataset for name, dataset in _datasets(file) if dataset.ndim == 2 and dataset.dtype.kind in "iuf"}
    named = [name for name in found if name.rpartition("/")[2] in SIGNAL_NAMES] or list(found)
    if len(named) != 1:
        raise RecordError(
            f"{path}: holds {len(named)} matrices of numbers ({', '.join(named[:5]) or 'none'}) that may be the "
            f"samples; one recording a file is read, call it '{SIGNAL_NAMES[0]}'",
            reason="unreadable_header",
        )
    dataset = found[named[0]]
    check_own_samples(dataset, path)
    # Before anything is allocated: a few bytes of a damaged header can claim terabytes.
    file_bytes = path.stat().st_size
    for shape in (dataset.shape, dataset.chunks or ()):
        check_unpacked(path, 8 * math.prod(shape), file_bytes=file_bytes, part=f"'{named[0]}' of shape {dataset.shape}")
    return dataset


class _Slices:
    """A matrix that is read by slices of rows, as `arrays.matrix_recording` does; the file is not kept open."""

    ndim = 2

    def __init__(self, path: Path, name: str, *, shape: tuple[int, int], dtype: np.dtype, is_turned: bool = False):
        self._path, self._name, self._is_turned = path, name, is_turned
        self.shape, self.dtype = shape, dtype

    @property
    def T(self) -> _Slices:  # noqa: N802 as NumPy calls it
        """The matrix with its axes exchanged."""
        return _Slices(self._path, self._name, shape=self.shape[::-1], dtype=self.dtype, is_turned=not self._is_turned)

    def __getitem__(self, rows: slice) -> np.ndarray:
        try:
            with h5py.File(self._path, "r") as file:
                return file[self._name][:, rows].T if self._is_turned else file[self._name][rows]
        except Exception as error:  # As of the first time.
            raise unreadable(str(self._path), error) from error


def _samples_of(dataset: h5py.Dataset, path: Path) -> np.ndarray | _Slices:
    """Returns a short matrix, or one that is compressed, in memory; of a long one what reads it."""
    # Of what is compressed, a few rows may take as long to read as all.
    if dataset.size <= VALUES_AT_ONCE or dataset.chunks is not None:
        return dataset[()]
    return _Slices(path, dataset.name, shape=dataset.shape, dtype=dataset.dtype)


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields every data set with its path, one of several names only once.

    Not by `visititems`, which also sums up what a group takes: on some damaged ones that never ends, inside the
    library, where nothing can interrupt it.
    """
    groups: list[tuple[str, h5py.Group]] = [("", file)]
    seen: set[h5py.HLObject] = {file["/"]}
    while groups:
        prefix, group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            item = group[name]
            if item in seen:
                continue
            seen.add(item)
            if isinstance(item, h5py.Dataset):
                yield prefix + name, item
            elif isinstance(item, h5py.Group):
                groups.append((f"{prefix}{name}/", item))


def _attributes(item: h5py.HLObject) -> dict[str, Any]:
    wanted = {*RATE_NAMES, *UNIT_NAMES, *LEAD_NAMES, *_FIELDS}
    found = {}
    for name in item.attrs:
        if name.casefold() not in wanted:
            continue
        # Thousands of texts may all be the same megabyte of the file.
        length = math.prod(item.attrs.get_id(name).shape)
        if length > _MOST_TEXTS:
            raise ValueError(f"its attribute '{name}' has {length} values")
        found[name.casefold()] = _plain(item.attrs[name])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def _first(attributes: dict[str, Any], names: tuple[str, ...], convert: Any) -> Any:
    return next((convert(attributes[name]) for name in names if name in attributes), None)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(_plain(text)) for text in np.atleast_1d(value).ravel().tolist())
