"""The interface of a source of records, and the parts that sources share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from data_pipelines.builders.reading_notes import note
from data_pipelines.builders.unforeseen import file_of, reason_and_message
from data_pipelines.errors import DataError, RecordError
from data_pipelines.metadata.demographics import Person, read_person
from data_pipelines.metadata.sexes import WORDS
from data_pipelines.readers.lengths import Length
from data_pipelines.recording import Recording
from data_pipelines.records import EcgRecord, LabelSchema, Remark, SignalFormat
from data_pipelines.signals.conversion import StoredSignal, stored_signal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.system.visible_text import storable_text

_TEXTS = ("record_id", "patient_id", "report")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A recording that could not be stored.

    Attributes:
        record_id: Id of the recording in the source.
        reason: Slug of the `RecordError` that was raised.
        message: Statement of what is wrong and what to do, in plain words.
    """

    record_id: str
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceCard:
    """The description of a data set.

    Attributes:
        name: Short name in lower case, also used for the TFDS dataset and its files.
        description: Paragraph for human readers; it says so where the data are simulated.
        simulated: Whether all of the data are simulated, so that no patient was ever recorded.
        citation: Reference to cite for the data set, or empty.
        license: Licence of the data set, or empty where it is unknown.
        notes: Remarks about this build that a reader of the summary should see.
        sex_reading: Statement of how sex is read from the source, or empty where the source does not state it.
    """

    name: str
    description: str
    simulated: bool
    citation: str = ""
    license: str = ""
    notes: tuple[str, ...] = ()
    sex_reading: str = ""


ItemT = TypeVar("ItemT")

#: Reads items: result i is the record of item i, or a `Quarantined` that says why it could not be stored.
Reader = Callable[[Sequence[ItemT]], Iterator[EcgRecord | Quarantined]]


class Source(Protocol[ItemT]):
    """A data set as its publisher ships it; each has a class, which `data_pipelines.build` lists by name.

    Attributes:
        card: Description of the data set.
        recipe: Recipe by which every signal is converted.
        signal_format: Rate and length of the stored signals, which follow from the recipe.
        label_schema: Names of the data set's labels.
    """

    card: SourceCard
    recipe: SignalRecipe
    signal_format: SignalFormat
    label_schema: LabelSchema

    @property
    def items(self) -> Sequence[ItemT]:
        """Items that records are read from, one for each record, always in the same order; a slice can be pickled."""
        ...

    def reader(self) -> Reader[ItemT]:
        """Returns a reader of slices of the items; the reader can be pickled and works in any process.

        An interrupted build counts a shard as finished if the pickles of its items and of the reader have not changed.
        Both should therefore hold everything that a record depends on, besides the recordings themselves.
        """
        ...


class _Named(Protocol):
    @property
    def record_id(self) -> str: ...


NamedItemT = TypeVar("NamedItemT", bound=_Named)


@dataclasses.dataclass(frozen=True)
class ItemReader(Generic[NamedItemT]):
    """Reads items one by one and quarantines an item whose reading raises an error.

    The message of a `RecordError` is kept; an error that no reader raises on purpose is described by `unforeseen.py`.
    Any other `DataError` concerns more than one recording and ends the build.

    Attributes:
        read: Picklable function from an item to its record. The item has its id as `record_id` even when reading it
            fails.
    """

    read: Callable[[NamedItemT], EcgRecord]

    def __call__(self, items: Sequence[NamedItemT]) -> Iterator[EcgRecord | Quarantined]:
        """Yields the record of every item in order, or a `Quarantined` in its place."""
        for item in items:
            # If the process dies of this item, the note says which it was.
            note(file_of(item))
            yield self._result(item)

    def _result(self, item: NamedItemT) -> EcgRecord | Quarantined:
        try:
            return self.read(item)
        except RecordError as error:
            reason, message = error.reason, str(error)
        except DataError:
            # It is no fault of this recording alone, such as a damaged shard: quarantining would hide it.
            raise
        except Exception as error:  # Files from outside can be damaged in ways that no reader foresaw.
            reason, message = reason_and_message(error, item)
        return Quarantined(record_id=item.record_id, reason=reason, message=message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingReader(Generic[NamedItemT]):
    """Reads items that are one recording each; an item whose reading raises an error is quarantined.

    An item is what a source knows of a recording before it opens the file, such as the path and a row of a table. Where
    recordings are cut into pieces, `builders/pieces.py` calls the attributes of this reader, so that a recording is
    opened once for all of its pieces.

    Attributes:
        open: Picklable function from an item to its recording. Faults of the item itself are found here, before its
            file is read.
        record: Picklable function from an item, its recording and the signal to store to the record.
        recipe: Recipe by which the signals are converted.
        length: Picklable function from an item to the length of its recording, or to None where the length is not known
            without opening the recording. It serves builds that cut recordings into pieces, which must know all lengths
            before they begin.
    """

    open: Callable[[NamedItemT], Recording]
    record: Callable[[NamedItemT, Recording, StoredSignal], EcgRecord]
    recipe: SignalRecipe
    length: Callable[[NamedItemT], Length | None] | None = None

    def __call__(self, items: Sequence[NamedItemT]) -> Iterator[EcgRecord | Quarantined]:
        """Yields the record of every item in order, or a `Quarantined` in its place."""
        yield from ItemReader(self._read)(items)

    def _read(self, item: NamedItemT) -> EcgRecord:
        recording = self.open(item)
        return self.record(item, recording, stored_signal(recording, recipe=self.recipe))


def person_of(recording: Recording, *, source: str) -> Person:
    """Returns age and sex that the fields `Age` and `Sex` of a recording's own file state; sex is stated in words.

    Args:
        recording: Recording as its file has it.
        source: Name of the recording for remarks.
    """
    age, sex = (recording.field(name) or "" for name in ("Age", "Sex"))
    return read_person(age=age, sex=sex, coding=WORDS, source=source)


def person_fields(recording: Recording, person: Person, remarks: Iterable[Remark] = ()) -> dict[str, Any]:
    """Returns the fields of an `EcgRecord` that state age and sex, and all remarks on the record.

    Args:
        recording: Recording, whose remarks come first.
        person: Person of the recording, whose remarks come next.
        remarks: Remarks on the labels of the record.
    """
    remarks = (*recording.remarks, *person.remarks, *remarks)
    return {"age_years": person.age_years, "sex": person.sex, "remarks": remarks}


def ecg_record(stored: StoredSignal, **fields: Any) -> EcgRecord:
    """Returns the record of a signal that is ready to store.

    Args:
        stored: Signal, with its position and length.
        **fields: Other fields of `EcgRecord`.
    """
    # File names need not be valid UTF-8, but texts are stored as UTF-8.
    fields |= {name: storable_text(fields[name]) for name in _TEXTS if name in fields}
    return EcgRecord(**vars(stored), **fields)


class Refusal(NamedTuple):
    """Reason and message of the `RecordError` for an item that is known to be unreadable before it is opened."""

    reason: str
    message: str


def check_not_refused(refusal: Refusal | None) -> None:
    """Raises the `RecordError` of an item that is refused; does nothing if `refusal` is None."""
    if refusal is not None:
        raise RecordError(refusal.message, reason=refusal.reason)
