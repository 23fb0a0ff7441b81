"""What all commands share: how they start, parse their flags, and report a user's error."""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from absl import app, flags, logging
from tqdm import tqdm

from data_pipelines.errors import DataError
from data_pipelines.system import stop_signals
from data_pipelines.system.blocked_output import give_up_blocked_output
from data_pipelines.system.exit_status import ExitStatus
from data_pipelines.system.near_names import meant
from data_pipelines.system.terminal_lines import broken, columns_of, fitted_help, for_stream
from data_pipelines.system.visible_text import visible, visible_report

#: Exit status after an error in what the user asked for or gave.
EXIT_USER_ERROR = ExitStatus.USER_ERROR

#: Largest number of processes that a command accepts: no machine has more cores, and many more would take it down.
MOST_WORKERS = 1024

#: Variable that names a file for the error that ends a command, which the command that started it then tells too.
ERROR_FILE_VARIABLE = "ECGJAX_ERROR_FILE"

# These are the system's errors for a full disk, which mostly name no file.
_FULL = (errno.ENOSPC, errno.EDQUOT)

_VERBOSITY = flags.FLAGS["verbosity"]

_HELP = re.compile(r"--?(help|helpshort|helpfull|helpxml|\?)(=.*)?")
_NOT_GIVEN = re.compile(r"flag --([\w.]+)=None: Flag --\1 must have a value other than None\.")

#: What absl puts before a message on several flags: their values.
_OF_SEVERAL = re.compile(r"flags (?:[\w.]+=\S*, )*[\w.]+=\S*: ")


Value = TypeVar("Value")


def fail(message: str, status: ExitStatus = ExitStatus.USER_ERROR) -> NoReturn:
    """Prints an error as one line, in which line ends show as escapes, and ends the process.

    On a terminal the line is broken between words where it is longer than 80 columns.

    Args:
        message: Error, with what the user can do about it.
        status: Exit status; by default that of an error in what the user asked for or gave.
    """
    print(for_stream(f"error: {visible(message)}", sys.stderr), file=sys.stderr)
    if path := os.environ.get(ERROR_FILE_VARIABLE):
        with contextlib.suppress(OSError):
            Path(path).write_text(visible(message), encoding="utf-8")
    sys.exit(int(status))


def print_report(text: str) -> None:
    """Prints what a command reports, made visible and on lines that a terminal shows whole.

    Args:
        text: Report. One of several lines is broken wherever it goes; a single line is broken on a terminal alone.
    """
    shown = visible_report(text)
    print(broken(shown) if "\n" in shown else for_stream(shown, sys.stdout))


def parse_flags(argv: Sequence[str], *, known_only: bool = False) -> list[str]:
    """Parses the flags of a command line; `absl.app.run` takes it as `flags_parser`.

    Help exits with status 0, and an error is one line with status 2, where absl has status 1 and several lines for
    both. Empty values and numbers that are not finite are errors too.

    Args:
        argv: Command line, with the program first.
        known_only: Whether flags that are not defined are left for later, instead of an error.

    Returns:
        The arguments that are no flags, or are left for later, with the program first.
    """
    if asks_for_help(argv):
        _fit_introduction()
    try:
        rest: list[str] = flags.FLAGS(list(argv), known_only=known_only)
    except flags.UnrecognizedFlagError as error:
        # The parser's own suggestions are all names that begin about alike.
        alike = meant(error.flagname, [name for name in flags.FLAGS if "." not in name], prefix="--")
        fail(f"Unknown command line flag '{error.flagname}'{alike} (--help tells more)")
    except flags.Error as error:
        text = _OF_SEVERAL.sub("", _NOT_GIVEN.sub(r"--\1=… must be given", _in_one_line(error)))
        fail(f"{text} (--help tells more)")
    except BrokenPipeError:  # Nobody reads the help to its end.
        give_up_blocked_output()
        sys.exit(0)
    except OSError as error:  # This comes from --flagfile.
        fail(f"{error} (--help tells more)")
    except SystemExit as left:
        give_up_blocked_output()
        sys.exit(0 if any(map(_HELP.fullmatch, argv)) else left.code)
    for name in sorted(flags.FLAGS):
        # Leaves of a config check types and ranges themselves.
        if "." not in name and (reason := _why_meaningless(flags.FLAGS[name])):
            fail(f"{reason} (--help tells more)")
    return rest


def _fit_introduction() -> None:
    """Fits the introduction of `--help` to the terminal, where there is one.

    The flags below it are printed by absl in the width of the terminal, and the docstring of the main module above
    them as it stands.
    """
    main, columns = sys.modules["__main__"], columns_of(sys.stdout)
    if main.__doc__ and columns:
        main.__doc__ = fitted_help(main.__doc__, columns=columns)


def asks_for_help(argv: Sequence[str]) -> bool:
    """Returns whether a command line asks for help as text, and not as XML for programs."""
    asked = [found[1] for argument in argv if (found := _HELP.fullmatch(argument))]
    return bool(asked) and "helpxml" not in asked


