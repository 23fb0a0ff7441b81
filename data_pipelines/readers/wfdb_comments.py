"""Comments of WFDB headers: metadata of the recording, and statements that may contradict the header."""

from __future__ import annotations

import math
from pathlib import Path

import wfdb

from data_pipelines.files.refusals import header_disagrees
from data_pipelines.statements.names import Kind, voltage
from data_pipelines.statements.nested_values import NamedValue, header_line
from data_pipelines.statements.stated import statements
from data_pipelines.statements.stated_rates import plain_hertz

# Comments with these names may be about the heart's rate.
_OTHER_RATES = ("rate", "frequency", "freq")


def check_comments(comments: list[str], header: wfdb.Record, header_path: Path) -> None:
    """Checks that no comment of a header contradicts the header's rate or units.

    Args:
        comments: Comment lines without their marks.
        header: Header of the record.
        header_path: Path of the header, for messages.

    Raises:
        RecordError: A comment contradicts the header (`header_disagrees`).
    """
    pairs = filter(None, map(header_line, comments))
    stated = statements([NamedValue((key,), value) for key, value in pairs if key.casefold() not in _OTHER_RATES])
    for statement in stated.of(Kind.RATE):
        if (hertz := plain_hertz(statement)) is not None and not math.isclose(hertz, header.fs, rel_tol=1e-6):
            raise header_disagrees(
                f"{header_path}: its first line states the rate {header.fs} Hz, but its comment '{statement.where}' "
                f"{statement.value}; correct one of them"
            )
    units = {known for unit in header.units if (known := voltage(unit))}
    for statement in stated.of(Kind.UNIT):
        unit = voltage(statement.value) if isinstance(statement.value, str) else None
        if unit and units and unit not in units:
            raise header_disagrees(
                f"{header_path}: its signals are in {', '.join(sorted(units))}, but its comment '{statement.where}' "
                f"says {unit}; correct one of them"
            )


def comment_fields(comments: list[str]) -> dict[str, str]:
    """Returns comment lines of the form `key: value` as a dictionary; headers of CinC, PTB and CODE-15 have such."""
    pairs = (comment.partition(":") for comment in comments)
    return {key.strip(): value.strip() for key, colon, value in pairs if colon and value.strip()}
