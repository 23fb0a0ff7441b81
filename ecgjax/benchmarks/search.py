"""Size, memory and speed of an index of embeddings, from a made-up table of them to answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.benchmarks import harness
from data_pipelines.benchmarks.machine import describe_machine
from data_pipelines.system.process_usage import own_memory_bytes
from ecgjax.search_index.embedding_tables import open_tables
from ecgjax.search_index.exact_search import BLOCK_ROWS, nearest
from ecgjax.search_index.index_build import build_index
from ecgjax.search_index.index_folder import EMBEDDINGS_FILE, LISTED_FILES, open_index

#: Number of neighbours of each query.
NEIGHBOURS = 10

_MIB = 2**20
# Rows of a row group, about as many as `python -m ecgjax.embed` writes.
_ROWS_AT_ONCE = 32_768


def measure(folder: Path, *, num_rows: int, dimension: int, num_queries: int) -> dict[str, Any]:
    """Builds an index of made-up embeddings and times its queries beside a plain matrix product of the same size.

    Args:
        folder: Empty folder in which everything is made.
        num_rows: Number of embeddings of the index.
        dimension: Number of numbers of an embedding.
        num_queries: Number of queries that are answered at a time.

    Returns:
        Figures for JSON: bytes of the index; seconds and own memory of the build; seconds to open it with a check of
        all digests; queries a second, and `of_product`, their share of what NumPy's float32 product of all queries with
        all rows reaches in the same run, which selects nothing; and the milliseconds of a single query.
    """
    table, index_folder = folder / "embeddings.parquet", folder / "index"
    _make_up(table, num_rows, dimension)
    building, searching = _Memory(), _Memory()
    stated, build_s = harness.timed(lambda: build_index(open_tables([str(table)]), index_folder, tell=building.look))
    index, open_s = harness.timed(open_index, index_folder)
    queries = _unit(np.random.default_rng(1), num_queries, dimension).astype(np.float16)
    found = nearest(index.embeddings, queries, k=NEIGHBOURS, tell=searching.look)
    wide, wide_queries = np.asarray(index.embeddings, np.float32), queries.astype(np.float32)
    seconds = harness.take_turns(
        {
            "search": lambda: nearest(index.embeddings, queries, k=NEIGHBOURS),
            "product": lambda: _product(wide_queries, wide),
            "one query": lambda: nearest(index.embeddings, queries[:1], k=NEIGHBOURS),
        }
    )
    return {
        "made_up": True,
        "rows": stated["rows"],
        "dimension": dimension,
        "queries": num_queries,
        "neighbours": NEIGHBOURS,
        "embeddings_bytes": stated["files"][EMBEDDINGS_FILE]["bytes"],
        "index_bytes": sum(stated["files"][name]["bytes"] for name in LISTED_FILES),
        "build_s": round(build_s, 2),
        "build_rows_per_sec": round(num_rows / build_s),
        "build_own_memory_mib": building.highest_mib,
        "open_s": round(open_s, 2),
        "queries_per_sec": round(num_queries / seconds["search"], 2),
        "product_queries_per_sec": round(num_queries / seconds["product"], 2),
        "of_product": round(seconds["product"] / seconds["search"], 3),
        "one_query_ms": round(1e3 * seconds["one query"], 1),
        "search_own_memory_mib": searching.highest_mib,
        "passes_in_float64": found.passes_in_float64,
        "machine": describe_machine(),
    }


class _Memory:
    """The highest own memory of this process at the looks that were taken, without mapped files."""

    def __init__(self) -> None:
        self._highest = own_memory_bytes()

    def look(self, num_rows: int) -> None:
        """Takes a look; `num_rows` is not used."""
        self._highest = max(self._highest, own_memory_bytes())

    @property
    def highest_mib(self) -> float:
        """The highest, in MiB."""
        return round(self._highest / _MIB, 1)


def _product(queries: np.ndarray, rows: np.ndarray) -> None:
    """Computes all cosines block by block, as a search must, and forgets them."""
    out = np.empty((len(queries), BLOCK_ROWS), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        np.matmul(queries, block.T, out=out[:, : len(block)])


def _unit(rng: np.random.Generator, number: int, dimension: int) -> np.ndarray:
    values = rng.standard_normal((number, dimension), np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _make_up(path: Path, num_rows: int, dimension: int) -> None:
    """Writes a table as `python -m ecgjax.embed` does, of random directions."""
    stated = {
        "model": {"architecture": "made_up", "weights_digest": "0" * 64, "layer": "features", "dimension": dimension},
        "preprocessing": {},
        "input": {"input": "made_up"},
    }
    rng = np.random.default_rng(0)
    schema = _some_rows(rng, range(1), dimension).schema.with_metadata({"ecgjax": json.dumps(stated)})
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, num_rows, _ROWS_AT_ONCE):
            rows = range(first, min(first + _ROWS_AT_ONCE, num_rows))
            writer.write_table(_some_rows(rng, rows, dimension).cast(schema))


def _some_rows(rng: np.random.Generator, rows: range, dimension: int) -> pa.Table:
    embeddings = pa.array(_unit(rng, len(rows), dimension).ravel())
    return pa.table(
        {
            "record": [f"record-{row:08d}" for row in rows],
            "patient_id": [f"patient-{row // 3:08d}" for row in rows],
            "age_years": pa.array(rng.uniform(18, 95, len(rows)).astype(np.float32)),
            "embedding": pa.FixedSizeListArray.from_arrays(embeddings, dimension),
        }
    )