def _why_meaningless(flag: flags.Flag) -> str:
    """Returns why a flag's value is not allowed (empty, or not finite); empty if the value is allowed."""
    if not flag.present:
        return ""
    value: object = flag.value
    if isinstance(value, float) and not math.isfinite(value):
        return f"--{flag.name}={value} is no number that can be used; give a finite one"
    parts = value if isinstance(value, list) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    # A shell makes this of a variable that is not set; as a path it would mean the current folder.
    if value == [] != flag.default or (value != flag.default and any(not text.strip() for text in texts)):
        given = ",".join(texts)
        where = " between two commas" if given.strip(", ") and not isinstance(flag, flags.MultiFlag) else ""
        return f"--{flag.name}={given} has nothing{where} where a value belongs; give one, or leave the flag out"
    return ""


def _in_one_line(error: flags.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # An error within a config file comes with its stack trace, and its message is the last line.
    return lines[-1] if any(line.startswith("Traceback") for line in lines) else "; ".join(lines)


def output_folder(flag: str, given: str) -> Path:
    """Returns the path of a folder that a command will write, after checking that it can be written.

    Args:
        flag: Name of the flag that gives the folder.
        given: Value of the flag.

    Raises:
        DataError: The path is in a bucket, is a file or lies below one, or cannot be written.
    """
    if "://" in given:
        raise DataError(f"--{flag}={given}: is no folder of this machine; give one, such as where a bucket is mounted")
    path = Path(given)
    # The folder may not exist yet, so what is tried is the nearest one that does.
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise DataError(f"--{flag}={given}: {existing} exists and is not a directory; name another")
    try:
        # Rights alone do not tell: a disk may be mounted read-only, and root may write anywhere by rights.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise DataError(f"--{flag}={given}: {existing} cannot be written ({error.strerror}); name another") from error
    return path


def output_file(flag: str, given: str) -> Path:
    """Returns the path of a file that a command will write, after checking that it can be written.

    Args:
        flag: Name of the flag that gives the file.
        given: Value of the flag.

    Raises:
        DataError: The path is in a bucket, is a folder or lies below a file, or cannot be written.
    """
    path = Path(given)
    if path.is_dir() or not path.name:
        raise DataError(f"--{flag}={given}: is a directory; name a file in it")
    output_folder(flag, given if "://" in given else str(path.parent))
    return path


def command(main: Callable[[], None]) -> Callable[[list[str]], None]:
    """Makes the `main(argv)` of a command from a function that reads its flags.

    Errors in what the user gave, and those of the system (a full or read-only disk, or too little memory, is no fault
    of the program), end the command with status 2 and one line, without a stack trace.

    Args:
        main: Function that does what the flags ask for; it may raise `DataError`, `OSError` or `MemoryError`.

    Returns:
        Function of the arguments that are no flags, of which there may be none but the command's own name.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str]) -> None:
        if len(argv) > 1:
            fail(f"unexpected argument {argv[1]}; every option starts with --")
        if not _VERBOSITY.present:
            logging.set_verbosity(logging.WARNING)  # TFDS logs its steps at INFO.
        try:
            main()
        except (DataError, OSError) as error:
            full = isinstance(error, OSError) and error.errno in _FULL
            fail(f"{error}{'; make room, then run the same command again' if full else ''}")
        except MemoryError as error:
            fail(f"too little memory for what was asked for ({error}); ask for less, or take a larger machine")

    return wrapped


@contextlib.contextmanager
def progress_bar(title: str, total: int, done: int = 0, *, unit: str = " ECGs") -> Iterator[Callable[[int], None]]:
    """Shows a progress bar; the context's value is a function to call with the number of further units that are done.

    Args:
        title: Title of the bar.
        total: Number of units.
        done: Number of units that are done already.
        unit: Name of a unit; bytes are `B`, and are shown as kB, MB and so on.
    """
    with tqdm(
        total=total, initial=done, unit=unit, unit_scale=unit == "B", desc=title, dynamic_ncols=True, disable=None
    ) as bar:

        def tell(count: int) -> None:
            bar.update(count)

        yield tell


def given(flag: flags.FlagHolder[Value | None]) -> Value:
    """Returns the value of a flag that `run` requires.

    Raises:
        DataError: The flag was not given.
    """
    if flag.value is None:
        raise DataError(f"--{flag.name}=… must be given")
    return flag.value


def run(main: Callable[[list[str]], int | None], *, required: Sequence[str] = ()) -> None:
    """Runs a command from the console.

    Args:
        main: Function of the arguments that are no flags, such as `command` returns.
        required: Names of the flags that must be given. They are not marked where the flags are defined, since that
            would hold for every program that imports the command's module.
    """
    stop_signals.listen()
    flags.mark_flags_as_required(required)
    app.run(main, flags_parser=parse_flags)
