"""The command `python -m tests.golden`; see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import tests.golden
from tests.golden import answers, machine
from tests.golden.commands import GoldenError
from tests.golden.making import make
from tests.golden.opening import open_old


def main() -> int:
    """Does what the command line asks for; returns 1 where something differs or fails."""
    try:
        differing = _asked(_arguments())
    except GoldenError as error:
        sys.exit(f"error: {error}")
    unexpected, meant = answers.agreed_on(differing)
    for line in meant:
        print(f"meant: {line}")
    for line in unexpected:
        print(line)
    print(f"{len(unexpected)} differences, {len(meant)} that are meant")
    return 1 if unexpected else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden",
        description=tests.golden.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("--out", type=Path, required=True)
    compare = commands.add_parser("compare")
    for name in ("old", "new"):
        compare.add_argument(name, type=Path)
    commands.add_parser("open").add_argument("old", type=Path)
    return parser.parse_args()


def _asked(arguments: argparse.Namespace) -> list[str]:
    if arguments.command == "make":
        make(arguments.out)
        return []
    if arguments.command == "open":
        _say_unlike(answers.read(arguments.old, answers.MACHINE)[answers.MACHINE], machine.machine())
        return open_old(arguments.old)
    old, new = answers.read(arguments.old), answers.read(arguments.new)
    _say_unlike(old.pop(answers.MACHINE), new.pop(answers.MACHINE))
    return answers.differences(old, new)


def _say_unlike(first: dict[str, str], second: dict[str, str]) -> None:
    if unlike := machine.unlike(first, second):
        print(f"The machines differ, and numbers may for that reason alone: {'; '.join(unlike)}.")


if __name__ == "__main__":
    sys.exit(main())
