"""The command `ecgjax`, of which every other command is a subcommand.

  ecgjax build --builder=simulated --num_patients=2000 --out=data/sim
  ecgjax pretrain --config=simclr:small --config.data.dir=data/sim --workdir=runs/simclr
  ecgjax help pretrain

`ecgjax NAME …` is `python -m PACKAGE.NAME …`: the same module runs as the main program, with the same flags, exit
statuses and signals. Nothing but the chosen module is imported.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import runpy
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from data_pipelines.system.blocked_output import give_up_blocked_output
from data_pipelines.system.exit_status import ExitStatus
from data_pipelines.system.terminal_lines import for_stream
from data_pipelines.version import __version__

# In a wheel the package has another name.
_LAUNCH = (__package__ or "").partition(".")[0]

#: Module of every subcommand, by the titles of their groups.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "Recordings": {
        name: f"data_pipelines.{name}"
        for name in ("build", "inspect", "verify", "stage", "measure", "neighbours", "link", "realism")
    },
    "Encoders": {
        name: f"ecgjax.{name}"
        for name in ("pretrain", "preview_views", "evaluate", "label_efficiency", "cross_validate")
    },
    "Models": {name: f"ecgjax.{name}" for name in ("finetune", "export", "embed", "search")},
    "Clusters and studies": {
        name: f"{_LAUNCH}.{name}" for name in ("ablate", "local", "slurm", "jobset", "tpu_vm", "quickstart")
    },
    "Speed": {name: f"ecgjax.{name}" for name in ("benchmark", "run_time")},
}

#: Module of every subcommand.
COMMANDS: Mapping[str, str] = {name: module for group in GROUPS.values() for name, module in group.items()}

# Longer lines are hard to read, however wide the terminal is.
_WIDEST = 100

_HELP = ("help", "--help", "-help", "-h", "--helpshort", "--helpfull")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the subcommand that the command line names.

    Args:
        arguments: Command line without the program; None for that of this process.
    """
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["help"]
    if name in ("--version", "version"):
        print(f"ecgjax {__version__}")
        return
    if name in _HELP:
        if not rest:
            _print(overview())
            return
        name, rest = rest[0], ["--help"]
    if name not in COMMANDS:
        _refuse(name)
    sys.argv = [f"ecgjax {name}", *rest]
    runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)


def overview() -> str:
    """Returns the list of the subcommands with a line on each."""
    indent = max(map(len, COMMANDS)) + 4
    wrap = functools.partial(textwrap.wrap, width=min(shutil.get_terminal_size().columns, _WIDEST))
    lines = wrap("ecgjax: from raw ECG recordings to a pretrained encoder that makes few labels go further")
    for title, group in GROUPS.items():
        lines += ["", title]
        for name, module in group.items():
            told = f"  {name}".ljust(indent) + purpose(module)
            lines += wrap(told, subsequent_indent=" " * indent, break_on_hyphens=False)
    last = wrap("ecgjax help NAME lists the flags of a command; ecgjax --version tells the version.")
    return "\n".join([*lines, "", *last])


def purpose(module: str) -> str:
    """Returns the first line of the documentation of a module, which is not imported.

    Args:
        module: Name of the module, or of a package that runs as one.
    """
    found = importlib.util.find_spec(module)
    if found is not None and found.submodule_search_locations:
        found = importlib.util.find_spec(f"{module}.__main__")
    if found is None or found.origin is None:
        raise ImportError(f"{module} is not installed")
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".")


def _print(text: str) -> None:
    """Prints a text as far as it is read: `ecgjax help | head` closes the pipe early."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        give_up_blocked_output()


def _refuse(name: str) -> NoReturn:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    error = f"error: ecgjax has no command {name!r}; {meant}ecgjax help lists all"
    print(for_stream(error, sys.stderr), file=sys.stderr)
    sys.exit(int(ExitStatus.USER_ERROR))
