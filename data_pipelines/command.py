"""What all commands share: how they begin, how they parse their flags, and how they tell a user's error."""

from __future__ import annotations

import errno
import functools
import math
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from absl import app, flags, logging

from data_pipelines.errors import DataError
from data_pipelines.system.visible_text import visible

#: Exit status after an error in what the user asked for or gave.
EXIT_USER_ERROR = 2

#: Most processes that a command may be asked for: no machine has more cores, and many more would take it down.
MOST_WORKERS = 1024

# What the system says of a full disk, mostly without naming a file.
_FULL = (errno.ENOSPC, errno.EDQUOT)

_VERBOSITY = flags.FLAGS["verbosity"]

_HELP = re.compile(r"--?(help|helpshort|helpfull|helpxml|\?)(=.*)?")
_NOT_GIVEN = re.compile(r"flag --([\w.]+)=None: Flag --\1 must have a value other than None\.")


Value = TypeVar("Value")


def fail(message: str) -> NoReturn:
    """Ends a command with one line that tells a user's error, and status 2; ends of lines show as their escapes."""
    print(f"error: {visible(message)}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def parse_flags(argv: Sequence[str], *, known_only: bool = False) -> list[str]:
    """Parses the flags of a command line; `absl.app.run` takes it as `flags_parser`.

    Help leaves with status 0, and an error is one line with status 2, where absl has 1 and several lines for both.
    Refused are also values that no flag means: nothing at all, and numbers that are not finite.

    Args:
        argv: Command line, program first.
        known_only: Whether flags that are not defined are left for later, instead of an error.

    Returns:
        The arguments that are no flags, or are left, the program first.
    """
    try:
        rest: list[str] = flags.FLAGS(list(argv), known_only=known_only)
    except flags.Error as error:
        fail(f"{_NOT_GIVEN.sub(_asked_for, _in_one_line(error))} (--help tells more)")
    except OSError as error:  # Of --flagfile.
        fail(f"{error} (--help tells more)")
    except SystemExit as left:
        sys.exit(0 if any(map(_HELP.fullmatch, argv)) else left.code)
    for name in sorted(flags.FLAGS):
        # Leaves of a config have types and ranges of their own.
        if "." not in name and (reason := _why_meaningless(flags.FLAGS[name])):
            fail(f"{reason} (--help tells more)")
    return rest


def asks_for_help(argv: Sequence[str]) -> bool:
    """Returns whether a command line asks for help in words, and not in XML for programs."""
    asked = [found[1] for argument in argv if (found := _HELP.fullmatch(argument))]
    return bool(asked) and "helpxml" not in asked


def _why_meaningless(flag: flags.Flag) -> str:
    """Says why a flag's value means nothing, or nothing where it means something."""
    if not flag.present:
        return ""
    value: object = flag.value
    if isinstance(value, float) and not math.isfinite(value):
        return f"--{flag.name}={value} is no number that can be used; give a finite one"
    parts = value if isinstance(value, list) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    # What a shell makes of a variable that is not set: a path of it would be the folder that one is in.
    if value == [] != flag.default or (value != flag.default and any(not text.strip() for text in texts)):
        given = ",".join(texts)
        where = " between two commas" if given.strip(", ") and not isinstance(flag, flags.MultiFlag) else ""
        return f"--{flag.name}={given} has nothing{where} where a value belongs; give one, or leave the flag out"
    return ""


def _asked_for(found: re.Match[str]) -> str:
    return f"--{found[1]}=… must be given"


def _in_one_line(error: flags.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # An error within a config file comes with its stack trace, and ends with what it says.
    return lines[-1] if any(line.startswith("Traceback") for line in lines) else "; ".join(lines)


def output_folder(flag: str, given: str) -> Path:
    """Returns the path of a folder that a command is to write, before it does long work for it.

    Args:
        flag: Name of the flag that gives it.
        given: Value of the flag.

    Raises:
        DataError: It is in a bucket, or a file, or below one, or cannot be written.
    """
    if "://" in given:
        raise DataError(f"--{flag}={given}: is no folder of this machine; give one, such as where a bucket is mounted")
    path = Path(given)
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise DataError(f"--{flag}={given}: {existing} exists and is not a directory; name another")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise DataError(f"--{flag}={given}: {existing} cannot be written ({error.strerror}); name another") from error
    return path


def output_file(flag: str, given: str) -> Path:
    """Returns the path of a file that a command is to write, before it does long work for it.

    Args:
        flag: Name of the flag that gives it.
        given: Value of the flag.

    Raises:
        DataError: It is in a bucket, or a folder, or below a file, or cannot be written.
    """
    path = Path(given)
    if path.is_dir() or not path.name:
        raise DataError(f"--{flag}={given}: is a directory; name a file in it")
    output_folder(flag, given if "://" in given else str(path.parent))
    return path


def command(main: Callable[[], None]) -> Callable[[list[str]], None]:
    """Makes the `main(argv)` of a command out of a function that reads its flags.

    Errors in what the user gave, and those of the system (a full or read-only disk, or too little memory, is no fault
    of the program), end it with status 2 and one line, without a stack trace.

    Args:
        main: Function that does what the flags ask for; it may raise `DataError`, `OSError` or `MemoryError`.

    Returns:
        A function of the arguments that are no flags, the command's own name first, of which there may be no other.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str]) -> None:
        if len(argv) > 1:
            fail(f"unexpected argument {argv[1]}; every option starts with --")
        if not _VERBOSITY.present:
            logging.set_verbosity(logging.WARNING)  # TFDS tells its steps at INFO.
        try:
            main()
        except (DataError, OSError) as error:
            full = isinstance(error, OSError) and error.errno in _FULL
            fail(f"{error}{'; make room, then run the same command again' if full else ''}")
        except MemoryError as error:
            fail(f"too little memory for what was asked for ({error}); ask for less, or take a larger machine")

    return wrapped


def given(flag: flags.FlagHolder[Value | None]) -> Value:
    """Returns the value of a flag that must be given, as `run` has it.

    Raises:
        DataError: it was not given.
    """
    if flag.value is None:
        raise DataError(f"--{flag.name}=… must be given")
    return flag.value


def run(main: Callable[[list[str]], int | None], *, required: Sequence[str] = ()) -> None:
    """Runs a command from the console.

    Args:
        main: Function of the arguments that are no flags, such as `command` makes.
        required: Names of the flags that must be given. They are not said where the flags are defined, since that
            would hold for every program that imports the command's module.
    """
    flags.mark_flags_as_required(required)
    app.run(main, flags_parser=parse_flags)
