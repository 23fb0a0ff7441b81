"""The list of records that a run is pretrained on, kept with its checkpoints so that an evaluation can detect leaks.

`WORKDIR/pretraining_records.npz` holds 488 bytes of every record that may be drawn:

- the hash of its content, by which an equal recording is recognised in any data set;
- a hash of its patient. The list holds no plain ids, because a checkpoint is passed on further than recordings are, and
  a list of ids would disclose who is in a hospital's data. The hash keeps an id from being read, but not from being
  guessed: whoever has an id and the data set's name can still find out whether it is in the list;
- the order-free signature and the envelope from the data set's index (`data_pipelines/duplicates/order_free.py`), by
  which copies are found. They are copied into the list, so that copies are found where the data sets themselves are not
  available;
- its number in its data set, by which its signal is read where the data are available.

An encoder that begins with another one's weights has also seen what that one was trained on: its list is the union of
both, the records of earlier trainings last (`after`). Of an earlier training without a list, the list keeps the name.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.metadata.source_names import NO_NAME
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.records import ENVELOPE_SAMPLES, NO_SAMPLE, ORDER_FREE_VERSION, SIGNATURE_BYTES
from ecgjax.data.recordings import Recordings
from ecgjax.errors import CheckpointError
from ecgjax.system.files import replacing

#: Name of the list in the folder of a run.
RECORDS_FILE = "pretraining_records.npz"

_VERSION = 1
_KEY_BYTES = 16
_HEADER = "header"
_COLUMNS = ("content", "patient", "number", "order_free_signature", "envelope")
# Fields of the header of a run that began with another one's weights.
_EARLIER = ("num_earlier", "unlisted", "labels")

# Errors that zip archives and NumPy raise where a file is damaged.
_DAMAGE = (EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A data set whose records were trained on.

    Attributes:
        name: Name of the data set.
        fingerprint: Fingerprint of the data set.
        num_records: Number of records of the data set that were trained on.
        traced: Whether its index has the signatures and envelopes by which copies are found.
    """

    name: str
    fingerprint: str
    num_records: int
    traced: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingRecords:
    """Records that were trained on, one data set after the other.

    Records of a shard that could not be read are included, because they may have been drawn before the shard was
    damaged.

    Attributes:
        run: Fingerprint of the run (`ecgjax.training.run.Run.fingerprint`).
        sources: Data sets, in the order of the records.
        content: Content hashes, `uint8[n, 16]`.
        patient: Patient hashes from `patient_keys`, `uint8[n, 16]`.
        number: Number of each record in its data set, `int64[n]`.
        order_free_signature: Order-free signatures, `int8[n, 192]`, zero in data sets that are not traced.
        envelope: Envelopes, `int8[n, 256]`, without samples in data sets that are not traced.
        num_earlier: Number of the last sources whose records an earlier training has seen, and not this one.
        unlisted: Names of encoders that training went on from, and of which no list of their records is known.
        labels: Questions whose answers earlier trainings used.
    """

    run: str
    sources: tuple[Source, ...]
    content: np.ndarray
    patient: np.ndarray
    number: np.ndarray
    order_free_signature: np.ndarray
    envelope: np.ndarray
    num_earlier: int = 0
    unlisted: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self.content)

    @functools.cached_property
    def digest(self) -> str:
        """Hex digest of the records and patients; signatures and envelopes are not part of it."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr([(each.name, each.fingerprint, each.num_records) for each in self.sources]).encode())
        for column in (self.content, self.patient, self.number):
            digest.update(np.ascontiguousarray(column).data)
        # A run that began at random keeps the digest that it had before lists told of earlier trainings.
        if any(told := self._of_earlier()):
            digest.update(repr(told).encode())
        return digest.hexdigest()

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """First record of each data set, and at the end the number of all records, `int64[sources + 1]`."""
        return np.cumsum([0, *(each.num_records for each in self.sources)])

    def _of_earlier(self) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
        return self.num_earlier, self.unlisted, self.labels

    @property
    def earlier(self) -> PretrainingRecords:
        """What earlier trainings alone have seen."""
        return self._of_sources(np.arange(len(self.sources)) >= len(self.sources) - self.num_earlier)

    def after(self, earlier: PretrainingRecords) -> PretrainingRecords:
        """Returns the list of an encoder that was trained on these records, after an earlier training on others.

        Args:
            earlier: All that the encoder had seen before, the trainings before that one included.
        """
        # What both have seen is listed once: chains of trainings on the same data would grow without end.
        own: dict[str, list[np.ndarray]] = collections.defaultdict(lambda: [np.zeros(0, np.int64)])
        for source, numbers in self._numbers():
            own[source.fingerprint].append(numbers)
        new = [~np.isin(numbers, np.concatenate(own[source.fingerprint])) for source, numbers in earlier._numbers()]
        others = earlier._chosen(np.concatenate([np.zeros(0, bool), *new]))
        return dataclasses.replace(
            self,
            content=np.concatenate([self.content, others.content]),
            patient=np.concatenate([self.patient, others.patient]),
            number=np.concatenate([self.number, others.number]),
            order_free_signature=np.concatenate([self.order_free_signature, others.order_free_signature]),
            envelope=np.concatenate([self.envelope, others.envelope]),
            sources=(*self.sources, *others.sources),
            num_earlier=self.num_earlier + len(others.sources),
            unlisted=tuple(dict.fromkeys((*self.unlisted, *earlier.unlisted))),
            labels=tuple(dict.fromkeys((*self.labels, *earlier.labels))),
        )

    def _numbers(self) -> list[tuple[Source, np.ndarray]]:
        """Returns every source with the numbers of its records in its data set."""
        places = zip(self.sources, self.starts[:-1], self.starts[1:], strict=True)
        return [(source, self.number[begin:end]) for source, begin, end in places]

    def _of_sources(self, which: np.ndarray) -> PretrainingRecords:
        return self._chosen(np.repeat(which, [each.num_records for each in self.sources]))

    def _chosen(self, which: np.ndarray) -> PretrainingRecords:
        """Returns the list of the records of a mask, `bool[n]`, without the data sets that nothing is left of."""
        counts = [int(which[begin:end].sum()) for begin, end in itertools.pairwise(self.starts)]
        left = [
            dataclasses.replace(source, num_records=count)
            for source, count in zip(self.sources, counts, strict=True)
            if count
        ]
        return dataclasses.replace(
            self,
            content=self.content[which],
            patient=self.patient[which],
            number=self.number[which],
            order_free_signature=self.order_free_signature[which],
            envelope=self.envelope[which],
            sources=tuple(left),
            num_earlier=0,
        )

    def write(self, workdir: str | Path) -> None:
        """Writes the list into the folder of a run, unless the same list is there."""
        path = Path(workdir) / RECORDS_FILE
        try:
            kept = _read(path)
        except _DAMAGE:  # A missing file raises one of these too.
            kept = None
        if kept is not None and (kept.digest, kept.run, kept.sources) == (self.digest, self.run, self.sources):
            return
        versions = {"version": _VERSION, "order_free_version": ORDER_FREE_VERSION}
        header = {**versions, "run": self.run, "sources": [dataclasses.asdict(each) for each in self.sources]}
        if any(earlier := self._of_earlier()):
            header |= dict(zip(_EARLIER, earlier, strict=True))
        columns = {name: getattr(self, name) for name in _COLUMNS}
        with replacing(path) as temporary, temporary.open("wb") as file:
            # The archive is not compressed, because hashes cannot be and signatures hardly can.
            told = np.frombuffer(json.dumps(header).encode(), np.uint8)
            np.savez(file, allow_pickle=False, **{_HEADER: told}, **columns)


def pretraining_records(recordings: Recordings, records: np.ndarray, *, run: str) -> PretrainingRecords:
    """Returns the list of the records that are trained on.

    Args:
        recordings: Recordings of the run.
        records: Numbers of the records that may be drawn, `int64[n]`, ascending.
        run: Fingerprint of the run.
    """
    parts = recordings.numbers_by_dataset(np.asarray(records))
    return PretrainingRecords(
        run=run,
        sources=tuple(
            Source(name=each.card["name"], fingerprint=each.fingerprint, num_records=len(own), traced=is_traced(each))
            for each, own in parts
        ),
        content=np.concatenate([np.asarray(dataset.index.content_hash[own]) for dataset, own in parts]),
        patient=np.concatenate([patient_keys(dataset, own) for dataset, own in parts]),
        number=np.concatenate([own for _, own in parts]),
        order_free_signature=np.concatenate([traces_of(dataset, own)[0] for dataset, own in parts]),
        envelope=np.concatenate([traces_of(dataset, own)[1] for dataset, own in parts]),
    )


def seen_by(listed: PretrainingRecords | None, *, name: str, labels: Sequence[str] = ()) -> PretrainingRecords:
    """Returns all that an encoder has seen, as far as it is known, for a training that goes on from it.

    Args:
        listed: List of the encoder's records; None where there is none.
        name: Name of the encoder, which stands for its records where there is no list.
        labels: Questions whose answers its own training used.
    """
    if listed is None:
        listed = dataclasses.replace(_no_records(), unlisted=(name,))
    return dataclasses.replace(listed, labels=tuple(dict.fromkeys((*listed.labels, *labels))))


def _no_records() -> PretrainingRecords:
    return PretrainingRecords(
        run="",
        sources=(),
        content=np.zeros((0, _KEY_BYTES), np.uint8),
        patient=np.zeros((0, _KEY_BYTES), np.uint8),
        number=np.zeros(0, np.int64),
        order_free_signature=np.zeros((0, SIGNATURE_BYTES), np.int8),
        envelope=np.zeros((0, ENVELOPE_SAMPLES), np.int8),
    )


def is_traced(dataset: Dataset) -> bool:
    """Returns whether the index of a data set has the signatures and envelopes by which copies are found.

    Data sets that earlier versions built have none.
    """
    return dataset.index.order_free_signature is not None and dataset.index.envelope is not None


def traces_of(dataset: Dataset, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns order-free signatures, `int8[n, 192]`, and envelopes, `int8[n, 256]`, of records of a data set.

    Where the index has none, signatures are zero and envelopes hold `NO_SAMPLE`.

    Args:
        dataset: Data set of the records.
        numbers: Numbers of the records in the data set, `int64[n]`.
    """
    signature, envelope = dataset.index.order_free_signature, dataset.index.envelope
    if signature is not None and envelope is not None:
        return np.asarray(signature[numbers]), np.asarray(envelope[numbers])
    return (
        np.zeros((len(numbers), SIGNATURE_BYTES), np.int8),
        np.full((len(numbers), ENVELOPE_SAMPLES), NO_SAMPLE, np.int8),
    )


