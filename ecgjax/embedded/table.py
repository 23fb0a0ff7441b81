"""The Parquet table of embeddings, with the list of what could not be embedded and a file that says what is in it.

All three are written beside their places, and put there when they are whole.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.builders.base import Quarantined
from data_pipelines.command import output_file
from data_pipelines.errors import DataError
from data_pipelines.prepared.quarantine import example_of_most
from data_pipelines.records import STORED_LEADS, content_hash
from data_pipelines.system.atomic_directory import sync
from data_pipelines.system.counted import counted
from data_pipelines.system.visible_text import storable_text, table_cell
from data_pipelines.version import __version__
from ecgjax.embedded.rows import Row, by_lead, interval_units
from ecgjax.finetuning.answering_head import AnsweringHead
from ecgjax.model.applied import Model, Tokens
from ecgjax.model.preparation import Prepared

#: Types of stored tokens, by their names.
TOKEN_TYPES: Mapping[str, type[np.floating]] = {"f16": np.float16, "f32": np.float32}

#: Bytes of numbers that are gathered before they are written: large enough to compress, small enough for any memory.
_GROUP_BYTES = 64 * 2**20

_PROVENANCE = ("model_digest", "recipe", "ecgjax_version")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that were asked for beside the embeddings.

    Attributes:
        labels: Further columns by name, each with the type of its values.
        tokens: Type of the tokens, a key of `TOKEN_TYPES`; None without tokens.
        intervals: Whether there are intervals and amplitudes.
        answers: Answers of the model's head, one for each column of them; empty without.
    """

    labels: Mapping[str, type] = dataclasses.field(default_factory=dict)
    tokens: str | None = None
    intervals: bool = False
    answers: tuple[AnswerColumn, ...] = ()

    def check(self) -> None:
        """Checks that no two columns have one name.

        Raises:
            DataError: A label is called like another column.
        """
        own = {"record", "source", "recorded_seconds", "signal_hash", "embedding", "tokens", "token_mask", *_PROVENANCE}
        own |= {name for answer in self.answers for name in (answer.column, answer.decision) if name is not None}
        if clash := sorted({*self.labels} & (own | {*self._intervals(), "by_lead"})):
            raise DataError(f"--labels: a column is called {clash[0]!r}, as one of the table is; rename it")

    def _intervals(self) -> dict[str, str]:
        """Returns the columns of intervals by name, such as `pr_ms`, each with the name of the measurement."""
        if not self.intervals:
            return {}
        return {name if unit == "1" else f"{name}_{unit}": name for name, unit in interval_units().items()}

    def of(self, rows: Sequence[Row], model: Model) -> dict[str, pa.Array]:
        """Returns the columns of some rows."""
        signals = np.stack([row.signal for row in rows])
        recorded = np.array([row.valid_samples for row in rows], np.int32)
        columns = {
            "record": pa.array([storable_text(row.record) for row in rows], pa.string()),
            "source": pa.array([storable_text(row.source) for row in rows], pa.string()),
            "recorded_seconds": pa.array((recorded / model.sampling_rate_hz).astype(np.float32)),
            "signal_hash": pa.array([content_hash(row.signal).hex() for row in rows], pa.string()),
        }
        if self.answers and model.head is not None:
            embeddings, outputs = model.embed_with_outputs(signals)
            columns |= {"embedding": _lists(embeddings), **_answered(self.answers, model.head, outputs)}
        else:
            columns["embedding"] = _lists(model.embed_prepared(signals))
        for name, kind in self.labels.items():
            columns[name] = pa.array([_present(row.labels[name]) for row in rows], _TYPES[kind])
        if self.tokens is not None:
            starts = np.array([row.valid_start for row in rows], np.int32)
            tokens = model.tokens_of_prepared(Prepared(signals, starts, recorded))
            columns |= {"tokens": _lists(_stored(tokens, self.tokens)), "token_mask": _lists(tokens.mask)}
        measured = [row.measured or {} for row in rows]
        for name, of in self._intervals().items():
            columns[name] = pa.array([_present(each.get(of, math.nan)) for each in measured], pa.float32())
        if self.intervals:
            columns["by_lead"] = pa.array(map(by_lead, measured), pa.string())
        values = (model.weights_digest, recipe_name(model), __version__)
        for name, value in zip(_PROVENANCE, values, strict=True):
            columns[name] = pa.array([value] * len(rows)).dictionary_encode()
        return columns


