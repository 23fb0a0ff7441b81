"""Tables of embeddings as `python -m ecgjax.embed` writes them, read some rows at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines.buckets.addresses import local_path
from data_pipelines.errors import DataError
from ecgjax.search_index.origin import Origin

#: Columns that every row has: the name of its data set, its id there, and its patient's id there, which may be missing.
IDS = ("data_set", "record", "patient_id")

#: Column of the hash of the prepared signal, by which a recording is known under any name; tables of an earlier ecgjax
#: have none.
SIGNAL = "signal_hash"

#: Columns that are the same in every row, or are no single values.
_LEFT_OUT = frozenset(
    {"embedding", "tokens", "token_mask", "by_lead", "model_digest", "recipe", "ecgjax_version", "__index_level_0__"}
)

# Rows that are in memory at a time.
_AT_ONCE = 8192

_AGAIN = "embed the recordings again, or copy the table again"


class Flaw(NamedTuple):
    """Why a row has no place in an index.

    Attributes:
        reason: Reason in one word, by which rows are counted.
        message: Sentence on this row.
    """

    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class Rows:
    """Consecutive rows of a table.

    Attributes:
        first: Number of the first row in its table.
        columns: Ids and what else may be filtered by.
        units: Embeddings of length 1, rounded to float16, `f16[n, dim]`; zero where there is a flaw.
        flaws: Rows that have no usable embedding or no id, by place.
    """

    first: int
    columns: pa.Table
    units: np.ndarray
    flaws: Mapping[int, Flaw]


@dataclasses.dataclass(frozen=True)
class EmbeddingFile:
    """A table of embeddings.

    Attributes:
        path: Parquet file.
        data_set: Name of whose recordings and patients these are; ids are compared within a name.
        origin: What made the embeddings.
        schema: Columns of the rows as `rows` gives them.
        num_rows: Number of rows.
        stated: Statements of the table about itself.
    """

    path: Path
    data_set: str
    origin: Origin
    schema: pa.Schema
    num_rows: int
    stated: Mapping[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What the table states of its input."""
        found = self.stated.get("input")
        return dict(found) if isinstance(found, dict) else {}

    @property
    def simulated(self) -> bool:
        """Whether the recordings are SIMULATED."""
        return self.facts.get("simulated") is True

    def ids(self) -> Iterator[pa.Table]:
        """Yields the ids of all rows in order, some at a time, without reading embeddings."""
        names = [name for name in IDS[1:] if name in pq.read_schema(self.path).names]
        for batch in self._batches(names):
            yield self._columns(batch).select(list(IDS))

    def rows(self) -> Iterator[Rows]:
        """Yields all rows in order, some at a time.

        Raises:
            DataError: The table is damaged, mixes encoders, or has embeddings of another dimension.
        """
        present = pq.read_schema(self.path).names
        wanted = [name for name in (*self.schema.names, "embedding", "model_digest") if name in present]
        first = 0
        for batch in self._batches(wanted):
            self._check_digests(batch)
            vectors, missing = self._vectors(batch.column("embedding"))
            columns = self._columns(batch)
            units, flaws = _units(vectors, missing, columns.column("record"))
            yield Rows(first, columns, units, flaws)
            first += batch.num_rows

    def _batches(self, names: Sequence[str]) -> Iterator[pa.Table]:
        # What is read ahead would stay in memory up to the end of the table.
        with _readable(self.path), pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_AT_ONCE, columns=list(names)):
                yield pa.Table.from_batches([batch])

    def _columns(self, batch: pa.Table) -> pa.Table:
        """Returns the columns of some rows, with the types of the schema where they are in the table."""
        found = {
            "data_set": pa.array([self.data_set] * batch.num_rows, pa.string()),
            "patient_id": pa.nulls(batch.num_rows, pa.string()),
        }
        with _readable(self.path):
            for name in batch.column_names:
                if name in self.schema.names:
                    found[name] = batch.column(name).cast(self.schema.field(name).type, safe=False)
        return pa.table({name: found[name] for name in self.schema.names if name in found})

    def _check_digests(self, batch: pa.Table) -> None:
        if "model_digest" in batch.column_names:
            others = [each for each in pc.unique(batch.column("model_digest")).to_pylist()]
            if wrong := [each for each in others if each != self.origin.weights_digest]:
                raise DataError(
                    f"{self.path}: has rows of the encoder with weights {wrong[0]} among those of "
                    f"{self.origin.weights_digest}; an index holds embeddings of one encoder: {_AGAIN}"
                )

    def _vectors(self, column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings, `f64[n, dim]`, NaN where missing, and which are missing, `bool[n]`."""
        lists = column.combine_chunks()
        missing = np.asarray(lists.is_null())
        lengths = set(pc.unique(pc.list_value_length(lists.drop_null())).to_pylist())
        check_dimension(self.path, lengths, self.origin.dimension)
        vectors = np.full((len(lists), self.origin.dimension), np.nan)
        values = lists.flatten().to_numpy(zero_copy_only=False)
        vectors[~missing] = values.reshape(-1, self.origin.dimension)
        return vectors, missing


def check_dimension(path: Path, lengths: set[int], dimension: int) -> None:
    """Checks how many numbers the rows of a table have.

    Raises:
        DataError: They are not one embedding of the encoder's dimension.
    """
    for length in sorted(lengths - {dimension}):
        if length and length % dimension == 0:
            raise DataError(
                f"{path}: its encoder gives an embedding for each of {length // dimension} leads or groups of them, "
                f"and an index holds one vector of {dimension} numbers a recording; embed with a model of all leads "
                "together"
            )
        raise DataError(f"{path}: has embeddings of {length} numbers, and its encoder gives {dimension}; {_AGAIN}")


def _units(vectors: np.ndarray, missing: np.ndarray, records: pa.ChunkedArray) -> tuple[np.ndarray, dict[int, Flaw]]:
    """Scales embeddings to length 1; returns them as `f16[n, dim]`, and the flaws of rows by place."""
    flaws: dict[int, Flaw] = {}
    finite = np.isfinite(vectors)
    # Divided by the greatest number first: squares of very large or small ones would leave the range of float64.
    largest = np.abs(np.where(finite, vectors, 0)).max(axis=1)
    usable = finite.all(axis=1) & (largest > 0)
    units = np.zeros(vectors.shape)
    np.divide(vectors, largest[:, None], out=units, where=usable[:, None])
    units /= np.where(usable, np.linalg.norm(units, axis=1), 1)[:, None]
    for place in np.flatnonzero(~usable).tolist():
        if missing[place]:
            flaws[place] = Flaw("missing_embedding", "the row has no embedding")
        elif count := np.count_nonzero(~finite[place]):
            flaws[place] = Flaw("not_finite", f"{count} of {finite.shape[1]} numbers are not finite")
        else:
            flaws[place] = Flaw("zero", "the embedding is zero, which has no direction")
    for place, record in enumerate(records.to_pylist()):
        if not record:
            flaws[place] = Flaw("missing_id", "the row has no record id")
    units[list(flaws)] = 0
    return units.astype(np.float16), flaws


def open_tables(paths: Sequence[str], *, names: Sequence[str] = ()) -> list[EmbeddingFile]:
    """Opens tables of embeddings that can be compared.

    Args:
        paths: Parquet files, as a user wrote them.
        names: Names of their data sets, one each; without, what each table says of its input.

    Raises:
        DataError: A file is missing, is no table of embeddings or is damaged, or the tables are of several encoders,
            layers or preprocessings.
    """
    if names and len(names) != len(paths):
        raise DataError(f"--names={','.join(names)}: gives {len(names)} names to {len(paths)} tables; give one each")
    tables = [_open(path, names[place] if names else None) for place, path in enumerate(paths)]
    for other in tables[1:]:
        tables[0].origin.check_same(other.origin, own=str(tables[0].path), of_other=str(other.path))
    return tables


def _open(given: str, name: str | None) -> EmbeddingFile:
    path = local_path(given, flag="embeddings")
    if not path.is_file():
        raise DataError(f"--embeddings={given}: there is no such file; give a table that python -m ecgjax.embed wrote")
    with _readable(path), pq.ParquetFile(path) as file:
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
    stated = _statements(path, schema)
    table = EmbeddingFile(
        path=path,
        data_set=_data_set(path, stated) if name is None else name,
        origin=Origin.read(stated, where=str(path)),
        schema=_schema(path, schema),
        num_rows=num_rows,
        stated=stated,
    )
    kind = schema.field("embedding").type
    if pa.types.is_fixed_size_list(kind):
        check_dimension(path, {kind.list_size}, table.origin.dimension)
    return table


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Makes an error of what is wrong with a Parquet file."""
    try:
        yield
    # Damaged pages are an OSError without a number, and texts that are no UTF-8 a ValueError.
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path}: is no Parquet file, or is damaged ({reason}); {_AGAIN}") from error


