"""The command `ecgjax` and its subcommands."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.system.terminal_lines import fitted_help
from data_pipelines.version import __version__
from launch import commands

ROOT = Path(__file__).parents[2]


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", "from launch.commands import main; main()", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_every_command_of_the_packages_is_a_subcommand():
    found = set()
    for package in ("data_pipelines", "ecgjax", "launch"):
        for path in (ROOT / package).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            if '__name__ == "__main__"' in text:
                found.add(f"{package}.{path.stem}")
        found |= {f"{package}.{path.parent.name}" for path in (ROOT / package).glob("*/__main__.py")}
    deprecated = {"ecgjax.augmentations"}
    assert set(commands.COMMANDS.values()) == found - deprecated


def test_every_subcommand_has_one_line_in_the_overview(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = commands.overview().splitlines()
    for name, module in commands.COMMANDS.items():
        spec = importlib.util.find_spec(module)
        path = Path(spec.origin)
        path = path.with_name("__main__.py") if path.name == "__init__.py" else path
        first = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
        assert sum(line.split()[:1] == [name] for line in lines) == 1
        assert commands.purpose(module) == first.rstrip(".")


@pytest.mark.parametrize("columns", [80, 120, 40])
def test_the_overview_fits_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert max(map(len, commands.overview().splitlines())) <= min(columns, 100)


@pytest.mark.parametrize("module", commands.COMMANDS.values())
@pytest.mark.parametrize("columns", [80, 100])
def test_every_command_introduces_itself_on_lines_that_fit(module, columns):
    found = importlib.util.find_spec(module)
    if found.submodule_search_locations:
        found = importlib.util.find_spec(f"{module}.__main__")
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8")), clean=False)
    shown = fitted_help(text, columns=columns)
    assert max(map(len, shown.split("\n"))) <= columns
    assert [word for word in shown.split() if word != "\\"] == [word for word in text.split() if word != "\\"]
    assert fitted_help(text, columns=120) == text


def test_a_subcommand_is_the_module_with_its_flags_and_status():
    given = ("pretrain", "--config=simcrl", "--workdir=nowhere")
    by_module = subprocess.run(
        [sys.executable, "-m", "ecgjax.pretrain", *given[1:]], capture_output=True, text=True, cwd=ROOT, check=False
    )
    done = run(*given)
    assert (done.returncode, done.stderr) == (by_module.returncode, by_module.stderr)
    assert done.returncode == 2
    assert "simclr" in done.stderr


def test_help_of_a_subcommand_is_its_own():
    done = run("help", "verify")
    assert done.returncode == 0
    assert "--dataset" in done.stdout
    assert done.stdout == run("verify", "--help").stdout


def test_a_command_that_does_not_exist_is_named_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as left:
        commands.main(["pretain"])
    assert left.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: ecgjax has no command 'pretain'; did you mean pretrain? ecgjax help lists all\n"
    )


def test_a_reader_that_leaves_early_makes_no_trace():
    code = "import sys; from launch.commands import main; sys.stdin.read(); main(['help'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()


@pytest.mark.parametrize("words", [[], ["--help"], ["help"], ["-h"]])
def test_without_a_command_the_overview_is_printed(words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ecgjax", *words])
    commands.main()
    assert capsys.readouterr().out == commands.overview() + "\n"


def test_the_version_is_told(capsys):
    commands.main(["--version"])
    assert capsys.readouterr().out == f"ecgjax {__version__}\n"


def test_the_help_of_an_ablation_lists_its_flags():
    done = run("help", "ablate")
    assert "--sweep" in done.stdout
    assert "--array" in done.stdout
