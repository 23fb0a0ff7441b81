"""A command that another one starts and waits for, and that is stopped with it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence

from data_pipelines.system import stop_signals


def run(command: Sequence[str], *, env: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Runs a command to its end; what asks this process to stop is handed on, and the command's end is waited for.

    A run that is stopped saves its state, for which it would have no time if this process went first.

    Args:
        command: Program and its arguments.
        env: Variables of its environment.
    """
    with stop_signals.taken_over(), subprocess.Popen(list(command), env=dict(env)) as child:

        def hand_on(number: signal.Signals) -> None:
            # A Ctrl-C reaches all processes of a terminal by itself.
            if number != signal.SIGINT and child.poll() is None:
                child.send_signal(number)

        undo = stop_signals.when_heard(hand_on)
        try:
            if (heard := stop_signals.heard()) is not None:
                hand_on(heard)
            return subprocess.CompletedProcess(list(command), child.wait())
        finally:
            undo()
