"""A page as Markdown that is readable as plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ecgjax.pages.page import Block, Folded, Page, Paragraph, Picture, Preformatted, Table
from ecgjax.pages.texts import storable


def to_markdown(page: Page, *, files: Mapping[Picture, str]) -> str:
    """Returns a page as Markdown.

    Args:
        page: Page to write.
        files: Paths of the pictures' files, relative to the Markdown file.
    """
    verdict = [f"**{_inline(page.verdict)}**", ""] if page.verdict else []
    lines = [*verdict, f"# {_inline(page.title)}", ""]
    for caution in page.cautions:
        lines += [f"> **{_inline(caution)}**", ""]
    lines += _blocks(page.summary, files)
    for section in page.sections:
        lines += [f"## {_inline(section.title)}", "", *_blocks(section.blocks, files)]
    return "\n".join(lines)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns an aligned table that is also valid Markdown.

    Args:
        header: Names of the columns.
        rows: Cells of each row, as many as there are columns.
    """
    lines = [[_inline(cell).replace("|", r"\|") for cell in line] for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    filled = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([filled[0], rule, *filled[1:]])


def _blocks(blocks: Sequence[Block], files: Mapping[Picture, str]) -> list[str]:
    return [line for block in blocks for line in (*_block(block, files), "")]


def _block(block: Block, files: Mapping[Picture, str]) -> list[str]:
    match block:
        case Paragraph(text):
            return [_inline(text)]
        case Preformatted(text):
            # No run of backticks in the text may end the block.
            longest = max((len(run) for run in re.findall("`+", text)), default=0)
            fence = "`" * max(3, longest + 1)
            return [fence, storable(text), fence]
        case Table():
            caption = [f"{_inline(block.caption)}:", ""] if block.caption else []
            return [*caption, format_table(block.header, block.rows)]
        case Picture():
            alt = re.sub(r"([\[\]])", r"\\\1", _inline(block.alt))
            caption = ["", f"*{_inline(block.caption)}*"] if block.caption else []
            return [f"![{alt}]({files[block]})", *caption]
        case Folded(title, inside):
            return [f"<details><summary>{_inline(title)}</summary>", "", *_blocks(inside, files), "</details>"]
    raise TypeError(f"{type(block).__name__} is no block of a page")


def _inline(text: str) -> str:
    """Returns a text on one line, in which HTML tags and links to other places are escaped."""
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"[\r\n]+", " ", storable(text)))
    # A closing bracket before an address or a definition is escaped: '![x](http://…' would load what it names.
    return re.sub(r"\](?=[(\[:])", r"\\]", line)
