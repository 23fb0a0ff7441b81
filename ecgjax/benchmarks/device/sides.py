"""Processes of their own for two frameworks, which take turns: neither's threads or memory disturb the other."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, Pipe
from typing import Any

from ecgjax.benchmarks.paired_steps import PairedStep, Product, Side, Spent

#: Name of a side → its module, its class, and the arguments of the class.
SIDES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "jax": ("ecgjax.benchmarks.device.jax_side", "JaxSide", {}),
    "torch": ("ecgjax.benchmarks.pytorch.torch_side", "TorchSide", {"compiled": False}),
    "torch_compiled": ("ecgjax.benchmarks.pytorch.torch_side", "TorchSide", {"compiled": True}),
}

# The memory's settings must be made before any import that starts threads.
_PROGRAM = """
from ecgjax.system.host_memory import keep_freed_memory
keep_freed_memory()
import sys
from ecgjax.benchmarks.device.sides import serve
serve(sys.argv[1], int(sys.argv[2]))
"""

#: Two frameworks share a device, and each takes the memory that it needs.
_SHARED_DEVICE = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class SideError(RuntimeError):
    """A side has failed; the message is that of its own error."""


class RemoteSide:
    """A side in another process, to be used as the side itself (`Side`)."""

    def __init__(self, name: str, connection: Connection):
        self._name, self._connection = name, connection

    def prepare(self, step: PairedStep) -> dict[str, Any]:
        """Makes the step ready to run, and returns values for JSON: what it took and what it is."""
        return self._ask("prepare", step)

    def steps(self, number: int) -> Spent:
        """Takes some steps, and returns the time of all."""
        return self._ask("steps", number)

    def product(self, product: Product, role: str, runs: int) -> Spent:
        """Computes one product alone, some times, and returns the time of all."""
        return self._ask("product", product, role, runs)

    def memory(self) -> dict[str, float]:
        """Returns the peak memory so far, in bytes by kind."""
        return self._ask("memory")

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            self._connection.send((method, arguments))
            result, error = self._connection.recv()
        except (EOFError, OSError) as ended:
            raise SideError(f"{self._name}: its process ended in {method}; its own lines say why") from ended
        if error is not None:
            raise SideError(f"{self._name}: {error}")
        return result


@contextlib.contextmanager
def side_in_a_process(name: str, *, environment: Mapping[str, str]) -> Iterator[RemoteSide]:
    """Starts the process of a side, and ends it with the block.

    Args:
        name: Name of the side, a key of `SIDES`.
        environment: Variables of its environment beside those of this process.
    """
    here, there = Pipe()
    variables = {**os.environ, **_SHARED_DEVICE, **environment}
    command = [sys.executable, "-c", _PROGRAM, name, str(there.fileno())]
    # What libraries print must not stand among the results on this process's standard output.
    process = subprocess.Popen(command, env=variables, pass_fds=[there.fileno()], stdout=sys.stderr.fileno())
    there.close()
    try:
        yield RemoteSide(name, here)
    finally:
        here.close()
        process.kill()
        process.wait()


def serve(name: str, handle: int) -> None:
    """Answers the calls that come through a connection, until it is closed.

    Args:
        name: Name of the side.
        handle: File descriptor of the connection.
    """
    module, cls, arguments = SIDES[name]
    connection = Connection(handle)
    side: Side = getattr(importlib.import_module(module), cls)(**arguments)
    with contextlib.suppress(EOFError):
        while True:
            method, given = connection.recv()
            answer: tuple[Any, str | None]
            try:
                answer = (getattr(side, method)(*given), None)
            # Whatever a framework raises is a result of the comparison, and the other side goes on.
            except Exception as error:
                answer = (None, f"{type(error).__name__}: {str(error)[:2000]}")
            connection.send(answer)
