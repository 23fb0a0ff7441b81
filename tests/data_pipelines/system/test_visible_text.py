"""Names and labels of strangers are shown as they are: nothing in them is obeyed."""

import csv
import io
import json

import pytest

from data_pipelines.system.visible_text import storable_text, table_cell, visible, visible_json
from ecgjax.pages.html import escaped
from ecgjax.pages.markdown import format_table

#: Text, and what is shown of it.
HIDDEN = {
    "\x1b[2J": r"\x1b[2J",
    "a\x07b": r"a\x07b",
    "a\rb": r"a\rb",
    "a\nb": r"a\nb",
    "\x9b31m": r"\x9b31m",
    "evil\u202efdp.exe": r"evil\u202efdp.exe",
    "\u2066x\u2069": r"\u2066x\u2069",
    "caf\udce9": r"caf\xe9",
    "x\u2028y": r"x\u2028y",
    "\U000e0041": r"\U000e0041",
}


@pytest.mark.parametrize(("text", "shown"), HIDDEN.items(), ids=ascii)
def test_what_cannot_be_seen_is_escaped(text, shown):
    assert visible(text) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["plain", "Müller", "心电图", "ECG-1 (µV) ±0,5 · a b", "👩‍⚕️", "שלום", "می‌شود"])
def test_what_can_be_seen_stays(text):
    assert visible(text) == storable_text(text) == text


def test_a_name_cannot_pass_for_a_line_of_the_program():
    assert visible("a\nerror: all is well\x1b[0m") == r"a\nerror: all is well\x1b[0m"


def test_json_holds_the_same_in_escapes_of_its_own():
    value = {"id": "a\x9b\u202e\x1b\udce9é", "n": [1, 2.5]}
    text = visible_json(value)
    assert json.loads(text) == value
    assert "é" in text.encode("utf-8").decode()
    assert not set("\x9b\u202e\x1b") & set(text)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_no_cell_is_a_formula(text):
    assert table_cell(text).startswith("'")
    file = io.StringIO()
    csv.writer(file).writerow([table_cell(text), "x"])
    (row,) = csv.reader(io.StringIO(file.getvalue()))
    assert row == [table_cell(text), "x"]
    assert file.getvalue().count("\n") == 1


@pytest.mark.parametrize("text", ["<script>x</script>", '"onload="x', "a\u202eb", "\x1b[1m", "&lt;"])
def test_nothing_in_a_page_is_markup(text):
    assert not set('<>"\x1b\u202e') & set(escaped(text))
    assert "&amp;lt;" in escaped("&lt;")


@pytest.mark.parametrize(
    "text", ["![x](http://e.org/p.png)", "[x](javascript:a)", "[x][y]", "[x]: http://e.org", "<a href=x>"]
)
def test_nothing_in_markdown_loads_or_links(text):
    table = format_table(["name"], [[text]])
    assert not any(mark in table.replace("\\]", "") for mark in ("](", "][", "]:", "<a"))


def test_intervals_in_markdown_stay_as_they_are():
    assert "0.91 [0.89, 0.93] (12 patients)" in format_table(["AUROC"], [["0.91 [0.89, 0.93] (12 patients)"]])
