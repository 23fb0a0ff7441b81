"""Links records of one or several data sets that belong together: duplicates, near-duplicates and joint groups.

Records are linked if they share a patient, a content or a recording, directly or through other records, within a data
set and across. A patient id identifies a person only within its data set, unless data sets are said to number the same
patients.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.prepared.splitting import Linked
from data_pipelines.records import SIGNATURE_VERSION
from data_pipelines.system.atomic_directory import written_whole
from data_pipelines.system.npy_files import write_npz

#: Version of the file format; files of another version are refused.
LINKS_VERSION = 1

# Errors that zip archives and NumPy raise for a damaged file: a flipped bit can make it claim another version of the
# format (NotImplementedError, a RuntimeError) or encryption (RuntimeError).
_DAMAGE = (EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)

#: Fields of a pair of records that show one recording. `exact` pairs have equal stored signals, and `reordered` pairs
#: have their leads in another order; older links, which were not searched for these, lack that field.
PAIR_FIELDS = (
    ("first_dataset", "<i4"),
    ("first_record", "<i8"),
    ("second_dataset", "<i4"),
    ("second_record", "<i8"),
    ("exact", "|b1"),
    *((name, "<f4") for name in ("correlation", "agreement", "lag_s", "gain", "overlap_s")),
    ("reordered", "|b1"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkedDataset:
    """A data set of a `Links`.

    Attributes:
        name: Name of the data set.
        directory: Directory of the data set when it was linked, for messages.
        fingerprint: Fingerprint of the data set.
        patient_namespace: Namespace of the patient ids; data sets with the same namespace number the same patients.
        num_records: Number of records in the data set.
        group: Joint group of every record, `int32[n]`; equal numbers in two data sets are one group.
        copy: Joint number of every record's recording, `int32[n]`; records with equal numbers are duplicates of each
            other.
    """

    name: str
    directory: str
    fingerprint: str
    patient_namespace: str
    num_records: int
    group: np.ndarray
    copy: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Links:
    """The links between the records of some data sets.

    Attributes:
        datasets: Linked data sets, in the order in which they were given.
        pairs: Pairs of records that show one recording, a structured array of `PAIR_FIELDS`.
        num_candidates: Number of pairs whose signals were compared.
        num_crowded: Number of records with too many candidates to compare them all.
    """

    datasets: tuple[LinkedDataset, ...]
    pairs: np.ndarray
    num_candidates: int
    num_crowded: int

    def of(self, dataset: Dataset) -> Linked:
        """Returns the groups and copies of a data set's records.

        Raises:
            DataError: The data set was not linked, or has changed since.
        """
        for linked in self.datasets:
            if linked.fingerprint == dataset.fingerprint and linked.num_records == dataset.index.num_records:
                return Linked(group=linked.group, copy=linked.copy)
        known = ", ".join(f"{linked.name} ({linked.directory})" for linked in self.datasets)
        raise DataError(
            f"{dataset.directory}: these links were made for {known}, and not for this data set as it is now "
            f"(fingerprint {dataset.fingerprint}); run python -m data_pipelines.link again"
        )


# Everything of a linked data set but its arrays.
_HEADER_FIELDS = ("name", "directory", "fingerprint", "patient_namespace", "num_records")


def save_links(links: Links, path: Path | str) -> None:
    """Writes links to a file; an existing file is replaced atomically."""
    path = Path(path)
    header = {
        "links_version": LINKS_VERSION,
        "signature_version": SIGNATURE_VERSION,
        "num_candidates": links.num_candidates,
        "num_crowded": links.num_crowded,
        "datasets": [{name: getattr(linked, name) for name in _HEADER_FIELDS} for linked in links.datasets],
    }
    arrays = {"header": np.frombuffer(json.dumps(header, ensure_ascii=False).encode(), np.uint8), "pairs": links.pairs}
    for position, linked in enumerate(links.datasets):
        arrays |= {f"group_{position}": linked.group, f"copy_{position}": linked.copy}
    content = io.BytesIO()
    write_npz(content, arrays, compressed=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name holds the process, so that two runs at a time do not write into one file.
    making = path.with_name(f"{path.name}.{os.getpid()}.making")
    with written_whole(path, making=making) as file:
        file.write(content.getvalue())


def open_links(path: Path | str) -> Links:
    """Reads links that `save_links` wrote; the zip format's own checksums cover every byte of them.

    Raises:
        DataError: The file does not exist, is damaged, or has another version.
    """
    path = Path(path)
    remedy = "make it again with python -m data_pipelines.link"
    if not path.is_file():
        raise DataError(f"{path}: no such file; {remedy}")
    try:
        # The file is read into memory first, since NumPy does not close a file that is not a whole archive.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            if (header["links_version"], header["signature_version"]) != (LINKS_VERSION, SIGNATURE_VERSION):
                raise DataError(f"{path}: links of another version of ecgjax; {remedy}")
            return Links(
                datasets=tuple(
                    LinkedDataset(**linked, group=arrays[f"group_{position}"], copy=arrays[f"copy_{position}"])
                    for position, linked in enumerate(header["datasets"])
                ),
                pairs=arrays["pairs"],
                num_candidates=header["num_candidates"],
                num_crowded=header["num_crowded"],
            )
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path}: no links, or damaged ({error}); {remedy}") from error
