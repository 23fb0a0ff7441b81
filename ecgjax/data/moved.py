"""Recordings that a pretraining was on, looked for where they were and where a user says that they lie now."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.errors import DataError
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.prepared.dataset import open_dataset
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.settings import DataSettings, folders_of


class KnownSet(NamedTuple):
    """A data set as those who were trained on it know it.

    Attributes:
        fingerprint: Fingerprint of the data set.
        name: Name of the data set; empty where it was not recorded.
    """

    fingerprint: str
    name: str = ""

    def __str__(self) -> str:
        """Returns the data set in words."""
        return f"{self.name or 'a data set'} (fingerprint {self.fingerprint})"


def known_sets(rows: Iterable[Mapping[str, Any]], fingerprints: Iterable[str] = ()) -> tuple[KnownSet, ...]:
    """Returns the data sets of a pretraining.

    Args:
        rows: Statements of a run or an exported model about each data set, with its fingerprint and name.
        fingerprints: Fingerprints of the data sets, for a run that is older than such statements.
    """
    told = tuple(
        KnownSet(str(each["fingerprint"]), str(each.get("name", ""))) for each in rows if "fingerprint" in each
    )
    return told or tuple(map(KnownSet, fingerprints))


def in_words(known: Sequence[KnownSet]) -> str:
    """Returns data sets in words, joined by "and"; for none, that they were not recorded."""
    return " and ".join(map(str, known)) or "data sets whose names were not recorded"


def open_where_they_lie(
    data: DataSettings, known: Sequence[KnownSet], *, purpose: str, remedy: str, places: Sequence[str] = ()
) -> Recordings:
    """Opens the recordings of a pretraining, of whose data sets each is recognised by its fingerprint.

    Args:
        data: Settings of the pretraining's data.
        known: Data sets of the pretraining in their order; empty where these were not recorded, and then whatever lies
            in the folders is taken.
        purpose: Words for what the recordings are needed for, after "are needed to".
        remedy: Sentence without a full stop on what can be done where they are not found.
        places: Further folders to look in, as a user gave them, each perhaps several with commas between.

    Raises:
        DataError: A data set is in none of the folders, or what is there is damaged.
    """
    found: dict[str, str] = {}
    lacking: list[str] = []
    for directory in data.directories:
        try:
            found.setdefault(open_dataset(dataset_folder(directory)).fingerprint, directory)
        except DataError as error:
            lacking.append(f"{error}{if_relative([directory])}")
    # A folder that is named and holds no data set is an error, whatever lies in the others.
    for directory in (each for place in places for each in folders_of(place)):
        found.setdefault(open_dataset(dataset_folder(directory)).fingerprint, directory)
    missing = [each for each in known if each.fingerprint not in found]
    if missing or (lacking and not known):
        others = sorted(set(found) - {each.fingerprint for each in known})
        also = [f"there are others there (fingerprints {', '.join(others)})"] if others and known else []
        raise DataError(
            f"the recordings of {in_words(missing)} are needed to {purpose}, and they are not where they were: "
            f"{'; '.join([*lacking, *also]) or 'nothing is there'}. {remedy}"
        )
    directories = [found[each.fingerprint] for each in known] or data.directories
    return open_recordings(dataclasses.replace(data, dir=",".join(directories)))


def if_relative(directories: Sequence[str]) -> str:
    """Returns a remark on relative paths for a message that a folder is not there; empty where there is none."""
    if not any(each and "://" not in each and not Path(each).is_absolute() for each in directories):
        return ""
    return f" (a relative path is looked for below the folder that a command is given in, here {Path.cwd()})"
