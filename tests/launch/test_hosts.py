"""Two hosts with names, addresses and networks of their own, which a cable joins: namespaces of this machine."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipelines.system.exit_status import ExitStatus
from tests.launch.test_processes import assert_same_run, dataset, environment, pretrain, run  # noqa: F401

ROOT = Path(__file__).parents[2]
PORT = 12321
NAMES = [f"ecgjax{os.getpid() % 10_000}h{number}" for number in range(2)]
CABLE = [f"v{name[-8:]}" for name in NAMES]


def may_make_namespaces():
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare"))):
        return False
    made = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, check=False)
    return made.returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not may_make_namespaces(), reason="needs root, and ip and unshare of Linux"),
]


def ip(*arguments, check=True):
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@pytest.fixture
def cable():
    """Two hosts joined by a cable; the value connects (True) or cuts it (False)."""
    table = "127.0.0.1 localhost\n" + "".join(f"10.77.0.{n} {name}\n" for n, name in enumerate(NAMES, 1))
    folders = [Path("/etc/netns", name) for name in NAMES]
    with contextlib.ExitStack() as stack:
        for name, folder in zip(NAMES, folders, strict=True):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name, check=False)
            folder.mkdir(parents=True)
            stack.callback(shutil.rmtree, folder)
            (folder / "hosts").write_text(table)
        ip("link", "add", CABLE[0], "netns", NAMES[0], "type", "veth", "peer", "name", CABLE[1], "netns", NAMES[1])
        for number, (name, end) in enumerate(zip(NAMES, CABLE, strict=True), 1):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
        yield lambda connected: ip("-n", NAMES[0], "link", "set", CABLE[0], "up" if connected else "down")


class Hosts:
    """A command on both hosts at once."""

    def __init__(self, command, folder, variables):
        self.logs = [folder / f"{name}.log" for name in NAMES]
        self.processes = []
        for number, (name, log) in enumerate(zip(NAMES, self.logs, strict=True)):
            place = {
                "ECGJAX_COORDINATOR": f"{NAMES[0]}:{PORT}",
                "ECGJAX_NUM_PROCESSES": "2",
                "ECGJAX_PROCESS_ID": str(number),
                "PYTHONUNBUFFERED": "1",
            }
            line = f"hostname {name}; exec {shlex.join(command)}"
            with log.open("w") as file:
                process = subprocess.Popen(
                    ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", line],
                    cwd=ROOT, env=variables | place, stdout=file, stderr=file,
                )  # fmt: skip
            self.processes.append(process)

    def wait_for(self, text):
        while text not in self.logs[0].read_text():
            assert self.processes[0].poll() is None, self.logs[0].read_text()
            time.sleep(0.05)

    def finish(self, seconds=300):
        """Returns the statuses, and what each host has printed."""
        end = time.monotonic() + seconds
        try:
            statuses = [process.wait(timeout=max(0.1, end - time.monotonic())) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return statuses, [log.read_text() for log in self.logs]


def test_a_cut_cable_ends_both_hosts_within_a_minute_and_the_run_goes_on(dataset, environment, tmp_path, cable):  # noqa: F811
    one, two = tmp_path / "one", tmp_path / "two"
    often = ["--config.checkpoint.every=4", "--config.watchdog.silence_seconds=6"]
    run([*pretrain(dataset, one), *often], environment)

    # Every step takes a moment, so that the cable is cut in mid-run.
    slowed = [sys.executable, "-m", "tests.support.troubled_run", "reads-are-slow@0", *pretrain(dataset, two)[3:]]
    hosts = Hosts([*slowed, *often], tmp_path, environment)
    hosts.wait_for("step 6/")
    cable(False)
    begun = time.monotonic()
    statuses, logs = hosts.finish()
    assert time.monotonic() - begun < 60
    assert statuses == [ExitStatus.LOST, ExitStatus.LOST], "\n".join(logs)
    assert "2 hosts × 1 device (2 × cpu; 2 processes" in logs[0]
    assert f"error: process 1 ({NAMES[1]}) is lost: it has given no sign of life" in logs[0]
    assert f"error: process 0 ({NAMES[0]}) is lost: it has not answered for" in logs[1]
    assert all("Traceback" not in log for log in logs)

    cable(True)
    statuses, logs = Hosts([*pretrain(dataset, two), *often], tmp_path, environment).finish()
    assert statuses == [0, 0], "\n".join(logs)
    assert "resuming from step " in logs[0]
    assert_same_run(two, one)


def test_a_coordinator_that_cannot_be_reached_is_named_by_both_within_the_limit(dataset, environment, tmp_path, cable):  # noqa: F811
    cable(False)
    command = [*pretrain(dataset, tmp_path / "run"), "--start_timeout_s=5"]
    begun = time.monotonic()
    statuses, logs = Hosts(command, tmp_path, environment).finish()
    assert time.monotonic() - begun < 60
    assert statuses == [ExitStatus.USER_ERROR, ExitStatus.USER_ERROR], "\n".join(logs)
    assert f"of 2 processes 1 did not come within 5 s; there is 0 ({NAMES[0]})" in logs[0]
    assert f"on {NAMES[1]} found no process 0 at {NAMES[0]}:{PORT} within 5 s" in logs[1]
    assert not (tmp_path / "run").exists()
