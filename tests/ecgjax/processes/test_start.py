"""The start of real processes over loopback, and the line that says where a run computes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from absl import flags as flag_values

from data_pipelines.command import EXIT_USER_ERROR
from ecgjax.errors import ConfigError
from ecgjax.processes import start
from ecgjax.processes.accelerators import Accelerators
from tests.support.fixtures import make_simulated_dataset

ROOT = Path(__file__).parents[3]

#: What hangs is an error here; how soon each start ends is measured in `test_roll_call.py`, without the imports.
HANGS_S = 200


@pytest.mark.parametrize(
    ("hosts", "used", "line"),
    [
        (["a", "b"], [4, 4], "2 hosts × 4 devices (8 × NVIDIA H100; 2 processes, by Slurm)"),
        (["a", "a", "b", "b"], [1] * 4, "2 hosts × 2 devices (4 × NVIDIA H100; 4 processes, by Slurm)"),
        (["a"], [8], "1 host × 8 devices (8 × NVIDIA H100)"),
        (["a", "b"], [4, 3], "2 hosts × 3 to 4 devices (7 × NVIDIA H100; 2 processes, by Slurm)"),
    ],
)
def test_hosts_and_devices_are_told_in_one_line(hosts, used, line):
    assert start.devices_line(hosts, used, "NVIDIA H100", "Slurm") == line


def said(*, host="a", accelerators=None, chosen=False, facts=None, folder=True):
    seen = accelerators or Accelerators()
    return {
        "host": host,
        "facts": facts or {"jax": "1"},
        "accelerators": {
            "kind": seen.kind, "names": list(seen.names), "identities": list(seen.identities), "sure": seen.sure
        },
        "chosen": chosen,
        "shares a folder": folder,
        "tuned": False,
    }  # fmt: skip


EIGHT = Accelerators("gpu", ("H100",) * 8, tuple(map(str, range(8))))


def test_the_roll_divides_gpus_and_names_differences():
    answer = start._judge([said(accelerators=EIGHT), said(accelerators=EIGHT)])
    assert answer["shares"] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert start._judge([said(accelerators=EIGHT), said(host="b", accelerators=EIGHT)])["shares"] == [None, None]
    with pytest.raises(ConfigError, match=r"this run differ: jax is 1 in process 0 \(a\) and 2 in process 1 \(b\)"):
        start._judge([said(), said(host="b", facts={"jax": "2"})])
    with pytest.raises(ConfigError, match="the same command"):
        start._judge([said(), said(folder=False)])


def roll_of(hosts, seen):
    return start._Roll(hosts, seen, [None] * len(hosts), "")


def test_a_run_on_a_cpu_beside_gpus_says_so_once(monkeypatch, capsys):
    monkeypatch.setattr(start, "visible_accelerators", lambda _: EIGHT)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    start._check_devices(roll_of(["a"], [EIGHT]), "", limit_s=60)
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("warning: this run computes on the CPU beside what it does not use: 8 × H100. ")
    assert "pip install 'jax[cuda12]==" in line
    assert told.out.startswith(f"1 host × {jax.local_device_count()} devices (")


def test_a_run_without_accelerators_says_nothing_of_them(monkeypatch, capsys):
    monkeypatch.setattr(start, "visible_accelerators", lambda _: Accelerators())
    start._check_devices(roll_of(["a"], [Accelerators()]), "", limit_s=60)
    assert capsys.readouterr().err == ""


def devices(platform="gpu", kind="NVIDIA H100", count=8):
    return json.dumps({"platform": platform, "kind": kind, "count": count})


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([devices(), devices(count=1)], "b has 8 GPUs, and the process there uses 1: start one process a GPU"),
        (
            [devices(), devices(kind="NVIDIA A100")],
            r"0 \(a\) computes on NVIDIA H100 \(gpu\) and process 1 \(b\) on NVIDIA",
        ),
        ([devices(), devices("cpu", "cpu", 1)], r"process 1 \(b\) on cpu \(cpu\); use machines of one kind"),
    ],
    ids=["fewer devices", "another kind", "no plugin on one machine"],
)
def test_devices_that_differ_or_lie_idle_are_refused(monkeypatch, others, told):
    monkeypatch.setattr(start.barriers, "gather", lambda *_, **__: others)
    with pytest.raises(ConfigError, match=told):
        start._check_devices(roll_of(["a", "b"], [EIGHT, EIGHT]), "Slurm", limit_s=60)


@pytest.mark.parametrize("text", ["a", "0,", "-1", "0;1"])
def test_devices_that_are_no_numbers_are_refused(text):
    with pytest.raises(ConfigError, match=r"JAX_LOCAL_DEVICE_IDS=.* must be whole numbers"):
        start._chosen_devices({"JAX_LOCAL_DEVICE_IDS": text})
    assert start._chosen_devices({"JAX_LOCAL_DEVICE_IDS": "0, 3"}) == [0, 3]
    assert start._chosen_devices({}) == []


def run_all(*processes):
    """Runs `ecgjax.pretrain` as processes with these flags, and returns status and output of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "ecgjax.pretrain", "--config=tests/support/tiny_config.py",
             f"--coordinator={address}", *flags],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for flags in processes
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=HANGS_S)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, out) for process, out in zip(running, outputs, strict=True)]


