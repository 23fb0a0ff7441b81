"""Draws pictures as SVG if that is small, and as PNG otherwise."""

from __future__ import annotations

import io
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from ecgjax.pages.page import Picture

#: Size in bytes above which an SVG (clouds of points, long signals) is replaced by a PNG.
MAX_SVG_BYTES = 120_000

#: CSS pixels per inch.
_CSS_DPI = 96


class Image(NamedTuple):
    """A picture as it is shown.

    Attributes:
        data: Bytes of the file.
        kind: Format of the file, `"svg"` or `"png"`.
        width: Width on the page in CSS pixels.
        height: Height on the page in CSS pixels.
    """

    data: bytes
    kind: Literal["svg", "png"]
    width: int
    height: int

    @property
    def media_type(self) -> str:
        """MIME type of `data`."""
        return "image/svg+xml" if self.kind == "svg" else "image/png"


def image_of(picture: Picture) -> Image:
    """Returns the drawn image of a picture, with its size on the page."""
    width, height = picture.figure.get_size_inches() * _CSS_DPI * picture.scale
    size = {"width": round(width), "height": round(height)}
    if picture.vector:
        # Without a fixed salt the ids in an SVG are random, and two reports of one result would differ.
        with matplotlib.rc_context({"svg.hashsalt": "ecgjax"}):
            svg = _saved(picture.figure, format="svg", metadata={"Date": None, "Creator": None})
        if len(svg) <= MAX_SVG_BYTES:
            return Image(data=svg, kind="svg", **size)
    # Matplotlib's version would otherwise be part of the picture, and equal pictures differ by it.
    png = _saved(picture.figure, format="png", dpi=picture.dpi, metadata={"Software": None})
    return Image(data=png, kind="png", **size)


def _saved(figure: Figure, **settings: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, **settings)
    return file.getvalue()
