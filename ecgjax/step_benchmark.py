"""Speed of the whole training step beside a ceiling measured in the same run."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ecgjax import devices
from ecgjax.pretrain import Run, prepare_run
from ecgjax.steps import Batch, TrainState

#: Side of the square float32 matrix product that stands for what the machine can do.
MATRIX = 2048

#: Timed repetitions; the median is reported, after one that is thrown away.
REPEATS = 5


def measure(config: ml_collections.ConfigDict, *, steps: int = 10) -> dict[str, Any]:
    """Times the training step on one batch that stays on the device, and fed by the real stream.

    Args:
        config: of a pretraining run, with its data set.
        steps: in each repetition.

    Returns:
        JSON: `step_ms` and `ecgs_per_sec` of the step alone, `stream_step_ms` and `input_wait_frac` of the step fed by
        the stream, `flops_per_step` as the compiler counts them, `flops_per_sec` beside `matrix_product_flops_per_sec`
        of the same run, `mfu` (None where the device is not in the table of known ones), and memory.
    """
    start = time.perf_counter()
    run = prepare_run(config)
    compile_s = time.perf_counter() - start
    stream = run.batches(run.sampler)
    batch = next(stream)
    state, alone = _repeat(run, run.state, lambda: batch, steps)
    waited = [0.0]
    _, streamed = _repeat(run, state, lambda: _timed_next(stream, waited), steps)
    stream.close()
    flops = run.flops_per_step
    peak = devices.peak_flops()
    rate = None if flops is None else flops / alone
    return {
        "what": "step",
        "encoder": config.encoder.name,
        "precision": config.encoder.precision,
        "batch_size": run.batch_size,
        "samples": run.recordings.format.num_samples,
        "leads": config.encoder.num_leads,
        "simulated": run.recordings.simulated,
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "machine": platform.machine(),
        "prepare_and_compile_s": compile_s,
        "step_ms": 1e3 * alone,
        "ecgs_per_sec": run.batch_size / alone,
        "stream_step_ms": 1e3 * streamed,
        "stream_ecgs_per_sec": run.batch_size / streamed,
        "input_wait_frac": waited[0] / (streamed * steps * (REPEATS + 1)),
        "flops_per_step": flops,
        "flops_per_sec": rate,
        "matrix_product_flops_per_sec": _matrix_product(),
        "mfu": None if rate is None or peak is None else rate / peak,
        **devices.memory_metrics(),
    }


def _repeat(run: Run, state: TrainState, batch: Callable[[], Batch], steps: int) -> tuple[TrainState, float]:
    """Median seconds a step, over repetitions of `steps` steps."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = run.step(state, batch())
        jax.block_until_ready((state, metrics))
        seconds.append((time.perf_counter() - start) / steps)
    return state, statistics.median(seconds[1:])


def _timed_next(stream: Iterator[Batch], waited: list[float]) -> Batch:
    start = time.perf_counter()
    batch = next(stream)
    waited[0] += time.perf_counter() - start
    return batch


def _matrix_product() -> float:
    """FLOP/s of all devices together in a float32 matrix product, each device doing its own."""
    count = jax.device_count()
    mesh = jax.make_mesh((count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    shape = (count, MATRIX, MATRIX)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    a = jax.device_put(values, sharding)
    product = jax.jit(lambda a: jnp.matmul(a, a), out_shardings=sharding)
    jax.block_until_ready(product(a))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        seconds.append(time.perf_counter() - start)
    return count * 2 * MATRIX**3 / statistics.median(seconds)
