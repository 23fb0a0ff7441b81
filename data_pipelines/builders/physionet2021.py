"""The PhysioNet/CinC Challenge 2021 sets: eight sources in one layout, SNOMED CT codes in the headers.

Reyna et al., "Will Two Do? Varying Dimensions in Electrocardiography: The PhysioNet/Computing in Cardiology
Challenge 2021", Computing in Cardiology 48 (2021); Perez Alday et al., "Classification of 12-lead ECGs: the
PhysioNet/Computing in Cardiology Challenge 2020", Physiol. Meas. 41 (2020) 124003.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.builders.base import RecordingReader, SourceCard, ecg_record, person_fields, person_of
from data_pipelines.builders.cinc_headers import (
    DOUBTFUL_GAIN,
    TRUE_GAIN,
    CincHeader,
    dx_codes,
    extension_notes,
    read_cinc,
    scan_headers,
)
from data_pipelines.builders.gain_copies import WrongGain, wrong_gains
from data_pipelines.builders.repeated_names import NamedPath, check_first_of_name, named_paths
from data_pipelines.errors import DataError
from data_pipelines.metadata.demographics import fold_of_patient, unread_label
from data_pipelines.metadata.origins import origin_of
from data_pipelines.metadata.sexes import WORDS
from data_pipelines.metadata.snomed import SCORED_CLASS_OF_CODE, SCORED_CLASSES
from data_pipelines.readers.left_out import what_is_there
from data_pipelines.readers.lengths import length_of_item
from data_pipelines.readers.wfdb_files import find_wfdb_records
from data_pipelines.recording import Recording
from data_pipelines.records import LABEL_MISSING, EcgRecord, LabelSchema, Remark
from data_pipelines.signals.conversion import StoredSignal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.system.counted import counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class CincSet:
    """One source of the challenge.

    Attributes:
        title: Name of the set for people.
        prefix: Letters that the names of its records begin with.
        num_digits: Number of digits after the prefix.
        numbers: Record numbers of the set, where two sets share a prefix; else None.
        num_published: Number of records in the published training data.
    """

    title: str
    prefix: str
    num_digits: int
    num_published: int
    numbers: range | None = None

    def holds(self, name: str) -> bool:
        """Returns whether a record with this name belongs to the set."""
        match = re.fullmatch(rf"{self.prefix}(\d{{{self.num_digits}}})", name)
        return match is not None and (self.numbers is None or int(match[1]) in self.numbers)


#: The sets by the names that `--sets` takes; Chapman-Shaoxing and Ningbo share one numbering.
SETS: dict[str, CincSet] = {
    "cpsc": CincSet(title="CPSC 2018", prefix="A", num_digits=4, num_published=6877),
    "cpsc_extra": CincSet(title="CPSC-Extra", prefix="Q", num_digits=4, num_published=3453),
    "incart": CincSet(title="INCART (St Petersburg)", prefix="I", num_digits=4, num_published=74),
    "ptb": CincSet(title="PTB", prefix="S", num_digits=4, num_published=516),
    "ptbxl": CincSet(title="PTB-XL", prefix="HR", num_digits=5, num_published=21837),
    "georgia": CincSet(title="Georgia", prefix="E", num_digits=5, num_published=10344),
    "chapman_shaoxing": CincSet(
        title="Chapman-Shaoxing", prefix="JS", num_digits=5, num_published=10247, numbers=range(1, 10647)
    ),
    "ningbo": CincSet(title="Ningbo", prefix="JS", num_digits=5, num_published=34905, numbers=range(10647, 100_000)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CincItem(NamedPath):
    """One record; its paths are without extension.

    Attributes:
        set_name: Key of the record's set in `SETS`.
        factor: Number that the signal is multiplied by; other than 1 where a copy proved the gain that its header
            states wrong.
    """

    set_name: str
    factor: float = 1.0


class Physionet2021Source:
    """The records of the chosen sets under a folder, in the challenge's layout of `.hea` and `.mat` files."""

    def __init__(self, folder: Path, *, sets: Sequence[str] = (), recipe: SignalRecipe, num_workers: int):
        """Lists the records and scans their headers; the reader reads the signals.

        Args:
            folder: Folder that is searched recursively.
            sets: Keys of `SETS` to take; if empty, all sets that are there are taken.
            recipe: Recipe by which the signals are converted.
            num_workers: Number of processes that scan the headers.

        Raises:
            DataError: A set is unknown, or the folder has no record of it or of any set.
        """
        if unknown := [name for name in sets if name not in SETS]:
            raise DataError(f"--sets={','.join(unknown)}: not known; choose from {', '.join(SETS)}")
        items, num_others = _items(folder, tuple(sets) or tuple(SETS))
        counts = collections.Counter(item.set_name for item in items)
        if (absent := [name for name in sets if not counts[name]]) or not items:
            raise DataError(
                f"{folder}: no record of {', '.join(absent) or 'the challenge'} in it or below; records are named "
                f"like {', '.join(SETS[name].prefix + '1'.zfill(SETS[name].num_digits) for name in absent or SETS)}; "
                f"{what_is_there(folder)}"
            )
        headers = scan_headers([item.path for item in items], num_workers=num_workers)
        wrong = _wrong_gains(items, headers)
        items = [
            dataclasses.replace(item, factor=wrong[position].factor) if position in wrong else item
            for position, item in enumerate(items)
        ]
        # Codes of other systems are left out here; a record that has one gets a remark when it is read.
        codes = {code for header in headers for code in header.codes if code.isdecimal()}
        self._codes = tuple(sorted(codes, key=int))
        self.items = items
        self.recipe = recipe
        self.signal_format = recipe.signal_format
        self.label_schema = LabelSchema(tasks=_tasks(self._codes))
        self.card = SourceCard(
            name="physionet2021",
            description="12-lead ECGs of the PhysioNet/Computing in Cardiology Challenge 2021 ("
            + ", ".join(SETS[name].title for name in SETS if counts[name])
            + "), with SNOMED CT codes. Task 'scored' are the challenge's 26 scored classes with its equivalences; a "
            "record with codes, none of them scored, has zeros there. Task 'all' are all codes that occur.",
            simulated=False,
            citation="Reyna et al., Will Two Do? Varying Dimensions in Electrocardiography: The PhysioNet/Computing "
            "in Cardiology Challenge 2021, Computing in Cardiology 48 (2021). https://doi.org/10.13026/34va-7q14",
            license="CC-BY-4.0",
            notes=(*_gain_notes(wrong), *_notes(counts, num_others, headers, items)),
            sex_reading=WORDS.said_by,
        )

    def reader(self) -> RecordingReader[CincItem]:
        """Returns a reader of the records, which are ordered by path."""
        record = functools.partial(_record, codes=self._codes)
        return RecordingReader(open=_open, record=record, recipe=self.recipe, length=length_of_item)


