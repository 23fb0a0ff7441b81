"""Checks the nesting of DICOM files before pydicom reads them.

pydicom reads an element of the length it claims even if that exceeds the sequence item that contains it, so that in a
file which lost a few bytes of samples, pydicom reads whatever follows the sequence as samples. Every length is
therefore checked against its container first (DICOM PS3.5, section 7). In elements without VR, the dictionary tells
which are sequences; values with an unknown VR and an undefined length are sequences without VR (PS3.5, 6.2.2).
"""

from __future__ import annotations

import itertools
import struct

from pydicom.datadict import dictionary_VR

# Explicit VRs that are followed by two reserved bytes and a length of four bytes.
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_MOST_NESTED = 16

# Limit on elements and items, each of which becomes an object of a hundred times its eight bytes; a day's annotations
# are fewer.
_MOST_ELEMENTS = 250_000


def check_nesting(content: bytes, start: int, *, is_implicit: bool) -> None:
    """Raises unless every element of a data set ends within its container.

    Args:
        content: Contents of the file.
        start: Position at which the data set begins, after the file's meta information.
        is_implicit: Whether elements are without VR.

    Raises:
        ValueError: An element exceeds its container, an item has no end, a VR is unknown, tags do not increase, or
            elements are too many or nested too deep.
    """
    _Walk(content, is_implicit=is_implicit).elements(start, len(content), depth=0, ends_itself=False)


class _Walk:
    def __init__(self, content: bytes, *, is_implicit: bool, count: itertools.count | None = None):
        self._content = content
        self._is_implicit = is_implicit
        self._count = count or itertools.count()

    def elements(self, at: int, end: int, *, depth: int, ends_itself: bool) -> int:
        """Walks over the elements of a data set or sequence item.

        Args:
            at: Position of the first element, in bytes from the beginning of the file.
            end: Position that no element may exceed.
            depth: Number of sequences around the elements.
            ends_itself: Whether the item has an undefined length, so that a delimiter (FFFE,E00D) ends it.

        Returns:
            Position after the last element, or after the delimiter.

        Raises:
            ValueError: As `check_nesting` says.
        """
        if depth > _MOST_NESTED:
            raise ValueError(f"sequences nested {depth} deep")
        last = (0, 0)
        while at < end:
            tag = self._tag(at, end)
            if ends_itself and tag == _ITEM_END:
                return at + 8
            if tag <= last:
                raise ValueError(f"element {_text(tag)} after {_text(last)}, out of order")
            last = tag
            vr, length, at = self._length(tag, at, end)
            if vr == b"UN" and length == _UNDEFINED:
                walk = _Walk(self._content, is_implicit=True, count=self._count)
                at = walk.items(at, end, tag=tag, length=length, depth=depth)
            elif vr == b"SQ" or length == _UNDEFINED:
                at = self.items(at, end, tag=tag, length=length, depth=depth)
            elif length > end - at:
                raise ValueError(f"element {_text(tag)} of {length} bytes where {end - at} are left")
            else:
                at += length
        if ends_itself:
            raise ValueError("an item without end")
        return at

    def items(self, at: int, end: int, *, tag: tuple[int, int], length: int, depth: int) -> int:
        """Walks over the items of a sequence.

        Args:
            at: Position of the first item, in bytes from the beginning of the file.
            end: Position at which the container of the sequence ends.
            tag: Group and element number of the sequence, for messages.
            length: Length of the sequence in bytes; 0xFFFFFFFF where a delimiter (FFFE,E0DD) ends it.
            depth: Number of sequences around this one.

        Returns:
            Position after the sequence.

        Raises:
            ValueError: As `check_nesting` says.
        """
        sequence_end = end if length == _UNDEFINED else at + length
        if sequence_end > end:
            raise ValueError(f"sequence {_text(tag)} of {length} bytes where {end - at} are left")
        while at < sequence_end:
            item = self._tag(at, sequence_end)
            (size,) = struct.unpack_from("<I", self._content, at + 4)
            at += 8
            if length == _UNDEFINED and item == _SEQUENCE_END:
                return at
            if item != _ITEM:
                raise ValueError(f"{_text(item)} in sequence {_text(tag)}, where an item belongs")
            if size == _UNDEFINED:
                at = self.elements(at, sequence_end, depth=depth + 1, ends_itself=True)
                continue
            if size > sequence_end - at:
                raise ValueError(f"an item of {size} bytes in {_text(tag)} where {sequence_end - at} are left")
            at = self.elements(at, at + size, depth=depth + 1, ends_itself=False)
        if length == _UNDEFINED:
            raise ValueError(f"sequence {_text(tag)} without end")
        return at

    def _tag(self, at: int, end: int) -> tuple[int, int]:
        if end - at < 8:
            raise ValueError(f"{end - at} bytes, where an element belongs")
        if next(self._count) >= _MOST_ELEMENTS:
            raise ValueError(f"more than {_MOST_ELEMENTS} elements and items")
        return struct.unpack_from("<HH", self._content, at)

    def _length(self, tag: tuple[int, int], at: int, end: int) -> tuple[bytes, int, int]:
        """Returns an element's VR (empty where it is not known), its length in bytes and the position of its value.

        Args:
            tag: Group and element number.
            at: Position of the element.
            end: Position at which its container ends.
        """
        if self._is_implicit:
            return _dictionary_vr(tag), struct.unpack_from("<I", self._content, at + 4)[0], at + 8
        if (vr := self._content[at + 4 : at + 6]) in _SHORT_VRS:
            return vr, struct.unpack_from("<H", self._content, at + 6)[0], at + 8
        if vr not in _LONG_VRS or end - at < 12:
            raise ValueError(f"element {_text(tag)} is of no known type ({vr!r})")
        return vr, struct.unpack_from("<I", self._content, at + 8)[0], at + 12


def _dictionary_vr(tag: tuple[int, int]) -> bytes:
    try:
        return dictionary_VR(tag).encode()
    except KeyError:  # The dictionary does not list private elements.
        return b""


def _text(tag: tuple[int, int]) -> str:
    return f"({tag[0]:04x},{tag[1]:04x})"
