"""What becomes of a script or manifest: it is printed, written to a file, or given to the cluster."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from data_pipelines.command import fail, output_file
from data_pipelines.errors import DataError
from ecgjax.errors import ConfigError
from ecgjax.system.files import write_atomically

#: Words of kubectl where no cluster answers it, of which one is in what it prints.
_UNREACHABLE = (
    "connection to the server", "Unable to connect", "dial tcp", "no configuration has been provided",
    "current-context", "context was not found", "context deadline exceeded",
)  # fmt: skip


class Delivery(NamedTuple):
    """What is asked for.

    Attributes:
        submit: Whether the text is given to the cluster.
        out: Path of the file that it is written to; None for the standard output.
    """

    submit: bool
    out: str | None


def define_flags(values: flags.FlagValues, *, to: str) -> None:
    """Defines the flags of a delivery.

    Args:
        values: Flags to define them in.
        to: Command that takes the text, for the help.
    """
    words = f"Gives it to {to}; otherwise it is printed, and nothing else happens."
    flags.DEFINE_bool("submit", False, words, flag_values=values)
    flags.DEFINE_string("out", None, "File to write it to, instead of the standard output.", flag_values=values)


def define_all(*defining: Callable[[flags.FlagValues], None], to: str) -> None:
    """Defines the flags of a launcher, so that its `--help` lists them.

    Args:
        *defining: Functions that define some of them.
        to: Command that takes what the launcher makes, for the help.
    """
    define_as_own(*defining, functools.partial(define_flags, to=to))


def define_as_own(*defining: Callable[[flags.FlagValues], None]) -> None:
    """Defines flags as those of the module that runs, whose `--help` lists no others.

    Args:
        *defining: Functions that define some of them.
    """
    before = {*flags.FLAGS}
    for define in defining:
        define(flags.FLAGS)
    for name in {*flags.FLAGS} - before:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def delivery_of(values: flags.FlagValues) -> Delivery:
    """Returns what parsed flags ask for."""
    return Delivery(submit=values.submit, out=values.out)


def deliver(asked: Delivery, text: str, *, to: Sequence[str], logs: str = "", needs: str = "") -> int:
    """Prints, writes or submits a text; returns the exit status.

    Args:
        asked: What is asked for.
        text: Script or manifest.
        to: Command that takes it at its standard input.
        logs: Folder that must exist before a submission; empty for none.
        needs: Program that must be there for a submission; empty for that which takes it.

    Raises:
        ConfigError: The program that takes it is not there.
        DataError: The file cannot be written.
    """
    if asked.out is not None:
        path = output_file("out", asked.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    elif not asked.submit:
        print(text, end="")
    if not asked.submit:
        return 0
    if shutil.which(needs or to[0]) is None:
        raise ConfigError(
            f"--submit: there is no {needs or to[0]} on this machine; run the same command where there is, or leave "
            "--submit out and take what is printed there"
        )
    if logs:
        Path(logs).mkdir(parents=True, exist_ok=True)
    if to[0] == "kubectl":
        return _create(to, text)
    return subprocess.run(list(to), input=text, text=True, encoding="utf-8", check=False).returncode


def _create(to: Sequence[str], text: str) -> int:
    """Gives a manifest to kubectl, which tells in many lines and its own words that it reaches no cluster."""
    done = subprocess.run(
        list(to), input=text, text=True, encoding="utf-8", errors="replace", stderr=subprocess.PIPE, check=False
    )
    lines = done.stderr.strip().splitlines()
    if done.returncode and any(sign in done.stderr for sign in _UNREACHABLE):
        raise ConfigError(
            f"--submit: kubectl reaches no cluster ({lines[-1]}); kubectl config current-context tells which one it "
            "asks, and kubectl get nodes whether that answers"
        )
    sys.stderr.write(done.stderr)
    return done.returncode


def run_launcher(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Runs a launcher; a user's error ends the process with status 2 and one line.

    Args:
        main: Function of the command after `--` that returns the exit status.
        argv: Program, and the words after its flags.
    """
    try:
        return main(argv[1:])
    except (ConfigError, DataError, OSError) as error:
        fail(str(error))
