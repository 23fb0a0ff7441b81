"""The benchmark of the step runs and reports; nothing here depends on how fast this machine is."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest

from data_pipelines.benchmarks import harness
from data_pipelines.physiology.store import open_physiology
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import SignalFormat
from ecgjax import defaults
from ecgjax.benchmarks import embed, step_ceilings, training_step
from ecgjax.benchmarks.step_breakdown import breakdown
from ecgjax.encoders import cost
from ecgjax.encoders.operations.portability import portable
from ecgjax.training import device_mesh
from ecgjax.training.run import prepare_run
from tests.support import tiny_config


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(training_step, "NUM_SIMULATED", 80)
    monkeypatch.setattr(harness, "REPEATS", 1)
    monkeypatch.setattr(step_ceilings, "_SIDE", {"cpu": 64})
    monkeypatch.setattr(step_ceilings, "_COPIED", {"cpu": 4096})


@pytest.mark.slow
def test_every_figure_is_there(stored_dataset, monkeypatch):
    runs = []
    monkeypatch.setattr(training_step, "prepare_run", lambda settings: runs.append(prepare_run(settings)) or runs[0])
    config = tiny_config.get_config()
    config.data.dir = str(stored_dataset[0].directory)
    # Optax's Adam raises a float to an integer power; and the compiler would count the zeros of blocks of time.
    with jax.numpy_dtype_promotion("standard"), portable():
        report = json.loads(json.dumps(training_step.measure(defaults.settings_of(config), steps=1)))
    assert (report["batch_size"], report["embeddings_a_record"], report["samples"]) == (8, 2, 1000)
    assert report["simulated"] is True
    assert report["mfu"] is None
    assert 0 < report["input_wait_frac"] < 1
    assert report["flops_per_step"] == runs[0].flops_per_step, "what the run's own perf/mfu is of"
    # Beside loss and gradient a step has the products of its metrics and of the optimiser.
    gradient = jax.grad(runs[0].loss, has_aux=True)
    batch = next(runs[0].batches(runs[0].sampler))
    shapes = jax.eval_shape(lambda *args: args, runs[0].state.params, runs[0].state.stats, batch, jnp.int32(0))
    with portable():
        counted = 2 * cost.macs_of(functools.partial(gradient, train=True), *shapes)
    assert counted <= report["flops_per_step"] < 1.01 * counted
    # The compiler counts additions too, and leaves out products with padding.
    assert report["flops_per_step"] == pytest.approx(report["compiler_flops_per_step"], rel=0.5)
    assert report["of_matrix_product"] == pytest.approx(
        report["flops_per_sec"] / report["matrix_product_flops_per_sec"]
    )
    assert report["augmentation_frac"] == pytest.approx(report["augmentation_ms"] / report["step_ms"])
    assert report["copy_bytes_per_sec"] > 0


@pytest.mark.slow
def test_without_a_data_set_one_is_simulated_with_what_the_relation_needs(monkeypatch):
    monkeypatch.setattr(training_step, "NUM_SIMULATED", 2)
    config = tiny_config.get_config()
    config.relation.name = "similar_physiology"
    settings, simulated = defaults.settings_of(config), SignalFormat(sampling_rate_hz=100, num_samples=1000)
    with training_step.with_data(settings.data, settings.column_use, simulated) as data:
        dataset = open_dataset(data.dir)
        assert dataset.format == SignalFormat(sampling_rate_hz=100, num_samples=1000)
        assert len(open_physiology(dataset).values) == dataset.index.num_records
    assert not dataset.directory.exists()
    assert settings.data.dir == ""


def _conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1,), [(2, 2)], dimension_numbers=("NWC", "WIO", "NWC"))


def test_a_convolution_and_its_gradients_are_told_apart():
    x, kernel = jnp.ones((2, 32, 3)), jnp.ones((5, 3, 4))

    def loss(x, kernel):
        layer = lambda x, _: (jnp.tanh(x), jnp.tanh(_conv(x, kernel)).sum())  # noqa: E731
        return jax.lax.scan(layer, x, None, length=3)[1].sum()

    product = step_ceilings.matrix_product(jnp.dtype(jnp.float32))
    found = breakdown(jax.grad(loss, (0, 1)), (x, kernel), product=product, step_s=1.0)
    lines = {line["product"].partition(":")[0]: line for line in found["products"]}
    assert set(lines) == {"convolution", "input gradient", "kernel gradient"}
    for line in lines.values():
        assert line["times"] == 3
        # 2 · batch · time · kernel · in · out, the same for all three but for what padding they count.
        assert line["flops_per_sec"] * line["ms"] / 3e3 == pytest.approx(2 * 2 * 32 * 5 * 3 * 4)
    assert found["products_left_out_of_flops"] == 0
    assert found["beside_products_ms"] == pytest.approx(1e3 - found["products_ms"])
    assert set(found["layers_ms"]) == {f"{layer} 2×32×4" for layer in ("copy", "batch norm, ReLU", "dropout")}


def test_a_breakdown_on_devices_is_of_one_device_s_share():
    mesh = device_mesh.make_mesh()
    rows, width = 16, 4
    spec = jax.sharding.PartitionSpec("data")

    def mapped(a, b):
        return jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(spec, jax.P()), out_specs=spec)(a, b)

    product = step_ceilings.matrix_product(jnp.dtype(jnp.float32))
    args = jnp.ones((rows, width)), jnp.ones((width, width))
    for function, times in ((jnp.matmul, 1), (mapped, mesh.size)):
        found = breakdown(function, args, product=product, step_s=1.0, num_devices=mesh.size)
        (line,) = found["products"]
        assert line["times"] == times
        share = 2 * rows * width * width / mesh.size
        assert line["flops_per_sec"] * line["ms"] / 1e3 == pytest.approx(share)
        assert found["products_of_matrix_product"] == pytest.approx(line["of_matrix_product"])


def test_embedding_and_the_probe_are_timed(stored_dataset, monkeypatch):
    monkeypatch.setattr(embed, "NUM_EMBEDDED", 12)
    monkeypatch.setattr(embed, "BATCH_SIZE", 8)
    monkeypatch.setattr(embed, "NUM_LABELS", 30)
    monkeypatch.setattr(embed, "NUM_VALIDATION", 30)
    config = tiny_config.get_config()
    config.data.dir = str(stored_dataset[0].directory)
    report = json.loads(json.dumps(embed.measure(defaults.settings_of(config))))
    assert (report["layer"], report["features"], report["samples"]) == ("features", 8, 1000)
    assert 0 < report["read_frac"] < 1
    assert report["probe_s"] > 0
    assert report["of_matrix_product"] == pytest.approx(
        2 * report["macs_a_record"] * report["ecgs_per_sec"] / report["matrix_product_flops_per_sec"]
    )
