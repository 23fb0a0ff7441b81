"""Between pretraining and evaluation: which validation and test records, or whose, the encoder has seen before.

A record is compared with what the checkpoint lists of the records it was pretrained on (`pretraining_records.py`): is
there an equal content; a copy, rescaled, resampled, filtered, shifted, cut or with its leads in another order, under
whatever patient's id; or a patient of the same data set? What is done about it is for `config.probe.overlaps` to say.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from data_pipelines.copies import MAX_CANDIDATES, Copy, Suspects, Traces, find_suspects, verify_suspects
from data_pipelines.dataset import Dataset, open_dataset
from data_pipelines.errors import DataError
from data_pipelines.records import STORED_LEADS
from data_pipelines.signature import band_of
from data_pipelines.store import Store, open_store
from ecgjax.errors import ConfigError
from ecgjax.pretraining_records import PretrainingRecords, Source, is_traced, patient_keys, traces_of
from ecgjax.recordings import Recordings

#: What `config.probe.overlaps` takes. The first is what a run without that setting gets: a number that may come from
#: records the encoder has seen is to be asked for.
OVERLAPS = ("refuse", "mark", "drop")

#: Kinds of overlap in words, the stronger first: a record counts as the first that holds.
KINDS: Mapping[str, str] = {
    "recording": "equal recordings",
    "copy": "copies (rescaled, resampled, filtered, shifted or cut)",
    "reordered": "copies with another order of leads",
    "alike": "copies by signature and envelope (the signals trained on are not here to compare)",
    "patient": "recordings of patients pretrained on",
}

#: Why a record is left out of a split by `drop`.
DROPPED = "seen_in_pretraining"

_EXAMPLES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """A record that the encoder has seen, or whose patient it has seen.

    Attributes:
        record: its number.
        kind: one of `KINDS`.
        known: place of the record trained on in the list of those.
        detail: how the two differ, in words, or nothing.
    """

    record: int
    kind: str
    known: int
    detail: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlaps:
    """What was found.

    Attributes:
        found: one for each record that overlaps, in order of their numbers.
        looked_at: how many records were.
        cautions: what could not be looked for, one sentence each.
    """

    found: tuple[Overlap, ...]
    looked_at: int
    cautions: tuple[str, ...]

    @property
    def records(self) -> np.ndarray:
        """`int64[n]`, numbers of the records that overlap."""
        return np.array([each.record for each in self.found], np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """Number of records of each kind that there is, in the order of `KINDS`."""
        number = collections.Counter(each.kind for each in self.found)
        return {kind: number[kind] for kind in KINDS if number[kind]}


def overlaps_setting(config: ml_collections.ConfigDict) -> str:
    """Returns `config.probe.overlaps`, which runs from before there was one do not have.

    Raises:
        ConfigError: it is unknown.
    """
    chosen = config.probe.get("overlaps", OVERLAPS[0])
    if chosen not in OVERLAPS:
        raise ConfigError(f"config.probe.overlaps={chosen!r} is unknown; there are: {', '.join(OVERLAPS)}")
    return chosen


def guard(
    recordings: Recordings,
    trained_on: PretrainingRecords,
    records: np.ndarray,
    *,
    overlaps: str,
    directories: Sequence[str] = (),
) -> tuple[Recordings, tuple[str, ...]]:
    """Keeps what an encoder was pretrained on out of its evaluation, or says that it is there.

    Args:
        recordings: of the evaluation.
        trained_on: the encoder's list.
        records: `int64[n]` of the evaluation: what is validated and tested on.
        overlaps: one of `OVERLAPS`.
        directories: where data sets that were trained on may lie.

    Returns:
        The recordings, with another split where records were dropped; and what a reader must know, one sentence each.

    Raises:
        ConfigError: there are overlaps, and `overlaps` is `"refuse"`.
    """
    result = find_overlaps(recordings, trained_on, records, directories=directories)
    if not result.found:
        return recordings, result.cautions
    described = describe(result, recordings, trained_on)
    if overlaps == "refuse":
        raise ConfigError(
            f"{described}. Evaluate on folds that were not pretrained on (config.data.val_folds, "
            "config.data.test_folds); or pretrain without these records: on other folds, or on all data sets at once "
            "with the links that python -m data_pipelines.link finds between them (config.data.links). To leave the "
            "records out of validation and test give --config.probe.overlaps=drop, to evaluate on them all the same "
            "and say so in the report --config.probe.overlaps=mark"
        )
    if overlaps == "mark":
        return recordings, (f"{described}.", *result.cautions)
    left_out = f"{described}: they are left out of validation and test."
    return _without(recordings, result.records), (left_out, *result.cautions)


def _without(recordings: Recordings, records: np.ndarray) -> Recordings:
    split = recordings.split
    return dataclasses.replace(
        recordings,
        split=dataclasses.replace(
            split,
            val=np.setdiff1d(split.val, records),
            test=np.setdiff1d(split.test, records),
            excluded={**split.excluded, DROPPED: len(records)},
        ),
    )


def describe(result: Overlaps, recordings: Recordings, trained_on: PretrainingRecords) -> str:
    """Says in a sentence how many records overlap, by kind and with examples."""
    kinds = []
    for kind, count in result.counts.items():
        examples = [each for each in result.found if each.kind == kind][:_EXAMPLES]
        shown = "; ".join(_example(each, recordings, trained_on) for each in examples)
        kinds.append(f"{count:,} {KINDS[kind]} ({shown}{'; …' if count > len(examples) else ''})")
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
    """Compares records with those that were trained on.

    Args:
        recordings: of the evaluation.
        trained_on: the encoder's list.
        records: `int64[n]` of the evaluation.
        directories: where data sets that were trained on may lie; those of the evaluation are looked at as well.
    """
    records = np.unique(np.asarray(records, np.int64))
    of_dataset = list(zip(recordings.datasets, _numbers(recordings, records), strict=True))
    content = np.concatenate([np.asarray(dataset.index.content_hash[own]) for dataset, own in of_dataset])
    equal = _places(content, trained_on.content)
    found = {
        int(record): Overlap(record=int(record), kind="recording", known=int(place))
        for record, place in zip(records, equal, strict=True)
        if place >= 0
    }
    # Equal recordings are the ends of a search already; what is left is looked for as a copy.
    others = records[equal < 0]
    copies, undecided = _copies(recordings, trained_on, others, directories=directories)
    for overlap in copies:
        known = found.get(overlap.record)
        if known is None or _rank(overlap) < _rank(known):
            found[overlap.record] = overlap
    for record, place in _of_known_patients(recordings, trained_on, others):
        found.setdefault(record, Overlap(record=record, kind="patient", known=place))
    return Overlaps(
        found=tuple(found[record] for record in sorted(found)),
        looked_at=len(records),
        cautions=(*_not_looked_for(recordings, trained_on), *undecided),
    )


def _rank(overlap: Overlap) -> int:
    return list(KINDS).index(overlap.kind)


def _numbers(recordings: Recordings, records: np.ndarray) -> list[np.ndarray]:
    """Returns the numbers of records in each data set."""
    starts = np.cumsum([0, *(dataset.index.num_records for dataset in recordings.datasets)])
    return [own - start for own, start in zip(recordings.by_dataset(records), starts, strict=False)]


def _places(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns where each key stands among known ones, -1 where it does not: `int64[n]` for `uint8[n, 16]`."""
    words, ordered = (np.ascontiguousarray(each).view(f"V{each.shape[1]}").ravel() for each in (keys, known))
    unique, first = np.unique(ordered, return_index=True)
    place = np.minimum(np.searchsorted(unique, words), len(unique) - 1)
    return np.where(unique[place] == words, first[place], -1)