@dataclasses.dataclass(frozen=True)
class AnswerColumn:
    """The columns of one answer of a head.

    Attributes:
        name: Name of the class, or the question where there is one answer.
        column: Name of the column of probabilities, or of values of a quantity.
        decision: Name of the column that says whether the probability reaches the threshold; None without a threshold.
        threshold: Threshold; None without one.
    """

    name: str
    column: str
    decision: str | None
    threshold: float | None


def answer_columns(model: Model, *, asked: bool | None = None) -> tuple[AnswerColumn, ...]:
    """Returns the columns of a model's answers.

    Args:
        model: Model that embeds.
        asked: Whether answers are asked for; by default they are where the model has any.

    Raises:
        DataError: Answers are asked for, and the model has none.
    """
    head = model.head
    if head is None and asked:
        raise DataError(f"--answers: {model.path} has no head, so it answers no question; leave the flag out")
    if head is None or asked is False:
        return ()
    columns = []
    for output in head.outputs:
        of_class = f"_{storable_text(output.name)}" if head.has_classes else ""
        decision = None if output.threshold is None else f"decision{of_class}"
        columns.append(AnswerColumn(output.name, f"answer{of_class}", decision, output.threshold))
    return tuple(columns)


def _answered(answers: Sequence[AnswerColumn], head: AnsweringHead, outputs: np.ndarray) -> dict[str, pa.Array]:
    """Returns the columns of answers and decisions of some rows."""
    values = head.answers(outputs).reshape(len(outputs), -1)
    columns = {}
    for number, answer in enumerate(answers):
        columns[answer.column] = pa.array(values[:, number])
        if answer.decision is not None:
            columns[answer.decision] = pa.array(values[:, number] >= answer.threshold)
    return columns


def recipe_name(model: Model) -> str:
    """Returns name and version of a model's recipe, such as `plain 1`."""
    return f"{model.recipe.name} {model.recipe.version}"


_TYPES = {str: pa.string(), float: pa.float32(), int: pa.int32()}


def _present(value: Any) -> Any:
    """Returns a value as a table has it, in which what is missing is null."""
    missing = isinstance(value, float) and math.isnan(value)
    return None if missing else storable_text(value) if isinstance(value, str) else value


