"""No table is wider than the page, and pictures that are true to scale can be enlarged without a script."""

import re

import numpy as np
from matplotlib.figure import Figure

from ecgjax.pages.html import to_html
from ecgjax.pages.images import Image
from ecgjax.pages.page import Page, Picture, Table
from ecgjax.pages.widths import PAGE_PX, narrowest, parts_that_fit

CELL = "0.744 [0.705, 0.783]"


def _table(columns, *, cell=CELL, rows=3):
    header = ("model", *(f"metric {number}" for number in range(columns)))
    return Table(header=header, rows=[(f"model {row}", *[cell] * columns) for row in range(rows)], caption="Metrics")


def test_a_table_of_few_columns_stays_whole():
    table = _table(4)
    assert parts_that_fit(table) == [table]


def test_a_wide_table_becomes_several_that_fit_and_lose_nothing():
    table = _table(23)
    parts = parts_that_fit(table)
    assert len(parts) > 2
    assert all(sum(narrowest(part)) <= PAGE_PX for part in parts)
    assert [name for part in parts for name in part.header[1:]] == list(table.header[1:])
    assert {part.header[0] for part in parts} == {"model"}
    assert [part.caption for part in parts[:2]] == ["Metrics", "Metrics, continued"]
    for row, whole in enumerate(table.rows):
        assert [cell for part in parts for cell in part.rows[row][1:]] == list(whole[1:])


def test_a_column_that_is_too_wide_by_itself_stays_one():
    (part,) = parts_that_fit(_table(1, cell="x" * 24), width=50)
    assert part.header == ("model", "metric 0")


def test_long_texts_are_broken_between_words_and_take_little_width():
    words = _table(1, cell="several words " * 30)
    assert sum(narrowest(words)) < 300
    # Digits of DejaVu Sans are .636 of the font's size wide: 14 px times 12 of them, and what stands between.
    assert 107 + 20 < narrowest(_table(1))[1] < 210


def _html(*blocks):
    images = {
        block: Image(data=b"x", kind="png", width=1123, height=794) for block in blocks if isinstance(block, Picture)
    }
    return to_html(Page(title="t", summary=blocks), images=images)


def test_every_table_of_a_page_fits_a_window_of_1280_pixels():
    assert _html(_table(23)).count("<table>") == len(parts_that_fit(_table(23)))


def test_what_may_be_wide_scrolls_in_a_container_of_its_own():
    figure = Figure()
    figure.subplots().plot(np.arange(3))
    text = _html(_table(23), Picture(figure=figure, alt="ECG", to_scale=True))
    for tag in ("table", "img"):
        for found in re.finditer(rf"<{tag}[ >]", text):
            assert '<div class="wide' in text[max(0, found.start() - 160) : found.start()]
    style = text[text.index("<style>") : text.index("</style>")]
    assert re.search(r"\.wide \{[^}]*overflow-x: auto", style)
    assert re.search(r"pre \{[^}]*overflow-x: auto", style)
    assert re.search(r"figure \{[^}]*max-width: 100%", style)


def test_a_picture_that_is_true_to_scale_is_never_shrunk_and_a_click_enlarges_it():
    text = _html(Picture(figure=Figure(), alt="ECG", to_scale=True))
    assert '<details class="zoom"><summary><img' in text
    assert 'style="min-width: 1123px; --enlarged: 2246px"' in text
    assert "<script" not in text
    assert "zoom" not in re.sub(
        r"<style>.*?</style>", "", _html(Picture(figure=Figure(), alt="curve")), flags=re.DOTALL
    )
