"""Gradients of what runs: whole networks, jitted, in training mode, on signals like ECGs of real length.

XLA decides by the whole program which values it computes twice, so that a rule of ours may be right alone and wrong in
a network; and it decides otherwise with the flags that the tests compile with. So everything here is done with these
flags, and, where it is slow, with those of runs, in processes of their own.
"""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.encoders.pooling import max_pool
from tests import gradient_table
from tests.pooled_gradients import POOLINGS, worst_error

SMALL = sorted(name for name in encoders.ENCODERS if name.endswith(":small"))
PUBLISHED = sorted(name for name in encoders.ENCODERS if ":" not in name)


def run_as_users_do(module, *arguments, timeout=1500):
    """Runs a module in a process without XLA flags; returns its finished process."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize("pool", POOLINGS, ids=str)
def test_every_window_passes_its_gradient_on(pool):
    window, stride, padding = pool
    x = jnp.asarray(np.random.default_rng(0).normal(size=(20, 250, 4)), jnp.float32)
    y, pull = jax.vjp(lambda x: max_pool(x, window=window, stride=stride, padding=padding), x)
    upstream = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    (gradient,) = jax.jit(pull)(upstream)
    np.testing.assert_allclose(gradient.sum((1,)), upstream.sum((1,)), atol=1e-4)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("pool", POOLINGS, ids=str)
def test_every_window_passes_its_gradient_on_within_a_network(pool, devices):
    assert worst_error(pool, seeds=20, devices=devices) < 1e-6


@pytest.mark.parametrize("devices", [1, 2])
def test_every_window_passes_its_gradient_on_as_users_compile(devices):
    done = run_as_users_do("tests.pooled_gradients", f"--devices={devices}", "--seeds=20")
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) == len(POOLINGS)
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_small_encoders_are_those_of_plain_networks(name):
    assert not gradient_table.failures(gradient_table.compare(name))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_gradients_of_small_encoders_as_users_compile(devices):
    done = run_as_users_do("tests.gradient_table", f"--encoders={','.join(SMALL)}", f"--devices={devices}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_gradients_on_a_mesh_of_data_and_model():
    done = run_as_users_do("tests.gradient_table", "--encoders=resnet18:small,vit_s:small", "--devices=4", "--model=2")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_gradients_of_published_encoders_are_those_of_plain_networks(name):
    done = run_as_users_do("tests.gradient_table", f"--encoders={name}", "--batch=2")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("program", ["quickstart", "simclr:small", "dade_1m:single,small", "physioclr:small"])
def test_the_steps_of_runs_go_by_the_gradient_of_plain_networks(program):
    done = run_as_users_do("tests.step_gradients", f"--only={program}", "--batch_size=16", "--steps=2")
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, done.stdout.splitlines()[-1:])
    assert line["beyond_rounding"] == [{}, {}], line


def test_gradients_in_float64_are_finite_differences():
    done = subprocess.run(
        [sys.executable, "-m", "tests.finite_differences"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) > 30
    assert max(errors.values()) < 1e-5, errors
