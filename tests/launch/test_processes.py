"""The launcher, and two real processes over loopback that give the run of one."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.command import EXIT_USER_ERROR
from data_pipelines.packing.packed_copy import pack
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.store import open_store
from data_pipelines.system import stop_signals
from ecgjax.config import run_config
from ecgjax.training import device_mesh
from ecgjax.training.run_log.metrics_file import read_metrics
from launch import local
from tests.support import process_rows
from tests.support.finished_runs import final_state
from tests.support.fixtures import make_simulated_dataset
from tests.support.storage_faults import damage, largest_file

ROOT = Path(__file__).parents[2]
STEPS = 24


def launcher(*command, processes=2):
    return [sys.executable, "-m", "launch.local", f"--processes={processes}", "--", *command]


def python(code):
    return [sys.executable, "-c", code]


def test_output_is_numbered_and_every_process_knows_its_place(capsys):
    names = "ECGJAX_PROCESS_ID", "ECGJAX_NUM_PROCESSES", "ECGJAX_COORDINATOR"
    code = f"import os; print(*[os.environ[n] for n in {names}])"
    assert local.launch(python(code), processes=3) == 0
    lines = sorted(capsys.readouterr().out.splitlines())
    fields = [line.split() for line in lines]
    assert [f[:3] for f in fields] == [[f"[{i}]", str(i), "3"] for i in range(3)]
    assert len({f[3] for f in fields}) == 1, "one coordinator"
    assert fields[0][3].startswith("127.0.0.1:")


def test_one_failure_ends_all_and_is_the_status(capfd):
    code = "import os, sys, time\nif os.environ['ECGJAX_PROCESS_ID'] == '1': sys.exit(7)\ntime.sleep(600)"
    start = time.monotonic()
    assert local.launch(python(code), processes=2, grace_s=0.2) == 7
    assert time.monotonic() - start < 60


def test_death_by_signal_is_128_plus_its_number():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert local.launch(python(code), processes=1) == 128 + signal.SIGKILL


def test_others_may_end_by_themselves_after_a_failure(tmp_path):
    code = (
        "import os, sys, time, pathlib\nif os.environ['ECGJAX_PROCESS_ID'] == '0': sys.exit(3)\n"
        f"time.sleep(1); pathlib.Path({str(tmp_path / 'done')!r}).touch()"
    )
    assert local.launch(python(code), processes=2) == 3
    assert (tmp_path / "done").exists()


def test_sigterm_reaches_every_process():
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    process = subprocess.Popen(launcher(*python(code)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        assert sorted(process.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 75


def test_processes_get_the_time_that_their_save_takes_and_every_further_signal(tmp_path):
    # Longer than a command gets to end that has nothing of its own to save.
    takes = stop_signals.GRACE_S + 2
    code = (
        "import os, pathlib, signal, sys, time\n"
        "heard = []\n"
        "for number in (signal.SIGTERM, signal.SIGUSR1): signal.signal(number, lambda n, _: heard.append(n))\n"
        "print('ready', flush=True)\n"
        "while not heard: time.sleep(.01)\n"
        f"end = time.monotonic() + {takes}\n"
        "while time.monotonic() < end: time.sleep(.01)\n"
        f"pathlib.Path({str(tmp_path)!r}, os.environ['ECGJAX_PROCESS_ID']).write_text(str([int(n) for n in heard]))\n"
        "sys.exit(75)"
    )
    process = subprocess.Popen(launcher(*python(code)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        assert sorted(process.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) == 75
    expected = str([int(signal.SIGTERM), int(signal.SIGUSR1)])
    assert [(tmp_path / number).read_text() for number in "01"] == [expected, expected]


def test_a_command_is_needed():
    done = subprocess.run([sys.executable, "-m", "launch.local"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: give the command after --" in done.stderr


# What follows trains, or at least reads, in real processes.


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),  # tests is no installed package
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),  # several starts of one program
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.mark.parametrize(
    "devices", [1, pytest.param(2, marks=pytest.mark.slow)], ids=["one device each", "two devices each"]
)
def test_processes_read_the_global_batch_and_train_on_it_as_one(dataset, environment, tmp_path, devices):
    command = launcher(sys.executable, "-m", "tests.support.process_rows", str(dataset), str(tmp_path))
    subprocess.run(command, cwd=ROOT, env={**environment, "JAX_NUM_CPU_DEVICES": str(devices)}, check=True)
    sampler = process_rows.make_sampler(open_dataset(dataset))
    store = open_store(dataset)
    for step in range(process_rows.STEPS):
        parts = [np.load(tmp_path / f"{step}_{process}.npz") for process in range(2)]
        assert all(len(part["row"]) == process_rows.BATCH // 2 for part in parts)
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.argsort(joined["position"])
        expected = sampler.record_numbers(process_rows.START + step)
        np.testing.assert_array_equal(joined["position"][order], np.arange(process_rows.BATCH))
        np.testing.assert_array_equal(joined["row"][order], np.arange(process_rows.BATCH))
        np.testing.assert_array_equal(joined["record"][order], expected)
        np.testing.assert_array_equal(joined["signal"][order], store.read(expected))
    assert_trained_as_one(store, sampler, tmp_path / "trained.npz")


def assert_trained_as_one(store, sampler, path):
    mesh = device_mesh.make_mesh(devices=jax.devices()[:1])
    state, update = process_rows.training(mesh, store.read(np.arange(1))[0].size)
    first, losses = state.params["encoder"], []
    for step in range(process_rows.STEPS):
        record = sampler.record_numbers(process_rows.START + step)
        batch = {"row": np.arange(process_rows.BATCH, dtype=np.int32), "record": record, "signal": store.read(record)}
        state, metrics = update(state, batch)
        losses.append(float(metrics["loss"]))
    found = np.load(path)
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)
    moved = np.abs(state.params["encoder"] - first).max()
    assert moved > 1e-3
    np.testing.assert_allclose(found["matrix"], state.params["encoder"], rtol=0, atol=1e-3 * moved)


@pytest.mark.slow
def test_any_number_of_processes_on_any_mesh_reads_the_same_global_batch(environment):
    assert run([sys.executable, "-m", "tests.support.pod_rows"], {**environment, "JAX_NUM_CPU_DEVICES": "64"}) == (
        "16 meshes agree\n"
    )


def pretrain(dataset, workdir, *, steps=STEPS):
    return [
        sys.executable, "-m", "ecgjax.pretrain", "--config=tests/support/tiny_config.py",
        f"--config.data.dir={dataset}", f"--workdir={workdir}",
        f"--config.duration.value={steps}", "--config.eval_every=12",
        "--config.checkpoint.every=12",
        # One stage and one augmentation: what is compiled here is compiled by every process.
        "--config.encoder.widths=(8,)", "--config.augment.vcg.enabled=False",
        "--config.augment.time_mask.enabled=False",
        # Adam divides by √v + ε: with the usual ε, rounding noise of gradients near zero becomes steps of ± the rate.
        "--config.optimizer.eps=.1",
    ]  # fmt: skip


def shell(command):
    """As a line for a shell, which puts in what begins with $."""
    return " ".join(part if "$" in part else shlex.quote(part) for part in command)


def run(command, environment, *, status=0):
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def lines_of(workdir, *prefixes):
    return {
        (line["step"], name): value
        for line in read_metrics(workdir)
        for name, value in line.items()
        if name.startswith(prefixes)
    }


def assert_same_run(workdir, expected_workdir, *, steps=STEPS):
    found, expected = (lines_of(w, "train/", "eval/") for w in (workdir, expected_workdir))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-6), key
    step, state = final_state(workdir)
    expected_step, expected_state = final_state(expected_workdir)
    assert step == expected_step == steps
    for part in ("params_encoder", "stats_encoder"):
        a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(s[part])]) for s in (state, expected_state))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max(), err_msg=part)


def stopped_after(step, command, workdir, environment, folder):
    """Stops a run by SIGTERM after a step, and returns the step that it has saved."""
    with (folder / f"{step}.log").open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        while not any(found >= step for found, _ in lines_of(workdir, "train/")):
            assert process.poll() is None, log.seek(0) or log.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == run_config.EXIT_STOPPED, log.seek(0) or log.read()
    stopped = max(found for found, _ in lines_of(workdir, "train/"))
    assert step <= stopped < STEPS
    return stopped


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_give_the_run_of_one(dataset, environment, tmp_path):
    one, two, fewer = (tmp_path / name for name in ("one", "two", "fewer"))
    run(pretrain(dataset, one), environment)

    # SIGTERM reaches the launcher, the processes agree on a step, save there, and leave.
    stopped = stopped_after(4, launcher(*pretrain(dataset, two)), two, environment, tmp_path)

    shutil.copytree(two, fewer)
    resumed = run(launcher(*pretrain(dataset, two)), environment)
    assert f"resuming from step {stopped}" in resumed
    assert resumed.count("done: ") == 1, "one process says it"
    assert_same_run(two, one)
    # And it goes on with another number of processes than it was started with.
    assert f"resuming from step {stopped}" in run(pretrain(dataset, fewer), environment)
    assert_same_run(fewer, one)

    first, expected = (lines_of(w, "train/")[1, "train/loss"] for w in (two, one))
    assert first == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_two_processes_draw_neighbours_as_one_does_stopped_and_resumed(dataset, environment, tmp_path):
    folds = ["--train_folds=1,2,3,4,5,6,7,8", "--val_folds=9", "--test_folds=10"]
    search = ["data_pipelines.neighbours", f"--dataset={dataset}", "--space=signal", "--k=3", "--num_workers=1", *folds]
    run([sys.executable, "-m", *search], environment)
    near = [
        "--config.relation.name=nearest_in_dataset", "--config.sampling.name=neighbours",
        "--config.columns.neighbour_space=signal",
    ]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    run([*pretrain(dataset, one), *near], environment)
    stopped = stopped_after(4, launcher(*pretrain(dataset, two), *near), two, environment, tmp_path)
    assert f"resuming from step {stopped}" in run(launcher(*pretrain(dataset, two), *near), environment)
    assert_same_run(two, one)
    # Without neighbours in the batch a row's only positive is the other view of its recording.
    assert lines_of(two, "train/")[1, "train/positives_per_row"] > 1


@pytest.mark.slow
@pytest.mark.soak
def test_a_run_goes_on_with_one_two_four_two_and_one_process(dataset, environment, tmp_path):
    whole, changing = tmp_path / "whole", tmp_path / "changing"
    run(pretrain(dataset, whole), environment)
    stopped = 0
    for processes in (1, 2, 4, 2):
        command = launcher(*pretrain(dataset, changing), processes=processes)
        before, stopped = stopped, stopped_after(stopped + 2, command, changing, environment, tmp_path)
        resumed = f"{processes} × cpu; resuming from step {before}" if before else f"{processes} × cpu"
        assert resumed in (tmp_path / f"{before + 2}.log").read_text()
    assert f"1 × cpu; resuming from step {stopped}" in run(pretrain(dataset, changing), environment)
    assert_same_run(changing, whole)


@pytest.mark.slow
def test_a_shard_that_one_process_cannot_read_is_left_out_by_all(dataset, environment, tmp_path):
    # Both processes hold all rows: a mesh of one by two. Only the second's copy of the data is damaged.
    whole, damaged, one, two = (tmp_path / name for name in ("data-0", "data-1", "one", "two"))
    for copy in (whole, damaged):
        shutil.copytree(dataset, copy)
        pack(open_dataset(copy), shard_bytes=2**16)
    shard = sorted((damaged / "packed").glob("*.npy"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])

    options = ["--config.data.allow_bad_shards", "--config.log_every=1"]
    assert f"left out: {shard}" in run([*pretrain(damaged, one, steps=6), *options], environment)
    own = [*pretrain(f"{tmp_path}/data-$ECGJAX_PROCESS_ID", two, steps=6), *options, "--config.mesh.model=2"]
    run(launcher("sh", "-c", shell(own)), environment)
    unread = lines_of(one, "train/unread_rows")
    assert len(unread) == 6
    assert sum(unread.values()) > 0
    assert_same_run(two, one, steps=6)


@pytest.mark.slow
def test_processes_agree_on_the_checkpoint_before_a_damaged_one(dataset, environment, tmp_path):
    """One process, then two, then one again: each finds the last checkpoint damaged and goes on from the one before."""
    one, two = tmp_path / "one", tmp_path / "two"
    # The clock asks for a save at every step; the first process's clock alone decides.
    often = ["--config.checkpoint.keep=3", "--config.checkpoint.best=eval/loss", "--config.checkpoint.minutes=1e-9"]
    run([*pretrain(dataset, one), *often], environment)
    shutil.copytree(one, two)
    for number, command in enumerate([launcher(*pretrain(dataset, two), *often), [*pretrain(dataset, two), *often]], 1):
        damage(largest_file(two / "checkpoints" / str(STEPS) / "params_encoder" / "d"))
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        aside = f"{STEPS}.damaged" + ("-2" if number == 2 else "")
        told = [line for line in (done.stdout + done.stderr).splitlines() if " is damaged: " in line]
        assert len(told) == 1, done.stdout + done.stderr
        assert told[0].endswith(f"it is kept as {aside}, and the run begins from step {STEPS - 1}")
        assert f"resuming from step {STEPS - 1}" in done.stdout
        assert_same_run(two, one)


@pytest.mark.slow
def test_processes_with_different_data_are_refused(dataset, environment, tmp_path):
    other = make_simulated_dataset(tmp_path, num_patients=40, rate=50, seconds=4, seed=1, name="data-1").directory
    shutil.copytree(dataset, other.with_name("data-0"))
    own = pretrain(f"{tmp_path}/data-$ECGJAX_PROCESS_ID", tmp_path / "run", steps=6)
    command = launcher("sh", "-c", shell(own))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_USER_ERROR
    assert "process 1 has other data sets, split or sampling than process 0" in done.stdout + done.stderr
