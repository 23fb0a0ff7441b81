"""What the commands of the data pipelines share: how they begin, and how they tell a user's error."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from data_pipelines.errors import DataError
from data_pipelines.system.visible_text import visible_lines

# What the system says of a full disk, mostly without naming a file.
_FULL = (errno.ENOSPC, errno.EDQUOT)

_VERBOSITY = flags.FLAGS["verbosity"]


def command(main: Callable[[], None]) -> Callable[[list[str]], None]:
    """Makes the `main(argv)` of a command out of a function that reads its flags.

    Errors in what the user gave, and those of the system (a full or read-only disk is no fault of the program), end it
    with status 1 and one line, without a stack trace.

    Args:
        main: does what the flags ask for; may raise `DataError` or `OSError`.

    Returns:
        Takes the arguments that are no flags, the command's own name first; raises `UsageError` where there are more.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected argument {argv[1]}; every option starts with --")
        if not _VERBOSITY.present:
            logging.set_verbosity(logging.WARNING)  # TFDS tells its steps at INFO.
        try:
            main()
        except (DataError, OSError) as error:
            full = isinstance(error, OSError) and error.errno in _FULL
            remedy = "; make room, then run the same command again" if full else ""
            sys.exit(f"error: {visible_lines(str(error))}{remedy}")

    return wrapped


def run(main: Callable[[list[str]], None], *, required: Sequence[str]) -> None:
    """Runs a command from the console.

    Args:
        main: what `command` made.
        required: names of the flags that must be given; not said where they are defined, since it would then hold for
            every program that imports the command's module.
    """
    flags.mark_flags_as_required(required)
    app.run(main)