def _of_known_patients(
    recordings: Recordings, trained_on: PretrainingRecords, records: np.ndarray
) -> list[tuple[int, int]]:
    """Returns records of patients that were trained on, and a record of such a patient.

    Patients whom a recording or a link makes one count as one.
    """
    group = np.asarray(recordings.index.group)
    asked = np.zeros(int(group.max()) + 1, bool)
    asked[group[records]] = True
    of_groups = np.flatnonzero(asked[group])
    keys = np.concatenate(
        [
            patient_keys(dataset, own)
            for dataset, own in zip(recordings.datasets, _numbers(recordings, of_groups), strict=True)
        ]
    )
    place_of_group = np.full(len(asked), -1, np.int64)
    place = _places(keys, trained_on.patient)
    place_of_group[group[of_groups[place >= 0]]] = place[place >= 0]
    found = place_of_group[group[records]]
    return [(int(record), int(known)) for record, known in zip(records, found, strict=True) if known >= 0]


def _copies(
    recordings: Recordings, trained_on: PretrainingRecords, records: np.ndarray, *, directories: Sequence[str]
) -> tuple[list[Overlap], list[str]]:
    """Returns the copies among records, and what could not be decided."""
    if not len(records):
        return [], []
    parts = [
        traces_of(dataset, own) for dataset, own in zip(recordings.datasets, _numbers(recordings, records), strict=True)
    ]
    signature, envelope = (np.concatenate(column) for column in zip(*parts, strict=True))
    suspects = find_suspects(
        Traces(signature=signature, envelope=envelope),
        Traces(signature=trained_on.order_free_signature, envelope=trained_on.envelope),
    )
    signals = _KnownSignals(trained_on, _reachable(trained_on, recordings, directories))
    here = signals.here(suspects.known)
    verified = verify_suspects(
        _those(suspects, here),
        read_queries=lambda numbers: _bands(recordings, records[numbers]),
        read_known=signals.bands,
    )
    sure, unsure = suspects.sure & ~here, ~suspects.sure & ~here
    found = [
        *(
            Overlap(
                record=int(records[copy.query]),
                kind="reordered" if copy.reordered else "copy",
                known=copy.known,
                detail=_difference(copy),
            )
            for copy in verified
        ),
        *(
            Overlap(record=int(records[query]), kind="alike", known=int(known))
            for query, known in zip(suspects.query[sure], suspects.known[sure], strict=True)
        ),
    ]
    unsure &= ~np.isin(suspects.query, suspects.query[sure])
    return found, _undecided(suspects, unsure, signals.names(suspects.known[unsure]))


