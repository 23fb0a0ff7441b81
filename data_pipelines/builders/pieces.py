"""Cuts long recordings into several records: consecutive pieces of the recipe's length.

Shards are planned from the number of items, so the pieces are counted before anything is stored: from the header where
it states the length of the recording, else by opening the recording, which costs one more read of the file.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple

from data_pipelines.builders.base import ItemReader, NamedItemT, Quarantined, RecordingReader, Source
from data_pipelines.builders.lazy_items import LazyItems
from data_pipelines.errors import DataError, RecordError
from data_pipelines.readers.lengths import Length
from data_pipelines.recording import Recording
from data_pipelines.records import EcgRecord
from data_pipelines.signals.conversion import stored_signal
from data_pipelines.signals.lead_checks import check_timing
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.signals.window import num_pieces
from data_pipelines.system.counted import counted
from data_pipelines.system.visible_text import storable_text
from data_pipelines.system.workers import map_ordered

_ITEMS_PER_TASK = 64

# Starting a process takes 3 s, reading a header 0.1 ms and reading a whole recording of ten seconds 5 ms.
_ITEMS_WORTH_A_PROCESS = 2000

# A rest that is shorter than this comes from rounding lengths to seconds.
_ROUNDING_S = 1e-6


@dataclasses.dataclass(frozen=True)
class Piece(Generic[NamedItemT]):
    """A piece of a recording, or the whole recording if it is a single piece.

    Attributes:
        item: Item that the whole recording is read from.
        number: Number of the piece within the recording, counted from 0.
        count: Number of pieces of the recording.
    """

    item: NamedItemT
    number: int
    count: int

    @property
    def record_id(self) -> str:
        """Id of the record: the recording's id, followed by the piece's number from 1 if there are several pieces."""
        return self.item.record_id if self.count == 1 else f"{self.item.record_id}.piece{self.number + 1}"


class Cut(NamedTuple):
    """How a recording is cut.

    Attributes:
        pieces: Number of records that the recording becomes.
        seconds: Length of the recording in seconds, 0 where it is unknown.
        dropped_seconds: Length in seconds of the rest after the last piece, which is not stored.
    """

    pieces: int
    seconds: float = 0.0
    dropped_seconds: float = 0.0


def piece_items(items: Sequence[NamedItemT], counts: Sequence[int]) -> LazyItems[Piece[NamedItemT]]:
    """Returns the pieces of all recordings, in order.

    Args:
        items: Items of the recordings.
        counts: Number of pieces of each recording.
    """
    ends = list(itertools.accumulate(counts))
    # Pieces of one recording that follow one another share its item, which is then pickled only once.
    item_of = functools.lru_cache(maxsize=1)(lambda recording: items[recording])

    def piece(position: int) -> Piece[NamedItemT]:
        recording = bisect.bisect_right(ends, position)
        count = counts[recording]
        return Piece(item_of(recording), position - (ends[recording] - count), count)

    return LazyItems(ends[-1] if ends else 0, piece)


@dataclasses.dataclass(frozen=True)
class PieceReader(Generic[NamedItemT]):
    """Reads pieces; a piece that cannot be stored is quarantined alone, under its own id.

    Attributes:
        whole: Reader of whole recordings; it opens a recording once for pieces that follow one another.
    """

    whole: RecordingReader[NamedItemT]

    def __call__(self, pieces: Sequence[Piece[NamedItemT]]) -> Iterator[EcgRecord | Quarantined]:
        """Yields the record of every piece in order, or a `Quarantined` in its place."""
        yield from ItemReader(functools.partial(self._read, _LastOpened(self.whole.open)))(pieces)

    def _read(self, opened: _LastOpened, piece: Piece[NamedItemT]) -> EcgRecord:
        recording, recipe = opened(piece.item), self.whole.recipe
        if piece.count == _cut(_length_of(recording), recipe).pieces:
            stored = stored_signal(recording, recipe=recipe, piece=piece.number)
            record = self.whole.record(piece.item, recording, stored)
            record_id, recording_id = storable_text(piece.record_id), storable_text(piece.item.record_id)
            return dataclasses.replace(record, record_id=record_id, recording_id=recording_id)
        raise RecordError(
            f"{recording.source}: has {recording.signal.shape[0]} samples at {recording.sampling_rate_hz:g} Hz, which "
            f"are not the {piece.count} pieces that were counted before; was it changed during the build? Build again",
            reason="header_disagrees",
        )


class _LastOpened(Generic[NamedItemT]):
    """Opens recordings and keeps the last one, or the error that opening it raised."""

    def __init__(self, open_item: Callable[[NamedItemT], Recording]):
        self._open = open_item
        self._record_id: str | None = None
        self._result: Recording | RecordError | None = None

    def __call__(self, item: NamedItemT) -> Recording:
        if self._result is None or item.record_id != self._record_id:
            self._record_id = self._result = None  # Free the last one first, so that memory never holds two.
            self._result = self._opened(item)
            self._record_id = item.record_id
        if isinstance(self._result, RecordError):
            raise self._result
        return self._result

    def _opened(self, item: NamedItemT) -> Recording | RecordError:
        try:
            return self._open(item)
        except RecordError as error:
            return error


class PiecedSource:
    """A source whose long recordings are cut into pieces."""

    def __init__(self, source: Source, *, num_workers: int):
        """Counts the pieces of all recordings.

        Args:
            source: Source whose reader is a `RecordingReader`.
            num_workers: Number of processes that determine the lengths.

        Raises:
            TypeError: The source has another kind of reader.
        """
        reader = source.reader()
        if not isinstance(reader, RecordingReader):
            raise TypeError(f"{source.card.name}: its records are no recordings, which could be cut")
        workers = min(num_workers, len(source.items) // _ITEMS_WORTH_A_PROCESS)
        cut = functools.partial(_cut_of_item, reader)
        cuts = list(map_ordered(cut, source.items, num_workers=workers, chunk_size=_ITEMS_PER_TASK))
        self._reader = PieceReader(reader)
        self.items = piece_items(source.items, [cut.pieces for cut in cuts])
        self.num_recordings = len(source.items)
        self.recipe = source.recipe
        self.signal_format = source.signal_format
        self.label_schema = source.label_schema
        self.card = dataclasses.replace(source.card, notes=(*source.card.notes, *_notes(cuts, source.recipe)))

    def reader(self) -> PieceReader:
        """Returns the reader of the pieces."""
        return self._reader


def _length_of(recording: Recording) -> Length:
    return Length(recording.signal.shape[0], recording.sampling_rate_hz)


def _cut_of_item(reader: RecordingReader[NamedItemT], item: NamedItemT) -> Cut:
    """Returns how a recording is cut; a recording that cannot be opened is a single piece, which is quarantined later.

    Args:
        reader: Reader of the recordings.
        item: Item of the recording.
    """
    try:
        length = reader.length and reader.length(item)
        return _cut(length or _length_of(reader.open(item)), reader.recipe)
    except Exception as error:
        # What is wrong with this recording is reported when its piece is read; other errors concern more than one.
        if isinstance(error, DataError) and not isinstance(error, RecordError):
            raise
        return Cut(1)


def _cut(length: Length, recipe: SignalRecipe) -> Cut:
    """Returns how a recording is cut; one that is too short or has no rate is a single piece.

    Args:
        length: Number of samples and rate.
        recipe: Recipe, whose length the pieces have.
    """
    num_rows, rate = length
    try:
        check_timing(num_rows, sampling_rate_hz=rate, min_seconds=recipe.min_seconds, source="")
        pieces = num_pieces(num_rows, sampling_rate_hz=rate, recipe=recipe, source="")
    except RecordError:
        return Cut(1)
    seconds = num_rows / rate
    return Cut(pieces, seconds, max(0.0, seconds - pieces * recipe.seconds))


def _notes(cuts: Sequence[Cut], recipe: SignalRecipe) -> list[str]:
    several = [cut for cut in cuts if cut.pieces > 1]
    notes = [
        f"cut into pieces of {recipe.seconds:g} s: {len(several)} of {counted(len(cuts), 'recording')}, into "
        f"{counted(sum(cut.pieces for cut in several), 'record')}; an id ends with the number of the piece, as "
        "in '….piece2'"
    ]
    if rests := [cut.dropped_seconds for cut in cuts if cut.dropped_seconds > _ROUNDING_S]:
        notes.append(
            f"{counted(len(rests), 'recording ends', 'recordings end')} with a rest shorter than "
            f"--min_seconds={recipe.min_seconds:g}, which is not "
            f"stored: {sum(rests):.6g} s together"
        )
    return notes
