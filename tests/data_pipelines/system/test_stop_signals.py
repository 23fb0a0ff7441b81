"""Signals to stop, in real processes: heard from the first line, by the right process, and once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipelines.system.exit_status import RESTARTABLE, ExitStatus

BEGIN = "import os, sys, time; from data_pipelines.system import stop_signals; stop_signals.listen();"
READY = "os.write(1, b'ready\\n');"
#: Minutes in a library's code, where no handler of Python's runs.
BUSY = "import hashlib; hashlib.pbkdf2_hmac('sha512', b'', b'', 2**30)"


def stop(code, *signals, pause_s=0.0):
    """Starts a process, sends it signals once it is ready, and returns its status, words and seconds."""
    process = subprocess.Popen([sys.executable, "-c", BEGIN + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"ready\n"
        begun = time.monotonic()
        for number in signals:
            process.send_signal(number)
            time.sleep(pause_s)
        _, words = process.communicate(timeout=60)
        return process.returncode, words.decode(), time.monotonic() - begun


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=lambda each: str(each)
)
def test_a_signal_ends_a_process_that_has_nothing_to_save_with_its_status_in_one_line(number, status):
    code = "\ntry:\n  os.write(1, b'ready\\n'); time.sleep(60)\nfinally: print('cleared away', file=sys.stderr)"
    found, words, _ = stop(code, number)
    assert found == status
    assert f"{signal.Signals(number).name}: stopping, before there was anything to save" in words
    assert "cleared away" in words, "the main thread runs its clean-up"
    assert ("this goes on:\n  " in words) == (number == signal.SIGINT), "a person is shown the command"
    assert "Traceback" not in words


def test_a_signal_ends_a_process_that_is_in_library_code_for_minutes():
    status, words, seconds = stop(READY + BUSY, signal.SIGTERM)
    assert status == ExitStatus.STOPPED
    assert "SIGTERM: stopping" in words
    assert seconds < 30


def test_a_signal_that_a_library_catches_as_an_exit_still_ends_the_process():
    code = "\nwhile True:\n    try: os.write(1, b'ready\\n'); time.sleep(60)\n    except BaseException: pass"
    assert stop(code, signal.SIGTERM)[0] == ExitStatus.STOPPED


LOOP = """
with stop_signals.taken_over():
    os.write(1, b'ready\\n')
    while stop_signals.heard() is None: time.sleep(.01)
    time.sleep(1)  # the save
    print('saved', file=sys.stderr)
sys.exit(int(stop_signals.status()))
"""


def test_further_signals_do_not_tear_the_save_and_are_told():
    status, words, _ = stop(LOOP, signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM, pause_s=0.1)
    assert status == ExitStatus.STOPPED
    assert words.count("already stopping since SIGTERM; the save is waited for") == 3
    assert "saved\n" in words


def test_a_further_signal_waits_for_no_save_where_there_is_none():
    # The clean-up that the first signal begins takes longer than the signals that follow.
    code = "\ntry:\n  os.write(1, b'ready\\n'); time.sleep(60)\nfinally: time.sleep(2)"
    status, words, _ = stop(code, *[signal.SIGINT] * 3, pause_s=0.2)
    assert status == ExitStatus.INTERRUPTED
    assert "SIGINT: already stopping since SIGINT; there is nothing to save\n" in words
    assert words.endswith("SIGINT for the third time: leaving at once; what is finished stays\n")
    assert "the save" not in words


def test_the_third_interrupt_does_not_wait_for_the_save():
    status, words, _ = stop(LOOP, *[signal.SIGINT] * 3, pause_s=0.1)
    assert status == ExitStatus.INTERRUPTED
    assert "SIGINT for the third time: leaving at once" in words
    assert "saved\n" not in words


def test_a_signal_to_a_forked_child_ends_the_child_alone():
    code = """
import signal
child = os.fork()
if child == 0: time.sleep(60)
os.kill(child, signal.SIGTERM)
_, status = os.waitpid(child, 0)
time.sleep(.3)
assert os.WTERMSIG(status) == signal.SIGTERM, status
assert stop_signals.heard() is None
os.write(1, b'ready\\n')
"""
    assert stop(code)[:2] == (0, "")


def test_handlers_from_before_come_back():
    code = """
import signal
stop_signals.ignore()
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
assert stop_signals.listen(interrupts=False) and not stop_signals.listen()
assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
os.write(1, b'ready\\n')
"""
    assert stop(code)[:2] == (0, "")


def test_listening_imports_the_standard_library_alone():
    code = BEGIN + "print(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name for name in eval(done.stdout) if not name.startswith(("_", "sitecustomize", "usercustomize"))}
    assert found == {"data_pipelines"}


def test_the_documentation_has_every_status():
    page = (Path(__file__).parents[3] / "docs" / "running.md").read_text()
    assert [status for status in ExitStatus if f"\n| {int(status)} | " not in page] == []


def test_the_statuses_after_which_launchers_start_again_stand_next_to_each_other():
    assert RESTARTABLE == (75, 76, 77)


AT_SHUTDOWN = """
import atexit, threading
def refuse(thread): raise RuntimeError("can't create new thread at interpreter shutdown")
def end():
    threading.Thread.start = refuse  # Python 3.12 does so by itself.
    {before}
    stop_signals.leave(2)
atexit.register(end)
os.write(1, b'ready\\n')
sys.stdout.write('printed before')
"""


@pytest.mark.parametrize(
    "before",
    ["pass", "class Hanging: flush = lambda self: time.sleep(60)\n    sys.stdout = Hanging()"],
    ids=["flushed", "a stream hangs"],
)
def test_a_process_leaves_with_its_own_status_while_python_shuts_down_and_starts_no_thread(before):
    status, words, seconds = stop(AT_SHUTDOWN.format(before=before))
    assert (status, words) == (ExitStatus.USER_ERROR, "")
    assert seconds < 30
