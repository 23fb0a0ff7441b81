"""A page to draw on in millimetres: true to scale in print, with a whole number of pixels per millimetre in a PNG."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class LineStyle:
    """Look of a line.

    Attributes:
        width_mm: Width of the line.
        color: Colour of the line.
        layer: Position among the layers of the page, the lowest at the bottom.
    """

    width_mm: float
    color: str
    layer: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextStyle:
    """Look of a text.

    Attributes:
        size: Size of the letters in points.
        color: Colour of the letters.
        layer: Position among the layers of the page, the lowest at the bottom.
        bold: Whether the letters are bold.
    """

    size: float
    color: str
    layer: int
    bold: bool = False


def millimetres(points: float) -> float:
    """Returns a size in points as millimetres."""
    return points / POINTS_PER_INCH * MM_PER_INCH


def broken_lines(text: str, *, width_mm: float, size: float, bold: bool = False) -> list[str]:
    """Returns a text as lines that fit a width, broken between words; a word that is longer than a line stays whole.

    Args:
        text: Text to break; several spaces count as one, and lines are never broken at a no-break space.
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
        size = (width_mm / MM_PER_INCH, height_mm / MM_PER_INCH)
        self.figure = Figure(figsize=size, dpi=pixels_per_mm * MM_PER_INCH, facecolor=_WHITE)
        FigureCanvasAgg(self.figure)
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set(xlim=(0, width_mm), ylim=(0, height_mm))

    def grid(
        self, style: LineStyle, *, corner: tuple[float, float], size: tuple[float, float], step_mm: float, name: str
    ) -> None:
        """Draws a grid of lines within a rectangle.

        Args:
            style: Look of the lines.
            corner: Lower left corner `(x, y)` of the rectangle, in millimetres.
            size: Width and height of the rectangle, in millimetres.
            step_mm: Distance of the lines.
            name: Id of the grid in the figure.
        """
        (x, y), (width, height) = corner, size
        # A width that is a whole number of steps may lie a rounding error below it, and has its last line all the same.
        columns = x + step_mm * np.arange(int(width / step_mm + 1e-6) + 1)
        rows = y + step_mm * np.arange(int(height / step_mm + 1e-6) + 1)
        upright = [[(column, y), (column, y + height)] for column in columns]
        level = [[(x, row), (x + width, row)] for row in rows]
        look: dict[str, Any] = {"colors": style.color, "linewidths": _points(style.width_mm), "zorder": style.layer}
        # Lines that snap to pixels would differ in width.
        self._axes.add_collection(LineCollection(upright + level, **look, snap=False, gid=name), autolim=False)

    def line(self, x: np.ndarray, y: np.ndarray, style: LineStyle, *, name: str) -> None:
        """Draws a line through points, without simplifying it.

        Args:
            x: Positions from the left edge, `f64[points]`, in millimetres.
            y: Heights above the lower edge, `f64[points]`, in millimetres.
            style: Look of the line.
            name: Id of the line in the figure.
        """
        path = Polyline(np.stack([x, y], axis=1))
        # Matplotlib would drop points that hardly change the outline at the size of the figure.
        path.should_simplify = False
        look: dict[str, Any] = {"edgecolor": style.color, "linewidth": _points(style.width_mm), "zorder": style.layer}
        ends: dict[str, Any] = {"joinstyle": "round", "capstyle": "round"}
        self._axes.add_patch(PathPatch(path, fill=False, **look, **ends, snap=False, gid=name))

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
        """Fills a rectangle with a colour, or hatches it in that colour on white.

        Args:
            corner: Lower left corner `(x, y)` of the rectangle, in millimetres.
            size: Width and height of the rectangle, in millimetres.
            color: Colour of the face or the hatch.
            layer: Position among the layers of the page.
            hatch: Pattern of the hatch in Matplotlib's notation, or None.
            name: Id of the rectangle in the figure, or None.
        """
        # Matplotlib draws a hatch in the colour of the edge, which is not drawn itself at a width of 0.
        face, edge = (_WHITE, color) if hatch else (color, "none")
        look: dict[str, Any] = {"facecolor": face, "edgecolor": edge, "linewidth": 0, "zorder": layer}
        rectangle = Rectangle(corner, *size, **look, hatch=hatch, gid=name)
        rectangle.set_hatch_linewidth(_HATCH_LINE_PT)
        self._axes.add_patch(rectangle)

    def text(self, x: float, y: float, text: str, style: TextStyle, *, ha: str = "center", va: str = "top") -> Text:
        """Writes a line of text, and returns it as Matplotlib's object.

        Args:
            x: Position from the left edge, in millimetres.
            y: Height above the lower edge, in millimetres.
            text: Text to write.
            style: Look of the text.
            ha: Matplotlib's horizontal alignment of the text at `x`.
            va: Matplotlib's vertical alignment of the text at `y`.
        """
        weight = "bold" if style.bold else "normal"
        look: dict[str, Any] = {"fontsize": style.size, "weight": weight, "color": style.color, "zorder": style.layer}
        # Ids and labels may hold dollar signs, between which Matplotlib would set a formula.
        return self._axes.text(x, y, text, **look, family=_FONT, parse_math=False, ha=ha, va=va)

    def lines_of_text(self, x: float, top: float, lines: Sequence[str], style: TextStyle) -> float:
        """Writes lines of text below each other; returns the height in millimetres at which the next line would begin.

        Args:
            x: Position from the left edge, in millimetres.
            top: Height of the first line's top above the lower edge, in millimetres.
            lines: Lines to write.
            style: Look of the text.
        """
        # The halo keeps the letters readable where the lines of the grid or a trace pass under them.
        halo = withStroke(linewidth=_HALO_PT, foreground=_WHITE)
        for line in lines:
            self.text(x, top, line, style, ha="left").set_path_effects([halo])
            top -= millimetres(style.size) * LINE_SPACING
        return top


def save_png(figure: Figure, path: Path) -> None:
    """Writes a page as a PNG that states its resolution, so that it prints at true size."""
    # A user's own settings of Matplotlib may crop figures, which would change the size of the page.
    figure.savefig(path, format="png", dpi=figure.dpi, facecolor=figure.get_facecolor(), bbox_inches=None)


def _points(width_mm: float) -> float:
    return width_mm / MM_PER_INCH * POINTS_PER_INCH
