"""What a user does wrong is told in one line, by every command."""

import subprocess
import sys

import pytest

from tests.golden.commands import ROOT, modules_with_main
from tests.project.wrong_lines import LINES


def judge(*arguments):
    # A process of its own: it forks, which one in which JAX has started must not.
    command = [sys.executable, "-m", "tests.project.wrong_command_lines", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    assert done.stdout


def test_every_command_has_wrong_lines():
    assert LINES.keys() == set(modules_with_main())
    assert sum(map(len, LINES.values())) > 200
    for lines in LINES.values():
        assert len({str(line) for line in lines}) == len(lines) > 2


def test_a_wrong_line_of_every_command_and_what_users_mistake_most_are_told_in_one_line():
    judge("--first")


@pytest.mark.slow
def test_all_wrong_lines_are_told_in_one_line():
    judge()
