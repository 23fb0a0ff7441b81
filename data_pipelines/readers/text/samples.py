"""Reads tables of text with a line per sample or per lead, as spreadsheets, pandas and recorders write them."""

from __future__ import annotations

import codecs
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.contents import MAX_BYTES, read_contents
from data_pipelines.files.refusals import header_disagrees, unreadable_header
from data_pipelines.readers.text.layout import Layout, layout_of, no_table
from data_pipelines.readers.text.numbers import TableNumbers
from data_pipelines.recording import Recording
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import Kind, stated_name, voltage
from data_pipelines.statements.sample_matrix import described_fields, recording_of
from data_pipelines.statements.stated import Statements, statements
from data_pipelines.statements.stated_leads import LeadNames, check_leads_declared, lead_names, stated_leads
from data_pipelines.statements.stated_rates import StatedRate, rates_of_times
from data_pipelines.statements.time_axis import even_times

_UTF16 = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

# Longest line in bytes: 40 minutes of a lead at 500 Hz.
_LONGEST_LINE = 2**23

# Names for columns without a name that are ahead of the leads.
_INDEX, _TIME = "index", "time"


def read_csv(path: Path | str, declared: Declared) -> Recording:
    """Reads a table of text.

    The lines above the samples are distinguished from them by the rules of `layout.py`. Cells are separated by commas,
    semicolons, tabs, bars or white space. Numbers have a decimal point or, where commas separate nothing, a decimal
    comma. Empty cells, `NaN`, `NA`, `null` and the like are samples marked as invalid. Text is in UTF-8, UTF-16 or
    Latin-1.

    Names of columns may end with a unit (`II [µV]`). A column of times (`time`, `Time [ms]`, `12:00:00.004`) states the
    rate and must be even; a column of sample numbers must count. These columns, and those that are not a standard lead,
    remain channels of their own. Without names, the leads are declared, and one or two further columns ahead of them
    must be sample numbers and times.

    Args:
        path: Path of the file.
        declared: Declaration for what the file does not state.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`, `unreadable_header`), or its statements are
            incomplete or contradictory (`missing_metadata`, `header_disagrees`).
    """
    path = Path(path)
    content = _lines(read_contents(path, max_bytes=MAX_BYTES), path)
    _check_longest_line(content, path)
    layout = layout_of(content, path)
    stated = statements(layout.remarks)
    names = None if layout.names is None else tuple(name or "" for name in layout.names)
    table = TableNumbers(layout.dialect, layout.num_columns, names=names, first_line=layout.first_line, path=path)
    numbers = table.read(content, layout.start)
    _check_not_grouped(numbers, content, layout, path)
    del content
    source = str(path)
    if table.row_names:
        samples, leads, rates = _by_lead(numbers, table.row_names, layout, declared, source)
    else:
        layout, numbers = _without_empty_end(layout, numbers)
        samples, leads, rates = _by_column(numbers, layout, table.moments, stated, declared, source)
    fields = described_fields(layout.remarks)
    return recording_of(samples, leads, stated, declared, fields=fields, source=source, rates=rates)


