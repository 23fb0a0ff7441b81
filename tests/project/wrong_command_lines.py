"""Gives every command what a user may give it by mistake, and judges what it says.

python -m tests.project.wrong_command_lines                      # all of them, 3 minutes of two cores
python -m tests.project.wrong_command_lines --only=realism       # those that have this text in them
python -m tests.project.wrong_command_lines --first              # one of each command, and those that are often run

Whatever is wrong, a command leaves with status 2 and one line on standard error that begins with `error:`, names what
was given, and says what to do; and help leaves with status 0. Each line is run in a process of its own, forked from
this one when all packages are imported and JAX has not started: importing them takes longer than everything else.
"""

from __future__ import annotations

import argparse
import collections
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.golden.commands import modules_with_main
from tests.project.wrong_lines import LINES, make_what_they_need
from tests.support.forked_commands import Line, Outcome, import_all, outcomes

#: Command → ends of its lines that are known to fail, until somebody has mended it.
EXPECTED_TO_FAIL_FOR_NOW: dict[str, tuple[str, ...]] = {}

#: Lines on standard error that are no errors: of a command that goes by another name now.
_NOTICES = ("python -m ecgjax.augmentations is now called python -m ecgjax.preview_views",)


def faults(line: Line, outcome: Outcome) -> list[str]:
    """Returns what is wrong with what a command did, in words."""
    found = []
    if outcome.status != line.status:
        found.append(f"status {outcome.status}, not {line.status}")
    if "Traceback (most recent" in outcome.output + outcome.errors:
        found.append("a stack trace")
    if line.status == 0:
        return found + [f"does not tell {text!r}" for text in line.told if text not in outcome.output]
    errors = [each for each in outcome.errors.splitlines() if each and each not in _NOTICES]
    told = [each for each in errors if each.startswith("error:")]
    if len(told) != 1:
        found.append(f"{len(told)} lines of error")
    if others := [each for each in errors if not each.startswith("error:")]:
        found.append(f"{len(others)} other lines on standard error")
    return found + [f"does not tell {text!r}" for text in line.told if not any(text in each for each in told)]


def all_lines() -> list[Line]:
    """Returns the wrong lines of all commands."""
    found = []
    for command in modules_with_main():
        found.append(Line(command=command, arguments=("--help",), told=("--",), status=0))
        found += LINES[command]
    if strangers := LINES.keys() - set(modules_with_main()):
        raise SystemExit(f"these are no commands: {', '.join(sorted(strangers))}")
    return found


def judge(lines: Sequence[Line]) -> list[Line]:
    """Makes what the lines need, runs them, prints what those did that fail, and returns these."""
    import_all()
    failed = []
    # No TemporaryDirectory, which the first forked process to leave would remove.
    folder = Path(tempfile.mkdtemp(prefix="wrong-lines-"))
    try:
        folder.chmod(0o755)  # Others read there too.
        made = make_what_they_need(lines, folder)
        for line, outcome in outcomes(lines, folder / "lines", made=made):
            if found := faults(line, outcome):
                failed.append(line)
                print(described(line, outcome, found), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return failed


def known_to_fail(line: Line) -> bool:
    """Whether a line is known to fail."""
    return any(str(line).endswith(f" {end}") for end in EXPECTED_TO_FAIL_FOR_NOW.get(line.command, ()))


def described(line: Line, outcome: Outcome, found: Sequence[str]) -> str:
    """Returns a line that fails, why, and the end of what it printed."""
    known = ", which is known" if known_to_fail(line) else ""
    printed = [*outcome.output.splitlines()[-5:], *outcome.errors.splitlines()[-8:]]
    told = [f"{line}", f"  {'; '.join(found)}{known}; after {outcome.seconds:.1f} s it said"]
    return "\n".join([*told, *(f"  | {each[:400]}" for each in printed)])


def table(lines: Sequence[Line], failed: Sequence[Line]) -> str:
    """Returns how many lines each command has, and how many of them fail."""
    counts, wrong = (collections.Counter(line.command for line in of) for of in (lines, failed))
    rows = [(command, count, wrong[command]) for command, count in sorted(counts.items())]
    rows = [("command", "lines", "failed"), *rows, ("all", len(lines), len(failed))]
    return "\n".join(f"{command:<36}{count:>7}{of_these:>8}" for command, count, of_these in rows)


def main() -> int:
    """Runs the lines that are asked for and prints what came of them; returns the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run the lines that have this text in them")
    parser.add_argument("--first", action="store_true", help="run one line of each command, and those of OFTEN")
    arguments = parser.parse_args()
    lines = [line for line in all_lines() if arguments.only in str(line)]
    if arguments.first:
        first = list({line.command: line for line in reversed(lines) if line.status}.values())
        lines = first + [line for line in lines if line.often and line not in first]
    start = time.monotonic()
    failed = judge(lines)
    print(f"\n{table(lines, failed)}")
    mended = [line for line in lines if line not in failed and known_to_fail(line)]
    for line in mended:
        print(f"no longer fails, take it from EXPECTED_TO_FAIL_FOR_NOW: {line}")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(each.ru_utime + each.ru_stime for each in used)
    print(f"{time.monotonic() - start:.0f} s, {seconds:.0f} s of processors")
    return 1 if mended or not all(map(known_to_fail, failed)) else 0


if __name__ == "__main__":
    sys.exit(main())
