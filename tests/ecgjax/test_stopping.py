"""A run that is stopped, hangs, or meets a damaged shard: its status, its words, and what it has saved."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.system.exit_status import ExitStatus
from ecgjax.training.run_log.metrics_file import read_metrics
from tests.ecgjax.test_resume import assert_equal_runs
from tests.support.fixtures import make_simulated_dataset

ROOT = Path(__file__).parents[2]
STEPS = 30
#: A quick sign of a lost process; the default is 30 s.
QUICK = "--config.watchdog.silence_seconds=4"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


class Started:
    """A run in a process of its own, or in several that find each other over loopback."""

    def __init__(self, dataset, workdir, *flags, trouble="", processes=1, steps=STEPS, **environment):
        module = ["tests.support.troubled_run", trouble] if trouble else ["ecgjax.pretrain"]
        command = [
            sys.executable, "-m", *module, "--config=tests/support/tiny_config.py", f"--config.data.dir={dataset}",
            f"--workdir={workdir}", f"--config.duration.value={steps}", *flags,
        ]  # fmt: skip
        inherited = {
            **os.environ,
            "PYTHONPATH": str(ROOT),  # tests is no installed package
            "PYTHONUNBUFFERED": "1",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # bits as the emitters that runs use make them
            "JAX_COMPILATION_CACHE_DIR": str(dataset.parent / "compiled"),  # the same programs for every start
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        } | environment
        self.logs = [workdir.parent / f"{workdir.name}.{number}.log" for number in range(processes)]
        self.processes = []
        port = free_port()
        for number, log in enumerate(self.logs):
            several = {
                "ECGJAX_COORDINATOR": f"127.0.0.1:{port}",
                "ECGJAX_NUM_PROCESSES": str(processes),
                "ECGJAX_PROCESS_ID": str(number),
                "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
            }
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=inherited | (several if processes > 1 else {}), stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip

    def log(self, number=0):
        return self.logs[number].read_text()

    def wait_for(self, text, *, number=0, seconds=600):
        deadline = time.monotonic() + seconds
        while True:
            ended = self.processes[number].poll() is not None  # Asked first: a process may print the text and end.
            if text in self.log(number):
                return self
            assert not ended, self.log(number)
            assert time.monotonic() < deadline, self.log(number)
            time.sleep(0.01)

    def wait_for_handlers(self):
        """Waits until the process hears SIGTERM, which is before JAX is imported."""
        status = Path(f"/proc/{self.processes[0].pid}/status")
        while not int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) >> (signal.SIGTERM - 1) & 1:
            time.sleep(0.001)
        return self

    def send(self, number, process=0):
        self.processes[process].send_signal(number)
        return self

    def finish(self, *, seconds=600):
        """Returns the statuses of all processes, and the seconds from now until the last one has ended."""
        begun = time.monotonic()
        try:
            for process in self.processes:
                process.wait(timeout=max(0.1, begun + seconds - time.monotonic()))
        finally:
            for process in self.processes:
                process.kill()
        return [process.returncode for process in self.processes], time.monotonic() - begun

    def status(self):
        (status,), _ = self.finish()
        return status


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    run = Started(dataset, workdir)
    assert run.status() == 0, run.log()
    return workdir


def saved(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def assert_goes_on(dataset, workdir, uninterrupted, *, step):
    assert saved(workdir)[-1] == step
    again = Started(dataset, workdir)
    assert again.status() == 0, again.log()
    assert f"resuming from step {step}" in again.log()
    begin, _, end = again.log().splitlines()[-1].partition("; ")
    assert begin == f"done: {workdir} has the encoder"
    assert end == f"python -m ecgjax.evaluate --workdir={workdir} --task=… tells what it is worth"
    assert_equal_runs(workdir, uninterrupted, steps=STEPS)
    evaluations = [line["step"] for line in read_metrics(workdir) if "eval/loss" in line]
    assert evaluations == [0, 25, 30], "each is made once"


def test_sigterm_before_jax_is_imported_leaves_with_75(dataset, tmp_path):
    run = Started(dataset, tmp_path / "run").wait_for_handlers().send(signal.SIGTERM)
    (status,), seconds = run.finish()
    assert status == ExitStatus.STOPPED, run.log()
    assert run.log().startswith("SIGTERM: stopping, before there was anything to save")
    assert seconds < 30
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "number", "status", "step"),
    [
        ("evaluation-hangs@25", signal.SIGTERM, ExitStatus.STOPPED, 25),
        ("read-hangs@7", signal.SIGUSR1, ExitStatus.STOPPED, 7),
        pytest.param("read-hangs@10", signal.SIGTERM, ExitStatus.STOPPED, 10, marks=pytest.mark.soak),
        pytest.param("evaluation-hangs@25", signal.SIGINT, ExitStatus.INTERRUPTED, 25, marks=pytest.mark.soak),
    ],
)  # fmt: skip
def test_what_hangs_hears_a_signal_and_the_run_goes_on_bit_for_bit(
    dataset, uninterrupted, tmp_path, trouble, number, status, step
):
    run = Started(dataset, tmp_path / "run", trouble=trouble).wait_for("trouble").send(number)
    assert run.status() == status, run.log()
    assert re.search(rf"goes on for \d+ s; step {step} is (saved|the last one)", run.log()), run.log()
    assert_goes_on(dataset, tmp_path / "run", uninterrupted, step=step)


@pytest.mark.slow
def test_a_damaged_shard_in_mid_run_costs_no_step(dataset, uninterrupted, tmp_path):
    run = Started(dataset, tmp_path / "run", trouble="read-fails@7")
    assert run.status() == ExitStatus.USER_ERROR, run.log()
    assert "reading the batch of step 8 failed: step 7 is saved in" in run.log()
    assert run.log().splitlines()[-1] == "error: shard 3 is damaged"
    assert_goes_on(dataset, tmp_path / "run", uninterrupted, step=7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "what", "step"),
    [
        ("read-hangs@7", "reading the batch of step 8", 7),
        pytest.param("evaluation-hangs@25", "the evaluation of step 25", 25, marks=pytest.mark.soak),
        pytest.param("save-hangs@20", "saving step 20", 10, marks=pytest.mark.soak),
    ],
)
def test_the_watchdog_ends_what_hangs_and_writes_where_every_thread_stands(dataset, tmp_path, trouble, what, step):
    run = Started(dataset, tmp_path / "run", "--config.watchdog.minutes=.1", trouble=trouble)
    assert run.status() == ExitStatus.HUNG, run.log()
    assert f"error: {what} has taken" in run.log()
    assert "config.watchdog.minutes" in run.log()
    stacks = (tmp_path / "run" / "stacks.process0.txt").read_text()
    assert "in hang" in stacks, "the main thread's place"
    assert stacks.count("Thread 0x") > 1
    assert saved(tmp_path / "run")[-1] == step


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(each, marks=pytest.mark.soak) for each in (signal.SIGUSR1, signal.SIGINT))],
)
def test_a_signal_while_compiling_leaves_at_once(dataset, tmp_path, number):
    # Nothing comes from the cache, so that compiling takes seconds.
    compiling = {"JAX_LOG_COMPILES": "1", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "none"), "XLA_FLAGS": ""}
    run = Started(dataset, tmp_path / "run", **compiling).wait_for("Compiling jit(step)").send(number)
    (status,), seconds = run.finish()
    assert status == (ExitStatus.INTERRUPTED if number == signal.SIGINT else ExitStatus.STOPPED), run.log()
    assert "before there was anything to save" in run.log()
    assert seconds < 30


@pytest.mark.slow
def test_a_second_signal_waits_for_the_save(dataset, uninterrupted, tmp_path):
    run = Started(dataset, tmp_path / "run", trouble="save-is-slow@10").wait_for("trouble")
    for _ in range(3):
        run.send(signal.SIGTERM)
        time.sleep(0.3)
    assert run.status() == ExitStatus.STOPPED
    assert run.log().count("already stopping since SIGTERM; the save is waited for") == 2
    assert "stopped by SIGTERM: step 1" in run.log()
    assert_goes_on(dataset, tmp_path / "run", uninterrupted, step=saved(tmp_path / "run")[-1])


# Two processes over loopback.


@pytest.mark.slow
@pytest.mark.parametrize(
    "killed", [0, pytest.param(1, marks=pytest.mark.soak)], ids=["the coordinator", "the other one"]
)
def test_a_killed_process_ends_the_other_with_a_sentence_that_names_it(dataset, tmp_path, killed):
    run = Started(dataset, tmp_path / "run", QUICK, processes=2, trouble=f"killed@7@{killed}")
    run.wait_for("step 4/")
    statuses, seconds = run.finish()
    other = 1 - killed
    assert statuses[killed] == -signal.SIGKILL
    assert statuses[other] == ExitStatus.LOST, run.log(other)
    assert f"error: process {killed} (" in run.log(other)
    assert "is lost: it" in run.log(other)
    assert run.log(other).count("Traceback") == 0
    assert seconds < 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to"),
    [
        (signal.SIGINT, 1),
        *(
            pytest.param(number, to, marks=pytest.mark.soak)
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
            for to in (0, 1)
            if (number, to) != (signal.SIGINT, 1)
        ),
    ],
)
def test_a_signal_to_one_process_stops_all_at_one_step(dataset, tmp_path, number, to):
    run = Started(dataset, tmp_path / "run", processes=2, steps=100_000).wait_for("step 4/").send(number, to)
    statuses, _ = run.finish()
    status = ExitStatus.INTERRUPTED if number == signal.SIGINT else ExitStatus.STOPPED
    assert statuses == [status, status], run.log(0) + run.log(1)
    assert f"stopped by {signal.Signals(number).name}: step {saved(tmp_path / 'run')[-1]} is saved in" in run.log(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "own", "others", "troubled"),
    [
        ("read-crashes", ExitStatus.FAULT, ExitStatus.LOST, 1),
        ("read-fails", ExitStatus.USER_ERROR, ExitStatus.USER_ERROR, 0),
        pytest.param("read-crashes", ExitStatus.FAULT, ExitStatus.LOST, 0, marks=pytest.mark.soak),
        pytest.param("read-fails", ExitStatus.USER_ERROR, ExitStatus.USER_ERROR, 1, marks=pytest.mark.soak),
    ],
)
def test_an_error_in_one_process_ends_the_other_with_a_sentence_that_names_it(
    dataset, tmp_path, trouble, own, others, troubled
):
    run = Started(dataset, tmp_path / "run", processes=2, trouble=f"{trouble}@7@{troubled}")
    run.wait_for("trouble", number=troubled)
    statuses, seconds = run.finish()
    other = 1 - troubled
    assert (statuses[troubled], statuses[other]) == (own, others), run.log(0) + run.log(1)
    assert re.search(rf"error: process {troubled} \(.*\) ended with an error: (unforeseen|shard 3)", run.log(other))
    assert seconds < 60


EVERY = 4
#: Checkpoints as often as that, so that many kills fall into a save.
OFTEN = f"--config.checkpoint.every={EVERY}"


@pytest.mark.slow
@pytest.mark.soak
def test_one_of_two_processes_killed_ten_times_ends_the_other_each_time_and_the_run_goes_on(dataset, tmp_path):
    steps, workdir, rng = 60, tmp_path / "killed", np.random.default_rng(0)
    whole = uninterrupted_run(dataset, tmp_path, processes=2, steps=steps)
    for step in np.sort(rng.choice(np.arange(1, steps), 10, replace=False)):
        killed = int(rng.integers(2))
        trouble = f"killed@{step}@{killed}"
        run = Started(dataset, workdir, QUICK, OFTEN, processes=2, steps=steps, trouble=trouble)
        assert run.processes[killed].wait(timeout=600) == -signal.SIGKILL, run.log(killed)
        statuses, seconds = run.finish()
        assert statuses[1 - killed] == ExitStatus.LOST, run.log(1 - killed)
        assert f"error: process {killed} (" in run.log(1 - killed)
        assert seconds < 60
    assert_ends_as(whole, dataset, workdir, processes=2, steps=steps)


@pytest.mark.slow
def test_killed_inside_a_save_equals_uninterrupted(dataset, uninterrupted, tmp_path):
    run = Started(dataset, tmp_path / "run", trouble="killed-in-save@20")
    assert run.status() == -signal.SIGKILL, run.log()
    assert is_under_way(tmp_path / "run", 20)
    assert_goes_on(dataset, tmp_path / "run", uninterrupted, step=10)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("processes", [1, 2])
def test_thirty_kills_a_third_of_them_inside_a_save_change_no_bit(dataset, tmp_path, processes):
    assert_kills_change_no_bit(dataset, tmp_path, processes=processes, steps=200, kills_in_saves=10, other_kills=20)


def assert_kills_change_no_bit(dataset, tmp_path, *, processes, steps, kills_in_saves, other_kills):
    workdir, rng = tmp_path / "killed", np.random.default_rng(0)
    whole = uninterrupted_run(dataset, tmp_path, processes=processes, steps=steps)
    in_saves = rng.choice(np.arange(EVERY, steps, EVERY), kills_in_saves, replace=False)
    others = rng.choice(np.setdiff1d(np.arange(1, steps), in_saves), other_kills, replace=False)
    for step in np.sort(np.concatenate([in_saves, others])):
        inside = step in in_saves
        # The first process names the folder of a save.
        killed = 0 if inside else int(rng.integers(processes))
        trouble = f"{'killed-in-save' if inside else 'killed'}@{step}@{killed}"
        run = Started(dataset, workdir, OFTEN, processes=processes, steps=steps, trouble=trouble)
        assert run.processes[killed].wait(timeout=600) == -signal.SIGKILL, run.log(killed)
        for process in run.processes:  # As where the machine fails; what the other says is tested above.
            process.kill()
        run.finish()
        if inside:
            assert is_under_way(workdir, step), "an unfinished save is left"
    assert_ends_as(whole, dataset, workdir, processes=processes, steps=steps)


def uninterrupted_run(dataset, folder, *, processes, steps):
    run = Started(dataset, folder / "whole", OFTEN, processes=processes, steps=steps)
    assert set(run.finish()[0]) == {0}, run.log()
    return folder / "whole"


def assert_ends_as(whole, dataset, workdir, *, processes, steps):
    last = Started(dataset, workdir, OFTEN, processes=processes, steps=steps)
    assert set(last.finish()[0]) == {0}, last.log()
    assert_equal_runs(workdir, whole, steps=steps)


def is_under_way(workdir, step):
    """Returns whether there is an unfinished save of a step, and no finished one."""
    folder = workdir / "checkpoints"
    return any(folder.glob(f"{step}.orbax-checkpoint-tmp*")) and not (folder / str(step)).exists()
