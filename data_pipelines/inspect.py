"""Shows what is in a prepared data set: its card as text, single records on ECG paper, what was not stored.

  python -m data_pipelines.inspect --dataset=DIR
  python -m data_pipelines.inspect --dataset=DIR --records=ID,ID,… --out=DIR_OF_PNGS [--layout=3x4|6x2|12x1]
  python -m data_pipelines.inspect --dataset=DIR --random=6 [--seed=0] --out=DIR_OF_PNGS
  python -m data_pipelines.inspect --dataset=DIR --quarantined

With --json the same as JSON. Signals are read for the card's amplitudes alone, of at most --max_records records.
"""

from __future__ import annotations

import itertools
import math
import re
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.card.figures import amplitudes_of, dataset_card
from data_pipelines.card.rows import recipe_text
from data_pipelines.card.text import card_text
from data_pipelines.command import command, output_folder, run
from data_pipelines.errors import DataError
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.paper.draw import draw_ecg
from data_pipelines.paper.layout import LAYOUTS
from data_pipelines.paper.page import save_png
from data_pipelines.prepared.chosen_records import chosen_records, random_records
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.prepared.index import NOT_A_DUPLICATE
from data_pipelines.prepared.kept_seconds import place_text
from data_pipelines.prepared.quarantine import quarantined
from data_pipelines.records import FEMALE, MALE, NO_FOLD
from data_pipelines.signals.quality import flag_names
from data_pipelines.storage.store import open_store
from data_pipelines.system.counted import counted
from data_pipelines.system.terminal_lines import COLUMNS, broken
from data_pipelines.system.visible_text import visible, visible_json, visible_report

# A terminal may have any width; text is laid out for one between these limits.
_NARROWEST, _WIDEST = COLUMNS, 120

_SEX_WORDS = {MALE: "male", FEMALE: "female"}
_NO_BREAK = "\N{NO-BREAK SPACE}"
_NOT_IN_A_FILE_NAME = re.compile(r"[^\w.-]")


def _print_card(dataset: Dataset) -> None:
    store, most = open_store(dataset.directory), flags.FLAGS.max_records
    total = min(dataset.index.num_records, most)
    with tqdm(total=total, unit=" ECGs", desc="amplitudes", dynamic_ncols=True, disable=None, leave=False) as bar:
        options = {"max_records": most, "seed": flags.FLAGS.seed}
        amplitudes = amplitudes_of(store, dataset.index, **options, progress=bar.update)
    card = dataset_card(dataset, amplitudes=amplitudes)
    _print(card, lambda: card_text(card, width=_terminal_width()))


def _print_quarantined(dataset: Dataset) -> None:
    rows = sorted(quarantined(dataset.directory), key=lambda row: row["reason"])

    def text() -> str:
        total = counted(dataset.card["summary"]["records_in"], "recording")
        lines = [f"{len(rows):,} of {total} {'was' if len(rows) == 1 else 'were'} not stored"]
        # A path that was broken could not be copied from the terminal.
        wrapper = textwrap.TextWrapper(_terminal_width(), break_long_words=False)
        wrapper.initial_indent, wrapper.subsequent_indent = "  ", "      "
        for reason, group in itertools.groupby(rows, key=lambda row: row["reason"]):
            members = list(group)
            lines.append(f"{reason}: {len(members)}")
            for row in members:
                lines += wrapper.wrap(f"{row['record_id']}: {row['message']}")
        return "\n".join(lines)

    _print(rows, text)


def _draw(dataset: Dataset, numbers: np.ndarray, out: Path) -> None:
    store, index = open_store(dataset.directory), dataset.index
    out.mkdir(parents=True, exist_ok=True)
    drawn = []
    # A record is read when it is drawn, so that many pages need no more memory than one.
    for number in tqdm(numbers.tolist(), unit=" ECGs", desc="drawing", dynamic_ncols=True, disable=None, leave=False):
        title = record_lines(dataset, number)
        figure = draw_ecg(
            store.read(np.array([number]))[0],
            sampling_rate_hz=dataset.format.sampling_rate_hz,
            title=title,
            recording_note=recipe_text(dataset.card["recipe"]),
            valid_start=int(index.valid_start[number]),
            valid_samples=int(index.valid_samples[number]),
            simulated=dataset.simulated,
            layout=flags.FLAGS.layout,
        )
        record_id = str(index.record_id[number])
        path = out / f"{file_stem(record_id, number)}.png"
        save_png(figure, path)
        drawn.append({"record_id": record_id, "file": str(path), "lines": title})
    _print(drawn, lambda: "\n".join(f"{entry['file']}\n  {' | '.join(entry['lines'])}" for entry in drawn))