def flags(number, of, *more):
    return [f"--num_processes={of}", f"--process_id={number}", "--config.data.dir=nowhere", *more]


def error_of(output):
    return [line for line in output.splitlines() if line.startswith("error: ")]


# What the roll says of processes that differ is tested above, and how processes hear it in `test_roll_call.py`.
@pytest.mark.slow
def test_processes_with_different_settings_end_with_one_sentence(tmp_path):
    workdir = f"--workdir={tmp_path}/run"
    done = run_all(
        flags(0, 2, workdir), flags(1, 2, workdir, "--config.optimizer.learning_rate=.5", "--config.data.dir=elsewhere")
    )
    assert [status for status, _ in done] == [EXIT_USER_ERROR] * 2
    assert error_of(done[0][1]) == error_of(done[1][1])
    (line,) = error_of(done[0][1])
    assert "config.optimizer.learning_rate is 0.001 in process 0 (" in line
    assert " and 0.5 in process 1 (" in line
    assert not (tmp_path / "run").exists(), "a refused run leaves nothing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "told"),
    [
        pytest.param([flags(0, 3), flags(2, 3)], "of 3 processes 1 did not come within 20 s", id="missing"),
        pytest.param([flags(0, 3), flags(1, 3), flags(1, 3)], "process 1 of 3 came twice", id="doubled"),
    ],
)
def test_processes_missing_or_doubled_are_named_by_all(processes, told, tmp_path):
    more = [f"--workdir={tmp_path}/run", "--start_timeout_s=20"]
    done = run_all(*([*each, *more] for each in processes))
    for status, output in done:
        assert status == EXIT_USER_ERROR, output
        (line,) = error_of(output)
        assert told in line


@pytest.mark.slow
def test_workdirs_that_are_not_shared_are_refused(tmp_path):
    done = run_all(*(flags(number, 2, f"--workdir={tmp_path}/{number}", "--start_timeout_s=20") for number in range(2)))
    assert [status for status, _ in done] == [EXIT_USER_ERROR] * 2
    assert error_of(done[0][1]) == error_of(done[1][1])
    assert "is no folder that all processes share and can write: process 1 on" in error_of(done[0][1])[0]


@pytest.mark.slow
def test_the_error_of_one_process_after_the_start_ends_all(tmp_path):
    data = make_simulated_dataset(tmp_path, num_patients=40, rate=50, seconds=4).directory
    run = f"--workdir={tmp_path}/run"
    done = run_all(flags(0, 2, run, f"--config.data.dir={data}"), flags(1, 2, run))
    assert [status for status, _ in done] == [EXIT_USER_ERROR] * 2
    ((own,), (told,)) = (error_of(output) for _, output in reversed(done))
    assert "nowhere" in own
    assert told.startswith("error: process 1 (")
    assert told.endswith(own.removeprefix("error: "))


def test_orbax_still_has_the_flag_that_limits_its_barriers():
    import ecgjax.training.checkpoints.checkpoint  # noqa: F401  # It defines the flags of Orbax.

    assert flag_values.FLAGS[start._ORBAX_FLAG].value is False, "set only where there are several processes"
