"""A command that another command starts, and that hears the signals which ask that one to stop."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence

from data_pipelines.system import stop_signals


def run_child(command: Sequence[str], *, environment: Mapping[str, str]) -> int:
    """Runs a command to its end and returns its exit status.

    Every signal that asks this process to stop is passed on to the child, which saves its state; the status is then
    that of a command which was stopped (`stop_signals.status`), whatever the child ended with.

    Args:
        command: Program and its arguments.
        environment: Variables of the child's environment.

    Returns:
        The exit status; negative where a signal ended the child.

    Raises:
        Stopped: A signal was heard before the child was started.
    """
    with stop_signals.taken_over():
        # In a session of its own, the child gets a Ctrl-C once: from here, and not from the terminal too.
        with subprocess.Popen(list(command), env=dict(environment), start_new_session=True) as child:

            def pass_on(heard: signal.Signals) -> None:
                child.send_signal(heard)

            take_back = stop_signals.when_heard(pass_on)
            try:
                if (heard := stop_signals.heard()) is not None:  # It came while the child was being started.
                    pass_on(heard)
                status = child.wait()
            except BaseException:
                child.kill()
                raise
            finally:
                take_back()
        return status if stop_signals.heard() is None else int(stop_signals.status())