def _undecided(suspects: Suspects, unsure: np.ndarray, names: Sequence[str]) -> list[str]:
    cautions = []
    if unsure.any():
        cautions.append(
            f"Whether {len(np.unique(suspects.query[unsure])):,} of the validation and test records are pieces or much "
            f"changed copies of records of {' or '.join(names)} was not decided: these signals are not where the "
            "encoder was pretrained on them."
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


def _bands(recordings: Recordings, records: np.ndarray) -> list[np.ndarray]:
    index = recordings.index
    return _bands_of(
        recordings.store,
        records,
        rate_hz=recordings.format.sampling_rate_hz,
        valid_start=index.valid_start[records],
        valid_samples=index.valid_samples[records],
    )


def _bands_of(
    store: Store, records: np.ndarray, *, rate_hz: int, valid_start: np.ndarray, valid_samples: np.ndarray
) -> list[np.ndarray]:
    return [
        band_of(signal, sampling_rate_hz=rate_hz, valid_start=int(start), valid_samples=int(count))
        for signal, start, count in zip(store.read(records), valid_start, valid_samples, strict=True)
    ]


class _KnownSignals:
    """Reads the bands of records that were trained on, of those data sets that are there."""

    def __init__(self, trained_on: PretrainingRecords, datasets: Mapping[str, Dataset]):
        self._trained_on, self._datasets = trained_on, datasets
        self._stores: dict[str, Store] = {}

    def here(self, places: np.ndarray) -> np.ndarray:
        """Returns of which records the signals are there: `bool[n]`."""
        there = np.array([each.fingerprint in self._datasets for each in self._trained_on.sources])
        return there[self._source(places)]

    def names(self, places: np.ndarray) -> list[str]:
        """Returns the names of the data sets that records are of."""
        return list(dict.fromkeys(self._trained_on.sources[which].name for which in self._source(places)))

    def bands(self, places: np.ndarray) -> list[np.ndarray]:
        """Returns `signature.band_of` of records by their places in the list."""
        bands: list[np.ndarray] = [np.empty(0)] * len(places)
        of_source = self._source(places)
        for which in np.unique(of_source):
            source, at = self._trained_on.sources[which], np.flatnonzero(of_source == which)
            dataset, records = self._datasets[source.fingerprint], self._trained_on.number[places[at]]
            found = _bands_of(
                self._store(source),
                records,
                rate_hz=dataset.format.sampling_rate_hz,
                valid_start=dataset.index.valid_start[records],
                valid_samples=dataset.index.valid_samples[records],
            )
            for place, band in zip(at.tolist(), found, strict=True):
                bands[place] = band
        return bands

    def _source(self, places: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._trained_on.starts, places, side="right") - 1

    def _store(self, source: Source) -> Store:
        if source.fingerprint not in self._stores:
            self._stores[source.fingerprint] = open_store(self._datasets[source.fingerprint].directory)
        return self._stores[source.fingerprint]


def _reachable(
    trained_on: PretrainingRecords, recordings: Recordings, directories: Sequence[str]
) -> dict[str, Dataset]:
    """Returns the data sets that were trained on and are there, by fingerprint."""
    wanted = {source.fingerprint for source in trained_on.sources}
    found = {dataset.fingerprint: dataset for dataset in recordings.datasets}
    for directory in directories:
        try:
            dataset = open_dataset(directory)
        except DataError:
            continue  # Moved or removed since: its records are told by what is listed of them, which is said.
        found.setdefault(dataset.fingerprint, dataset)
    return {fingerprint: dataset for fingerprint, dataset in found.items() if fingerprint in wanted}


def _not_looked_for(recordings: Recordings, trained_on: PretrainingRecords) -> tuple[str, ...]:
    old = [dataset.card["name"] for dataset in recordings.datasets if not is_traced(dataset)]
    old += [source.name for source in trained_on.sources if not source.traced]
    if not old:
        return ()
    return (
        f"Copies of what the encoder was pretrained on were not looked for where {' or '.join(dict.fromkeys(old))} is "
        "concerned, prepared before its index had what they are found by: only equal recordings and patients were. "
        "Build it again with --overwrite; pretraining on it again goes on where it was and lists its records anew.",
    )