def patient_keys(dataset: Dataset, numbers: np.ndarray) -> np.ndarray:
    """Returns hashes by which patients are recognised, `uint8[n, 16]`.

    A patient is an id within a data set. Data sets of the same name count as one, whatever rate and filters they were
    prepared with; a folder of recordings without a name counts as a data set of its own.

    Args:
        dataset: Data set of the records.
        numbers: Numbers of the records in the data set, `int64[n]`.
    """
    name = dataset.card["name"]
    identity = f"{name} {dataset.fingerprint}" if name == NO_NAME else name
    # Equal ids in data sets of different names are different patients.
    key = hashlib.blake2b(identity.encode(), digest_size=_KEY_BYTES).digest()
    # Each patient is hashed once, however many records there are.
    ids, place = np.unique(np.asarray(dataset.index.patient_id[numbers]), return_inverse=True)
    hashes = b"".join(hashlib.blake2b(each.encode(), key=key, digest_size=_KEY_BYTES).digest() for each in ids.tolist())
    return np.frombuffer(hashes, np.uint8).reshape(-1, _KEY_BYTES)[place]


def open_pretraining_records(workdir: str | Path, *, run: str, digest: str | None) -> PretrainingRecords:
    """Opens the list of a checkpoint's records.

    Args:
        workdir: Folder of the run.
        run: Fingerprint of the run that the checkpoint belongs to.
        digest: Digest of the list that the checkpoint stores; None for a checkpoint saved before there were lists.

    Raises:
        CheckpointError: The list is missing, damaged, of another run, or has another digest.
    """
    path = Path(workdir) / RECORDS_FILE
    remedy = (
        "it belongs to the checkpoints: restore it from where they come from, or give the command that pretrained them "
        "again, which makes it anew where the data sets are"
    )
    found = read_pretraining_records(path, remedy=remedy)
    if found.run != run or digest not in (None, found.digest):
        raise CheckpointError(f"{path} lists the records of another run than the checkpoints beside it; {remedy}")
    return found


def read_pretraining_records(path: Path, *, remedy: str) -> PretrainingRecords:
    """Reads a list wherever it lies, whatever run it is of.

    Args:
        path: File of the list.
        remedy: Remedy for a list that is missing or damaged, for messages.

    Raises:
        CheckpointError: The list is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}, which lists what the encoder was pretrained on, is missing; {remedy}")
    try:
        return _read(path)
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is damaged ({error}); {remedy}") from error


def _read(path: Path) -> PretrainingRecords:
    # The file is opened here, since NumPy leaves a damaged archive open. The zip format's checksums cover every byte.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        header = json.loads(arrays[_HEADER].tobytes())
        if (header["version"], header["order_free_version"]) != (_VERSION, ORDER_FREE_VERSION):
            raise ValueError("written by another version of ecgjax")
        sources = tuple(Source(**each) for each in header["sources"])
        return PretrainingRecords(
            run=header["run"],
            sources=sources,
            **{name: arrays[name] for name in _COLUMNS},
            num_earlier=int(header.get("num_earlier", 0)),
            unlisted=tuple(header.get("unlisted", ())),
            labels=tuple(header.get("labels", ())),
        )
