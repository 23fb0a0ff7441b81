"""Embeds recordings with an exported model, and writes a table of one row for each.

  python -m ecgjax.embed --model=models/simclr --input=/data/ecgs --out=embeddings.parquet
  python -m ecgjax.embed --model=models/simclr --input=ecg.dcm --out=ecg.parquet --tokens --intervals
  python -m ecgjax.embed --model=models/simclr --input=data/ptbxl --out=ptbxl.parquet            (a prepared data set)

--input is a recording, a folder of recordings in any format that data_pipelines.build reads (WFDB, DICOM, XML of GE,
Philips and HL7, HDF5, NumPy, MATLAB, CSV), or a data set that was prepared as the model's training data were.
Recordings go through the reader and the checks of a build and are prepared as the model says. The table has the
record's id, its file, the embedding, the digest of the weights, the recipe and the version of ecgjax; NAME.json beside
it says what the columns are, and NAME.quarantine.csv lists what could not be embedded and why. A model that answers a
question adds its answers: probabilities and decisions, or values (--noanswers leaves them out). An interrupted command
leaves no table.
"""

from __future__ import annotations

from data_pipelines.system import stop_signals
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import contextlib
import os
from pathlib import Path

from absl import flags

from data_pipelines.buckets.addresses import local_path
from data_pipelines.buckets.finished_folders import fetched_folder
from data_pipelines.command import MOST_WORKERS, print_report, progress_bar
from data_pipelines.errors import DataError
from data_pipelines.readers.formats import FORMATS
from data_pipelines.statements.declared import ORIENTATIONS, Declared
from data_pipelines.system.counted import counted
from data_pipelines.system.visible_text import visible
from ecgjax.config import run_config
from ecgjax.embedded.inputs import FileInput, Input, open_input
from ecgjax.embedded.table import (
    TOKEN_TYPES,
    Columns,
    Counts,
    EmbeddingTable,
    answer_columns,
    checked_out,
    places,
)
from ecgjax.model.load import load


def main(argv: list[str]) -> None:
    """Embeds what the flags ask for and prints how many recordings were embedded."""
    del argv  # It was checked by `run_config.run`.
    chosen = flags.FLAGS
    out = checked_out(chosen.out, overwrite=chosen.overwrite)
    if flags.FLAGS["token_type"].present and not chosen.tokens:
        raise DataError(f"--token_type={chosen.token_type} means nothing without --tokens; give both, or neither")
    model = load(fetched_folder(chosen.model, flag="model"))
    declared = Declared(
        sampling_rate_hz=chosen.declared_rate_hz,
        unit=chosen.declared_unit,
        leads=tuple(chosen.declared_leads) or None,
        orientation=chosen.declared_orientation,
    )
    recordings = open_input(
        chosen.input,
        recipe=model.recipe,
        labels=local_path(chosen.labels, flag="labels") if chosen.labels else None,
        formats=chosen.formats,
        declared=declared,
    )
    if isinstance(recordings, FileInput):
        model.check_prepares()
    tokens = chosen.token_type if chosen.tokens else None
    answers = answer_columns(model, asked=chosen.answers)
    columns = Columns(labels=recordings.labels, tokens=tokens, intervals=chosen.intervals, answers=answers)
    columns.check()
    table = EmbeddingTable(out, model, columns=columns, facts=recordings.facts)
    reading = contextlib.closing(recordings.rows(num_workers=chosen.num_workers, measure=chosen.intervals))
    with table, reading as read, progress_bar("embedding", recordings.num_items) as tell:
        for results in read:
            table.add(results)
            tell(len(results))
    print_report(_summary(recordings, table.counts(), out))


def _summary(recordings: Input, counts: Counts, out: Path) -> str:
    quarantined = sum(counts.quarantined.values())
    _, about, listed = places(out)
    lines = [
        f"{out}: {counts.embedded} of {counted(recordings.num_items, 'recording')} embedded; "
        f"{about.name} tells of the columns",
        f"  quarantined         {quarantined}" + (f", listed in {listed.name}" if quarantined else ""),
        *(f"    {reason:<16}  {count}" for reason, count in counts.quarantined.items()),
        *(f"  note: {visible(note)}" for note in recordings.notes),
    ]
    return "\n".join(lines)


def define_flags() -> None:
    """Defines the flags of the command in a function, because at import they would meet those of other commands."""
    flags.DEFINE_string("model", None, "Folder of an exported model (python -m ecgjax.export).")
    flags.DEFINE_string("input", None, "Recording (of WFDB also its name alone), folder of them, or prepared data set.")
    flags.DEFINE_string("out", None, "Table to write, NAME.parquet.")
    flags.DEFINE_boolean("tokens", False, "Add the tokens of every recording, row after row, and which of them count.")
    flags.DEFINE_enum("token_type", "f16", list(TOKEN_TYPES), "Type of the tokens' numbers.")
    flags.DEFINE_boolean(
        "intervals",
        False,
        "Add intervals, rates and amplitudes that are measured on the median beat of each recording.",
    )
    flags.DEFINE_boolean(
        "answers",
        None,
        "Add the answers of the model's head, and whether they reach its thresholds; by default where it has one.",
    )
    flags.DEFINE_string(
        "labels",
        None,
        "CSV or Parquet table with columns record, patient_id and any numbers, which become columns. A recording "
        "without a row is quarantined.",
    )
    flags.DEFINE_list("formats", list(FORMATS), "Which formats of files to read.")
    flags.DEFINE_float(
        "declared_rate_hz", None, "Rate of files of bare samples (NumPy, text, HDF5, MATLAB) that do not say it."
    )
    flags.DEFINE_string("declared_unit", None, "Unit of such files: mV, uV or V.")
    flags.DEFINE_list("declared_leads", [], "Names of their leads, in order.")
    flags.DEFINE_enum(
        "declared_orientation", None, ORIENTATIONS, "Which axis of their matrices is time, where both could be."
    )
    flags.DEFINE_integer(
        "num_workers", os.cpu_count() or 1, "Processes that read recordings.", lower_bound=1, upper_bound=MOST_WORKERS
    )
    flags.DEFINE_boolean("overwrite", False, "Replace the table at --out once the new one is whole.")
    flags.mark_flags_as_required(["model", "input", "out"])


if __name__ == "__main__":
    define_flags()
    run_config.run(main)
