"""Draws a stored ECG on ECG paper: twelve leads at 25 mm/s and 10 mm/mV, true to scale.

The page is as large as its contents need: 10 s in the usual arrangement fill A4. Printed at 100 %, a large box is 5 mm
wide. In a PDF or SVG the figure consists of lines only.

References:
    Kligfield et al., "Recommendations for the standardization and interpretation of the electrocardiogram, part I",
    Circulation 115 (2007) 1306: scale, simultaneous leads, lead names.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure

from data_pipelines.paper.layout import LAYOUTS, PaperLayout
from data_pipelines.paper.page import LINE_SPACING, LineStyle, Page, TextStyle, broken_lines, millimetres
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STANDARD_LEADS, STORED_LEADS
from data_pipelines.signals.lead_algebra import twelve_leads

#: Scale at which ECGs are read.
MM_PER_SECOND = 25.0
MM_PER_MILLIVOLT = 10.0

#: Sizes of small and large boxes: 40 ms by 0.1 mV, and 200 ms by 0.5 mV.
SMALL_BOX_MM = 1.0
LARGE_BOX_MM = 5.0

#: Pulse before every row, which shows the scale: 5 mm by 10 mm.
CALIBRATION_SECONDS = 0.2
CALIBRATION_MV = 1.0

#: Resolution of PNGs; printers of electrocardiographs have 8 dots to a millimetre.
PIXELS_PER_MM = 8

# The trace of a row begins on a line of the large boxes, this far to the right of the grid's edge.
_CALIBRATION_ROOM_MM = 15.0

# With these margins around the grid, 10 s in the usual arrangement make A4. Text that needs more makes the page higher.
_SIDE_MM = 16.0
_HEADER_MM = 36.0
_FOOTER_MM = 14.0
_TOP_MM, _BOTTOM_MM = 7.0, 5.0
_GAP_MM = 2.0
_NARROWEST_GRID_MM = 130.0

Number = TypeVar("Number", float, np.ndarray)

_PAPER, _SMALL_LINE, _LARGE_LINE = "#fffcfa", "#f8d8d1", "#eba79d"
_INK, _FAINT_INK, _WARNING, _HATCH = "#14141c", "#5d5757", "#b3202c", "#c4b8b5"
_WATERMARK = "#fbe9e6"

# The layers are drawn in this order, the first at the bottom.
_SHEET, _GRID, _HATCHED, _LEAD_NAMES, _TRACES, _TEXTS = range(6)

_TRACE = LineStyle(width_mm=0.25, color=_INK, layer=_TRACES)
_MARK = LineStyle(width_mm=0.2, color=_FAINT_INK, layer=_TRACES)
_SMALL_BOXES = LineStyle(width_mm=0.11, color=_SMALL_LINE, layer=_GRID)
_LARGE_BOXES = LineStyle(width_mm=0.17, color=_LARGE_LINE, layer=_GRID)

_TITLE = TextStyle(size=11.0, color=_INK, layer=_TEXTS, bold=True)
_TEXT = TextStyle(size=7.5, color=_INK, layer=_TEXTS)
_NO_PATIENT = TextStyle(size=7.5, color=_WARNING, layer=_TEXTS)
_FOOTER = TextStyle(size=6.5, color=_FAINT_INK, layer=_TEXTS)
_FOOTER_WARNING = TextStyle(size=6.5, color=_WARNING, layer=_TEXTS)
_IN_BOX = TextStyle(size=15.0, color="white", layer=_TEXTS + 1, bold=True)
# A wave may cross a name, and a name never hides a wave.
_LEAD = TextStyle(size=8.0, color=_INK, layer=_LEAD_NAMES, bold=True)

_SIMULATED = "SIMULATED"
_SIMULATED_BOX_MM = (44.0, 9.0)
_WATERMARK_PT = 34.0
_UNRECORDED_ROOM_MM = 20.0
_NO_BREAK = "\N{NO-BREAK SPACE}"


def draw_ecg(
    signal_uv: np.ndarray,
    *,
    sampling_rate_hz: int,
    title: Sequence[str] = (),
    recording_note: str = "",
    valid_start: int = 0,
    valid_samples: int | None = None,
    simulated: bool = False,
    layout: str = "3x4",
    pixels_per_mm: int = PIXELS_PER_MM,
) -> Figure:
    """Draws a stored ECG on ECG paper.

    The median of a lead's recorded samples is drawn at its zero line, as a line on the page says; nothing else is done
    to the signal. A lead that leaves its row is drawn over other rows, and the page names it with its extremes.

    Args:
        signal_uv: `int16[time, 8]`, µV, leads in stored order.
        sampling_rate_hz: Rate of the signal.
        title: Lines above the traces, the first in bold; long ones are broken.
        recording_note: Text for the line under the traces about what was done to the signal, such as its filters.
        valid_start: Position of the first recorded sample.
        valid_samples: Number of recorded samples from there on, or None for all that follow; the rest is hatched.
        simulated: Whether the page is marked as SIMULATED.
        layout: Name of the layout, one of `LAYOUTS`.
        pixels_per_mm: Resolution of a PNG, a whole number so that all lines of the grid look alike.

    Returns:
        The figure, for `page.save_png`, or `figure.savefig` to PDF or SVG. Its artists have the ids
        `lead NAME`, `rhythm NAME`, `calibration`, `padding`, `small boxes` and `large boxes`.

    Raises:
        ValueError: The signal has another type or shape, recorded samples lie outside of it, or there is no such
            layout.
    """
    if signal_uv.dtype != np.int16 or signal_uv.ndim != 2 or signal_uv.shape[1] != len(STORED_LEADS):
        raise ValueError(f"draw_ecg takes int16[time, 8], got {signal_uv.dtype}{signal_uv.shape}")
    valid_stop = len(signal_uv) if valid_samples is None else valid_start + valid_samples
    if not 0 <= valid_start < valid_stop <= len(signal_uv):
        raise ValueError(f"samples {valid_start} to {valid_stop} cannot be the recorded ones of {len(signal_uv)}")
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout '{layout}'; choose one of {', '.join(LAYOUTS)}")
    recording = _Recording(
        leads_mm=_leads_in_mm(signal_uv, valid_start, valid_stop),
        sampling_rate_hz=sampling_rate_hz,
        valid_start=valid_start,
        valid_stop=valid_stop,
    )
    sheet = _Sheet(
        recording, LAYOUTS[layout], title=title, note=recording_note, simulated=simulated, pixels_per_mm=pixels_per_mm
    )
    return sheet.page.figure


def _leads_in_mm(signal_uv: np.ndarray, valid_start: int, valid_stop: int) -> dict[str, np.ndarray]:
    """Returns the twelve leads, by name, as heights above their zero lines, `f64[time]`, in millimetres."""
    millivolts = twelve_leads(signal_uv.astype(np.float64)) / MICROVOLTS_PER_MILLIVOLT
    millivolts -= np.median(millivolts[valid_start:valid_stop], axis=0)
    return dict(zip(STANDARD_LEADS, MM_PER_MILLIVOLT * millivolts.T, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Recording:
    leads_mm: Mapping[str, np.ndarray]
    sampling_rate_hz: int
    valid_start: int
    valid_stop: int

    @property
    def num_samples(self) -> int:
        return len(self.leads_mm["I"])

    def mm(self, samples: Number) -> Number:
        """Returns the width of a number of samples on paper, in millimetres."""
        return samples * MM_PER_SECOND / self.sampling_rate_hz


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Segment:
    """Samples `start` to `stop` of a lead in a row of the page.

    Attributes:
        lead: Name of the lead.
        row: Number of the row, from above.
        start: First sample.
        stop: Last sample plus one.
        first: First sample that was recorded.
        values_mm: Heights of the recorded samples, from sample `first` on, in millimetres.
    """

    lead: str
    row: int
    start: int
    stop: int
    first: int
    values_mm: np.ndarray


def _segments(recording: _Recording, layout: PaperLayout) -> list[_Segment]:
    segments = []
    for row, leads in enumerate(layout.strips):
        # Rounded bounds make the columns meet where the samples cannot be divided among them evenly.
        bounds = [round(column * recording.num_samples / len(leads)) for column in range(len(leads) + 1)]
        for lead, (start, stop) in zip(leads, itertools.pairwise(bounds), strict=True):
            first = max(start, recording.valid_start)
            # One sample of the next column is included, so that the trace reaches it.
            values = recording.leads_mm[lead][first : min(stop + 1, recording.valid_stop)]
            segments.append(_Segment(lead=lead, row=row, start=start, stop=stop, first=first, values_mm=values))
    return segments


class _Sheet:
    """Computes the size of a page and draws the page."""

    def __init__(
        self,
        recording: _Recording,
        layout: PaperLayout,
        *,
        title: Sequence[str],
        note: str,
        simulated: bool,
        pixels_per_mm: int,
    ):
        self._recording, self._layout, self._simulated = recording, layout, simulated
        self._segments = _segments(recording, layout)
        contents_mm = _CALIBRATION_ROOM_MM + recording.mm(recording.num_samples)
        # Contents that end on a line of the large boxes, but for a rounding error, need no further box.
        grid_mm = LARGE_BOX_MM * math.ceil(contents_mm / LARGE_BOX_MM - 1e-9)
        text_mm = max(grid_mm, _NARROWEST_GRID_MM)

        title_mm = text_mm - (_SIMULATED_BOX_MM[0] + _GAP_MM if simulated else 0)
        head = broken_lines(title[0], width_mm=title_mm, size=_TITLE.size, bold=True) if title else []
        under = [line for text in title[1:] for line in broken_lines(text, width_mm=title_mm, size=_TEXT.size)]
        said = broken_lines(self._scale_and_processing(note), width_mm=text_mm, size=_FOOTER.size)
        warned = broken_lines(self._excursions(), width_mm=text_mm, size=_FOOTER.size)

        header_mm = max(_HEADER_MM, _TOP_MM + _height(head, _TITLE) + _height(under, _TEXT) + _GAP_MM)
        footer_mm = math.ceil(max(_FOOTER_MM, _BOTTOM_MM + _height(said + warned, _FOOTER) + _GAP_MM))
        grid_height_mm = layout.row_mm * len(layout.strips)
        self._corner, self._size = (_SIDE_MM, float(footer_mm)), (grid_mm, grid_height_mm)
        self.page = Page(
            width_mm=round(text_mm + 2 * _SIDE_MM),
            height_mm=math.ceil(header_mm) + round(grid_height_mm) + footer_mm,
            pixels_per_mm=pixels_per_mm,
        )
        self._draw_grid()
        for row in range(len(layout.strips)):
            self._draw_calibration(row)
        for segment in self._segments:
            self._draw_segment(segment)
        self._write_header(head, under)
        top = self.page.lines_of_text(_SIDE_MM, footer_mm - _GAP_MM, said, _FOOTER)
        self.page.lines_of_text(_SIDE_MM, top, warned, _FOOTER_WARNING)

    def _scale_and_processing(self, recording_note: str) -> str:
        recording = self._recording
        parts = [f"{MM_PER_SECOND:g} mm/s", f"{MM_PER_MILLIVOLT:g} mm/mV", f"{recording.sampling_rate_hz} Hz"]
        parts += [recording_note] if recording_note else []
        parts.append("median of each lead drawn at its zero line")
        if recording.valid_stop - recording.valid_start < recording.num_samples:
            samples = (recording.valid_start, recording.valid_stop, recording.num_samples)
            start, stop, end = (number / recording.sampling_rate_hz for number in samples)
            parts.append(f"recorded {start:.2f} to {stop:.2f} s of {end:.2f} s, the hatched rest is padding")
        return " · ".join(parts)

    def _excursions(self) -> str:
        """Returns a sentence on the leads whose traces leave their rows, with their extremes; empty where none does."""
        reach: dict[str, tuple[float, float]] = {}
        for segment in self._segments:
            if len(segment.values_mm) and np.abs(segment.values_mm).max() > self._layout.row_mm / 2:
                low, high = reach.get(segment.lead, (0.0, 0.0))
                reach[segment.lead] = min(low, segment.values_mm.min()), max(high, segment.values_mm.max())
        leads = ", ".join(_span_text(lead, *span) for lead, span in reach.items())
        return f"Beyond their rows, from the zero line: {leads}" if leads else ""

    def _zero_line(self, row: int) -> float:
        """Returns the height of a row's zero line above the lower edge, in mm; it is a line of the large boxes."""
        top = self._corner[1] + self._size[1]
        below_top = self._layout.row_mm * (row + 0.5)
        return top - LARGE_BOX_MM * round(below_top / LARGE_BOX_MM)

    def _x(self, sample: Number) -> Number:
        return self._corner[0] + _CALIBRATION_ROOM_MM + self._recording.mm(sample)

    def _draw_grid(self) -> None:
        corner, size = self._corner, self._size
        self.page.box(corner=corner, size=size, color=_PAPER, layer=_SHEET)
        self.page.grid(_SMALL_BOXES, corner=corner, size=size, step_mm=SMALL_BOX_MM, name="small boxes")
        self.page.grid(_LARGE_BOXES, corner=corner, size=size, step_mm=LARGE_BOX_MM, name="large boxes")

    def _draw_calibration(self, row: int) -> None:
        width, height = CALIBRATION_SECONDS * MM_PER_SECOND, CALIBRATION_MV * MM_PER_MILLIVOLT
        x = self._corner[0] + LARGE_BOX_MM + np.array([-2.5, 0, 0, width, width, width + 2.5])
        y = self._zero_line(row) + np.array([0, 0, height, height, 0, 0])
        self.page.line(x, y, _TRACE, name="calibration")

    def _draw_segment(self, segment: _Segment) -> None:
        zero, recording = self._zero_line(segment.row), self._recording
        is_rhythm = segment.row == len(self._layout.rows)
        if len(segment.values_mm):
            x = self._x(segment.first + np.arange(len(segment.values_mm)))
            name = f"{'rhythm' if is_rhythm else 'lead'} {segment.lead}"
            self.page.line(x, zero + segment.values_mm, _TRACE, name=name)
        self._hatch(segment.start, min(segment.stop, recording.valid_start), zero)
        self._hatch(max(segment.start, recording.valid_stop), segment.stop, zero)
        if segment.start > 0:
            self._draw_separator(segment.start, zero)
        name_top = zero + 0.3 * self._layout.row_mm + millimetres(_LEAD.size)
        self.page.lines_of_text(self._x(segment.start) + 1.0, name_top, [segment.lead], _LEAD)

    def _hatch(self, start: int, stop: int, zero: float) -> None:
        """Hatches samples that were not recorded.

        Args:
            start: First sample.
            stop: Last sample plus one; nothing is drawn if it is not above `start`.
            zero: Height of the row's zero line, in millimetres.
        """
        if start >= stop:
            return
        left, width, height = self._x(start), self._recording.mm(stop - start), LARGE_BOX_MM
        corner, size = (left, zero - height / 2), (width, height)
        self.page.box(corner=corner, size=size, color=_HATCH, hatch="/////", layer=_HATCHED, name="padding")
        if width >= _UNRECORDED_ROOM_MM:
            self.page.text(left + width / 2, zero - height, "not recorded", _FOOTER)

    def _draw_separator(self, sample: int, zero: float) -> None:
        """Draws a mark where the next lead begins, at the height of its name, so that it is unlike a pacing spike."""
        x = np.full(2, self._x(sample))
        y = zero + np.array([0.25, 0.37]) * self._layout.row_mm
        self.page.line(x, y, _MARK, name="separator")

    def _write_header(self, head: list[str], under: list[str]) -> None:
        page = self.page
        top = page.height_mm - _TOP_MM
        left = page.lines_of_text(_SIDE_MM, top, head, _TITLE)
        page.lines_of_text(_SIDE_MM, left, under, _TEXT)
        if self._simulated:
            width, height = _SIMULATED_BOX_MM
            x, y = page.width_mm - _SIDE_MM - width, top - height
            page.box(corner=(x, y), size=(width, height), color=_WARNING, layer=_TEXTS)
            page.text(x + width / 2, y + height / 2, _SIMULATED, _IN_BOX, va="center_baseline")
            page.text(x + width / 2, y - 1.5, "no patient was recorded", _NO_PATIENT)
            # It grows with the grid, and lies under the traces, so that it hides no wave.
            size = _WATERMARK_PT * self._size[0] / 100
            watermark = TextStyle(size=size, color=_WATERMARK, layer=_SHEET + 1, bold=True)
            x, y = (start + length / 2 for start, length in zip(self._corner, self._size, strict=True))
            page.text(x, y, _SIMULATED, watermark, va="center")


def _height(lines: Sequence[str], style: TextStyle) -> float:
    return len(lines) * millimetres(style.size) * LINE_SPACING


def _span_text(lead: str, low_mm: float, high_mm: float) -> str:
    low, high = low_mm / MM_PER_MILLIVOLT, high_mm / MM_PER_MILLIVOLT
    return f"{lead} ({low:+.2f} to {high:+.2f} mV)".replace("-", "−").replace(" ", _NO_BREAK)
