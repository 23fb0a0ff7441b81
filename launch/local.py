"""Starts a command as several JAX processes of one run on this machine, over loopback.

  python -m launch.local --processes=2 -- python -m ecgjax.pretrain --config=… --workdir=…

What a pod does, in small: to rehearse a run of several processes, and what the tests start. On a CPU every process has
one device, or as many as `JAX_NUM_CPU_DEVICES` says; every line of output starts with the number of its process.
SIGTERM, SIGUSR1 and SIGINT reach all processes, so that they save and leave together.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import IO

from absl import flags

from data_pipelines.command import MOST_WORKERS, fail, run
from data_pipelines.system import stop_signals

#: Seconds that the others get to end by themselves after one process failed: they notice the loss within 30 s, and
#: say which process it was.
GRACE_S = 60.0
_POLL_S = 0.05

_PROCESSES = flags.DEFINE_integer("processes", 2, "Number of processes.", lower_bound=1, upper_bound=MOST_WORKERS)


def launch(command: Sequence[str], *, processes: int, grace_s: float = GRACE_S) -> int:
    """Runs `command` as `processes` processes of one JAX run, and waits for them.

    The processes find each other through the `ECGJAX_…` variables that `ecgjax.processes.begin`
    reads. When one fails, the others would wait for it in a collective for minutes, so that they are killed after
    `grace_s`.

    Args:
        command: Program and its arguments.
        processes: Number of processes.
        grace_s: Seconds that the other processes get after one has failed.

    Returns:
        0 where all succeeded, otherwise the status of the first that failed (128 + signal where a signal ended it).
    """
    coordinator = f"127.0.0.1:{_free_port()}"
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "ECGJAX_COORDINATOR": coordinator,
        "ECGJAX_NUM_PROCESSES": str(processes),
        "ECGJAX_CLUSTER": "0",  # This launcher may itself run in a cluster, as one of its processes.
        "JAX_COORDINATOR_BIND_ADDRESS": coordinator,  # By default JAX listens on all interfaces.
    }
    running: list[subprocess.Popen[str]] = []
    asked: list[signal.Signals] = []

    def forward(number: int, _: FrameType | None) -> None:
        asked.append(signal.Signals(number))
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    # The handlers are set before the first process starts, so that no signal is missed.
    previous = {number: signal.signal(number, forward) for number in stop_signals.SIGNALS}
    readers: list[threading.Thread] = []
    try:
        for index in range(processes):
            process = subprocess.Popen(
                list(command),
                env={**environment, "ECGJAX_PROCESS_ID": str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # A Ctrl-C then reaches the process once, through `forward`.
            )
            running.append(process)
            readers.append(threading.Thread(target=_relay, args=(index, process.stdout), daemon=True))
            readers[-1].start()
        status = _wait(running, grace_s)
        # A process may be ended by the signal itself, before the first line of its command.
        return int(stop_signals.status_of(asked[0])) if asked and status == 128 + asked[0] else status
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # This also kills what the process has started.
            process.wait()
        for reader, process in zip(readers, running, strict=True):
            reader.join()
            if process.stdout is not None:
                process.stdout.close()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(running: Sequence[subprocess.Popen[str]], grace_s: float) -> int:
    """Waits until all processes end, or until `grace_s` after the first failure; returns the status of that process."""
    failure, deadline = 0, float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in running]
        if not failure and (failed := [code for code in codes if code]):
            failure, deadline = failed[0], time.monotonic() + grace_s
        if None not in codes:
            break
        time.sleep(_POLL_S)
    return failure if failure >= 0 else 128 - failure


def _relay(index: int, output: IO[str]) -> None:
    for line in output:
        sys.stdout.write(f"[{index}] {line}")
        sys.stdout.flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(argv: list[str]) -> int:
    """Launches the command that follows `--`, and returns its exit status."""
    if len(argv) < 2:
        fail("give the command after --, e.g. -- python -m ecgjax.pretrain …")
    if shutil.which(argv[1]) is None:
        fail(f"{argv[1] or repr('')}, the command after --, is no program that can be run; check its name and rights")
    return launch(argv[1:], processes=_PROCESSES.value)


if __name__ == "__main__":
    run(main)
