"""The commands of the code at hand: which there are, and how they are run."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

#: Command → its new name, where it was given one. While both are there the old one is run.
RENAMED: dict[str, str] = {"ecgjax.augmentations": "ecgjax.preview_views"}

#: Packages that have no commands of the project.
_APART = ("configs", "tests")

_RUN_AS_COMMAND = re.compile(r"""^if __name__ == ["']__main__["']:""", flags=re.MULTILINE)

#: Processes beside each other.
_AT_ONCE = 2

#: The last two name what was compiled before: tests have a folder for it, and the programs are the same bits.
_INHERITED = ("HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "JAX_COMPILATION_CACHE_DIR",
              "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")  # fmt: skip


class GoldenError(RuntimeError):
    """A command failed, or answers cannot be made or read."""


def packages() -> list[Path]:
    """Returns the folders of the packages that have commands."""
    return sorted(path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in _APART)


def modules_with_main() -> list[str]:
    """Returns the names of all modules that are commands, as `python -m` takes them."""
    return sorted(_name(path) for package in packages() for path in package.rglob("*.py") if _is_command(path))


@functools.cache
def commands() -> dict[str, str]:
    """Returns every command by the name it goes by in the answers, with the name that it is run by."""
    found, old_names = modules_with_main(), {new: old for old, new in RENAMED.items()}
    by_new_name = {old_names[name]: name for name in found if name in old_names}
    return by_new_name | {name: name for name in found if name not in old_names}


def _is_command(path: Path) -> bool:
    return path.name == "__main__.py" or _RUN_AS_COMMAND.search(path.read_text(encoding="utf-8")) is not None


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")


def environment() -> dict[str, str]:
    """Returns the variables that commands are run with: few, so that answers do not depend on who asks."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | {
        "COLUMNS": "80",
        "JAX_PLATFORMS": "cpu",
        "LC_ALL": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }


def start(name: str, *arguments: str, folder: Path, **streams: Any) -> subprocess.Popen:
    """Starts a command.

    Args:
        name: Command, by its old name.
        *arguments: Arguments of the command.
        folder: Folder that it is run in.
        **streams: Where its output goes, as `subprocess.Popen` takes it.
    """
    run_by = commands().get(name)
    if run_by is None:
        raise GoldenError(f"there is no command {name}; there are: {', '.join(commands())}")
    line = [sys.executable, "-m", run_by, *arguments]
    return subprocess.Popen(line, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, **streams)


def run(name: str, *arguments: str, folder: Path) -> str:
    """Runs a command to its end and returns what it prints on standard output.

    Args:
        name: Command, by its old name.
        *arguments: Arguments of the command.
        folder: Folder that it is run in.

    Raises:
        GoldenError: It ends with another status than 0.
    """
    with start(name, *arguments, folder=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        output, errors = process.communicate()
    if process.returncode:
        told = "\n".join(errors.splitlines()[-30:])
        raise GoldenError(f"{name} {' '.join(arguments)} ended with status {process.returncode}:\n{told}")
    return output


def beside_each_other(jobs: dict[str, Callable[[], Any]]) -> Iterator[tuple[str, Any]]:
    """Does jobs, some at a time, and yields the name and result of each in their order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = {name: pool.submit(job) for name, job in jobs.items()}
        try:
            yield from ((name, future.result()) for name, future in futures.items())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
