"""Search for records of an evaluation that an encoder was pretrained on, and for other records of their patients.

A record is compared with the list of pretraining records beside the checkpoint (`trained_on.py`). Three kinds of
overlap are looked for: an equal content; a copy, whether rescaled, resampled, filtered, shifted, cut or with its leads
in another order, and under any patient id; and a patient of the same data set. What is done about them is decided in
`guard.py`.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.duplicates.copies import MAX_CANDIDATES, Copy, Suspects, Traces, find_suspects, verify_suspects
from data_pipelines.metadata.source_names import NO_NAME
from data_pipelines.records import STORED_LEADS
from data_pipelines.system.counted import counted
from ecgjax.data.recordings import Recordings
from ecgjax.leakage.known_signals import KnownSignals, bands_of, reachable
from ecgjax.leakage.trained_on import PretrainingRecords, is_traced, patient_keys, traces_of

_CHANGED = "(rescaled, resampled, filtered, shifted or cut)"
_ALIKE = "by signature and envelope (the signals trained on are not here to compare)"

#: Descriptions of one and of several overlaps of a kind, the strongest first: a record counts as the first kind that
#: applies.
KINDS: Mapping[str, tuple[str, str]] = {
    "recording": ("equal recording", "equal recordings"),
    "copy": (f"copy {_CHANGED}", f"copies {_CHANGED}"),
    "reordered": ("copy with another order of leads", "copies with another order of leads"),
    "alike": (f"copy {_ALIKE}", f"copies {_ALIKE}"),
    "patient": ("recording of a patient pretrained on", "recordings of patients pretrained on"),
}

_EXAMPLES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """A record that the encoder has seen, or whose patient it has seen.

    Attributes:
        record: Number of the record.
        kind: Kind of overlap, a key of `KINDS`.
        known: Index of the overlapping record in the list of pretraining records.
        detail: Description of how the two records differ, for messages; may be empty.
    """

    record: int
    kind: str
    known: int
    detail: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlaps:
    """Result of a search for overlaps.

    Attributes:
        found: Overlaps, one for each record that overlaps, in the order of their numbers.
        looked_at: Number of records that were compared.
        cautions: Sentences on overlaps that could not be looked for or decided.
    """

    found: tuple[Overlap, ...]
    looked_at: int
    cautions: tuple[str, ...]

    @property
    def records(self) -> np.ndarray:
        """Numbers of the records that overlap, `int64[n]`."""
        return np.array([each.record for each in self.found], np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """Number of records of each kind that occurs, in the order of `KINDS`."""
        number = collections.Counter(each.kind for each in self.found)
        return {kind: number[kind] for kind in KINDS if number[kind]}


def describe(result: Overlaps, recordings: Recordings, trained_on: PretrainingRecords) -> str:
    """Returns a clause without a full stop, for messages, on how many records overlap, by kind and with examples."""
    kinds = []
    for kind, count in result.counts.items():
        examples = [each for each in result.found if each.kind == kind][:_EXAMPLES]
        shown = "; ".join(_example(each, recordings, trained_on) for each in examples)
        kinds.append(f"{counted(count, *KINDS[kind])} ({shown}{'; …' if count > len(examples) else ''})")
    return (
        f"{len(result.found):,} of the {result.looked_at:,} validation and test records overlap with what the encoder "
        f"was pretrained on: {', '.join(kinds)}"
    )


def _example(overlap: Overlap, recordings: Recordings, trained_on: PretrainingRecords) -> str:
    source = trained_on.sources[int(np.searchsorted(trained_on.starts, overlap.known, side="right")) - 1]
    name = f"'{recordings.index.record_id[overlap.record]}'"
    if overlap.kind == "patient":
        return f"{name} is of a patient of {source.name}"
    return f"{name} is record {trained_on.number[overlap.known]} of {source.name}{overlap.detail}"


def find_overlaps(
    recordings: Recordings, trained_on: PretrainingRecords, records: np.ndarray, *, directories: Sequence[str] = ()
) -> Overlaps:
    """Compares records of an evaluation with those that were trained on.

    Args:
        recordings: Recordings of the evaluation.
        trained_on: List of the encoder's pretraining records.
        records: Numbers of the records to compare, `int64[n]`.
        directories: Folders in which data sets that were trained on may lie, beside those of the evaluation.
    """
    records = np.unique(np.asarray(records, np.int64))
    parts = recordings.numbers_by_dataset(records)
    content = np.concatenate([np.asarray(dataset.index.content_hash[own]) for dataset, own in parts])
    equal = _places(content, trained_on.content)
    same = zip(records[equal >= 0].tolist(), equal[equal >= 0].tolist(), strict=True)
    found = {record: Overlap(record=record, kind="recording", known=place) for record, place in same}
    # A record with an equal content needs no further search; the others are searched for copies.
    others = records[equal < 0]
    copies, undecided = _copies(recordings, trained_on, others, directories=directories)
    for overlap in copies:
        known = found.get(overlap.record)
        # A record may be a copy of several; the strongest kind is told.
        if known is None or _rank(overlap) < _rank(known):
            found[overlap.record] = overlap
    for record, place in _of_known_patients(recordings, trained_on, others):
        # A copy is a stronger kind than a patient, and stays.
        found.setdefault(record, Overlap(record=record, kind="patient", known=place))
    return Overlaps(
        found=tuple(found[record] for record in sorted(found)),
        looked_at=len(records),
        cautions=(*_without_traces(recordings, trained_on), *_without_names(recordings, trained_on), *undecided),
    )


def _rank(overlap: Overlap) -> int:
    return list(KINDS).index(overlap.kind)


def _places(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the index of each of `keys`, `uint8[n, 16]`, in `known`, `uint8[m, 16]`: `int64[n]`, −1 where missing."""
    # The bytes of a key are one value, so that whole keys are sorted and compared.
    words, ordered = (np.ascontiguousarray(each).view(f"V{each.shape[1]}").ravel() for each in (keys, known))
    unique, first = np.unique(ordered, return_index=True)
    # A key above all known ones would be looked up behind their end.
    place = np.minimum(np.searchsorted(unique, words), len(unique) - 1)
    return np.where(unique[place] == words, first[place], -1)


