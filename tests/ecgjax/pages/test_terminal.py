"""Tables and progress bars fit the terminal."""

import ast
import re
from pathlib import Path

import pytest

from ecgjax.pages.terminal import COLUMNS, terminal_table, wrapped

HEADER = (
    "model", "AUROC [95 % interval]", "pretrained minus this model", "AUPRC", "validation metric (what was chosen)",
)  # fmt: skip
ROWS = [
    ("pretrained, linear probe", "0.744 [0.705, 0.783]", "", "0.334 [0.276, 0.404]", "0.760 (C = 0.1 of 13)"),
    ("random initialisation, linear probe", "0.650 [0.613, 0.687]", "+0.094 [+0.054, +0.132]", "0.254 [0.206, 0.311]",
     "0.660 (C = 0.001 of 13)"),
]  # fmt: skip
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (HEADER, ROWS),
        (("arm", *(f"task {number} at 10 % (macro AUROC)" for number in range(9))),
         [("simclr.py:small augment.vcg.enabled=True", *["0.744 [0.705, 0.783] ± 0.012"] * 9)]),
        (("a" * 100, "b" * 100), [("c" * 200, "d" * 300)]),
        (("a",), []),
    ],
)  # fmt: skip
def test_no_line_of_a_table_is_wider_than_a_terminal(header, rows):
    text = terminal_table(header, rows)
    assert max(map(len, text.splitlines())) <= COLUMNS
    # Nothing is lost: without blanks every cell is there.
    for cell in (*header, *(cell for row in rows for cell in row)):
        assert all(word in text or len(word) > 25 for word in cell.split())


def test_estimate_and_difference_stand_side_by_side_and_others_below():
    first, second = terminal_table(HEADER, ROWS).split("\n\n")
    assert "0.650 [0.613, 0.687]  +0.094 [+0.054, +0.132]" in first
    assert "AUPRC" in second
    assert "pretrained, linear probe" in first
    assert "pretrained, linear probe" in second


def test_a_table_that_fits_with_narrower_titles_stays_whole():
    header = ("share of labels", "model", "minus", "difference in AUROC [95 % interval over patients]")
    row = ("0.01", "random initialisation, linear probe", "intervals and amplitudes, boosted trees", ROWS[1][2])
    text = terminal_table(header, [row])
    assert "\n\n" not in text
    assert ROWS[1][2] in text
    assert max(map(len, text.splitlines())) <= COLUMNS


def test_what_a_table_holds_cannot_steer_the_terminal():
    assert "\x1b" not in terminal_table(("a\x1b[2J",), [("b\x07",)])


def test_the_tables_of_the_readme_fit_a_terminal():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    outputs = [block for language, block in re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL) if not language]
    assert outputs
    assert max(len(line) for block in outputs for line in block.splitlines()) <= COLUMNS


def test_a_verdict_is_broken_into_lines():
    assert max(map(len, wrapped("word " * 100).splitlines())) <= COLUMNS


def test_no_command_prints_a_table_of_a_page():
    for package in ("data_pipelines", "ecgjax", "launch"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "say", "print_report"):
                    assert "format_table(" not in ast.unparse(node), f"{path}: tables of pages are too wide"


def test_progress_bars_follow_the_width_of_the_terminal():
    calls = [
        node
        for package in ("data_pipelines", "ecgjax", "launch")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "tqdm"
    ]
    assert len(calls) >= 5
    for call in calls:
        assert any(keyword.arg == "dynamic_ncols" for keyword in call.keywords), ast.unparse(call)
