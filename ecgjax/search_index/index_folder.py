"""The folder of an index: which files it has, whether they are as they were written, and what they say.

Nothing in a folder is executed: `embeddings.npy` is an array of float16 without pickled objects, `rows.parquet` a table
of ids and columns to filter by, `index.json` says what they are, with their sizes and digests, and a digest of itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.command import progress_bar
from data_pipelines.errors import DataError
from data_pipelines.system.digests import file_digest
from data_pipelines.system.plain_names import why_elsewhere
from ecgjax.search_index.embedding_tables import IDS, SIGNAL
from ecgjax.search_index.origin import Origin

INDEX_FILE, EMBEDDINGS_FILE, ROWS_FILE, QUARANTINE_FILE = (
    "index.json",
    "embeddings.npy",
    "rows.parquet",
    "quarantine.csv",
)

#: Files whose sizes and digests `index.json` has.
LISTED_FILES = (EMBEDDINGS_FILE, ROWS_FILE, QUARANTINE_FILE)

FORMAT, FORMAT_VERSION = "ecgjax search index", 1

#: What a similarity is.
SIMILARITY = "cosine of the stored float16 embeddings, computed in float64"

# Sizes are bounded before anything is read: a hundred thousand data sets would take less.
_MOST_JSON_BYTES = 64 * 2**20

# Rows of the table that are in memory at a time.
_AT_ONCE = 65_536

_AGAIN = "copy the index again, or build it again"


@dataclasses.dataclass(frozen=True)
class SearchIndex:
    """An index whose files are as they were written.

    Attributes:
        path: Folder.
        origin: What made the embeddings.
        embeddings: Embeddings of about length 1, `f16[n, dim]`, a memory map.
        schema: Columns of the rows.
        stated: Content of `index.json`.
    """

    path: Path
    origin: Origin
    embeddings: np.ndarray
    schema: pa.Schema
    stated: Mapping[str, Any]

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.embeddings)

    @property
    def digest(self) -> str:
        """Hex digest of the index and all its files."""
        return str(self.stated["digest"])

    @property
    def simulated(self) -> bool:
        """Whether any of the recordings are SIMULATED."""
        return self.stated["simulated"] is True

    def columns(self, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Yields some columns of all rows in order: the number of the first row, and a table of some rows."""
        first = 0
        with pq.ParquetFile(self.path / ROWS_FILE, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_AT_ONCE, columns=list(names)):
                yield first, pa.Table.from_batches([batch]).select(list(names))
                first += batch.num_rows

    def ids_of(self, rows: np.ndarray) -> pa.Table:
        """Returns the ids of some rows, `int64[…]`, in their order; rows may come several times."""
        return self._columns_of(rows, IDS)

    def signals_of(self, rows: np.ndarray) -> pa.ChunkedArray:
        """Returns the hashes of the signals of some rows, `int64[…]`; null where the tables did not have them."""
        if SIGNAL not in self.schema.names:
            return pa.chunked_array([pa.nulls(len(rows), pa.string())])
        return self._columns_of(rows, (SIGNAL,)).column(SIGNAL)

    def rows_without_signal(self) -> int:
        """Returns the number of rows without the hash of their signal, which tables of an earlier ecgjax lack."""
        if SIGNAL not in self.schema.names:
            return self.num_rows
        return sum(table.column(SIGNAL).null_count for _, table in self.columns((SIGNAL,)))

    def _columns_of(self, rows: np.ndarray, names: Sequence[str]) -> pa.Table:
        unique, places = np.unique(rows, return_inverse=True)
        parts = []
        for first, table in self.columns(names):
            start, stop = np.searchsorted(unique, (first, first + len(table)))
            parts.append(table.take(unique[start:stop] - first))
        return pa.concat_tables(parts).take(places)


def json_digest(stated: Mapping[str, Any]) -> str:
    """Returns the hex digest of what an index says, without the digest itself."""
    content = {name: value for name, value in stated.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_index(path: Path) -> bool:
    """Returns whether a folder holds an index and nothing else, whole or not."""
    names = {each.name for each in path.iterdir()}
    try:
        with (path / INDEX_FILE).open("rb") as file:
            stated = json.loads(file.read(_MOST_JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(stated, dict) and stated.get("format") == FORMAT and names <= {INDEX_FILE, *LISTED_FILES}


def open_index(folder: str | Path) -> SearchIndex:
    """Opens an index after checking its files against their sizes and digests.

    Args:
        folder: Folder that `python -m ecgjax.search build` wrote.

    Raises:
        DataError: The path is something else, or a file is missing, damaged, of another version, or a link out of the
            folder.
    """
    path = Path(folder)
    if "://" in str(folder) or not path.is_dir():
        raise DataError(f"--index={folder}: there is no such folder; give one that python -m ecgjax.search build wrote")
    if not (path / INDEX_FILE).is_file():
        raise DataError(
            f"--index={folder}: has no {INDEX_FILE}; give a folder that python -m ecgjax.search build wrote"
        )
    stated = _read_stated(_own(path, INDEX_FILE))
    _check_files(path, stated["files"])
    origin = Origin.read(stated, where=str(path / INDEX_FILE))
    try:
        embeddings = np.load(path / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
        schema, num_rows = pq.read_schema(path / ROWS_FILE), pq.read_metadata(path / ROWS_FILE).num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: its files cannot be read ({error}); {_AGAIN}") from error
    expected = (stated["rows"], origin.dimension)
    if embeddings.dtype != np.float16 or embeddings.shape != expected or num_rows != expected[0]:
        raise DataError(
            f"{path / EMBEDDINGS_FILE}: holds {embeddings.dtype}{list(embeddings.shape)} and {ROWS_FILE} {num_rows} "
            f"rows, where {INDEX_FILE} says float16{list(expected)}; {_AGAIN}"
        )
    return SearchIndex(path, origin, embeddings, schema, stated)


def _own(path: Path, name: str) -> Path:
    """Returns the path of a file of the folder.

    Raises:
        DataError: It is no file, or a link out of the folder.
    """
    file = path / name
    if not file.is_file():
        raise DataError(f"{file}: is missing; {_AGAIN}")
    if (why := why_elsewhere(file)) is not None:
        raise DataError(f"{file}: {why}")
    return file


def _read_stated(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MOST_JSON_BYTES:
            raise DataError(f"{file}: is larger than {_MOST_JSON_BYTES // 2**20} MiB, which no index's is; {_AGAIN}")
        stated = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: holds no JSON ({str(error)[:120]}); {_AGAIN}") from error
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise DataError(f"{file}: is no index of ecgjax.search; give a folder that python -m ecgjax.search build wrote")
    if stated.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{file}: has format_version {stated.get('format_version')!r}, and this ecgjax reads {FORMAT_VERSION}; "
            "build the index again, or install the ecgjax that wrote it"
        )
    if stated.get("digest") != json_digest(stated):
        raise DataError(f"{file}: is not what was written (changed or damaged since); {_AGAIN}")
    return stated


def _check_files(path: Path, listed: Mapping[str, Mapping[str, Any]]) -> None:
    for name in LISTED_FILES:
        size, expected = _own(path, name).stat().st_size, listed[name]["bytes"]
        if size != expected:
            raise DataError(f"{path / name}: has {size} bytes, and {INDEX_FILE} says {expected}; {_AGAIN}")
    with progress_bar("checking", sum(listed[name]["bytes"] for name in LISTED_FILES), unit="B") as tell:
        for name in LISTED_FILES:
            if file_digest(path / name, tell) != listed[name]["sha256"]:
                raise DataError(f"{path / name}: is not what was written (changed or damaged since); {_AGAIN}")
