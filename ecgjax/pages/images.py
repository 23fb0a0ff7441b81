"""Pictures as bytes, SVG where that is small and PNG otherwise."""

from __future__ import annotations

import dataclasses
import io
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

from ecgjax.pages.page import Picture

#: Size in bytes above which an SVG (clouds of points, long signals) is replaced by a PNG.
MAX_SVG_BYTES = 120_000

#: CSS pixels per inch.
_CSS_DPI = 96


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
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
    """Draws a picture for a page."""
    width, height = picture.figure.get_size_inches() * _CSS_DPI * picture.scale
    size = {"width": round(width), "height": round(height)}
    if picture.vector:
        svg = _svg(picture.figure)
        if len(svg) <= MAX_SVG_BYTES:
            return Image(data=svg, kind="svg", **size)
    # Matplotlib's version would otherwise be part of the picture, and equal pictures differ by it.
    png = _saved(picture.figure, format="png", dpi=picture.dpi, metadata={"Software": None})
    return Image(data=png, kind="png", **size)


def _svg(figure: Figure) -> bytes:
    # Without a fixed salt the ids in an SVG are random, and two reports of one result would differ.
    with matplotlib.rc_context({"svg.hashsalt": "ecgjax"}):
        return _saved(figure, format="svg", metadata={"Date": None, "Creator": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, **options)
    return file.getvalue()
