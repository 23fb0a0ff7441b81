"""Checks the structure of MATLAB v5 files before SciPy reads them.

SciPy's reader trusts the lengths and types in a file: damaged ones make it crash the process, which no exception
handler catches, and it unpacks compressed variables without limit. Every element is therefore walked over first
(MathWorks, MAT-File Format, version 5). Allowed are the elements that recordings consist of: numbers, text, structs and
cells.
"""

from __future__ import annotations

import math
import struct
import zlib

# Bytes of a number by data type; types 16 to 18 (miUTF8, miUTF16 and miUTF32) are text.
_SIZE_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_TEXT_TYPES = (1, 2, 4, 16, 17, 18)
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_CELL, _STRUCT, _CHAR, _NUMBERS = 1, 2, 4, range(6, 16)
_COMPLEX = 0x0800
_MOST_NESTED = 8

# Limit on variables, fields and cells, each of which becomes an object of twenty times its bytes in the file.
_MOST_MATRICES = 10_000


class _Elements:
    """Reads consecutive elements of a MATLAB v5 file; `next` returns an element's checked type and its content."""

    def __init__(self, content: memoryview):
        self._content = content
        self._at = 0

    def more(self) -> bool:
        return self._at < len(self._content)

    def next(self, *types: int) -> tuple[int, memoryview]:
        if len(self._content) - self._at < 8:
            raise ValueError("an element is cut")
        kind, size = struct.unpack_from("<II", self._content, self._at)
        start = self._at + 8
        if kind >> 16:  # Up to four bytes of data are stored within the tag.
            kind, size, start = kind & 0xFFFF, kind >> 16, self._at + 4
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
            end = self._at + 8
        else:
            # Compressed elements are the only ones without padding to eight bytes.
            end = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if kind not in types:
            raise ValueError(f"an element of type {kind} where {' or '.join(map(str, types))} belongs")
        if end > len(self._content):
            raise ValueError(f"an element of {size} bytes where {len(self._content) - start} are left")
        self._at = end
        return kind, self._content[start : start + size]


class _Room:
    """Counts down the bytes and the matrices that a file's variables may still take; raises `ValueError` below zero."""

    def __init__(self, most_bytes: int):
        self.num_bytes, self._most_bytes, self._matrices = most_bytes, most_bytes, _MOST_MATRICES

    def take(self, num_bytes: int) -> None:
        self.num_bytes -= num_bytes
        if self.num_bytes < 0:
            raise ValueError(f"its variables unpack to more than {self._most_bytes} bytes")

    def take_matrix(self) -> None:
        self._matrices -= 1
        if self._matrices < 0:
            raise ValueError(f"more than {_MOST_MATRICES} variables, fields and cells")


def check_structure(content: bytes, *, most_bytes: int) -> None:
    """Raises unless the contents are a complete MATLAB v5 file in little-endian order.

    Args:
        content: Contents of the file.
        most_bytes: Number of bytes that the compressed variables together may unpack to, and that the numbers may take
            as float64.

    Raises:
        ValueError: The structure is wrong; the message says how.
    """
    if len(content) < 128 or content[126:128] != b"IM" or content[124:126] != b"\x00\x01":
        raise ValueError("no header of MATLAB v5 in little-endian order")
    packed, values = _Room(most_bytes), _Room(most_bytes)
    elements = _Elements(memoryview(content)[128:])
    while elements.more():
        kind, inner = elements.next(_MATRIX, _COMPRESSED)
        if kind == _COMPRESSED:
            variable = _unpacked(inner, packed.num_bytes)
            packed.take(len(variable))
            unpacked = _Elements(memoryview(variable))
            _, inner = unpacked.next(_MATRIX)
            if unpacked.more():
                raise ValueError("more than one variable in a compressed element")
        _check_matrix(inner, values, depth=0)


def _unpacked(content: memoryview, most_bytes: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        unpacked = decompressor.decompress(content, most_bytes)
    except zlib.error as error:
        raise ValueError(f"a compressed variable is damaged: {error}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"a compressed variable is cut, or unpacks to more than {most_bytes} bytes")
    return unpacked


def _check_matrix(content: memoryview, room: _Room, *, depth: int) -> None:
    room.take_matrix()
    if depth > _MOST_NESTED:
        raise ValueError(f"nested more than {_MOST_NESTED} deep")
    if not content:
        return  # This is an empty field of a struct.
    elements = _Elements(content)
    flags = elements.next(_UINT32)[1]
    shape_bytes = elements.next(_INT32)[1]
    if len(flags) != 8 or len(shape_bytes) < 8 or len(shape_bytes) % 4:
        raise ValueError("flags or dimensions of odd size")
    shape = struct.unpack(f"<{len(shape_bytes) // 4}i", shape_bytes)
    if min(shape) < 0:
        raise ValueError(f"shape {shape}")
    elements.next(_INT8)  # This element is the name.
    kind, num_values = flags[0], math.prod(shape)
    is_complex = bool(struct.unpack_from("<I", flags)[0] & _COMPLEX)
    if kind in _NUMBERS or kind == _CHAR:
        for _ in range(2 if is_complex else 1):
            _check_values(elements, kind, num_values)
            room.take(8 * num_values)
    elif kind in (_STRUCT, _CELL):
        room.take(8 * num_values)
        num_fields = _num_fields(elements) if kind == _STRUCT else 1
        for _ in range(num_fields * num_values):
            _check_matrix(elements.next(_MATRIX)[1], room, depth=depth + 1)
    else:
        raise ValueError(f"an array of class {kind}; numbers, text, structs and cells are read")
    if elements.more():
        raise ValueError("an array with more in it than belongs there")


def _check_values(elements: _Elements, kind: int, num_values: int) -> None:
    # MATLAB stores whole numbers in the smallest type that holds them, whatever the class of the array.
    allowed = _TEXT_TYPES if kind == _CHAR else tuple(set(_SIZE_OF_TYPE) - {16, 17, 18})
    data_type, data = elements.next(*allowed)
    size = len(data) // _SIZE_OF_TYPE[data_type]
    # Characters in UTF-8 and UTF-16 have no fixed size.
    if len(data) % _SIZE_OF_TYPE[data_type] or (kind != _CHAR and size != num_values) or size < num_values:
        raise ValueError(f"{size} values where the shape has {num_values}")


def _num_fields(elements: _Elements) -> int:
    length_bytes, names = elements.next(_INT32)[1], elements.next(_INT8)[1]
    length = struct.unpack("<i", length_bytes)[0] if len(length_bytes) == 4 else 0
    if not 0 < length <= 64 or len(names) % length:
        raise ValueError(f"names of fields of {length} characters in {len(names)} bytes")
    return len(names) // length
