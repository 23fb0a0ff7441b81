"""What all commands share: arguments without a flag, errors in one line, required flags, quiet libraries."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from absl import app, flags, logging
from absl.testing import flagsaver

from data_pipelines.command import command
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
def test_errors_of_the_user_and_the_system_are_one_line(error):
    with pytest.raises(SystemExit) as caught:
        raising(error)(["measure"])
    assert caught.value.code == "error: a.npy: gone"


def test_a_full_disk_is_told_with_what_to_do():
    with pytest.raises(SystemExit) as caught:
        raising(OSError(errno.ENOSPC, "No space left on device"))(["measure"])
    assert caught.value.code.endswith("No space left on device; make room, then run the same command again")


def test_other_errors_keep_their_trace():
    with pytest.raises(KeyError):
        raising(KeyError("gone"))(["measure"])


def test_arguments_without_a_flag_are_refused():
    with pytest.raises(app.UsageError, match=r"^unexpected argument DIR; every option starts with --$"):
        raising(AssertionError("ran"))(["measure", "DIR"])


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
        ([], 1, "flag --dataset=None: Flag --dataset must have a value other than None."),
        pytest.param(
            ["--dataset=nowhere", "DIR"],
            1,
            "unexpected argument DIR; every option starts with --",
            marks=pytest.mark.slow,
        ),
        (["--dataset=nowhere"], 1, "error: nowhere: no such directory"),
    ],
)
def test_from_the_console(arguments, status, message):
    done = subprocess.run(
        [sys.executable, "-m", "data_pipelines.inspect", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == status
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
