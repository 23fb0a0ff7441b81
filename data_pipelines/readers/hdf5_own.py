"""Data sets of HDF5 files that lie in their own file: HDF5 can refer to any other file of the machine.

It does so by external links, by external storage, where samples are any bytes of another file, and by virtual data
sets, which are put together from other files. Whoever reads a file of a stranger's must follow none of them.
"""

from __future__ import annotations

from pathlib import Path

import h5py

from data_pipelines.errors import RecordError


def own_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Returns a data set at the top of a file that lies in it.

    Args:
        file: opened.
        name: of the data set.
        path: of the file.

    Raises:
        KeyError: there is none of that name.
        RecordError: `unreadable_header`: it is a group, or lies in another file.
    """
    if name not in file:
        raise KeyError(f"it has no '{name}'")
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise RecordError(
            f"{path}: its '{name}' is no data set of its own, but a link or a group; only files that hold their own "
            "samples are read: get it again from where it comes from",
            reason="unreadable_header",
        )
    check_own_samples(file[name], path)
    return file[name]


def check_own_samples(dataset: h5py.Dataset, path: Path) -> None:
    """Raises unless the samples of a data set lie in its own file.

    Args:
        dataset: one that was reached by hard links alone.
        path: of its file.

    Raises:
        RecordError: `unreadable_header`.
    """
    if dataset.external or dataset.is_virtual:
        raise RecordError(
            f"{path}: the samples of '{dataset.name}' lie in other files (external storage or a virtual data set); "
            "only files that hold their own are read: write it again with h5py or h5repack",
            reason="unreadable_header",
        )