def _check_longest_line(content: bytes, path: Path) -> None:
    """Raises if the first lines or those in the middle are longer than a lead, since each cell becomes an object."""
    for start in (0, content.find(b"\n", len(content) // 2) + 1):
        end = content.find(b"\n", start)
        if end - start > _LONGEST_LINE:
            raise unreadable_header(
                f"{path}: a line of {end - start} bytes, more than any recording has leads or a lead has samples; a "
                "line is a sample and a column a lead: turn the table"
            )


def _lines(content: bytes, path: Path) -> bytes:
    """Returns a text as UTF-8 or Latin-1 in which lines end with line feeds, without empty lines at the end."""
    for mark, encoding in _UTF16:
        if content.startswith(mark):
            try:
                content = content[len(mark) :].decode(encoding).encode()
            except UnicodeError as error:
                raise unreadable_header(f"{path}: not a text in UTF-16 ({error}); save it again") from error
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        raise unreadable_header(f"{path}: not a text in UTF-8, UTF-16 or Latin-1 (it has zero bytes); save it as one")
    # Text that was brought to Windows' line ends twice has two carriage returns before each line feed.
    if b"\r" in content:
        content = content.replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # Programs of DOS end a text with 0x1a.
    if content[-1:] != b"\n" or content[-2:-1] in b"\n \t":
        content = content.rstrip(b"\n \x1a") + b"\n"
    if content == b"\n":
        raise no_table(path, "it is empty", "export the file again")
    return content


def _check_not_grouped(numbers: np.ndarray, content: bytes, layout: Layout, path: Path) -> None:
    """Raises `RecordError` if points or commas may separate thousands (`unreadable_header`).

    They may if every number that is not whole has exactly three digits after the mark, lies between 1 and 1000, and
    stands among whole numbers: 1.234 is then 1.234 or 1234.

    Args:
        numbers: Numbers of the table, `f64[line, column]`.
        content: Contents of the file.
        layout: Layout of the table.
        path: Path of the file, for messages.
    """
    fractions = numbers[numbers != np.rint(numbers)]
    fractions = fractions[np.isfinite(fractions)]
    if not fractions.size or np.any(np.abs(fractions) < 1) or np.any(np.abs(fractions) >= 1000):
        return
    mark = re.escape(layout.dialect.decimal.encode())
    other_decimals = re.compile(mark + rb"(?:\d{1,2}|\d{4,})(?!\d)")
    if not np.all(numbers != np.rint(numbers)) and not other_decimals.search(content, layout.start):
        raise unreadable_header(
            f"{path}: {fractions.size} numbers such as {fractions[0]:.3f} stand among whole ones, and none lies "
            "between 0 and 1: they may be decimals or thousands; write numbers without separators of thousands"
        )


def _without_empty_end(layout: Layout, numbers: np.ndarray) -> tuple[Layout, np.ndarray]:
    """Returns layout and numbers without a last column that has neither name nor numbers.

    A separator at the end of every line makes such a column.
    """
    is_named = layout.names is not None and layout.names[-1] not in ("", None)
    if is_named or layout.num_columns < 2 or not np.all(np.isnan(numbers[:, -1])):
        return layout, numbers
    names = layout.names and layout.names[:-1]
    units = layout.units and layout.units[:-1]
    return dataclasses.replace(layout, num_columns=layout.num_columns - 1, names=names, units=units), numbers[:, :-1]


def _title(layout: Layout, column: int) -> str:
    name = layout.names[column] if layout.names else None
    return name or f"column {column + 1}"


def _by_column(
    numbers: np.ndarray, layout: Layout, moments: Iterable[int], stated: Statements, declared: Declared, source: str
) -> tuple[np.ndarray, LeadNames, list[StatedRate]]:
    """Returns the samples of a table with a line per sample.

    Args:
        numbers: Numbers of the table, `f64[line, column]`.
        layout: Layout of the table.
        moments: Columns that hold times of day, already in seconds.
        stated: Statements of the lines above the table.
        declared: Declaration of the user.
        source: Name of the file, for messages.

    Returns:
        Samples, `f64[time, channel]`; names and units of the channels; and the rates that columns of times state.

    Raises:
        RecordError: Names, times or units contradict each other or the declaration (`header_disagrees`), or are missing
            (`missing_metadata`).
    """
    rates: list[StatedRate] = []
    for column in moments:
        rates += rates_of_times(numbers[:, column], name=_title(layout, column), unit="s", source=source)
    names = list(layout.names or [None] * layout.num_columns)
    if unknown := [column for column, name in enumerate(names) if name is None]:
        of_remarks = stated_leads(stated, declared, shape=(len(unknown),), source=source)
        leads = declared.leads_of(source) if of_remarks is None else of_remarks.names
        if layout.names is None and len(leads) not in (len(unknown), len(unknown) - 1, len(unknown) - 2):
            if len(numbers) != len(leads):
                raise _other_number(len(unknown), leads, None, source)
            # The table has only numbers, and a line per lead.
            by_time = np.ascontiguousarray(declared.by_time(numbers, num_leads=len(leads), source=source))
            return by_time, LeadNames(leads, ("",) * len(leads), "--declared_leads"), []
        if (ahead := len(unknown) - len(leads)) < 0 or (ahead and layout.names is not None):
            raise _other_number(len(unknown), leads, of_remarks, source)
        for column in unknown[:ahead]:
            names[column] = _kind_of(numbers[:, column], len(unknown), leads, of_remarks, source)
        for column, lead in zip(unknown[ahead:], leads, strict=True):
            names[column] = lead
    found = lead_names([name or "" for name in names], "the line of names")
    if not unknown:
        if (of_remarks := stated_leads(stated, declared, shape=(len(names),), source=source)) is not None:
            check_leads_declared(found, dataclasses.replace(declared, leads=of_remarks.names), source=source)
        check_leads_declared(found, declared, source=source)
    units = _with_row_of_units(found, layout.units, source)
    rates += _rates_by_row_of_units(numbers, names, layout, source)
    if names and not names[0] and layout.names is not None:
        rates += _rate_of_nameless(numbers[:, 0], source)
    return numbers, units, rates


def _other_number(found: int, leads: tuple[str, ...], of_remarks: LeadNames | None, source: str) -> RecordError:
    where = "--declared_leads" if of_remarks is None else f"'{of_remarks.where}'"
    return header_disagrees(f"{source}: {found} columns, but {where} names {len(leads)}")


def _kind_of(values: np.ndarray, found: int, leads: tuple[str, ...], of_remarks: LeadNames | None, source: str) -> str:
    """Returns the name, `index` or `time`, that a nameless column ahead of the leads must have by its values.

    Args:
        values: Values of the column, `f64[time]`.
        found: Number of columns, for messages.
        leads: Names of the leads that are stated or declared.
        of_remarks: Lead names that the file states, or None where they are declared.
        source: Name of the file, for messages.

    Raises:
        RecordError: The values are neither sample numbers nor even times (`header_disagrees`).
    """
    if np.all(np.diff(values) == 1):
        return _INDEX
    try:
        if even_times(values, name="column 1", source=source) is not None:
            return _TIME
    except RecordError as error:
        message = str(_other_number(found, leads, of_remarks, source))
        raise header_disagrees(f"{message}; as times, {str(error).removeprefix(f'{source}: ')}") from error
    raise _other_number(found, leads, of_remarks, source)


def _with_row_of_units(leads: LeadNames, units: tuple[str, ...] | None, source: str) -> LeadNames:
    if units is None:
        return leads
    merged = []
    for name, own, of_row in zip(leads.names, leads.units, units, strict=True):
        unit = voltage(of_row) or ""
        if own and unit and own != unit:
            raise header_disagrees(
                f"{source}: the name of {name} states the unit {own}, but the line of units {unit}; correct one of them"
            )
        merged.append(own or unit)
    return LeadNames(leads.names, tuple(merged), leads.where)


def _rates_by_row_of_units(numbers: np.ndarray, names: list, layout: Layout, source: str) -> list[StatedRate]:
    """Returns the rates of columns of times whose unit is stated in the line of units."""
    rates: list[StatedRate] = []
    for column, name in enumerate(names):
        unit = layout.units[column] if layout.units else ""
        if unit and name and Kind.TIMES in stated_name(name).kinds and ":" not in unit:
            rates += rates_of_times(numbers[:, column], name=name, unit=unit, source=source)
    return rates


def _rate_of_nameless(values: np.ndarray, source: str) -> list[StatedRate]:
    """Checks that a nameless first column, such as the index of pandas, counts or holds times; returns its rate, if
    any.
    """
    if not np.all(np.isfinite(values)) or np.all(np.diff(values) == 1):
        return []
    return rates_of_times(values, name="the first column", unit="", source=source)


def _by_lead(
    numbers: np.ndarray, row_names: list[str], layout: Layout, declared: Declared, source: str
) -> tuple[np.ndarray, LeadNames, list[StatedRate]]:
    """Returns what `_by_column` returns, for a table with a line per lead, which begins with the lead's name."""
    leads = lead_names(row_names, "the first cells of the lines")
    check_leads_declared(leads, declared, source=source)
    if header := [name for name in (layout.names or ())[1:] if name is not None]:
        raise unreadable_header(
            f"{source}: a line a lead, under the names {', '.join(header[:3])}, …; there, only numbers of the samples "
            "are read, or nothing"
        )
    return np.ascontiguousarray(numbers[:, 1:].T), leads, []
