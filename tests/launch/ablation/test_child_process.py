"""Signals to stop reach the command that a command has started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipelines.system.exit_status import ExitStatus
from launch.ablation.child_process import run_child

ROOT = Path(__file__).parents[3]

PARENT = """
import os, sys
from data_pipelines.system import stop_signals
stop_signals.listen()
from launch.ablation.child_process import run_child
sys.exit(run_child(sys.argv[1:], environment=os.environ))
"""

# A run that takes its time to save what it has, and counts the signals.
CHILD = """
import signal, sys, time
heard = []
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
    signal.signal(number, lambda number, _: heard.append(number))
print("ready", flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(0.5)
print("saved", *heard, flush=True)
sys.exit(0 if sys.argv[1:] else 75)
"""


def python(code, *arguments):
    return [sys.executable, "-c", code, *arguments]


def test_its_status_is_that_of_the_child():
    assert run_child(python("import sys; sys.exit(3)"), environment=os.environ) == 3
    assert run_child(python("import os; os.kill(os.getpid(), 9)"), environment=os.environ) == -signal.SIGKILL
    assert run_child(python("import os, sys; sys.exit(os.environ['A'] != 'b')"), environment={"A": "b"}) == 0


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, ExitStatus.STOPPED),
        (signal.SIGUSR1, ExitStatus.STOPPED),
        (signal.SIGINT, ExitStatus.INTERRUPTED),
    ],
)
@pytest.mark.parametrize("finished", [(), ("finished",)], ids=["stopped", "finished nevertheless"])
def test_a_signal_is_passed_on_once_and_the_child_may_save(number, status, finished):
    command = python(PARENT, *python(CHILD, *finished))
    # As at a terminal, whose Ctrl-C goes to all processes of the session's foreground group.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, number)
        assert process.stdout.readline() == f"saved {int(number)}\n"
        assert process.wait(timeout=60) == status


def test_a_child_does_not_outlive_an_error(monkeypatch):
    started, wait = [], subprocess.Popen.wait

    def failing(child, timeout=None):
        started.append(child)
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        raise ZeroDivisionError

    monkeypatch.setattr(subprocess.Popen, "wait", failing)
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        run_child(python("import time; time.sleep(600)"), environment=os.environ)
    assert started[0].returncode == -signal.SIGKILL
    assert time.monotonic() - begun < 60
