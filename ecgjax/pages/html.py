"""A page as one self-contained HTML file: styles and pictures are embedded, and there is no script."""

from __future__ import annotations

import base64
import html
import itertools
import re
from collections.abc import Mapping, Sequence
from importlib import resources

from ecgjax.pages.images import Image
from ecgjax.pages.page import Block, Folded, Page, Paragraph, Picture, Preformatted, Section, Table
from ecgjax.pages.texts import storable
from ecgjax.pages.widths import PIECE, SHORT, one_line, only_numbers, parts_that_fit

#: Style of every page; contrasts are at least 7 : 1 (WCAG 2.2, level AAA).
_STYLE = resources.files("ecgjax.pages").joinpath("style.css").read_text(encoding="utf-8")

#: Content security policy under which a browser loads nothing from elsewhere, whatever the texts of a page contain.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

#: Least share of its width at which a picture is shown; on narrower screens it scrolls sideways.
_NARROWEST = 0.56

#: Largest width in CSS pixels at which two pictures stand side by side on paper.
_HALF = 620

#: Factor by which a click enlarges a picture that is true to scale.
_ENLARGED = 2

#: Number of rows above which a table of two columns is laid out side by side where there is room.
_MANY_ROWS = 40

_BEGINS = re.compile(r"[+\-−<≤>≥±]?\s*[.\d]")


def to_html(page: Page, *, images: Mapping[Picture, Image]) -> str:
    """Returns a page as an HTML document.

    Args:
        page: Page to write.
        images: Drawn image of each picture of the page.
    """
    sections = [(f"section-{number}", section) for number, section in enumerate(page.sections, start=1)]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',  # Otherwise a browser asks the server for one.
        f"<title>{escaped(page.title)}</title>",
        f"<style>\n{_STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        *([f'<p class="verdict">{escaped(page.verdict)}</p>'] if page.verdict else []),
        f"<h1>{escaped(page.title)}</h1>",
        *(f'<p class="caution" role="note">{escaped(caution)}</p>' for caution in page.cautions),
        *_blocks(page.summary, images),
        *_contents(sections),
        *(line for name, section in sections for line in _section(name, section, images)),
        "</main>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Returns a text escaped for use between tags or in a quoted attribute."""
    return html.escape(storable(text), quote=True)


def _contents(sections: Sequence[tuple[str, Section]]) -> list[str]:
    if len(sections) < 2:
        return []
    entries = [f'<li><a href="#{name}">{escaped(section.title)}</a></li>' for name, section in sections]
    return ['<nav aria-label="Contents">', "<h2>Contents</h2>", "<ol>", *entries, "</ol>", "</nav>"]


def _section(name: str, section: Section, images: Mapping[Picture, Image]) -> list[str]:
    heading = f"<h2>{escaped(section.title)}</h2>"
    return [f'<section id="{name}">', heading, *_blocks(section.blocks, images), "</section>"]


def _blocks(blocks: Sequence[Block], images: Mapping[Picture, Image]) -> list[str]:
    lines = []
    for is_picture, group in itertools.groupby(blocks, key=lambda block: isinstance(block, Picture)):
        inside = [line for block in group for line in _block(block, images)]
        lines += ['<div class="pictures">', *inside, "</div>"] if is_picture else inside
    return lines


def _block(block: Block, images: Mapping[Picture, Image]) -> list[str]:
    match block:
        case Paragraph(text):
            return [f"<p>{escaped(text)}</p>"]
        case Preformatted(text):
            return [f'<pre tabindex="0">{escaped(text)}</pre>']
        case Table():
            return [line for part in parts_that_fit(block) for line in _table(part)]
        case Picture():
            return _picture(block, images[block])
        case Folded(title, blocks):
            return ["<details>", f"<summary>{escaped(title)}</summary>", *_blocks(blocks, images), "</details>"]
    raise TypeError(f"{type(block).__name__} is no block of a page")


def _table(table: Table) -> list[str]:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    numeric = [_numeric(cells) for cells in columns]
    header = "".join(
        f'<th scope="col"{_classes(number=number)}>{escaped(name)}</th>'
        for name, number in zip(table.header, numeric, strict=True)
    )
    label = escaped(table.caption or ", ".join(filter(None, table.header)))
    long = len(table.header) == 2 and len(table.rows) > _MANY_ROWS
    return [
        # A <caption> would be as narrow as its table, so that a paragraph is used.
        *([f'<p class="caption">{escaped(table.caption)}</p>'] if table.caption else []),
        # A region that scrolls must be reachable by keyboard.
        f'<div class="wide{" columns" if long else ""}" role="region" tabindex="0" aria-label="{label}">',
        "<table>",
        f"<thead><tr>{header}</tr></thead>",
        "<tbody>",
        *(f"<tr>{_cells(row, numeric)}</tr>" for row in table.rows),
        "</tbody>",
        "</table>",
        "</div>",
    ]


def _cells(row: Sequence[str], numeric: Sequence[bool]) -> str:
    cells = []
    for column, (cell, number) in enumerate(zip(row, numeric, strict=True)):
        short = column > 0 and one_line(cell)
        start, end = ('<th scope="row"', "th") if column == 0 else ("<td", "td")
        cells.append(f"{start}{_classes(number=number, short=short)}>{_breakable(cell)}</{end}>")
    return "".join(cells)


def _classes(**applies: bool) -> str:
    names = " ".join(name for name, does in applies.items() if does)
    return f' class="{names}"' if names else ""


def _breakable(cell: str) -> str:
    """Returns a cell as HTML in which long paths, names and digests may break after separators, or else anywhere."""
    parts = re.split(r"(\S+)", cell)
    return "".join(
        "<wbr>".join(escaped(piece) for piece in PIECE.findall(part)) if len(part) > SHORT else escaped(part)
        for part in parts
    )


def _numeric(cells: Sequence[str]) -> bool:
    """Returns whether a column's cells are mostly numbers, intervals, counts or shares; cells `n/a` do not count."""
    filled = [cell for cell in cells if cell.strip() and not cell.startswith("n/a")]
    return (
        bool(filled)
        and all(_BEGINS.match(cell) for cell in filled)
        and 2 * sum(map(only_numbers, filled)) > len(filled)
    )


def _picture(picture: Picture, image: Image) -> list[str]:
    source = f"data:{image.media_type};base64,{base64.b64encode(image.data).decode('ascii')}"
    caption = [f"<figcaption>{escaped(picture.caption)}</figcaption>"] if picture.caption else []
    narrowest = image.width if picture.to_scale else round(_NARROWEST * image.width)
    enlarged = f"; --enlarged: {_ENLARGED * image.width}px" if picture.to_scale else ""
    # A <details> whose summary is the picture opens and closes by mouse and keyboard without a script.
    before, after = ('<details class="zoom"><summary>', "</summary></details>") if picture.to_scale else ("", "")
    return [
        f'<figure{_classes(half=image.width <= _HALF)} style="width: {image.width}px">',
        '<div class="wide" tabindex="0">',
        f'{before}<img src="{source}" alt="{escaped(picture.alt)}" width="{image.width}" height="{image.height}" '
        f'style="min-width: {narrowest}px{enlarged}">{after}',
        "</div>",
        *caption,
        "</figure>",
    ]
