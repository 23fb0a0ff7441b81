"""Pieces of Python that each need a process of their own, forked from one that has imported what takes long.

    python -m tests.support.forked_snippets FOLDER MODULE … < SNIPPETS

What is imported must not start JAX, whose threads a forked process does not have.
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.golden.commands import ROOT
from tests.support.forked_commands import Outcome, Running

#: After which a piece ends: what hangs is an error here.
_MOST_SECONDS = 600


def run_each(snippets: dict[str, str], folder: Path, *, imports: Iterable[str]) -> dict[str, Outcome]:
    """Runs pieces of Python one after the other, and returns what came of each by its name.

    Args:
        snippets: Code by name.
        folder: A folder for what they print, which also has the working folder of each.
        imports: Modules that all of them need.
    """
    command = [sys.executable, "-m", "tests.support.forked_snippets", str(folder), *imports]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(snippets), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: Outcome(**outcome) for name, outcome in json.loads(done.stdout).items()}


def _run(code: str) -> int:
    exec(compile(code, "<snippet>", "exec", dont_inherit=True), {"__name__": "__main__"})
    return 0


def _outcome(code: str, folder: Path) -> Outcome:
    running = Running(lambda: _run(code), folder, most_seconds=_MOST_SECONDS)
    _, status = os.waitpid(running.pid, 0)
    return running.outcome(os.waitstatus_to_exitcode(status))


def main() -> None:
    """Prints what came of each piece, as JSON."""
    folder, snippets = Path(sys.argv[1]), json.load(sys.stdin)
    for name in sys.argv[2:]:
        importlib.import_module(name)
    found = {
        name: dataclasses.asdict(_outcome(code, folder / f"snippet{number}"))
        for number, (name, code) in enumerate(snippets.items())
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
