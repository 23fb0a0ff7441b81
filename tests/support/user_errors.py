"""What a command says of a user's error: one line on standard error, and status 2."""

import contextlib
import re

import pytest

from data_pipelines.command import EXIT_USER_ERROR


@contextlib.contextmanager
def told(capsys, message):
    """Expects that a command ends with one line of error in which a pattern is found."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        yield
    assert left.value.code == EXIT_USER_ERROR
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line), line
