"""Describes the files of a folder that are not recordings, for notes and for the error if there are only such files."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipelines.files.tree import list_tree
from data_pipelines.readers.foreign import counts_in_words, remedies
from data_pipelines.readers.formats import FORMAT_OF_SUFFIX, NO_SUFFIX, FoundRecordings
from data_pipelines.system.visible_text import visible

_MOST_NAMED = 5
_MOST_COLUMNS = 6

#: Tables of published data sets that have builders of their own, which know the meaning of every column.
_BUILDER_OF_TABLE = {
    **dict.fromkeys(("ptbxl_database.csv", "scp_statements.csv"), "ptbxl"),
    "exams.csv": "code15",
    **dict.fromkeys(("record_list.csv", "machine_measurements.csv"), "mimic_iv_ecg"),
    "reference.csv": "cpsc2018",
}


def notes(found: FoundRecordings, folder: Path, *, has_labels: bool) -> tuple[str, ...]:
    """Returns a sentence for each kind of files that were left out.

    Args:
        found: Contents of the folder.
        folder: Folder that was searched.
        has_labels: Whether a table of labels was given.
    """
    sentences = []
    if found.passed_over:
        counts = ", ".join(f"{count} {visible(suffix)}" for suffix, count in found.passed_over.items())
        sentences.append(f"files passed over: {counts}")
        sentences += remedies(found.passed_over)
    sentences += [f"files left out: {count} {kind}" for kind, count in found.others.items()]
    named = itertools.islice(found.tables.items(), _MOST_NAMED)
    sentences += [_of_table(path, columns, folder, has_labels) for path, columns in named]
    if len(found.tables) > _MOST_NAMED:
        sentences.append(f"{len(found.tables) - _MOST_NAMED} more tables were left out, which are no recordings")
    if found.litter:
        sentences.append(f"passed over, since they are no recordings: {_litter_in_words(found.litter)}")
    sentences += [_closed_in_words(found.closed)] if found.closed else []
    return tuple(sentences)


def nothing_found(found: FoundRecordings, folder: Path, *, formats: Sequence[str]) -> str:
    """Returns the message for a folder without a recording: what is looked for, what is there and what to do.

    Args:
        found: Contents of the folder.
        folder: Folder that was searched.
        formats: Formats that were asked for.
    """
    suffixes = " ".join(suffix for suffix, of in FORMAT_OF_SUFFIX.items() if of in formats)
    message = f"{folder}: no recording ({suffixes}) in it or below; "
    if not (said := notes(found, folder, has_labels=False)):
        return f"{message}it is empty; is --source right?"
    if known := [suffix for suffix in found.passed_over if FORMAT_OF_SUFFIX.get(suffix) not in (None, *formats)]:
        needed = ",".join(dict.fromkeys(FORMAT_OF_SUFFIX[suffix] for suffix in known))
        said += (f"{' '.join(known)} files are read where --formats has {needed}",)
    if found.passed_over:
        said = (f"found are {counts_in_words(found.passed_over)}", *said[1:])
    return f"{message}{'; '.join(said)}; is --source right?"


def what_is_there(folder: Path) -> str:
    """Returns the contents of a folder in words, for the message of a builder that found nothing of its own in it."""
    tree = list_tree(folder)
    counts = Counter(path.suffix.lower() or NO_SUFFIX for path in tree.files)
    said = [f"found are {counts_in_words(counts)}"] if counts else ["it is empty"]
    said += [f"passed over are {_litter_in_words(tree.litter)}"] if tree.litter else []
    said += [_closed_in_words(tree.closed)] if tree.closed else []
    return "; ".join(said)


def _of_table(path: Path, columns: Sequence[str], folder: Path, has_labels: bool) -> str:
    name = visible(path.relative_to(folder).as_posix())
    said = f"{name} was left out: it is a table, not a recording"
    if columns:
        shown = ", ".join(visible(column)[:40] for column in columns[:_MOST_COLUMNS])
        said += f" (columns {shown}{' …' if len(columns) > _MOST_COLUMNS else ''})"
    if builder := _BUILDER_OF_TABLE.get(path.name.casefold()):
        return f"{said}; --builder={builder} reads the data set that it belongs to, with patients and labels"
    if has_labels or not columns:
        return said
    return f"{said}; if it says who was recorded, name its columns record and patient_id and give --labels={path}"


def _litter_in_words(litter: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in litter.items())


def _closed_in_words(closed: Sequence[Path]) -> str:
    named = ", ".join(visible(str(path)) for path in closed[:_MOST_NAMED])
    return (
        f"{len(closed)} folders or files cannot be looked at, what is in them is NOT in the data set (permissions?): "
        f"{named}{' …' if len(closed) > _MOST_NAMED else ''}"
    )
