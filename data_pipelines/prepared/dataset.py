"""A prepared data set on disk: `open_dataset(directory)` returns its card and index; a store reads its signals.

DIR/
ecgjax_dataset.json         the card: layout version, format, shard lengths, fingerprint, summary of the build
quarantine.csv              recordings that were not stored, and why
remarks.csv                 fields of stored recordings that could not be read (`remarks.py`)
index/                      columns of the index (`index.py`)
SHA256SUMS                  digests of all other files (`digests.py`), by which `data_pipelines.verify` checks them
dataset_info.json features.json NAME-ecgs.array_record-00000-of-00001 …     a TFDS dataset directory
packed/                     a copy for fast local reading (`packed_store.py`), beside the shards or instead of them
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.errors import DataError
from data_pipelines.prepared.index import INDEX_DIR, INDEX_FILE, Index, open_index
from data_pipelines.records import LAYOUT_VERSION, STORED_LEADS, SignalFormat
from data_pipelines.system.digests import check_digests
from data_pipelines.system.plain_names import files_below

#: File of the card; a directory without it is not a finished data set.
CARD_FILE = "ecgjax_dataset.json"

#: List of the recordings that were not stored.
QUARANTINE_FILE = "quarantine.csv"

#: List of the remarks on stored recordings; older data sets do not have it.
REMARKS_FILE = "remarks.csv"

_REBUILD = "build it again with --overwrite"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """An opened data set.

    Attributes:
        directory: Directory of the data set.
        card: Contents of `ecgjax_dataset.json`.
        format: Rate and length of the records.
        index: Index of the records, memory-mapped.
        fingerprint: Hex digest of contents and patients in stored order; equal data sets have equal fingerprints.
        simulated: Whether the data set was simulated.
    """

    directory: Path
    card: Mapping[str, Any]
    format: SignalFormat
    index: Index
    fingerprint: str
    simulated: bool

    @property
    def shards(self) -> tuple[Path, ...]:
        """Paths of the ArrayRecord shards, in stored order."""
        return shard_paths(self.directory, self.card)


def staging_directory(out: Path) -> Path:
    """Returns the directory in which a data set is made until it is complete: `OUT.building`, beside the data set.

    Raises:
        DataError: The path is the root of all folders, which has no sibling.
    """
    out = out.resolve()  # The path '.' has no name to extend.
    if not out.name:
        raise DataError(f"{out}: is the folder of all folders, and no data set; name one within it")
    return out.with_name(out.name + ".building")


def check_out(out: Path, *, lost: str) -> None:
    """Raises `DataError` if a data set cannot be made at a path.

    Args:
        out: Resolved path of the data set.
        lost: Clause on what would happen to the current directory, for the message.
    """
    if out.exists() and not (out / CARD_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists and is not a prepared data set; choose another --out, or move it away")
    if out == Path.cwd():
        raise DataError(f"{out}: is the current directory, {lost}; name a new one with --out")


def shard_paths(directory: Path, card: Mapping[str, Any]) -> tuple[Path, ...]:
    """Returns the paths of a data set's shards, in stored order."""
    return files_below(directory, card["shards"], source=directory / CARD_FILE)


def open_dataset(directory: Path | str) -> Dataset:
    """Opens a prepared data set, which takes milliseconds for any size: only its card and index are read.

    Args:
        directory: Directory that `python -m data_pipelines.build --out=` wrote.

    Returns:
        The data set; its signals are read through a store (`data_pipelines.storage.store`), which checks the shards.

    Raises:
        DataError: The directory does not exist, the build is unfinished, the layout version is another, or the card or
            index is damaged.
    """
    if "://" in str(directory):
        raise DataError(
            f"{directory}: data sets are read as files; mount the bucket, or make a local copy with "
            f"python -m data_pipelines.stage --dataset={directory} --out=DIR"
        )
    directory = Path(directory)
    card = read_card(directory)
    check_digests(directory, [CARD_FILE, f"{INDEX_DIR}/{INDEX_FILE}"])
    index = open_index(directory / INDEX_DIR)
    if index.num_records != sum(card["shard_lengths"]):
        raise DataError(
            f"{directory / INDEX_DIR}: lists {index.num_records} records, the shards hold "
            f"{sum(card['shard_lengths'])}; {_REBUILD}"
        )
    return Dataset(
        directory=directory,
        card=card,
        format=SignalFormat(**card["signal_format"]),
        index=index,
        fingerprint=card["fingerprint"],
        simulated=card["simulated"],
    )


def read_card(directory: Path) -> dict[str, Any]:
    """Returns the card of a data set; if there is none, the error says why.

    Raises:
        DataError: The directory does not exist, the build is unfinished, it is not a data set, or the layout version is
            another.
    """
    path = directory / CARD_FILE
    if not path.is_file():
        if staging_directory(directory).exists():
            raise DataError(
                f"{directory}: is not finished (there is {staging_directory(directory).name} beside it); "
                "wait for it, or run the same command again"
            )
        if not directory.exists():
            raise DataError(f"{directory}: no such directory; build it with python -m data_pipelines.build --out=…")
        raise DataError(f"{directory}: not a prepared data set, it has no {CARD_FILE}")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        version, leads = card["layout_version"], tuple(card["leads"])
        # The card of another layout may have other entries.
        if version == LAYOUT_VERSION:
            _check_shapes(card)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}); {_REBUILD}") from error
    if version != LAYOUT_VERSION or leads != STORED_LEADS:
        message = f"{directory}: has layout version {version}, this ecgjax reads version {LAYOUT_VERSION}; {_REBUILD}"
        raise DataError(message)
    shard_paths(directory, card)
    return card


def _check_shapes(card: Mapping[str, Any]) -> None:
    """Raises `ValueError`, `KeyError` or `TypeError` if the card lacks an entry that opening a data set needs."""
    form, lengths = SignalFormat(**card["signal_format"]), card["shard_lengths"]
    numbers = (form.sampling_rate_hz, form.num_samples, *lengths)
    # To isinstance, true and false would be whole numbers too.
    if not all(type(number) is int and number >= 0 for number in numbers) or not form.sampling_rate_hz:
        raise ValueError("its rate, length or shard lengths are no whole numbers")
    if len(lengths) != len(card["shards"]):
        raise ValueError(f"{len(card['shards'])} shards and {len(lengths)} lengths of shards")
    if not all(isinstance(card[name], str) for name in ("name", "fingerprint")):
        raise ValueError("its name or fingerprint is no text")