def _statements(path: Path, schema: pa.Schema) -> dict[str, Any]:
    text = (schema.metadata or {}).get(b"ecgjax")
    beside = path.with_suffix(".json")
    try:
        if text is None and beside.is_file():
            text = beside.read_bytes()
        stated = json.loads(text) if text is not None else None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: what is said of it cannot be read ({error}); {_AGAIN}") from error
    if not isinstance(stated, dict):
        raise DataError(
            f"{path}: does not say which encoder made it, in itself or in {beside.name} beside it; give a table that "
            "python -m ecgjax.embed wrote"
        )
    return stated


def _data_set(path: Path, stated: Mapping[str, Any]) -> str:
    found = stated.get("input")
    name = found.get("input") if isinstance(found, dict) else None
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: does not say what was embedded; name the data set with --names=NAME")
    return name


def _schema(path: Path, schema: pa.Schema) -> pa.Schema:
    """Returns the columns of an index that a table has, ids first."""
    for name in ("record", "embedding"):
        if name not in schema.names:
            raise DataError(f"{path}: has no column {name!r}; give a table that python -m ecgjax.embed wrote")
    if doubled := [name for name in schema.names if schema.names.count(name) > 1]:
        raise DataError(f"{path}: has two columns {doubled[0]!r}; {_AGAIN}")
    if "data_set" in schema.names:
        raise DataError(f"{path}: a column is called 'data_set', as one of the index is; rename it")
    embedding = schema.field("embedding").type
    is_list = pa.types.is_fixed_size_list(embedding) or pa.types.is_list(embedding) or pa.types.is_large_list(embedding)
    if not is_list or not pa.types.is_floating(embedding.value_type):
        raise DataError(f"{path}: its column 'embedding' has {embedding} where lists of floats belong; {_AGAIN}")
    kinds: dict[str, pa.DataType] = dict.fromkeys(IDS, pa.string())
    for field in schema:
        if field.name not in _LEFT_OUT and field.name not in IDS and (kind := _kind(field.type)) is not None:
            kinds[field.name] = pa.string() if field.name == SIGNAL else kind
    return pa.schema(list(kinds.items()))


def _kind(kind: pa.DataType) -> pa.DataType | None:
    """Returns the type by which an index stores a column; None for a column of no single values."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.string()
    # Whole numbers above 2⁶³ fit no int64; above 2⁵³ they are rounded, as in any column of float64.
    if pa.types.is_float64(kind) or pa.types.is_uint64(kind):
        return pa.float64()
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return pa.int64()
    return pa.float32() if pa.types.is_floating(kind) else None
