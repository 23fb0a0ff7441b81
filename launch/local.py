"""Starts a command as several JAX processes of one run on this machine, over loopback.

  python -m launch.local --processes=2 -- python -m ecgjax.pretrain --config=… --workdir=…

What a pod does, in small: to rehearse a run of several processes, and what the tests start. On a CPU every process has
one device, or as many as `JAX_NUM_CPU_DEVICES` says; every line of output starts with the number of its process.
SIGTERM, SIGUSR1 and SIGINT reach all processes, so that they save and leave together.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
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

    Signals that ask this process to stop are passed on, and end it only when its processes have saved and left.

    Args:
        command: Program and its arguments.
        processes: Number of processes.
        grace_s: Seconds that the other processes get after one has failed.

    Returns:
        0 where all succeeded, otherwise the status of the first that failed (128 + signal where a signal ended it).

    Raises:
        Stopped: A signal was heard before the first process was started.
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
    readers: list[threading.Thread] = []
    asked: list[signal.Signals] = []
    lock = threading.Lock()  # A process that is being started when a signal comes gets it too.

    def pass_on(heard: signal.Signals) -> None:
        with lock:
            asked.append(heard)
            for process in running:
                process.send_signal(heard)

    with contextlib.ExitStack() as stack:
        stack.callback(stop_signals.when_heard(pass_on))
        stack.enter_context(stop_signals.taken_over())
        stack.callback(_end, running, readers)
        for index in range(processes):
            with lock:
                process = subprocess.Popen(
                    list(command),
                    env={**environment, "ECGJAX_PROCESS_ID": str(index)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,  # A Ctrl-C then reaches the process once, through `pass_on`.
                )
                running.append(process)
                if asked:
                    process.send_signal(asked[0])
            readers.append(threading.Thread(target=_relay, args=(index, process.stdout), daemon=True))
            readers[-1].start()
        status = _wait(running, grace_s)
        # A process may be ended by the signal itself, before the first line of its command.
        return int(stop_signals.status_of(asked[0])) if asked and status == 128 + asked[0] else status


def _end(running: Sequence[subprocess.Popen[str]], readers: Sequence[threading.Thread]) -> None:
    """Kills what still runs, with all that it has started, and waits until everything printed is passed on."""
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for reader in readers:
        reader.join()
    for process in running:
        if process.stdout is not None:
            process.stdout.close()


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
