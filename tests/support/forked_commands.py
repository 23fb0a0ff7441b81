"""Commands in processes forked from one that has imported all they need, and has not started JAX."""

from __future__ import annotations

import ast
import atexit
import collections
import dataclasses
import gc
import importlib
import os
import resource
import runpy
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tests.golden.commands import ROOT
from tests.project import test_house
from tests.support import compile_options

#: Processes beside each other, and how long each may take: nothing that is refused takes long.
AT_ONCE, MOST_SECONDS = 2, 60

#: What a process may take of memory: what was not refused in time must not take the machine with it.
MOST_MEMORY_BYTES = 12 * 2**30

#: Of who may do nothing: where the tests are run by root, a folder that root may read is no folder without permission.
_NOBODY = 65534

_ENVIRONMENT = {
    "COLUMNS": "80",
    "JAX_PLATFORMS": "cpu",
    "LC_ALL": "C.UTF-8",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": compile_options.XLA_FLAGS,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A wrong command line.

    Attributes:
        command: as `python -m` takes it.
        arguments: of the command; `{data}` and the like are paths of what was made for it.
        told: what the error must have in it, each.
        status: that it leaves with.
        unprivileged: whether it is run by a user who may not read everything.
        often: whether it is run even where each command runs but one line.
    """

    command: str
    arguments: tuple[str, ...]
    told: tuple[str, ...]
    status: int = 2
    unprivileged: bool = False
    often: bool = False

    def __str__(self) -> str:
        return " ".join([self.command, *map(shown, self.arguments)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did."""

    status: int
    output: str
    errors: str
    seconds: float


def shown(argument: str) -> str:
    """Returns an argument as it can be shown on a line."""
    return argument if argument.isprintable() and argument and " " not in argument else repr(argument)


def import_all() -> None:
    """Imports every module of the project that defines no flags, and with them all packages of others."""
    os.environ.update(_ENVIRONMENT)
    for name in _without_flags():
        if name.startswith("ecgjax.benchmarks.pytorch."):
            continue  # These need PyTorch, and nothing else imports them.
        importlib.import_module(name)
    for part in ("fft", "interpolate", "ndimage", "optimize", "signal", "special", "stats"):
        importlib.import_module(f"scipy.{part}")  # Otherwise each command that asks for a part would import it.
    from absl import flags

    from ecgjax import defaults

    # The leaves are kept once they are known; otherwise every forked command would find them out anew.
    defaults.leaves()

    ours = {name.partition(".")[0] for name in flags.FLAGS.flags_by_module_dict()} & set(test_house.PACKAGES)
    assert not ours, "flags that are defined here would be those of every command"
    # A collection in a forked process writes to every object, and so copies all memory: that takes over a second.
    gc.collect()
    gc.freeze()


def _without_flags() -> list[str]:
    """Returns the modules that neither define flags nor import, at whatever distance, one that does."""
    imported_by = collections.defaultdict(set)
    for one, other in test_house.imports():
        imported_by[other].add(one)
    every = test_house.modules()
    # What is within a function is defined when a command calls it.
    left = [name for name, tree in every.items() if any("DEFINE_" in ast.unparse(node) for node in _outside(tree))]
    left += test_house.commands() | {name for name in every if name.endswith("__main__")}
    with_flags = set()
    while left:
        name = left.pop()
        if name not in with_flags:
            with_flags.add(name)
            left += imported_by[name]
    return sorted(every.keys() - with_flags)


def _outside(tree: ast.Module) -> Iterator[ast.stmt]:
    return (node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef))


class Running:
    """A process forked from this one that runs a function and leaves with its status."""

    def __init__(
        self,
        work: Callable[[], int],
        folder: Path,
        *,
        unprivileged: bool = False,
        most_seconds: int = 2 * MOST_SECONDS,
    ):
        """Starts it.

        Args:
            work: returns the status, or raises.
            folder: its working folder, which also has what it printed.
            unprivileged: whether it is to have no rights of root.
            most_seconds: after which it ends, whoever waits for it.
        """
        self._out, self._err = folder.with_suffix(".out"), folder.with_suffix(".err")
        folder.mkdir(parents=True)
        if unprivileged:
            folder.chmod(0o777)
        self._folder, self._start = folder, time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _be(work, folder, self._out, self._err, unprivileged=unprivileged, most_seconds=most_seconds)

    def end(self) -> None:
        """Ends it and what it has started."""
        os.killpg(self.pid, signal.SIGKILL)

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._start

    def outcome(self, status: int) -> Outcome:
        """Returns what it has left, and removes it."""
        output, errors = (path.read_text(encoding="utf-8", errors="replace") for path in (self._out, self._err))
        shutil.rmtree(self._folder, ignore_errors=True)
        return Outcome(status=status, output=output, errors=errors, seconds=self.seconds)


def _be(work: Callable[[], int], folder: Path, out: Path, err: Path, *, unprivileged: bool, most_seconds: int) -> None:
    """Makes this forked process one that runs `work`, and leaves."""
    status = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(most_seconds)  # Of one whose parent was ended, and ends nothing any more.
        for path, stream in ((Path(os.devnull), 0), (out, 1), (err, 2)):
            flags = os.O_RDONLY if stream == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags, 0o644), stream)
        sys.stdin = os.fdopen(0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
        os.chdir(folder)
        if unprivileged and not os.getuid():
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        status = work()
    except SystemExit as left:
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
        status = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)


def run_module(command: str, arguments: Sequence[str]) -> int:
    """Runs a command in this process, as `python -m` does."""
    sys.argv = [command, *arguments]
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.path[0] = str(ROOT)
    runpy.run_module(command, run_name="__main__", alter_sys=True)
    return 0


def outcomes(lines: Iterable[Line], folder: Path, *, made: dict[str, str]) -> Iterator[tuple[Line, Outcome]]:
    """Runs lines, some at a time, and yields each with what came of it as they end."""
    running: dict[int, tuple[Line, Running]] = {}
    waiting = collections.deque(enumerate(lines))
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, line = waiting.popleft()
            arguments = [filled(argument, made) for argument in line.arguments]
            work = _work_of(line.command, arguments)
            process = Running(work, folder / f"line{number}", unprivileged=line.unprivileged)
            running[process.pid] = line, process
        for pid, (line, process) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del running[pid]
                yield line, process.outcome(os.waitstatus_to_exitcode(status))
            elif process.seconds > MOST_SECONDS:
                process.end()
        time.sleep(0.005)


def _work_of(command: str, arguments: Sequence[str]) -> Callable[[], int]:
    return lambda: run_module(command, arguments)


def filled(argument: str, made: dict[str, str]) -> str:
    """Returns an argument with the paths of what was made in place of their names."""
    for name, path in made.items():
        argument = argument.replace("{" + name + "}", path)
    return argument
