"""The content of a page: a title, cautions, and sections of paragraphs, tables and pictures.

`write.write_page` writes its files. All texts are plain texts, whatever they contain: characters that are markup in
HTML or Markdown are escaped when the page is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from matplotlib.figure import Figure

#: Caution at the top of every page with results on simulated data.
SIMULATED = "SIMULATED DATA: these numbers describe a simulator, not patients."

#: What a row of a table is about.
About = TypeVar("About")


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Preformatted:
    """Text whose line breaks and spaces are kept, such as a command."""

    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts; the first cell of a row is its heading, and columns of numbers are aligned to the right.

    Attributes:
        header: Names of the columns.
        rows: Cells of each row, as many as there are columns.
        caption: Description of the table; may be empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @classmethod
    def of(cls, columns: Mapping[str, Callable[[About], str]], about: Iterable[About], *, caption: str = "") -> Table:
        """Returns a table with a row for each object.

        Args:
            columns: Function from an object to its cell, by the name of the column; the names differ.
            about: Objects, one for each row.
            caption: Description of the table; may be empty.
        """
        rows = [tuple(text(each) for text in columns.values()) for each in about]
        return cls(header=tuple(columns), rows=rows, caption=caption)

    def __post_init__(self) -> None:
        if not self.header:
            raise ValueError("a table needs columns")
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.header)} columns: {list(row)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with a description in words; adjacent pictures stand side by side where there is room.

    Attributes:
        figure: Matplotlib figure, made without pyplot.
        alt: Description of the picture for readers who cannot see it.
        caption: Caption under the picture; may be empty.
        vector: Whether the picture is drawn as SVG if that is small; False for long signals and clouds of points.
        dpi: Pixels per inch where the picture is drawn as PNG.
        scale: Factor of the size on the page, 1 for the figure's own size.
        to_scale: Whether a millimetre of the figure is one on the page, as on ECG paper. Such a picture is never
            shrunk on a screen, where it scrolls sideways if need be, and a click enlarges it.
    """

    figure: Figure
    alt: str
    caption: str = ""
    vector: bool = True
    dpi: float = 144.0
    scale: float = 1.0
    to_scale: bool = False

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError(f"a picture needs an alternative text (caption: {self.caption!r})")


@dataclasses.dataclass(frozen=True)
class Folded:
    """Blocks that are shown when the reader opens their title; in print they are always shown."""

    title: str
    blocks: Sequence[Block]


Block = Paragraph | Preformatted | Table | Picture | Folded


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page that is listed in the table of contents."""

    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """A page, which `write.write_page` writes.

    Attributes:
        title: Title of the page.
        verdict: First line of the page, which says what was found; may be empty.
        cautions: Facts that a reader must know before believing anything below, one sentence each; they come first.
        summary: Blocks before the first section.
        sections: Sections in order.
    """

    title: str
    verdict: str = ""
    cautions: Sequence[str] = ()
    summary: Sequence[Block] = ()
    sections: Sequence[Section] = ()
