"""Makes a page to draw on in millimetres: true to scale in print, with whole pixels to a millimetre in a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Polyline
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

MM_PER_INCH = 25.4
POINTS_PER_INCH = 72

#: Distance from one line of text to the next, in font sizes.
LINE_SPACING = 1.4

_FONT = "DejaVu Sans"  # It comes with Matplotlib, so a page is the same everywhere.
_WHITE = "#ffffff"
_HALO_PT = 2.0
_HATCH_LINE_PT = 0.35


def millimetres(points: float) -> float:
    """Returns a size in points as millimetres."""
    return points / POINTS_PER_INCH * MM_PER_INCH


def broken_lines(text: str, *, width_mm: float, size: float, bold: bool = False) -> list[str]:
    """Breaks a text between words so that every line fits; a word that is longer than a line stays whole.

    Args:
        text: Text to break; several spaces count as one; lines break at those, never at a no-break space.
        width_mm: Width of a line.
        size: Size of the letters in points.
        bold: Whether the letters are bold.
    """
    font = FontProperties(family=_FONT, size=size, weight="bold" if bold else "normal")
    lines: list[str] = []
    for word in filter(None, text.split(" ")):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and millimetres(text_to_path.get_text_width_height_descent(longer, font, False)[0]) <= width_mm:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


class Page:
    """A figure whose only axes cover it and are measured in millimetres from its lower left corner."""

    def __init__(self, *, width_mm: int, height_mm: int, pixels_per_mm: int):
        """Makes an empty page."""
        self.width_mm, self.height_mm = width_mm, height_mm
        dots_per_inch = pixels_per_mm * MM_PER_INCH
        size = (width_mm / MM_PER_INCH, height_mm / MM_PER_INCH)
        self.figure = Figure(figsize=size, dpi=dots_per_inch, facecolor=_WHITE)
        FigureCanvasAgg(self.figure)
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set(xlim=(0, width_mm), ylim=(0, height_mm))

    def grid(
        self,
        *,
        corner: tuple[float, float],
        size: tuple[float, float],
        step_mm: float,
        width_mm: float,
        color: str,
        layer: int,
        name: str,
    ) -> None:
        """Rules a rectangle from its lower left corner on, `step_mm` from line to line."""
        (x, y), (width, height) = corner, size
        columns = x + step_mm * np.arange(int(width / step_mm + 1e-6) + 1)
        rows = y + step_mm * np.arange(int(height / step_mm + 1e-6) + 1)
        upright = [[(column, y), (column, y + height)] for column in columns]
        level = [[(x, row), (x + width, row)] for row in rows]
        self._axes.add_collection(
            LineCollection(
                upright + level,
                colors=color,
                linewidths=_points(width_mm),
                snap=False,  # Lines that snap to pixels would differ in width.
                zorder=layer,
                gid=name,
            ),
            autolim=False,
        )

    def line(self, x: np.ndarray, y: np.ndarray, *, width_mm: float, color: str, layer: int, name: str) -> None:
        """Draws a polyline through every point; none is left out or moved."""
        path = Polyline(np.stack([x, y], axis=1))
        path.should_simplify = False
        self._axes.add_patch(
            PathPatch(
                path,
                fill=False,
                edgecolor=color,
                linewidth=_points(width_mm),
                joinstyle="round",
                capstyle="round",
                snap=False,
                zorder=layer,
                gid=name,
            )
        )

    def box(
        self,
        *,
        corner: tuple[float, float],
        size: tuple[float, float],
        color: str,
        layer: int,
        hatch: str | None = None,
        name: str | None = None,
    ) -> None:
        """Fills a rectangle with a colour, or hatches it in that colour on white."""
        rectangle = Rectangle(
            corner,
            *size,
            facecolor=_WHITE if hatch else color,
            edgecolor=color if hatch else "none",
            linewidth=0,
            hatch=hatch,
            zorder=layer,
            gid=name,
        )
        rectangle.set_hatch_linewidth(_HATCH_LINE_PT)
        self._axes.add_patch(rectangle)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        color: str,
        layer: int,
        bold: bool = False,
        ha: str = "left",
        va: str = "baseline",
    ) -> Text:
        """Writes a line; `ha` and `va` are Matplotlib's alignments of the text at `x` and at `y`."""
        weight = "bold" if bold else "normal"
        return self._axes.text(
            x,
            y,
            text,
            fontsize=size,
            color=color,
            zorder=layer,
            weight=weight,
            family=_FONT,
            parse_math=False,
            ha=ha,
            va=va,
        )

    def lines_of_text(
        self, x: float, top: float, lines: Sequence[str], *, size: float, color: str, layer: int, bold: bool = False
    ) -> float:
        """Writes lines below each other from `top` downwards; returns the height at which the next would begin."""
        for line in lines:
            self.text(x, top, line, size=size, color=color, layer=layer, bold=bold, va="top").set_path_effects(
                [withStroke(linewidth=_HALO_PT, foreground=_WHITE)]
            )
            top -= millimetres(size) * LINE_SPACING
        return top


def save_png(figure: Figure, path: Path) -> None:
    """Writes a page as a PNG that states its pixels to a millimetre, so that it prints at its true size."""
    figure.savefig(path, format="png", dpi=figure.dpi, facecolor=figure.get_facecolor(), bbox_inches=None)


def _points(width_mm: float) -> float:
    return width_mm / MM_PER_INCH * POINTS_PER_INCH
