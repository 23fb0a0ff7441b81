"""The files of a page: `report.html`, which is self-contained, and `report.md` with its pictures beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ecgjax.pages.anonymous import anonymous_page
from ecgjax.pages.html import to_html
from ecgjax.pages.images import image_of
from ecgjax.pages.markdown import to_markdown
from ecgjax.pages.page import Block, Folded, Page, Picture
from ecgjax.system.files import write_atomically


class Written(NamedTuple):
    """Paths of a written page.

    Attributes:
        html: Self-contained HTML file.
        markdown: Markdown file of the same page, for editors and version control.
    """

    html: Path
    markdown: Path


def write_page(page: Page, folder: Path, *, stem: str = "report", anonymous: bool = False) -> Written:
    """Writes a page into a folder as HTML and as Markdown, with the pictures as files for the latter.

    Args:
        page: Page to write.
        folder: Existing folder; pictures become `figure_1.svg`, `figure_2.png` …
        stem: Names of the two files without extension.
        anonymous: Whether traces of machine, user and time are taken out (`traces.py`), also in the figures.

    Returns:
        The paths of both files.
    """
    page = anonymous_page(page) if anonymous else page
    images, files = {}, {}
    # A picture that stands in two places has one file.
    for number, picture in enumerate(dict.fromkeys(pictures(page)), start=1):
        image = image_of(picture)
        images[picture], files[picture] = image, f"figure_{number}.{image.kind}"
        (folder / files[picture]).write_bytes(image.data)
    written = Written(html=folder / f"{stem}.html", markdown=folder / f"{stem}.md")
    write_atomically(written.html, to_html(page, images=images))
    write_atomically(written.markdown, to_markdown(page, files=files))
    return written


def pictures(page: Page) -> Iterator[Picture]:
    """Yields the pictures of a page in order, those in folded blocks included."""
    yield from _pictures(page.summary)
    for section in page.sections:
        yield from _pictures(section.blocks)


def _pictures(blocks: Sequence[Block]) -> Iterator[Picture]:
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        elif isinstance(block, Folded):
            yield from _pictures(block.blocks)
