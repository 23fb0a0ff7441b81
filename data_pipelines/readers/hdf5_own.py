"""Restricts HDF5 data sets to those in their own file, since HDF5 can refer to any other file of the machine.

It does so by external links, by external storage, where samples are any bytes of another file, and by virtual data
sets, which are composed from other files. A program that reads files of unknown origin must not follow any of them.
"""

from __future__ import annotations

from pathlib import Path

import h5py

from data_pipelines.files.refusals import unreadable_header


def own_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Returns a data set at the top level of a file, if the file holds it itself.

    Args:
        file: File, open for reading.
        name: Name of the data set.
        path: Path of the file.

    Raises:
        KeyError: The file has no item of that name.
        RecordError: The item is a group, or is stored in another file (`unreadable_header`).
    """
    if name not in file:
        raise KeyError(f"it has no '{name}'")
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise unreadable_header(
            f"{path}: its '{name}' is no data set of its own, but a link or a group; only files that hold their own "
            "samples are read: get it again from where it comes from"
        )
    check_own_samples(file[name], path)
    return file[name]


def check_own_samples(dataset: h5py.Dataset, path: Path) -> None:
    """Raises unless the samples of a data set are stored in its own file.

    Args:
        dataset: Data set that was reached by hard links alone.
        path: Path of its file.

    Raises:
        RecordError: The samples are in other files (`unreadable_header`).
    """
    if dataset.external or dataset.is_virtual:
        raise unreadable_header(
            f"{path}: the samples of '{dataset.name}' lie in other files (external storage or a virtual data set); "
            "only files that hold their own are read: write it again with h5py or h5repack"
        )
