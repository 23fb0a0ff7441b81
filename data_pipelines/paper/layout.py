"""Arranges the twelve leads on ECG paper."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

from data_pipelines.records import STANDARD_LEADS


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperLayout:
    """Arrangement of leads on the page.

    Attributes:
        rows: Leads of each row from left to right. The columns of a row follow each other in time, so that samples on
            one vertical line were recorded at the same time.
        rhythm: Lead of a last row over the whole recording, or None.
        row_mm: Distance from one row's zero line to the next, in whole large boxes.
    """

    rows: tuple[tuple[str, ...], ...]
    rhythm: str | None
    row_mm: float

    @property
    def strips(self) -> tuple[tuple[str, ...], ...]:
        """Leads of every row, the rhythm strip included."""
        return (*self.rows, (self.rhythm,)) if self.rhythm else self.rows


def _in_columns(num_columns: int) -> tuple[tuple[str, ...], ...]:
    num_rows = len(STANDARD_LEADS) // num_columns
    return tuple(STANDARD_LEADS[row::num_rows] for row in range(num_rows))


#: Arrangements in use. Of 10 s, they show 2.5 s of every lead and all of lead II; 5 s of every lead; all of every lead.
LAYOUTS: Mapping[str, PaperLayout] = types.MappingProxyType(
    {
        "3x4": PaperLayout(rows=_in_columns(4), rhythm="II", row_mm=40.0),
        "6x2": PaperLayout(rows=_in_columns(2), rhythm=None, row_mm=30.0),
        "12x1": PaperLayout(rows=_in_columns(1), rhythm=None, row_mm=20.0),
    }
)