def _of_known_patients(
    recordings: Recordings, trained_on: PretrainingRecords, records: np.ndarray
) -> list[tuple[int, int]]:
    """Returns the records whose patients were trained on, each with the index of a pretraining record of that patient.

    Patients who share a recording or are joined by a link count as one.

    Args:
        recordings: Recordings to test on.
        trained_on: Records that the encoder was pretrained on.
        records: Numbers of the asked records among `recordings`, `int64[n]`.
    """
    group = np.asarray(recordings.index.group)
    asked = np.zeros(int(group.max()) + 1, bool)
    asked[group[records]] = True
    # All records of a group are compared, since other records of a patient may have other ids.
    of_groups = np.flatnonzero(asked[group])
    keys = np.concatenate([patient_keys(dataset, own) for dataset, own in recordings.numbers_by_dataset(of_groups)])
    place_of_group = np.full(len(asked), -1, np.int64)
    place = _places(keys, trained_on.patient)
    place_of_group[group[of_groups[place >= 0]]] = place[place >= 0]
    found = place_of_group[group[records]]
    return [(int(record), int(known)) for record, known in zip(records, found, strict=True) if known >= 0]


def _copies(
    recordings: Recordings, trained_on: PretrainingRecords, records: np.ndarray, *, directories: Sequence[str]
) -> tuple[list[Overlap], list[str]]:
    """Returns the overlaps of records that are copies of pretraining records, and cautions on undecided ones.

    Args:
        recordings: Recordings of the evaluation.
        trained_on: List of the encoder's pretraining records.
        records: Numbers of the records to compare, `int64[n]`.
        directories: Folders in which data sets that were trained on may lie.
    """
    if not len(records):
        return [], []
    parts = [traces_of(dataset, own) for dataset, own in recordings.numbers_by_dataset(records)]
    signature, envelope = (np.concatenate(column) for column in zip(*parts, strict=True))
    suspects = find_suspects(
        Traces(signature=signature, envelope=envelope),
        Traces(signature=trained_on.order_free_signature, envelope=trained_on.envelope),
    )
    signals = KnownSignals(trained_on, reachable(trained_on, recordings, directories))
    here = signals.here(suspects.known)
    verified = verify_suspects(
        _those(suspects, here),
        read_queries=lambda numbers: bands_of(recordings.store, recordings, records[numbers]),
        read_known=signals.bands,
    )
    sure, unsure = suspects.sure & ~here, ~suspects.sure & ~here
    found = []
    for copy in verified:
        kind, detail = "reordered" if copy.reordered else "copy", _difference(copy)
        found.append(Overlap(record=int(records[copy.query]), kind=kind, known=copy.known, detail=detail))
    for query, known in zip(suspects.query[sure], suspects.known[sure], strict=True):
        found.append(Overlap(record=int(records[query]), kind="alike", known=int(known)))
    # A record that is surely like one needs no caution that it may be like others.
    unsure &= ~np.isin(suspects.query, suspects.query[sure])
    return found, _undecided(suspects, unsure, signals.names(suspects.known[unsure]))


