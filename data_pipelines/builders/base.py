"""What a source of records is, and what sources share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from data_pipelines.builders.reading_notes import note
from data_pipelines.builders.unforeseen import file_of, reason_and_message
from data_pipelines.errors import DataError, RecordError
from data_pipelines.readers.lengths import Length
from data_pipelines.recording import Recording
from data_pipelines.records import EcgRecord, LabelSchema, SignalFormat
from data_pipelines.signals.conversion import StoredSignal, stored_signal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.system.visible_text import storable_text

_TEXTS = ("record_id", "patient_id", "report")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A recording that could not be stored.

    Attributes:
        record_id: what the source calls it.
        reason: the slug of its `RecordError`.
        message: what is wrong and what to do, in plain words.
    """

    record_id: str
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceCard:
    """What to tell about a data set.

    Attributes:
        name: short name in lower case, also that of the TFDS dataset and its files.
        description: a paragraph for people, in which simulated sets say so.
        simulated: whether no patient was ever connected to any of it.
        citation: how to cite it, or empty.
        license: its licence, or empty where unknown.
        notes: remarks of this build that a reader of the summary should see.
        sex_reading: how sex is read from the source, or empty where it says none.
    """

    name: str
    description: str
    simulated: bool
    citation: str = ""
    license: str = ""
    notes: tuple[str, ...] = ()
    sex_reading: str = ""


ItemT = TypeVar("ItemT")

#: Reads items: result i is the record of item i, or why it could not be stored.
Reader = Callable[[Sequence[ItemT]], Iterator[EcgRecord | Quarantined]]


class Source(Protocol[ItemT]):
    """One data set as its publisher ships it. A new data set is one such class, in one file.

    Attributes:
        card: what it is.
        recipe: what is done to every signal.
        signal_format: rate and length that follow from it.
        label_schema: names of its labels.
    """

    card: SourceCard
    recipe: SignalRecipe
    signal_format: SignalFormat
    label_schema: LabelSchema

    @property
    def items(self) -> Sequence[ItemT]:
        """What the records are read from, one a record, always in the same order. A slice can be pickled."""
        ...

    def reader(self) -> Reader[ItemT]:
        """Returns what reads a slice of the items, in whichever process; it can be pickled.

        A build that was interrupted takes a shard for finished if the pickles of its items and of the reader are what
        they were: both should hold all that a record depends on, beside the recordings themselves.
        """
        ...


class _Named(Protocol):
    @property
    def record_id(self) -> str: ...


NamedItemT = TypeVar("NamedItemT", bound=_Named)


@dataclasses.dataclass(frozen=True)
class ItemReader(Generic[NamedItemT]):
    """Reads items one by one; one whose reading raises an error is quarantined.

    A `RecordError` says why; what no reader foresaw is told as `unforeseen.py` has it. A `DataError` that is not one
    recording's ends the build.

    Attributes:
        read: item to record; picklable. The item says its id, as `record_id`, even when reading fails.
    """

    read: Callable[[NamedItemT], EcgRecord]

    def __call__(self, items: Sequence[NamedItemT]) -> Iterator[EcgRecord | Quarantined]:
        """Yields the result of every item in order."""
        for item in items:
            note(file_of(item))
            yield self._result(item)

    def _result(self, item: NamedItemT) -> EcgRecord | Quarantined:
        try:
            return self.read(item)
        except RecordError as error:
            reason, message = error.reason, str(error)
        except DataError:
            raise
        except Exception as error:  # Files of strangers hold what nobody thought of.
            reason, message = reason_and_message(error, item)
        return Quarantined(record_id=item.record_id, reason=reason, message=message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingReader(Generic[NamedItemT]):
    """Reads items that are a recording each; one whose reading raises `RecordError` is quarantined.

    A reader of pieces (`builders/pieces.py`) uses its parts to open a recording once for all pieces of it.

    Attributes:
        open: item to recording; picklable. What is wrong with the item itself is found here, before its file is read.
        record: item, its recording, and the signal to store, to record; picklable.
        recipe: what is done to the signals.
        length: item to the length of its recording, or None where that is not known without opening it; picklable.
            For builds that cut recordings into pieces, which must know all lengths before they begin.
    """

    open: Callable[[NamedItemT], Recording]
    record: Callable[[NamedItemT, Recording, StoredSignal], EcgRecord]
    recipe: SignalRecipe
    length: Callable[[NamedItemT], Length | None] | None = None

    def __call__(self, items: Sequence[NamedItemT]) -> Iterator[EcgRecord | Quarantined]:
        """Yields the result of every item in order."""
        yield from ItemReader(self._read)(items)

    def _read(self, item: NamedItemT) -> EcgRecord:
        recording = self.open(item)
        return self.record(item, recording, stored_signal(recording, recipe=self.recipe))


def ecg_record(stored: StoredSignal, **fields: Any) -> EcgRecord:
    """Returns the record of a signal that is ready to store; `fields` are the others of `EcgRecord`."""
    # Names of files need not be UTF-8, which is what is stored.
    fields |= {name: storable_text(fields[name]) for name in _TEXTS if name in fields}
    return EcgRecord(
        signal=stored.signal,
        valid_start=stored.valid_start,
        valid_samples=stored.valid_samples,
        recording_seconds=stored.recording_seconds,
        start_seconds=stored.start_seconds,
        **fields,
    )


class Refusal(NamedTuple):
    """Why an item is known to be unreadable before it is opened: reason and message of its `RecordError`."""

    reason: str
    message: str


def check_not_refused(refusal: Refusal | None) -> None:
    """Raises the `RecordError` of an item that is refused; does nothing for one that is not."""
    if refusal is not None:
        raise RecordError(refusal.message, reason=refusal.reason)
