"""What all commands share: arguments without a flag, errors in one line, required flags, quiet libraries."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags, logging
from absl.testing import flagsaver

from data_pipelines.command import EXIT_USER_ERROR, command
from data_pipelines.errors import DataError, RecordError

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


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "error: --dataset=… must be given (--help tells more)\n"),
        (["--help"], 0, "--dataset: Directory of a prepared data set."),
        pytest.param(
            ["--dataset=nowhere", "DIR"],
            2,
            "unexpected argument DIR; every option starts with --",
            marks=pytest.mark.slow,
        ),
        (["--dataset=nowhere"], 2, "error: nowhere: no such directory"),
    ],
)
def test_from_the_console(arguments, status, message):
    done = subprocess.run(
        [sys.executable, "-m", "data_pipelines.inspect", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == status
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
