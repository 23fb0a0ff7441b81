"""Freed memory is used again: told by the page faults of a process that asks for a large block over and over."""

import subprocess
import sys

import pytest

from ecgjax.system import host_memory

_FAULTS = """
import resource, sys
from ecgjax.system.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * 2**26
    del block
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


def _faults(mode):
    done = subprocess.run([sys.executable, "-c", _FAULTS, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(host_memory.platform.libc_ver()[0] != "glibc", reason="only glibc gives large blocks back at once")
def test_a_large_block_is_touched_for_the_first_time_once():
    assert _faults("keep") < 100
    assert _faults("default") > 1000


_FAULTS_OF_A_THREAD = """
import resource, runpy, sys, threading

name, mode = sys.argv[1:]
sys.argv = [name, "--help"]
try:
    runpy.run_module(name, run_name="__main__" if mode == "command" else name, alter_sys=True)
except SystemExit:
    pass

def ask():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = b"x" * 2**27
        del block
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

for _ in range(4):
    faults = []
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    print(faults[-1], file=sys.stderr)
"""


@pytest.mark.skipif(host_memory.platform.libc_ver()[0] != "glibc", reason="only glibc gives large blocks back at once")
@pytest.mark.parametrize(
    ("module", "mode", "kept"),
    [
        ("ecgjax.search", "command", True),
        ("ecgjax.search", "library", False),
        pytest.param("ecgjax.label_efficiency", "command", True, marks=(pytest.mark.slow, pytest.mark.soak)),
        pytest.param("ecgjax.label_efficiency", "library", False, marks=pytest.mark.slow),
        pytest.param("launch.ablate", "command", True, marks=pytest.mark.slow),
    ],
)
def test_commands_keep_memory_in_every_thread_and_a_library_changes_nothing(module, mode, kept):
    command = [sys.executable, "-c", _FAULTS_OF_A_THREAD, module, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    faults = list(map(int, done.stderr.split()))
    assert (max(faults) < 100) if kept else (min(faults) > 1000)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(host_memory.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not host_memory.keep_freed_memory()
