"""Answers to queries: which records are nearest, as a Parquet table with its provenance, and in a few printed lines."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.system.atomic_directory import sync
from data_pipelines.system.terminal_lines import COLUMNS
from data_pipelines.system.visible_text import table_cell, visible
from data_pipelines.version import __version__
from ecgjax.embedded.table import places
from ecgjax.search_index.conditions import Remaining
from ecgjax.search_index.exact_search import Neighbours
from ecgjax.search_index.index_folder import SIMILARITY, SearchIndex
from ecgjax.search_index.index_queries import OtherName, Queries

# Queries whose answers are in memory as a table at a time.
_AT_ONCE = 4096

# Lines that are printed: enough to see whether the answers make sense.
_MOST_LINES = 20

# Characters of an id that are printed, at most and at least; the table of answers has all of them.
_MOST_SHOWN, _FEWEST_SHOWN = 40, 12

_HEADER = ("query", "rank", "similarity", "record", "patient", "data set")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers to queries.

    Attributes:
        index: Index that was searched.
        queries: Queries.
        neighbours: Neighbours of each.
        remaining: Rows that could be neighbours.
        k: Number of neighbours that were asked for.
        same_patient: What was done with records of the query's patient, `"exclude"` or `"keep"`.
        other_names: Queries whose signal the index has under another name; that row is no answer to them.
    """

    index: SearchIndex
    queries: Queries
    neighbours: Neighbours
    remaining: Remaining
    k: int
    same_patient: str
    other_names: Sequence[OtherName] = ()

    def counts(self) -> np.ndarray:
        """Returns the number of neighbours of each query, `int64[m]`."""
        return np.sum(self.neighbours.rows >= 0, axis=1)

    def fewer(self) -> int:
        """Returns how many queries have fewer neighbours than were asked for."""
        return int(np.sum(self.counts() < self.k))

    def tables(self) -> Iterator[pa.Table]:
        """Yields the answers query by query, the nearest first, some at a time."""
        for start in range(0, len(self.queries.ids), _AT_ONCE):
            yield self._table(slice(start, start + _AT_ONCE))

    def _table(self, some: slice) -> pa.Table:
        rows, similarity = self.neighbours.rows[some], self.neighbours.similarity[some]
        query, rank = np.nonzero(rows >= 0)
        asked = self.queries.ids.slice(some.start, len(rows)).take(query)
        answers = self.index.ids_of(rows[query, rank])
        return pa.table(
            {
                **{f"query_{name}": asked.column(name) for name in asked.column_names},
                "rank": pa.array(rank + 1, pa.int32()),
                **{name: answers.column(name) for name in answers.column_names},
                "similarity": pa.array(similarity[query, rank], pa.float64()),
                "row": pa.array(rows[query, rank], pa.int64()),
            }
        )

    def stated(self) -> dict[str, Any]:
        """Returns what a reader must know of the answers and of where they come from."""
        return {
            **self.index.origin.to_json(),
            "index": {
                name: self.index.stated[name]
                for name in ("digest", "rows", "rows_without_patient", "data_sets", "tables", "simulated")
            },
            "queries": {
                "source": self.queries.source,
                "number": len(self.queries.ids),
                "without_patient": self.queries.ids.column("patient_id").null_count,
                "without_signal_hash": self.queries.signals.null_count,
                "in_index_under_another_name": len(self.other_names),
                "refused": dict(Counter(each.flaw.reason for each in self.queries.refused).most_common()),
                "simulated": self.queries.simulated,
            },
            "similarity": SIMILARITY,
            "k": self.k,
            "same_patient": self.same_patient,
            "where": [text for text, *_ in self.remaining.told],
            "rows_searched": len(self.remaining.rows),
            "queries_with_fewer_neighbours": self.fewer(),
            "passes_in_float64": self.neighbours.passes_in_float64,
            "simulated": self.index.simulated or self.queries.simulated,
            "ecgjax_version": __version__,
        }

    def write(self, out: Path) -> None:
        """Writes the table, what is said of it, and the list of rows that are no queries, each whole or not at all.

        Args:
            out: Table to write, `NAME.parquet`; `NAME.json` and `NAME.quarantine.csv` come beside it.
        """
        table, about, listed = places(out)
        making = [place.with_name(f".{place.name}.tmp") for place in (listed, about, table)]
        stated = self.stated()
        try:
            self._write_refused(making[0])
            making[1].write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
            self._write_table(making[2], json.dumps(stated))
            # The table comes last, so that what is said of it is there when it is.
            for path, place in zip(making, (listed, about, table), strict=True):
                sync(path)
                path.replace(place)
        finally:
            for path in making:
                path.unlink(missing_ok=True)

    def _write_table(self, path: Path, stated: str) -> None:
        writer: pq.ParquetWriter | None = None
        try:
            for table in self.tables():
                if writer is None:
                    writer = pq.ParquetWriter(path, table.schema.with_metadata({"ecgjax": stated}), compression="zstd")
                writer.write_table(table.cast(writer.schema))
        finally:
            if writer is not None:
                writer.close()

    def _write_refused(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("table", "row", "record_id", "reason", "message"))
            for each in self.queries.refused:
                rows.writerow(map(table_cell, (each.table, str(each.row), each.record, *each.flaw)))

    def lines(self) -> list[str]:
        """Returns the first answers as lines of a table for a terminal."""
        shown = self._table(slice(0, min(len(self.queries.ids), _MOST_LINES)))
        rows = shown.slice(0, _MOST_LINES).to_pylist()
        # Ids are shortened as far as a terminal asks for, and no further.
        for most in range(_MOST_SHOWN, _FEWEST_SHOWN - 1, -1):
            lines = _aligned([_HEADER, *(_cells(row, most=most) for row in rows)])
            if max(map(len, lines)) <= COLUMNS:
                break
        more = int(self.counts().sum()) - len(rows)
        return lines + ([f"… and {more} more"] if more else [])


def _cells(row: Mapping[str, Any], *, most: int) -> tuple[str, ...]:
    query, *ids = (
        shown_id(row[name] or "", most=most) for name in ("query_record", "record", "patient_id", "data_set")
    )
    return (query, str(row["rank"]), f"{row['similarity']:.4f}", *ids)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def shown_id(text: str, *, most: int = _MOST_SHOWN) -> str:
    """Returns an id as it is printed: made visible, and its end where it is long, since paths differ there.

    Args:
        text: Id.
        most: Number of characters that are printed.
    """
    text = visible(text)
    return text if len(text) <= most else f"…{text[1 - most :]}"
