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
from ecgjax.encoders.operations.pooling import max_pool
from tests.support import gradient_table
from tests.support.pooled_gradients import NORMS, POOLINGS, worst_error

SMALL = sorted(name for name in encoders.ENCODERS if name.endswith(":small"))
#: Of the same classes and pieces as others, or slow to differentiate twice; `make test-slow` has them too. Of what
#: `plain_networks` replaces, the others lack convolutions that are grouped or double, whose gradients are compared with
#: those of plain ones in `operations/test_convolutions.py`.
ALIKE = (
    "clocs_cnn:small", "pclr_resnet:small", "physio_transformer:small", "temporal_net:small", "temporal_net_dual:small",
    "vit_b:small", "xresnet1d50:small", "xresnet1d101:small",
)  # fmt: skip
#: One of every class at its published size; the soak has those of which the slow tests have the small form alone.
PUBLISHED = ("resnet18", "pclr_resnet", "xresnet1d50", "vit_s", "physio_transformer", "clocs_cnn", "temporal_net")
SOAKED = tuple(name for name in PUBLISHED if name not in ("resnet18", "vit_s"))


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

    @jax.jit
    def gradient(exponents, upstream):
        def loss(constant):
            # Computed, so that the backward pass may compute it again.
            x = jnp.exp(jnp.sin(exponents)) + constant[None, None]
            return jnp.sum(upstream * max_pool(x, window=window, stride=stride, padding=padding))

        return jax.grad(loss)(jnp.zeros(4, jnp.float32))

    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(20, 250, 4)).astype(np.float32)
        y = jax.eval_shape(lambda x: max_pool(x, window=window, stride=stride, padding=padding), x)
        upstream = rng.normal(size=y.shape).astype(np.float32)
        expected, scale = upstream.sum((0, 1), dtype=np.float64), np.abs(upstream).sum((0, 1), dtype=np.float64)
        assert (np.abs(np.asarray(gradient(x, upstream), np.float64) - expected) / scale).max() < 1e-6


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pool", POOLINGS, ids=str)
def test_every_window_passes_its_gradient_on_within_a_network(pool, norm):
    assert worst_error(pool, norm=norm, seeds=20) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_every_window_passes_its_gradient_on_as_users_compile(devices):
    done = run_as_users_do("tests.support.pooled_gradients", f"--devices={devices}", "--seeds=20")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["errors"]) == len(POOLINGS) * len(NORMS)
    assert max(found["errors"].values()) < 1e-6
    if found["control"] < 1e-3:
        pytest.skip(
            "all gradients arrive, but here XLA does not lose those of a faulty rule either: this shows nothing"
        )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in SMALL]
)
def test_gradients_of_small_encoders_are_those_of_plain_networks(name):
    assert not gradient_table.failures(gradient_table.compare(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoders", "devices"),
    [
        ("resnet18:small,temporal_net_dual:small", 2),
        pytest.param("resnet18:small,temporal_net:small", 8, marks=pytest.mark.soak),
    ],
)
def test_gradients_of_small_encoders_on_several_devices(encoders, devices):
    done = run_as_users_do("tests.support.gradient_table", f"--encoders={encoders}", f"--devices={devices}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_gradient_of_a_step_in_micro_batches():
    done = run_as_users_do(
        "tests.support.step_gradients", "--only=simclr:small", "--parts=2", "--batch_size=32", "--steps=1"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["leaves"] == 62
    assert found["beyond_rounding"] == [{}]
    # Rounding changes activations by less than a millionth. Where such a change moves the gradient far, a ReLU is at
    # its kink, and on which side of it two programs are is up to how XLA fuses them.
    assert found["whole"][0] < max(1e-4, found["whole_by_a_millionth"][0])
    assert found["whole_by_a_millionth"][0] < 0.02


@pytest.mark.slow
def test_gradients_of_a_small_encoder_as_users_compile():
    done = run_as_users_do("tests.support.gradient_table", "--encoders=resnet18:small")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_gradients_of_parameters_that_are_divided_over_devices():
    done = run_as_users_do(
        "tests.support.gradient_table", "--encoders=resnet18:small,vit_s:small", "--devices=4", "--model=2"
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.soak) if name in SOAKED else name for name in PUBLISHED]
)
def test_gradients_of_published_encoders_are_those_of_plain_networks(name):
    done = run_as_users_do("tests.support.gradient_table", f"--encoders={name}", "--batch=2")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_gradients_in_float64_are_finite_differences():
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.finite_differences"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) > 30
    assert max(errors.values()) < 1e-5, errors
