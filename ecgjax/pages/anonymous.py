"""Takes out of a page and its figures what tells who made it, where and when (`traces.py`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from matplotlib.text import Text

from ecgjax.pages.page import Block, Folded, Page, Paragraph, Picture, Preformatted, Section, Table
from ecgjax.pages.traces import anonymous_caution, without_traces


def anonymous_page(page: Page) -> Page:
    """Returns a page without traces in its texts; texts in its figures are replaced in place."""
    return dataclasses.replace(
        page,
        title=without_traces(page.title),
        verdict=without_traces(page.verdict),
        cautions=[anonymous_caution(caution) for caution in page.cautions],
        summary=_blocks(page.summary),
        sections=[Section(without_traces(each.title), _blocks(each.blocks)) for each in page.sections],
    )


def _blocks(blocks: Sequence[Block]) -> list[Block]:
    return [_block(block) for block in blocks]


def _block(block: Block) -> Block:
    match block:
        case Paragraph(text):
            return Paragraph(without_traces(text))
        case Preformatted(text):
            return Preformatted(without_traces(text))
        case Table():
            rows = [tuple(map(without_traces, row)) for row in block.rows]
            header = tuple(map(without_traces, block.header))
            return Table(header=header, rows=rows, caption=without_traces(block.caption))
        case Picture():
            for written in block.figure.findobj(Text):
                if isinstance(written, Text):
                    written.set_text(without_traces(written.get_text()))
            return dataclasses.replace(block, alt=without_traces(block.alt), caption=without_traces(block.caption))
        case Folded(title, inside):
            return Folded(without_traces(title), _blocks(inside))
    raise TypeError(f"{type(block).__name__} is no block of a page")
