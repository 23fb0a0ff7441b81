"""A page as its author sees it: a title, cautions, and sections of paragraphs, tables and pictures.

`write.write_page` makes files of it. All texts are plain texts, whatever they hold: what is markup in HTML or Markdown
is escaped where they are written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from matplotlib.figure import Figure

#: What stands above everything that was found on simulated data.
SIMULATED = "SIMULATED DATA: these numbers describe a simulator, not patients."


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Preformatted:
    """Text whose lines and spaces stay as they are, such as a command."""

    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts; the first cell of a row names it, columns of numbers are set to the right.

    Attributes:
        header: names of the columns.
        rows: cells, as many as columns.
        caption: what the table shows; may be empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.header:
            raise ValueError("a table needs columns")
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.header)} columns: {list(row)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with what it shows in words; pictures that follow each other stand side by side where there is room.

    Attributes:
        figure: a Matplotlib figure, made without pyplot.
        alt: what is to be seen, for those who cannot see it.
        caption: under the picture; may be empty.
        vector: draw it as SVG if that is small; False where it cannot be (long signals, clouds of points).
        dpi: pixels an inch where the picture is drawn as PNG.
        scale: of the size on the page, 1 for the figure's own.
    """

    figure: Figure
    alt: str
    caption: str = ""
    vector: bool = True
    dpi: float = 144.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError(f"a picture needs an alternative text (caption: {self.caption!r})")


@dataclasses.dataclass(frozen=True)
class Folded:
    """Blocks that are shown when their title is opened; in print they are always there."""

    title: str
    blocks: Sequence[Block]


Block = Paragraph | Preformatted | Table | Picture | Folded


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page that the table of contents names."""

    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """A page.

    Attributes:
        title: of the page.
        cautions: what a reader must know before believing anything below, one sentence each; they stand first.
        summary: what stands before the first section.
        sections: in order.
    """

    title: str
    cautions: Sequence[str] = ()
    summary: Sequence[Block] = ()
    sections: Sequence[Section] = ()
