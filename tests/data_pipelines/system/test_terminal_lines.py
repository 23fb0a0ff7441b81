"""Reports fit a terminal, and errors fit it where there is one."""

import io
import shlex

import pytest

from data_pipelines.system.terminal_lines import COLUMNS, broken, columns_of, fitted_help, for_stream
from tests.support.terminals import Terminal


def test_a_value_goes_on_below_itself_and_a_sentence_further_in():
    value = "one two three " * 12
    lines = broken(f"data/set:\n  recordings in       {value}\n  note: {value}\n{value}").split("\n")
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0] == "data/set:"
    assert lines[1].startswith("  recordings in       one two")
    assert lines[2].startswith(" " * 22 + "t") or lines[2].startswith(" " * 22 + "o")
    (note,) = [number for number, line in enumerate(lines) if line.startswith("  note: ")]
    assert lines[note + 1].startswith("    ")
    assert lines[note + 1][4] != " "
    assert lines[-1].startswith("  ")
    assert " ".join(lines).split() == f"data/set: recordings in {value} note: {value} {value}".split()


def test_lines_that_fit_and_paths_stay_as_they_are():
    table = "  label   fold 1   fold 2\n  af      3/40     4/41\n"
    assert broken(table) == table
    path = "/".join(["folder"] * 30)
    assert path in broken(f"error: {path}/file.txt: is no recording; give one of those that are there")
    assert broken(f"  file                {path}").split("\n")[-1].endswith(path)


@pytest.mark.parametrize(("stream", "lines"), [(Terminal(), 3), (io.StringIO(), 1)])
def test_an_error_is_broken_on_a_terminal_alone(stream, lines):
    error = f"error: --out=x: {'exists ' * 25}; name another"
    shown = for_stream(error, stream)
    assert shown.count("\n") + 1 == lines
    assert " ".join(shown.split()) == " ".join(error.split())


def test_a_paragraph_of_a_help_is_filled_anew_and_one_that_fits_stays():
    long, short = "Of a longer recording ten seconds are kept, or all.\n" * 2, "Two lines\nthat fit.\n"
    shown = fitted_help(f"{long}\n{short}", columns=45)
    assert shown == (
        "Of a longer recording ten seconds are kept,\nor all. Of a longer recording ten seconds are\nkept, or all.\n"
        f"\n{short}"
    )


def test_an_example_of_a_help_is_still_one_command_when_it_is_broken():
    command = "python -m ecgjax.evaluate --task='lvef < 40' --workdir=runs/mine --out=runs/elsewhere"
    lines = fitted_help(f"  {command}   # two words", columns=50).split("\n")
    assert lines == [
        "  python -m ecgjax.evaluate --task='lvef < 40' \\", "      --workdir=runs/mine --out=runs/elsewhere",
        "      # two words",
    ]  # fmt: skip
    assert shlex.split("\n".join(lines).replace("\\\n", ""), comments=True) == shlex.split(command)


def test_an_example_on_several_lines_goes_on_where_it_did():
    example = "  run --first=1 --second=2 \\\n      --third=3 --fourth=4 --fifth=5"
    assert fitted_help(example, columns=27).split("\n") == [
        "  run --first=1 \\", "      --second=2 \\", "      --third=3 \\", "      --fourth=4 --fifth=5",
    ]  # fmt: skip


def test_the_width_is_that_of_a_terminal_and_of_nothing_else(monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    assert columns_of(Terminal()) == 72
    assert columns_of(io.StringIO()) is None
    monkeypatch.setenv("COLUMNS", "3")
    assert columns_of(Terminal()) == 40
