"""Builds an index of tables of embeddings: beside its place, and put there when it is whole."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.errors import DataError
from data_pipelines.system.atomic_directory import replaced_whole
from data_pipelines.system.digests import file_digest
from data_pipelines.system.npy_files import write_npy
from data_pipelines.system.visible_text import table_cell
from data_pipelines.version import __version__
from ecgjax.search_index.embedding_tables import IDS, EmbeddingFile, Flaw, Rows
from ecgjax.search_index.index_folder import (
    EMBEDDINGS_FILE,
    FORMAT,
    FORMAT_VERSION,
    INDEX_FILE,
    LISTED_FILES,
    QUARANTINE_FILE,
    ROWS_FILE,
    SIMILARITY,
    is_index,
    json_digest,
)

# Bytes of a record's digest: among a billion records the chance that two are alike is below 1e-20.
_ID_BYTES = 16


def build_index(
    tables: Sequence[EmbeddingFile],
    out: Path,
    *,
    overwrite: bool = False,
    tell: Callable[[int], Any] = lambda num_rows: None,
) -> dict[str, Any]:
    """Builds an index; files are read and written some rows at a time, and memory grows by less than 100 bytes a row.

    Args:
        tables: Tables of embeddings that can be compared, as `open_tables` returns them.
        out: Folder of the index.
        overwrite: Whether an index at `out` is replaced when the new one is whole.
        tell: Function that is called with the number of rows that were added or quarantined.

    Returns:
        Content of `index.json`.

    Raises:
        DataError: The place holds something else, the tables' columns contradict each other, or no row is left.
    """
    _check_place(out, overwrite=overwrite)
    schema = common_schema(tables)
    doubled = _doubled(tables)
    with replaced_whole(out, making="building") as folder:
        with _Rows(folder, schema) as rows:
            dimension = tables[0].origin.dimension
            pieces = rows.added(tables, doubled, tell)
            write_npy(folder / EMBEDDINGS_FILE, pieces, dtype=np.dtype(np.float16), shape=(None, dimension))
        if not sum(rows.of_data_set.values()):
            reasons = ", ".join(f"{reason} {count}" for reason, count in rows.quarantined.most_common()) or "no rows"
            raise DataError(f"--embeddings: none of the rows can be searched ({reasons}); nothing was written")
        stated = _stated(tables, folder, rows)
        (folder / INDEX_FILE).write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
    return stated


def _check_place(out: Path, *, overwrite: bool) -> None:
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not is_index(out):
        raise DataError(f"--out={out}: holds something else than an index; name a new folder, or an earlier index")
    if not overwrite:
        raise DataError(f"--out={out}: holds an index; name another folder, or replace it with --overwrite")


def common_schema(tables: Sequence[EmbeddingFile]) -> pa.Schema:
    """Returns the columns of all tables; numbers of several types become float64.

    Raises:
        DataError: A column is text in one table and numbers in another.
    """
    kinds: dict[str, pa.DataType] = {}
    first: dict[str, EmbeddingFile] = {}
    for table in tables:
        for field in table.schema:
            known = kinds.setdefault(field.name, field.type)
            first.setdefault(field.name, table)
            if known == field.type:
                continue
            if pa.string() in (known, field.type):
                raise DataError(
                    f"--embeddings: the column {field.name!r} is {known} in {first[field.name].path} and {field.type} "
                    f"in {table.path}; rename it in one of them"
                )
            kinds[field.name] = pa.float64()
    return pa.schema(list(kinds.items()))


def _doubled(tables: Sequence[EmbeddingFile]) -> list[np.ndarray]:
    """Returns for each table which rows have an id that came before, `bool[rows]`."""
    digests = np.frombuffer(b"".join(_id_digests(tables)), [("high", "<u8"), ("low", "<u8")])
    order = np.lexsort((digests["low"], digests["high"]))  # It is stable, so that the first of equals stays first.
    later = np.zeros(len(digests), bool)
    ordered = digests[order]
    later[order[1:]] = ordered[1:] == ordered[:-1]
    return np.split(later, np.cumsum([table.num_rows for table in tables])[:-1])


def _id_digests(tables: Sequence[EmbeddingFile]) -> Iterator[bytes]:
    for table in tables:
        # The length sets the name of the data set apart from the id, whatever signs either has.
        before = f"{len(table.data_set)} {table.data_set} ".encode("utf-8", "surrogatepass")
        for ids in table.ids():
            texts = [(record or "").encode() for record in ids.column("record").to_pylist()]
            yield b"".join(hashlib.blake2b(before + text, digest_size=_ID_BYTES).digest() for text in texts)


class _Rows:
    """The table of rows and the list of what is left out, which are written while embeddings are.

    Args:
        folder: Folder of the files.
        schema: Columns of the rows.
    """

    def __init__(self, folder: Path, schema: pa.Schema):
        self._folder, self._schema, self.names = folder, schema, list(schema.names)
        self.of_data_set, self.without_patient = Counter[str](), 0
        self.quarantined = Counter[str]()

    def __enter__(self) -> _Rows:
        """Opens the files."""
        self._file = (self._folder / QUARANTINE_FILE).open("w", newline="", encoding="utf-8")
        self._list = csv.writer(self._file)
        self._list.writerow(("table", "row", "record_id", "reason", "message"))
        self._writer = pq.ParquetWriter(self._folder / ROWS_FILE, self._schema, compression="zstd")
        return self

    def added(
        self, tables: Sequence[EmbeddingFile], doubled: Sequence[np.ndarray], tell: Callable[[int], Any]
    ) -> Iterator[np.ndarray]:
        """Writes the rows of tables in order and yields their embeddings, `f16[n, dim]`, some at a time."""
        for table, later in zip(tables, doubled, strict=True):
            for rows in table.rows():
                flaws = dict(rows.flaws)
                for place in np.flatnonzero(later[rows.first : rows.first + len(rows.units)]):
                    flaws.setdefault(int(place), Flaw("duplicate_id", f"the id came before in {table.data_set}"))
                self._quarantine(table, rows, flaws)
                kept = np.setdiff1d(np.arange(len(rows.units)), list(flaws))
                self._write(table, rows.columns.take(kept))
                yield rows.units[kept]
                tell(len(rows.units))

    def _quarantine(self, table: EmbeddingFile, rows: Rows, flaws: dict[int, Flaw]) -> None:
        for place, flaw in sorted(flaws.items()):
            record = rows.columns.column("record")[place].as_py() or ""
            self._list.writerow(map(table_cell, (table.path.name, str(rows.first + place), record, *flaw)))
            self.quarantined[flaw.reason] += 1

    def _write(self, table: EmbeddingFile, columns: pa.Table) -> None:
        self.of_data_set[table.data_set] += len(columns)
        self.without_patient += columns.column("patient_id").null_count
        filled = {
            field.name: columns.column(field.name).cast(field.type, safe=False)
            if field.name in columns.column_names
            else pa.nulls(len(columns), field.type)
            for field in self._schema
        }
        self._writer.write_table(pa.table(filled, schema=self._schema))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the files."""
        self._file.close()
        self._writer.close()


def _stated(tables: Sequence[EmbeddingFile], folder: Path, rows: _Rows) -> dict[str, Any]:
    """Returns what the index says of itself and its files."""
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_digest(folder / name)} for name in LISTED_FILES
    }
    stated = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **tables[0].origin.to_json(),
        "similarity": SIMILARITY,
        "rows": sum(rows.of_data_set.values()),
        "rows_without_patient": rows.without_patient,
        "simulated": any(table.simulated for table in tables),
        "tables": [{"table": table.path.name, "data_set": table.data_set, "input": table.facts} for table in tables],
        "data_sets": dict(rows.of_data_set),
        "columns": [name for name in rows.names if name not in IDS],
        "quarantined": dict(rows.quarantined.most_common()),
        "files": files,
        "ecgjax_version": __version__,
    }
    return {**stated, "digest": json_digest(stated)}