def _undecided(suspects: Suspects, unsure: np.ndarray, names: Sequence[str]) -> list[str]:
    cautions = []
    if unsure.any():
        cautions.append(
            f"{counted(len(np.unique(suspects.query[unsure])), 'validation or test record')} might be pieces or much "
            f"changed copies of records of {' or '.join(names)}, by their signatures alone: the signals that the "
            "encoder was pretrained on, which would decide it, are no longer where they were (--pretraining_data names "
            "their folder)."
        )
    if suspects.crowded:
        cautions.append(
            f"{suspects.crowded:,} of the validation and test records are like more than {MAX_CANDIDATES} records that "
            "were pretrained on, of which the closest were looked at."
        )
    return cautions


def _those(suspects: Suspects, chosen: np.ndarray) -> Suspects:
    columns = ("query", "known", "lag_s", "sure")
    return dataclasses.replace(suspects, **{name: getattr(suspects, name)[chosen] for name in columns})


def _difference(copy: Copy) -> str:
    found = []
    if abs(copy.match.gain - 1) > 0.02:
        found.append(f"{1 / copy.match.gain:.3g} times as large")
    if abs(copy.match.lag_s) >= 0.01:
        found.append(f"{abs(copy.match.lag_s):.2f} s {'earlier' if copy.match.lag_s > 0 else 'later'}")
    if copy.reordered:
        found.append(f"leads in the order {' '.join(STORED_LEADS[lead] for lead in copy.order)}")
    return f", {', '.join(found)}" if found else ""


def _without_names(recordings: Recordings, trained_on: PretrainingRecords) -> tuple[str, ...]:
    own = {dataset.fingerprint for dataset in recordings.datasets if dataset.card["name"] == NO_NAME}
    known = {source.fingerprint for source in trained_on.sources if source.name == NO_NAME}
    if own == known:
        return ()
    return (
        f"Patients were not compared where data sets called '{NO_NAME}' are concerned, which were given no name: only "
        "recordings and copies of them were. Build them again with --name=NAME --overwrite, one name for each source.",
    )


def _without_traces(recordings: Recordings, trained_on: PretrainingRecords) -> tuple[str, ...]:
    old = [dataset.card["name"] for dataset in recordings.datasets if not is_traced(dataset)]
    old += [source.name for source in trained_on.sources if not source.traced]
    if not old:
        return ()
    return (
        f"Copies of what the encoder was pretrained on were not looked for where {' or '.join(dict.fromkeys(old))} is "
        "concerned, prepared before its index had what they are found by: only equal recordings and patients were. "
        "Build it again with --overwrite; pretraining on it again goes on where it was and lists its records anew.",
    )
