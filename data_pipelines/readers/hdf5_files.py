"""Reads HDF5 files of one recording: a matrix of samples, with attributes and data sets that describe it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_pipelines.files.contents import check_present, check_unpacked, most_unpacked
from data_pipelines.files.refusals import refusing, truncated_file, unreadable_header
from data_pipelines.files.samples import VALUES_AT_ONCE, Matrix, unreadable
from data_pipelines.readers.hdf5_own import check_own_samples
from data_pipelines.readers.hdf5_structure import check_heaps
from data_pipelines.recording import Recording
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import stated_name
from data_pipelines.statements.nested_values import NamedValue, named_values
from data_pipelines.statements.sample_matrix import SIGNAL_NAMES, is_signal_name, matrix_recording

# Limit on texts in an attribute or data set; no recording has more leads.
_MOST_TEXTS = 1000

# Longer arrays of numbers are read as statements only if they have the name of one.
_MOST_LEADS = 1000


def read_hdf5(path: Path | str, declared: Declared) -> Recording:
    """Reads an HDF5 file that holds one recording.

    The samples are the data set named as one of `SIGNAL_NAMES`, or else the file's only matrix of numbers. Its
    attributes, those of all groups, and the other data sets with their attributes are searched for rate, unit, scale,
    leads, orientation, patient id, age and sex. Files with many recordings belong to data sets with builders of their
    own (`builders/code15.py`).

    Args:
        path: Path of the file.
        declared: Declaration for what the file does not state.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`, `truncated_file`, `unreadable_header`), or
            its statements are incomplete or contradictory (`missing_metadata`, `header_disagrees`).
    """
    path = Path(path)
    check_present(path)
    # h5py raises OSError, RuntimeError, KeyError, ValueError …
    with refusing(truncated_file, f"{path}: cannot be read as HDF5", "it is damaged or truncated: copy it again"):
        check_heaps(path)
        with h5py.File(path, "r") as file:
            dataset = _signal_of(file, path)
            inside = tuple(dataset.name.strip("/").split("/"))
            values = _values(file, dataset, inside, path)
            samples = _samples_of(dataset, path)
    return matrix_recording(samples, path, declared, values=values, beside=inside)


def _values(file: h5py.File, signal: h5py.Dataset, inside: tuple[str, ...], path: Path) -> list[NamedValue]:
    """Returns the named values of the file other than the samples; attributes of the samples themselves come first.

    Args:
        file: File, open for reading.
        signal: Data set of the samples.
        inside: Names of the groups that contain the samples, from the outermost, followed by the data set's own name.
        path: Path of the file.
    """
    values = named_values(_attributes(signal), inside)
    labels = tuple(dimension.label for dimension in signal.dims)
    values += [NamedValue((*inside, "dims"), labels)] if all(labels) else []
    outer = [inside[:depth] for depth in range(len(inside) - 1, 0, -1)]
    for group in outer:
        values += named_values(_attributes(file["/".join(group)]), group)
    values += named_values(_attributes(file))
    left = most_unpacked(path.stat().st_size)
    for name, item in _datasets(file, with_groups=True):
        names = tuple(name.strip("/").split("/"))
        if isinstance(item, h5py.Group):
            values += [] if names in outer else named_values(_attributes(item), names)
        elif item != signal and _may_state(item, names):
            check_own_samples(item, path)
            left -= 8 * item.size
            if left < 0:
                raise ValueError("its data sets beside the samples hold more than any recording")
            values += _values_of(item, names)
    return values


def _may_state(dataset: h5py.Dataset, names: tuple[str, ...]) -> bool:
    """Returns whether a data set besides the samples may describe them.

    Args:
        dataset: Data set other than the samples.
        names: Names of the groups that contain the data set, followed by its own.
    """
    if not dataset.size or dataset.ndim > 2:
        return False
    if dataset.dtype.kind in "iufb":
        return bool(stated_name(names[-1]).kinds) or dataset.size <= _MOST_LEADS
    return dataset.size <= _MOST_TEXTS


def _values_of(dataset: h5py.Dataset, names: tuple[str, ...]) -> list[NamedValue]:
    """Returns the named values of a small data set, together with its unit if an attribute states one."""
    content, attributes = dataset[()], _attributes(dataset)
    if _plain(attributes.get("MATLAB_class")) == "char" and content.dtype.kind == "u":
        content = "".join(map(chr, content.ravel().tolist()))
    unit = next((_plain(attributes[name]) for name in attributes if name.casefold() in ("unit", "units")), None)
    if isinstance(unit, str):
        return named_values({"value": content, "unit": unit}, names)
    return named_values(content, names)


def _signal_of(file: h5py.File, path: Path) -> h5py.Dataset:
    found = {name: item for name, item in _datasets(file) if item.ndim == 2 and item.dtype.kind in "iuf"}
    matrices = [name for name, item in found.items() if min(item.shape) != 1]
    named = [name for name in found if is_signal_name(name.rpartition("/")[2])] or matrices
    if len(named) != 1:
        raise unreadable_header(
            f"{path}: holds {len(named)} matrices of numbers ({', '.join(named[:5]) or 'none'}) that may be the "
            f"samples; one recording a file is read, call it '{SIGNAL_NAMES[0]}'"
        )
    dataset = found[named[0]]
    check_own_samples(dataset, path)
    # The check comes before any allocation: a few bytes of a damaged header can claim terabytes.
    file_bytes = path.stat().st_size
    for shape in (dataset.shape, dataset.chunks or ()):
        check_unpacked(path, 8 * math.prod(shape), file_bytes=file_bytes, part=f"'{named[0]}' of shape {dataset.shape}")
    return dataset


class _Slices:
    """A matrix in a file, read by slices of rows, as `sample_matrix.py` reads it; the file is closed between reads."""

    ndim = 2

    def __init__(self, path: Path, name: str, *, shape: tuple[int, int], dtype: np.dtype, is_turned: bool = False):
        self._path, self._name, self._is_turned = path, name, is_turned
        self.shape, self.dtype = shape, dtype

    @property
    def T(self) -> _Slices:  # noqa: N802 as NumPy calls it
        """The transposed matrix."""
        return _Slices(self._path, self._name, shape=self.shape[::-1], dtype=self.dtype, is_turned=not self._is_turned)

    def __getitem__(self, rows: slice) -> np.ndarray:
        try:
            with h5py.File(self._path, "r") as file:
                return file[self._name][:, rows].T if self._is_turned else file[self._name][rows]
        except Exception as error:  # The errors are those of the first read.
            raise unreadable(str(self._path), error) from error


def _samples_of(dataset: h5py.Dataset, path: Path) -> Matrix:
    """Returns a short or chunked matrix in memory, and for a long contiguous one an object that reads its slices."""
    # Reading a few rows of a compressed matrix may take as long as reading all.
    if dataset.size <= VALUES_AT_ONCE or dataset.chunks is not None:
        return dataset[()]
    return _Slices(path, dataset.name, shape=dataset.shape, dtype=dataset.dtype)


def _datasets(file: h5py.File, *, with_groups: bool = False) -> Iterator[tuple[str, h5py.Dataset | h5py.Group]]:
    """Yields every data set, and every group if asked to, with its path; items with several names come only once.

    `visititems` is not used because it also adds up the sizes of groups, which on some damaged groups never ends,
    inside the library, where nothing can interrupt it.
    """
    groups: list[tuple[str, h5py.Group]] = [("", file)]
    seen: set[h5py.HLObject] = {file["/"]}
    while groups:
        prefix, group = groups.pop()
        for name in group:
            # Soft and external links may lead to other files, or nowhere.
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            if (item := group[name]) in seen:
                continue
            seen.add(item)
            if isinstance(item, h5py.Dataset):
                yield prefix + name, item
            elif isinstance(item, h5py.Group):
                if with_groups:
                    yield prefix + name, item
                groups.append((f"{prefix}{name}/", item))


def _attributes(item: h5py.HLObject) -> dict[str, Any]:
    """Returns the attributes of a data set or group, without long lists of texts."""
    found = {}
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        # A damaged file can have thousands of texts that are all the same megabyte.
        if attribute.dtype.kind not in "iuf" and math.prod(attribute.shape) > _MOST_TEXTS:
            if stated_name(name).kinds:
                raise ValueError(f"its attribute '{name}' has {math.prod(attribute.shape)} values")
            continue
        found[name] = item.attrs[name]
    return found


def _plain(value: Any) -> Any:
    """Returns a text without the array or bytes it may be wrapped in, and other values unchanged."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