def record_lines(dataset: Dataset, number: int) -> list[str]:
    """Returns the lines above a record's traces, with the entries of the index on the record.

    Args:
        dataset: Data set.
        number: Record number.
    """
    index = dataset.index
    age, sex, fold = float(index.age_years[number]), int(index.sex[number]), int(index.fold[number])
    person = [
        f"Patient {visible(str(index.patient_id[number]))}",
        "age unknown" if math.isnan(age) else f"{age:.3g} years",
        _SEX_WORDS.get(sex, "sex unknown"),
        *([] if fold == NO_FOLD else [f"fold {fold}"]),
    ]
    lines = [f"{dataset.card['name']}, record {visible(str(index.record_id[number]))}", " · ".join(person)]
    present = {
        name: [label for label, value in zip(task.classes, task.values[number], strict=True) if value == 1]
        for name, task in index.tasks.items()
    }
    if any(present.values()):
        lines.append(" · ".join(f"{name}: {', '.join(labels)}" for name, labels in present.items() if labels))
    units = {name: dataset.card["scalars"][name]["unit"] for name in index.scalars}
    known = {name: float(values[number]) for name, values in index.scalars.items() if not math.isnan(values[number])}
    if known:
        values = (f"{name} {value:.4g} {units[name]}".rstrip() for name, value in known.items())
        # A line of the title must not end between a value and its name or unit.
        lines.append(" · ".join(value.replace(" ", _NO_BREAK) for value in values))
    doubts = list(flag_names(int(index.quality[number])))
    doubts += (
        [f"{counted(int(index.clipped_samples[number]), 'sample')} clipped"] if index.clipped_samples[number] else []
    )
    lines += [f"Quality: {', '.join(doubts)}"] if doubts else []
    if place := place_text(index, dataset.format, number):
        lines.append(place)
    if index.duplicate_of[number] != NOT_A_DUPLICATE:
        lines.append(f"Equal to record {index.record_id[index.duplicate_of[number]]}, sample by sample")
    return lines


def file_stem(record_id: str, number: int) -> str:
    """Returns a file name, without suffix, for a record; ids that no file name can be get the record's number.

    Args:
        record_id: Id of the record.
        number: Record number.
    """
    # An id with a part of a path in it could name a file elsewhere, and two ids could become one name.
    stem = _NOT_IN_A_FILE_NAME.sub("_", record_id)
    return stem if stem == record_id and not stem.startswith(".") else f"record{number}_{stem.strip('.')}"


def _print(value: Any, text: Callable[[], str]) -> None:
    # Ids and labels may hold control characters, which are made visible; line breaks are only those of the text itself.
    print(visible_json(value) if flags.FLAGS.json else broken(visible_report(text()), columns=_terminal_width()))


def _terminal_width() -> int:
    return min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)


def _check_flags() -> None:
    drawing = [name for name in ("records", "random") if flags.FLAGS[name].value is not None]
    if len(chosen := drawing + (["quarantined"] if flags.FLAGS.quarantined else [])) > 1:
        raise DataError(f"--{chosen[0]} and --{chosen[1]} ask for different things; give one of them")
    if drawing and not flags.FLAGS.out:
        raise DataError(f"--{drawing[0]} needs --out=DIR, a directory for the PNGs")
    for name in ("out", "layout"):
        if flags.FLAGS[name].present and not drawing:
            raise DataError(f"--{name} is for drawing; say which records with --records=ID,… or --random=N")
    if flags.FLAGS.records == []:
        raise DataError("--records is empty; name records, such as --records=1,2")


def define_flags() -> None:
    """Defines the flags of the command in a function, as at import they would collide with those of other commands."""
    flags.DEFINE_string("dataset", None, "Directory of a prepared data set.")
    flags.DEFINE_list("records", None, "Ids of records to draw.")
    flags.DEFINE_integer("random", None, "Draw so many records chosen at random.", lower_bound=1)
    flags.DEFINE_boolean("quarantined", False, "List the recordings that were not stored, and why.")
    flags.DEFINE_string("out", None, "Directory for the PNGs of --records and --random; made where needed.")
    flags.DEFINE_enum("layout", "3x4", list(LAYOUTS), "Rows and columns of the leads on paper.")
    flags.DEFINE_integer("seed", 0, "Of --random and of the sample of --max_records.", lower_bound=0)
    flags.DEFINE_integer(
        "max_records", 20_000, "Measure amplitudes on a random sample of a larger data set.", lower_bound=1
    )
    flags.DEFINE_boolean("json", False, "Print JSON.")


def _draw_to(dataset: Dataset, numbers: np.ndarray) -> None:
    with finished_folder(flags.FLAGS.out) as out:
        _draw(dataset, numbers, output_folder("out", out))


@command
def main() -> None:
    """Shows what the flags ask for."""
    _check_flags()
    dataset = open_dataset(dataset_folder(flags.FLAGS.dataset, flag="dataset"))
    if flags.FLAGS.quarantined:
        _print_quarantined(dataset)
    elif flags.FLAGS.records:
        _draw_to(dataset, chosen_records(dataset, flags.FLAGS.records))
    elif flags.FLAGS.random:
        numbers = random_records(dataset, flags.FLAGS.random, seed=flags.FLAGS.seed)
        _draw_to(dataset, numbers)
    else:
        _print_card(dataset)


if __name__ == "__main__":
    define_flags()
    run(main, required=["dataset"])
