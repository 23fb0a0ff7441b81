"""Formats the card of a data set as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_pipelines.card import rows as card_rows
from data_pipelines.card.summary_lines import aligned
from data_pipelines.prepared.fold_labels import fold_table
from data_pipelines.prepared.remarks import remark_lines
from data_pipelines.system.counted import counted

_INDENT = "  "
_NAME_WIDTH = 22
_BAR_WIDTH = 30
_BETWEEN = "   "
_MAX_PAIRS = 20


def card_text(card: Mapping[str, Any], *, width: int) -> str:
    """Returns a card as text.

    Args:
        card: Card from `figures.dataset_card`.
        width: Width of the terminal in characters; only long names make a line longer.
    """
    sections = (
        _heading(card, width),
        _counts(card, width),
        _people(card, width),
        ["Folds", *_table(card_rows.FOLD_HEADER, card_rows.fold_rows(card["folds"]), width)],
        _labels_by_fold(card["labels_by_fold"], width),
        *(_task_section(name, task, card["num_records"], width) for name, task in card["tasks"].items()),
        _scalar_table(card["scalars"], width),
        _amplitude_table(card["amplitudes"], card["num_records"], width),
        _quality_section(card, width),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _heading(card: Mapping[str, Any], width: int) -> list[str]:
    lines = _wrapped(f"{card['name']}  {card['directory']}", width, indent="")
    lines += ["*** SIMULATED: NO PATIENT WAS RECORDED ***"] if card["simulated"] else []
    lines += _wrapped(card["description"], width)
    for doubt in card["doubts"]:
        lines += _wrapped(f"Doubt: {doubt}", width)
    for note in card["notes"]:
        # The notice of a simulated cohort is a note and part of the description.
        if note not in card["description"]:
            lines += _wrapped(f"Note: {note}", width)
    return lines + [line for name, value in card_rows.origin_facts(card) for line in _fact(name, value, width)]


def _counts(card: Mapping[str, Any], width: int) -> list[str]:
    repeated, lines = card["duplicates"]["pairs"], ["Records"]
    for name, value in card_rows.count_facts(card):
        lines += _fact(name, value, width)
        if name == "quarantined":
            reasons = card["quarantined"].items()
            lines += [f"{_INDENT * 2}{reason:<{_NAME_WIDTH - 2}}{count:>8,}" for reason, count in reasons]
    # Lines that begin with a space go on with the remark before them.
    for line in remark_lines(card["remarks"]):
        lines += _wrapped(line.strip() if line.startswith(" ") else f"remark: {line}", width)
    pairs = [f"{record} = {first}" for record, first in repeated[:_MAX_PAIRS]]
    if len(repeated) > _MAX_PAIRS:
        pairs.append(f"… and {len(repeated) - _MAX_PAIRS:,} more (--json lists all)")
    return lines + _columns(pairs, width)


def _people(card: Mapping[str, Any], width: int) -> list[str]:
    sex, decades = card["sex"], card["age_years"]["by_decade"]
    lines = ["Age and sex, by record"]
    for sentence in card_rows.people_sentences(card):
        lines += _wrapped(sentence, width)
    if not card["age_years"]["known"]:
        return lines
    years = [f"{row['from_years']}–{row['from_years'] + 9}" for row in decades]
    rows = [(span, *(f"{row[name]:,}" for name in sex)) for span, row in zip(years, decades, strict=True)]
    # The bars show all sexes together, relative to the largest decade.
    sums = [sum(row[name] for name in sex) for row in decades]
    bars = [_bar(count / max(sums)) for count in sums]
    header, *table = _table(("years", *sex), rows, width)
    return [*lines, header, *(f"{line}{_BETWEEN}{bar}".rstrip() for line, bar in zip(table, bars, strict=True))]


def _task_section(name: str, task: Mapping[str, Any], num_records: int, width: int) -> list[str]:
    heading = (
        f"Task {name}, {len(task['classes'])} classes, {task['labelled']:,} of {num_records:,} records labelled "
        "(records, prevalence)"
    )
    present = {label: counts for label, counts in task["classes"].items() if counts["records"]}
    label_width = max((len(label) for label in present), default=0)
    cells = [
        f"{label:<{label_width}} {counts['records']:>8,} {card_rows.percent(counts['prevalence']):>7}"
        for label, counts in sorted(present.items(), key=lambda item: -item[1]["records"])
    ]
    lines = _wrapped(heading, width, indent="") + _columns(cells, width)
    # Labels that never come would hide the others among hundreds of rows.
    if absent := [label for label in task["classes"] if label not in present]:
        lines += _wrapped(f"never: {', '.join(absent)}", width)
    return lines


def _labels_by_fold(counted: Mapping[str, Any], width: int) -> list[str]:
    if not counted["labels"]:
        return []
    header, *rows = fold_table(counted, most=None)
    return ["Labels by fold, positive/known records, or mean (known)", *_table(header, rows, width)]


def _scalar_table(scalars: Mapping[str, Mapping[str, Any]], width: int) -> list[str]:
    if not scalars:
        return []
    return ["Scalars, by record", *_table(card_rows.SCALAR_HEADER, card_rows.scalar_rows(scalars), width, num_left=2)]


def _amplitude_table(amplitudes: Mapping[str, Any], num_records: int, width: int) -> list[str]:
    read, seed = amplitudes["records_read"], amplitudes["seed"]
    which = (
        f"all {counted(read, 'record')}"
        if seed is None
        else f"{read:,} of {num_records:,} records, drawn with seed {seed}"
    )
    rows = [
        (lead, *(f"{spans[key]:.2f}" for key in ("p1", "median", "p99", "max")))
        for lead, spans in amplitudes["peak_to_peak_mv"].items()
    ]
    heading = _wrapped(f"Amplitudes, peak to peak in mV, {which}", width, indent="")
    return [*heading, *_table(("lead", "1 %", "median", "99 %", "max"), rows, width)]


def _quality_section(card: Mapping[str, Any], width: int) -> list[str]:
    padding, quality = card["padding"], card["quality"]
    lines = ["Quality", *_table(card_rows.FLAG_HEADER, card_rows.flag_rows(card), width)]
    if quality["clipped_samples"]:
        samples, records = counted(quality["clipped_samples"], "sample"), counted(quality["clipped_records"], "record")
        lines += _wrapped(f"{samples} clipped in {records}", width)
    if padding["padded"]:
        lines += _wrapped(
            f"{counted(padding['padded'], 'record')} padded, {padding['padded_before']:,} of them before their "
            f"start; of the "
            f"padded {padding['shortest_seconds']:.2f} s at least are recorded, {padding['median_seconds']:.2f} s in "
            "the median",
            width,
        )
    return lines


def _fact(name: str, value: str, width: int) -> list[str]:
    """Returns a name and its value as lines, with the value wrapped within its column."""
    indent = f"{_INDENT}{name:<{_NAME_WIDTH}}"
    return _wrapped(value, width, indent=indent, further=" " * (len(_INDENT) + _NAME_WIDTH))


def _wrapped(text: str, width: int, *, indent: str = _INDENT, further: str = _INDENT) -> list[str]:
    # An id or a path that was broken could not be copied from the terminal.
    whole = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    whole.initial_indent, whole.subsequent_indent = indent, further
    return whole.wrap(text)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], width: int, *, num_left: int = 1) -> list[str]:
    return aligned([header, *rows], indent=_INDENT, num_left=num_left, width=width)


def _columns(cells: Sequence[str], width: int) -> list[str]:
    """Returns cells as lines, in as many columns as fit, in order from top to bottom."""
    if not cells:
        return []
    cell_width = max(len(cell) for cell in cells)
    num_columns = max(1, (width - len(_INDENT) + len(_BETWEEN)) // (cell_width + len(_BETWEEN)))
    num_rows = -(-len(cells) // num_columns)
    return [
        (_INDENT + _BETWEEN.join(f"{cell:<{cell_width}}" for cell in cells[row::num_rows])).rstrip()
        for row in range(num_rows)
    ]


def _bar(share: float) -> str:
    # A decade with hardly any record still shows a bar.
    return "█" * max(round(share * _BAR_WIDTH), share > 0)
