"""Queries of an index: embeddings of a table, or rows of the index itself, and whose neighbours they cannot be."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.errors import DataError
from ecgjax.search_index.embedding_tables import IDS, SIGNAL, EmbeddingFile, Flaw
from ecgjax.search_index.exact_search import Apart
from ecgjax.search_index.index_folder import SearchIndex


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused:
    """A row of a table that is no query.

    Attributes:
        table: Name of the table.
        row: Number of the row in it.
        record: Id of the record.
        flaw: Why it is none.
    """

    table: str
    row: int
    record: str
    flaw: Flaw


@dataclasses.dataclass(frozen=True, kw_only=True)
class Queries:
    """Embeddings whose neighbours are asked for.

    Attributes:
        embeddings: Embeddings of about length 1, `f16[m, dim]`.
        ids: Data set, record and patient of each.
        signals: Hash of the prepared signal of each; null where the table does not have it.
        refused: Rows that are no queries.
        simulated: Whether any of the recordings are SIMULATED.
        source: Description of where they come from, for the provenance.
    """

    embeddings: np.ndarray
    ids: pa.Table
    signals: pa.ChunkedArray
    refused: tuple[Refused, ...]
    simulated: bool
    source: Any

    @property
    def from_tables(self) -> bool:
        """Whether the queries come from tables, and are not rows of the index."""
        return isinstance(self.source, list)


def of_tables(
    tables: Sequence[EmbeddingFile], index: SearchIndex, *, tell: Callable[[int], Any] = lambda num_rows: None
) -> Queries:
    """Returns the embeddings of tables, rounded to float16 as the index's are.

    Raises:
        DataError: A table was made by another encoder, layer or preprocessing, or no row is a query.
    """
    for table in tables:
        index.origin.check_same(table.origin, own=f"--index={index.path}", of_other=str(table.path))
    units, ids, signals, refused = [], [], [], []
    for table in tables:
        for rows in table.rows():
            kept = np.setdiff1d(np.arange(len(rows.units)), list(rows.flaws))
            units.append(rows.units[kept])
            ids.append(rows.columns.select(list(IDS)).take(kept))
            signals.append(_signals(rows.columns).take(kept))
            records = rows.columns.column("record")
            refused += [
                Refused(table=table.path.name, row=rows.first + place, record=records[place].as_py() or "", flaw=flaw)
                for place, flaw in sorted(rows.flaws.items())
            ]
            tell(len(rows.units))
    if not sum(map(len, units)):
        why = f": {refused[0].flaw.message}" if refused else ", since there are no rows"
        raise DataError(f"--embeddings: none of the rows can be a query{why}")
    return Queries(
        embeddings=np.concatenate(units),
        ids=pa.concat_tables(ids),
        signals=pa.chunked_array([chunk for each in signals for chunk in each.chunks], pa.string()),
        refused=tuple(refused),
        simulated=any(table.simulated for table in tables),
        source=[{"table": table.path.name, "data_set": table.data_set, "input": table.facts} for table in tables],
    )


def of_records(records: Sequence[str], index: SearchIndex, *, data_set: str | None = None) -> Queries:
    """Returns the stored embeddings of records of the index.

    Args:
        records: Ids of the records.
        index: Index that has them.
        data_set: Name of their data set; None where no two data sets have a record of these ids.

    Raises:
        DataError: A record is not in the index, or in several of its data sets.
    """
    asked = pa.array(list(dict.fromkeys(records)), pa.string())
    found: dict[str, list[tuple[int, str]]] = {}
    for first, table in index.columns(IDS):
        column = table.column("record")
        for place in np.flatnonzero(np.asarray(pc.is_in(column, value_set=asked))):
            name = table.column("data_set")[place].as_py()
            if data_set in (None, name):
                found.setdefault(column[place].as_py(), []).append((first + int(place), name))
    within = f" of the data set {data_set}" if data_set else ""
    for record in asked.to_pylist():
        if record not in found:
            raise DataError(
                f"--records={record}: is no record of the index{within}; its data sets are "
                f"{', '.join(index.stated['data_sets'])}"
            )
        if len(found[record]) > 1:
            names = ", ".join(name for _, name in found[record])
            raise DataError(
                f"--records={record}: is a record of several data sets ({names}); name one with --names=NAME"
            )
    rows = np.array([found[record][0][0] for record in asked.to_pylist()])
    return Queries(
        embeddings=np.asarray(index.embeddings[rows]),
        ids=index.ids_of(rows),
        signals=index.signals_of(rows),
        refused=(),
        simulated=index.simulated,
        source="records of the index",
    )


def _signals(columns: pa.Table) -> pa.ChunkedArray:
    """Returns the hashes of the signals of some rows, null where the table does not have them."""
    if SIGNAL in columns.column_names:
        return columns.column(SIGNAL)
    return pa.chunked_array([pa.nulls(len(columns), pa.string())])


def kept_apart(queries: Queries, index: SearchIndex, *, same_patient: bool) -> Apart:
    """Returns the codes by which a query is no neighbour of its own record, and of its patient's other ones.

    A query's own record is one of its id in its data set, and one with the very signal of the query, under any name: a
    file has one id when it is embedded by itself, and another when the folder that it lies in is.

    Args:
        queries: Queries.
        index: Index that is searched.
        same_patient: Whether records of a query's patient, within its data set, are left out too.
    """
    names = ("record", *(("patient_id",) if same_patient else ()))
    rows, asked = (np.full((number, 3), -1, np.int32) for number in (index.num_rows, len(queries.ids)))
    for data_set in pc.unique(queries.ids.column("data_set")).to_pylist():
        own = np.asarray(pc.equal(queries.ids.column("data_set"), data_set))
        for number, name in enumerate(names):
            values = queries.ids.column(name)
            # An id of one data set is another's of the next, so that codes begin behind those that are taken.
            known = pc.unique(values.filter(own).drop_null())
            offset = int(asked[:, number].max()) + 1
            asked[own, number] = _codes(values.filter(own), known, offset)
            for part, column, of_set in _parts(index, name, data_set):
                rows[part, number][of_set] = _codes(column, known, offset)[of_set]
    if SIGNAL in index.schema.names:
        known = pc.unique(queries.signals.drop_null())
        asked[:, 2] = _codes(queries.signals, known, 0)
        for first, table in index.columns((SIGNAL,)):
            rows[first : first + len(table), 2] = _codes(table.column(SIGNAL), known, 0)
    return Apart(rows=rows, queries=asked)


@dataclasses.dataclass(frozen=True)
class OtherName:
    """A query whose signal the index has under another name.

    Attributes:
        query: Number of the query.
        row: Row of the index, the first where there are several.
    """

    query: int
    row: int


def under_other_names(apart: Apart) -> list[OtherName]:
    """Returns the queries whose signal the index has under another id or in another data set.

    Args:
        apart: Codes that `kept_apart` returns.
    """
    of_signal: dict[int, list[int]] = {}
    for row in np.flatnonzero(apart.rows[:, 2] >= 0).tolist():
        of_signal.setdefault(int(apart.rows[row, 2]), []).append(row)
    found = []
    for query, (record, _, signal) in enumerate(apart.queries.tolist()):
        others = (row for row in of_signal.get(signal, ()) if apart.rows[row, 0] != record)
        found += [OtherName(query, row) for row in itertools.islice(others, 1)]
    return found


def _codes(values: pa.ChunkedArray, known: pa.Array, offset: int) -> np.ndarray:
    """Returns the place of each value among known ones, from an offset on, `int32[n]`; −1 for the others."""
    places = np.asarray(pc.fill_null(pc.index_in(values, value_set=known, skip_nulls=True), -1))
    return np.where(places < 0, -1, places + offset).astype(np.int32)


def _parts(index: SearchIndex, name: str, data_set: str) -> Iterator[tuple[slice, pa.ChunkedArray, np.ndarray]]:
    """Yields a column of the index, some rows at a time: their slice, values, and which are of the data set."""
    for first, table in index.columns((name, "data_set")):
        yield (
            slice(first, first + len(table)),
            table.column(name),
            np.asarray(pc.equal(table.column("data_set"), data_set)),
        )
