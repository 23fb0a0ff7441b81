"""Items of a source that are made when they are accessed, so that a million of them need no memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

ItemT = TypeVar("ItemT")


class LazyItems(Sequence[ItemT]):
    """A sequence whose elements are made anew at every access; a slice is a list, which can be pickled."""

    def __init__(self, length: int, make: Callable[[int], ItemT]):
        """Stores the number of items and the function that makes the item at a position, counted from 0."""
        self._length = length
        self._make = make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> ItemT: ...

    @overload
    def __getitem__(self, index: slice) -> list[ItemT]: ...

    def __getitem__(self, index: int | slice) -> ItemT | list[ItemT]:
        positions = range(self._length)[index]
        return self._make(positions) if isinstance(positions, int) else [self._make(i) for i in positions]
