"""What all commands share: arguments without a flag, errors in one line, required flags, quiet libraries."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags, logging
from absl.testing import flagsaver

from data_pipelines.command import (
    ERROR_FILE_VARIABLE,
    EXIT_USER_ERROR,
    command,
    fail,
    output_file,
    output_folder,
    parse_flags,
)
from data_pipelines.errors import DataError, RecordError
from tests.support.terminals import Terminal, on_terminal

REPOSITORY = Path(__file__).parents[2]


def raising(error):
    @command
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    "error", [DataError("a.npy: gone"), RecordError("a.npy: gone", reason="nan"), OSError("a.npy: gone")]
)
def test_errors_of_the_user_and_the_system_are_one_line(error, capsys):
    with pytest.raises(SystemExit) as caught:
        raising(error)(["measure"])
    assert caught.value.code == EXIT_USER_ERROR == 2
    assert capsys.readouterr().err == "error: a.npy: gone\n"


def test_a_full_disk_is_told_with_what_to_do(capsys):
    with pytest.raises(SystemExit):
        raising(OSError(errno.ENOSPC, "No space left on device"))(["measure"])
    assert capsys.readouterr().err.endswith("No space left on device; make room, then run the same command again\n")


def test_too_little_memory_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit):
        raising(MemoryError("Unable to allocate 24.8 GiB"))(["measure"])
    assert capsys.readouterr().err.startswith(
        "error: too little memory for what was asked for (Unable to allocate 24.8"
    )


def test_other_errors_keep_their_trace():
    with pytest.raises(KeyError):
        raising(KeyError("gone"))(["measure"])


def test_an_error_is_left_for_the_command_that_asks_for_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(tmp_path / "error"))
    with pytest.raises(SystemExit):
        fail("no\nway")
    assert (tmp_path / "error").read_text(encoding="utf-8") == r"no\nway"
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(tmp_path / "nowhere" / "error"))
    with pytest.raises(SystemExit):
        fail("no way")
    assert capsys.readouterr().err == "error: no\\nway\nerror: no way\n"


def test_an_error_is_broken_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    with pytest.raises(SystemExit):
        raising(DataError(f"--out=x: {'is taken ' * 20}; name another"))(["measure"])
    lines = shown.getvalue().splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("  ") for line in lines[1:])


def test_an_unknown_flag_is_told_with_what_is_alike_and_nothing_far_off(three_flags, capsys):
    for given, end in (("--sharre=1", "; did you mean --share? ("), ("--zzzyx=1", " (")):
        with pytest.raises(SystemExit):
            parse_flags(["command", given])
        told = capsys.readouterr().err
        assert told == f"error: Unknown command line flag '{given[2:-2]}'{end}--help tells more)\n"


def test_arguments_without_a_flag_are_refused(capsys):
    with pytest.raises(SystemExit):
        raising(AssertionError("ran"))(["measure", "DIR"])
    assert capsys.readouterr().err == "error: unexpected argument DIR; every option starts with --\n"


@pytest.mark.parametrize(("arguments", "level"), [([], logging.WARNING), (["--verbosity=1"], logging.DEBUG)])
def test_libraries_are_quiet_unless_asked(arguments, level):
    seen = []

    @command
    def main():
        seen.append(logging.get_verbosity())

    with flagsaver.flagsaver():
        flags.FLAGS(["measure", *arguments], known_only=True)
        logging.set_verbosity(logging.DEBUG)
        main(["measure"])
    assert seen == [level]


def test_an_error_is_one_line_whatever_is_in_a_name(capsys):
    with pytest.raises(SystemExit):
        raising(DataError("a\nerror: all is well: gone"))(["measure"])
    assert capsys.readouterr().err == "error: a\\nerror: all is well: gone\n"


@pytest.fixture
def three_flags():
    """Flags of a command, gone after the test."""
    defined = ("ends", "share", "places")
    flags.DEFINE_string("ends", None, "A path.")
    flags.DEFINE_float("share", 0.5, "A number.", lower_bound=0, upper_bound=1)
    flags.DEFINE_list("places", ["a", "b"], "Names.")
    yield
    for name in defined:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--ends=", "--ends= has nothing where a value belongs"),
        ("--ends= ", "--ends=  has nothing where a value belongs"),
        ("--share=nan", "--share=nan is no number that can be used; give a finite one"),
        ("--share=inf", "flag --share=inf"),
        ("--places=", "--places= has nothing where a value belongs"),
        ("--places=a,,b", "--places=a,,b has nothing between two commas where a value belongs"),
        ("--flagfile=nowhere.txt", "nowhere.txt"),
    ],
)
def test_values_that_no_flag_means_are_refused(three_flags, argument, message, capsys):
    with pytest.raises(SystemExit) as left:
        parse_flags(["measure", argument])
    assert left.value.code == EXIT_USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert line.endswith("(--help tells more)")


def test_values_that_mean_something_are_taken(three_flags):
    assert parse_flags(["measure", "--ends=a b", "--share=1", "--places=c", "rest"]) == ["measure", "rest"]
    assert (flags.FLAGS.ends, flags.FLAGS.share, flags.FLAGS.places) == ("a b", 1.0, ["c"])


def test_what_is_to_be_written_is_looked_at_before_the_work(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert output_folder("out", str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert output_file("out", str(tmp_path / "a" / "b.npz")) == tmp_path / "a" / "b.npz"
    assert output_file("out", str(file)) == file
    assert list(tmp_path.iterdir()) == [file]
    for check in (output_folder, output_file):
        with pytest.raises(DataError, match=r"--out=gs://a/b: .*mounted"):
            check("out", "gs://a/b")
        with pytest.raises(DataError, match=r"file exists and is not a directory; name another"):
            check("out", str(file / "below" / "it"))
        with pytest.raises(DataError, match=r"--out=/proc.*cannot be written"):
            check("out", "/proc/new/folder")
    with pytest.raises(DataError, match="is a directory; name a file in it"):
        output_file("out", str(tmp_path))


# More of it, without an interpreter for each, in tests/project/wrong_lines_of_data.py.
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--dataset=nowhere"], 2, "error: nowhere: no such directory"),
        pytest.param(["--help"], 0, "--dataset: Directory of a prepared data set.", marks=pytest.mark.slow),
    ],
)
def test_from_the_console(arguments, status, message):
    done = subprocess.run(
        [sys.executable, "-m", "data_pipelines.inspect", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == status
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_help_is_fitted_to_a_terminal_and_to_nothing_else():
    told = [sys.executable, "-m", "data_pipelines.verify", "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    piped = subprocess.run(told, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    on_60 = on_terminal(told, columns=60, cwd=REPOSITORY, env=environment)
    assert max(map(len, on_60.splitlines())) <= 60 < 100 < max(map(len, piped.splitlines()))
    introductions = [text.partition("\nflags:")[0] for text in (on_60, piped)]
    assert introductions[0].replace("\\\n", "").split() == introductions[1].split()


@pytest.mark.parametrize("command", ["ecgjax.pretrain", "ecgjax.embed", "data_pipelines.build"])
def test_a_help_that_is_not_read_to_its_end_is_no_error(command):
    line = f"{sys.executable} -m {command} --help | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