def _lists(values: np.ndarray) -> pa.Array:
    """Returns `[n, …]` as lists of one length, row after row."""
    flat = np.ascontiguousarray(values).reshape(len(values), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def _stored(tokens: Tokens, kind: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = tokens.values.astype(TOKEN_TYPES[kind])
    if not np.isfinite(stored).all():
        raise DataError("--token_type=f16 cannot hold tokens as large as these; give --token_type=f32")
    return stored


class Counts(NamedTuple):
    """Numbers of recordings.

    Attributes:
        embedded: Number of rows of the table.
        quarantined: Number of the others by reason, the most frequent first.
    """

    embedded: int
    quarantined: dict[str, int]


class EmbeddingTable:
    """A table that is being written, to be used in a `with` block; it gets its place at the end of the block.

    Args:
        path: Table to write, `NAME.parquet`; beside it come `NAME.json` and `NAME.quarantine.csv`.
        model: Model that embeds.
        columns: Columns beside the embeddings.
        facts: Description of the input.
    """

    def __init__(self, path: Path, model: Model, *, columns: Columns, facts: Mapping[str, Any]):
        self._model, self._columns, self._facts = model, columns, dict(facts)
        self._table, self._about, self._list = places(path)
        self._making = [place.with_name(f".{place.name}.tmp") for place in (self._list, self._about, self._table)]
        self._gathered: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None
        self._embedded, self._reasons = 0, Counter[str]()
        self._first: dict[str, str] = {}

    def __enter__(self) -> EmbeddingTable:
        """Opens the list of what could not be embedded."""
        self._file = self._making[0].open("w", newline="", encoding="utf-8")
        self._quarantine = csv.writer(self._file)
        self._quarantine.writerow([field.name for field in dataclasses.fields(Quarantined)])
        return self

    def add(self, results: Sequence[Row | Quarantined]) -> None:
        """Embeds some recordings and writes their rows, in order, and lists those that could not be prepared."""
        rows = [result for result in results if isinstance(result, Row)]
        for result in results:
            if isinstance(result, Quarantined):
                self._quarantine.writerow(map(table_cell, dataclasses.astuple(result)))
                self._reasons[result.reason] += 1
                self._first.setdefault(result.reason, result.message)
        if rows:
            self._gathered.append(pa.table(self._columns.of(rows, self._model)))
            self._embedded += len(rows)
        if sum(part.nbytes for part in self._gathered) >= _GROUP_BYTES:
            self._write()

    def counts(self) -> Counts:
        """Returns how many recordings were embedded, and how many were not, by reason."""
        return Counts(self._embedded, dict(self._reasons.most_common()))

    def _write(self) -> None:
        whole = pa.concat_tables(self._gathered)
        self._gathered.clear()
        if self._writer is None:
            about = json.dumps(self._described())
            schema = whole.schema.with_metadata({"ecgjax": about})
            self._writer = pq.ParquetWriter(self._making[2], schema, compression="zstd")
        self._writer.write_table(whole.cast(self._writer.schema))

    def _described(self) -> dict[str, Any]:
        """Returns what a reader must know of the columns and of where they come from."""
        model = self._model
        about: dict[str, Any] = {
            "model": {
                "architecture": model.description.architecture,
                "weights_digest": model.weights_digest,
                "layer": model.layer,
                "dimension": model.dimension,
                "training": {name: value for name, value in model.training.items() if not isinstance(value, dict)},
            },
            "preprocessing": {
                "recipe": model.recipe.to_json(),
                "leads": list(STORED_LEADS),
                "encoder_leads": list(model.encoder_leads),
                "unit": "uV",
                "encoder_unit": "mV",
                "normalisation": "none",
                "padding_value": 0,
            },
            "input": self._facts,
            "ecgjax_version": __version__,
        }
        if self._columns.answers and model.head is not None:
            about["answers"] = _described_answers(self._columns.answers, model.head)
        if self._columns.tokens is not None:
            times = model.token_times
            about["tokens"] = {
                "type": self._columns.tokens,
                "shape": [len(times), model.description.token_dimension],
                "token_times": [round(float(time), 6) for time in times],
                "token_leads": None if model.token_leads is None else list(model.token_leads),
                "pool": model.description.pool,
            }
        if self._columns.intervals:
            about["intervals"] = {"units": interval_units(), "by_lead": "mV", "measured_on": "the median beat"}
        return about

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the files in their places, or removes them after an error."""
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            if self._writer is not None:
                self._writer.close()
            for path in self._making:
                path.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self._gathered:
            self._write()
        self._file.close()
        if self._writer is None:
            self._making[0].replace(self._list)
            reasons = ", ".join(f"{reason} {count}" for reason, count in self._reasons.most_common())
            total = sum(self._reasons.values())
            raise DataError(
                f"none of {counted(total, 'recording')} could be embedded ({reasons}); "
                f"{example_of_most(self._reasons, self._first)}. All are listed in {self._list}"
            )
        self._writer.close()
        self._making[1].write_text(json.dumps(self._described(), indent=1) + "\n", encoding="utf-8")
        # The table comes last, so that what is said of it is there when it is.
        for making, place in zip(self._making, (self._list, self._about, self._table), strict=True):
            sync(making)
            making.replace(place)


def _described_answers(answers: Sequence[AnswerColumn], head: AnsweringHead) -> dict[str, Any]:
    """Returns what a reader must know of the columns of answers."""
    return {
        "question": head.question,
        "kind": head.kind,
        "unit": "probability" if head.log_odds else head.unit,
        "columns": [dataclasses.asdict(answer) for answer in answers],
        "calibration": head.calibration,
        "threshold_rule": head.threshold_rule,
        "chosen_on": head.chosen_on,
        "labels_simulated": head.simulated,
    }


def places(path: Path) -> tuple[Path, Path, Path]:
    """Returns the paths of the table, of what is said of it, and of the list of what could not be embedded."""
    return path, path.with_suffix(".json"), path.with_suffix(".quarantine.csv")


def checked_out(given: str, *, overwrite: bool) -> Path:
    """Returns the path of a table that a command will write, after checking that it can be written.

    Args:
        given: Value of the flag `--out`.
        overwrite: Whether files that are there are replaced.

    Raises:
        DataError: The path is no `NAME.parquet`, cannot be written, or is taken.
    """
    out = output_file("out", given)
    if out.suffix != ".parquet":
        raise DataError(f"--out={given}: the table is a Parquet file; name it NAME.parquet")
    table, about, listed = places(out)
    # A list without a table was left by a command that found nothing to write, and is replaced by the next.
    for path in (table, about, *([listed] if table.exists() else [])):
        if path.exists() and not overwrite:
            raise DataError(f"--out={given}: {path} exists; name another, or replace it with --overwrite")
    return out