def _tasks(codes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Returns the classes of each task, by its name; the task of all codes is left out where no header has a code.

    Args:
        codes: SNOMED CT codes that occur.
    """
    return {"scored": SCORED_CLASSES} | ({"all": codes} if codes else {})


def _items(folder: Path, sets: Sequence[str]) -> tuple[list[CincItem], int]:
    """Returns the records of the given sets, and the number of records whose name fits none of `SETS`."""
    # Records of sets that were not asked for are no others: only names of no set are counted as such.
    set_of_path = {path: _set_of(path.name) for path in find_wfdb_records(folder)}
    chosen = {path: name for path, name in set_of_path.items() if name is not None and name in sets}
    items = [
        CincItem(**vars(named), set_name=chosen[named.path])
        for named in named_paths(chosen, folder, name_of=lambda path: path.name)
    ]
    return items, sum(set_name is None for set_name in set_of_path.values())


def _set_of(name: str) -> str | None:
    return next((key for key, cinc_set in SETS.items() if cinc_set.holds(name)), None)


def _wrong_gains(items: Sequence[CincItem], headers: Sequence[CincHeader]) -> dict[int, WrongGain]:
    """Returns the records whose gain a copy proves wrong, by position."""
    names = [item.set_name for item in items]
    found = wrong_gains(headers, names, read=lambda position: read_cinc(items[position].path, correct_gain=False))
    # Georgia's known fault is corrected by `cinc_headers.py`, where the samples prove it.
    return {
        each.position: each
        for each in found
        if not (items[each.position].set_name == "georgia" and headers[each.position].has_doubtful_gain)
    }


def _gain_notes(wrong: Mapping[int, WrongGain]) -> tuple[str, ...]:
    counts = collections.Counter((each.stated, each.true) for each in wrong.values())
    return tuple(
        f"CORRECTED: {counted(count, 'header states', 'headers state')} {stated:g} units/mV where a copy of the same "
        f"samples states {true:g}, as do nearly all of the set: read with {true:g}"
        for (stated, true), count in sorted(counts.items())
    )


def _notes(
    counts: collections.Counter[str], num_others: int, headers: Sequence[CincHeader], items: Sequence[CincItem]
) -> tuple[str, ...]:
    found = (f"{SETS[name].title} {counts[name]} of {SETS[name].num_published}" for name in SETS if counts[name])
    notes = [
        f"records found of those published: {', '.join(found)}",
        "the headers name no patients: each record is taken for a patient of its own, dealt to folds 1 to 10 by a "
        "hash of its name",
    ]
    if several := [SETS[name].title for name in ("ptbxl", "ptb", "incart") if counts[name]]:
        notes.append(
            f"patients of {', '.join(several)} have several records each, which can come into different splits here"
        )
    if counts["ptbxl"]:
        notes.append("HRxxxxx is the record of ecg_id xxxxx in PTB-XL, which the ptbxl builder reads with its patients")
    notes += extension_notes(headers)
    num_doubtful = sum(
        item.set_name == "georgia" and header.has_doubtful_gain for item, header in zip(items, headers, strict=True)
    )
    if num_doubtful:
        notes.append(
            f"{counted(num_doubtful, 'header of Georgia states', 'headers of Georgia state')} {DOUBTFUL_GAIN:g} "
            f"units/mV: read as {TRUE_GAIN:g}, where the samples prove that, else quarantined as broken_gain"
        )
    if num_others:
        notes.append(
            f"{counted(num_others, 'record')} with names of none of the challenge's sets "
            f"{'is' if num_others == 1 else 'are'} left out"
        )
    return tuple(notes)


def _open(item: CincItem) -> Recording:
    check_first_of_name(item.path, item.first_path)
    return read_cinc(item.path, correct_gain=item.set_name == "georgia").rescaled(item.factor)


def _record(item: CincItem, recording: Recording, stored: StoredSignal, *, codes: tuple[str, ...]) -> EcgRecord:
    source = str(item.path)
    present, of_codes = _present(recording.field("Dx") or "", source)
    return ecg_record(
        stored,
        # The sets were recorded with different devices, so that each has faults of scale of its own.
        origin=origin_of(recording, place=SETS[item.set_name].title, form="wfdb"),
        record_id=item.record_id,
        patient_id=item.record_id,
        fold=fold_of_patient(item.record_id),
        tasks=_labels(present, codes),
        **person_fields(recording, person_of(recording, source=source), of_codes),
    )


def _present(text: str, source: str) -> tuple[tuple[str, ...], tuple[Remark, ...]]:
    """Returns the codes of a record; if one of them is not a SNOMED CT code, there is a remark and no code.

    Args:
        text: Value of the header's field `Dx`.
        source: Name of the recording, for the remark.
    """
    present = dx_codes(text)
    if unknown := [code for code in present if not code.isdecimal()]:
        return (), (unread_label("Dx", unknown[0], expected="SNOMED CT codes", source=source),)
    return present, ()


def _labels(present: Sequence[str], codes: tuple[str, ...]) -> dict[str, np.ndarray]:
    # A record without codes is unlabelled, which does not say that it is normal.
    if not present:
        return {name: np.full(len(classes), LABEL_MISSING, np.int8) for name, classes in _tasks(codes).items()}
    scored = {SCORED_CLASS_OF_CODE[code] for code in present if code in SCORED_CLASS_OF_CODE}
    return {
        "scored": np.array([name in scored for name in SCORED_CLASSES], np.int8),
        "all": np.array([code in present for code in codes], np.int8),
    }
