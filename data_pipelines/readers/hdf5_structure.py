"""Checks the heaps of text in HDF5 files before the HDF5 library reads them.

The library walks over a heap by the sizes of its objects, and at free space of size zero it loops forever, where no
exception or signal reaches it. Text of variable length, such as lead names in attributes, is stored in such heaps (HDF5
File Format Specification, III.E, Global Heap). Lengths are assumed to have eight bytes, which is the default.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path

# The pattern is the signature, version 1 and three reserved bytes.
_COLLECTION = re.compile(rb"GCOL\x01\x00\x00\x00")
_COLLECTION_HEADER, _OBJECT_HEADER = struct.Struct("<8sQ"), struct.Struct("<HHIQ")


def check_heaps(path: Path) -> None:
    """Raises unless the objects of every global heap of a file follow one another to its end.

    Args:
        path: Path of a file that is not empty.

    Raises:
        ValueError: The objects of a heap do not fill it.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for start in [match.start() for match in _COLLECTION.finditer(content)]:
            _check_collection(content, start)


def _check_collection(content: mmap.mmap, start: int) -> None:
    left = len(content) - start
    size = _COLLECTION_HEADER.unpack_from(content, start)[1] if left >= _COLLECTION_HEADER.size else 0
    if not _COLLECTION_HEADER.size <= size <= left:
        raise ValueError(f"a heap of {size} bytes where {left} are left")
    at, end = start + _COLLECTION_HEADER.size, start + size
    while at + _OBJECT_HEADER.size <= end:
        index, _, _, length = _OBJECT_HEADER.unpack_from(content, at)
        # The length of object 0, which is free space, includes its header; those of others do not, and are padded to
        # eight.
        step = length if index == 0 else _OBJECT_HEADER.size + length + (-length % 8)
        if not _OBJECT_HEADER.size <= step <= end - at:
            raise ValueError(f"an object of {length} bytes in a heap where {end - at} are left")
        at += step
