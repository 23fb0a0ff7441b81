"""Speed of the whole training step beside ceilings measured in the same run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Compiled

from data_pipelines.benchmarks import harness
from data_pipelines.benchmarks.input import simulated_dataset
from data_pipelines.benchmarks.machine import describe_machine
from data_pipelines.physiology.store import measure_dataset
from data_pipelines.records import SignalFormat
from ecgjax.augmentations import partners
from ecgjax.augmentations.crops import Recorded
from ecgjax.benchmarks import step_ceilings
from ecgjax.benchmarks.step_breakdown import breakdown
from ecgjax.data.recordings import Recordings
from ecgjax.data.row_metadata import needed_columns
from ecgjax.data.settings import ColumnUse, DataSettings
from ecgjax.encoders import PRECISIONS
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.keys import row_keys
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.training import devices
from ecgjax.training.assembly import make_overlay, make_views
from ecgjax.training.device_mesh import unanimous
from ecgjax.training.run import Run, prepare_run
from ecgjax.training.settings import PretrainingSettings
from ecgjax.training.steps import Batch, TrainState

#: Number of simulated records where no data set is given. They are read repeatedly, from memory.
NUM_SIMULATED = 256


def measure(
    settings: PretrainingSettings,
    *,
    steps: int = 3,
    by_layer: bool = False,
    simulated_format: SignalFormat = SignalFormat(sampling_rate_hz=250, num_samples=2500),  # noqa: B008
) -> dict[str, Any]:
    """Times the training step on one batch that stays on the device, its parts, and the step fed by the real stream.

    All of them take turns with a matrix product and a copy, and medians are reported.

    Args:
        settings: Settings of a run; if they name no data set, one is simulated, with the measurements that the run
            needs.
        steps: Number of steps in each repetition.
        by_layer: Whether `step_breakdown` also times the products of the step one by one.
        simulated_format: Rate and length of the simulated recordings.

    Returns:
        Values for JSON: `step_ms` and `ecgs_per_sec` of the step alone; `stream_step_ms` and `input_wait_frac` of the
        step fed by the stream; `augmentation_ms` of making the views alone, and its share of the step;
        `flops_per_step`, as the run counts it, and `compiler_flops_per_step`, in which additions count, but a loop's
        body only once; `flops_per_sec` beside `matrix_product_flops_per_sec` (at the encoder's precision) and
        `copy_bytes_per_sec` of the same run; `mfu` (None where the device is not in the table of known ones); and
        memory. Counts of FLOP are None where neither the step's trace nor the compiler gives them.
    """
    with with_data(settings.data, settings.column_use, simulated_format) as data:
        return _measure(dataclasses.replace(settings, data=data), steps=steps, by_layer=by_layer)


@contextlib.contextmanager
def with_data(data: DataSettings, use: ColumnUse | None, simulated_format: SignalFormat) -> Iterator[DataSettings]:
    """Yields the settings of the data; where they name no data set, one is simulated and removed afterwards.

    Args:
        data: Settings of the data.
        use: Metadata that the run uses beside patient and signal; None for no metadata.
        simulated_format: Rate and length of the simulated recordings.
    """
    if data.dir:
        yield data
        return
    needed = set() if use is None else needed_columns(use)
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="ecgjax-benchmark-") as scratch:
        directory = Path(scratch) / "simulated"
        simulated_dataset(
            directory, num_records=NUM_SIMULATED, seed=0, num_workers=workers, signal_format=simulated_format
        )
        if needed & {"physiology", "cluster", "measured"}:
            measure_dataset(directory, num_workers=workers)
        yield dataclasses.replace(data, dir=str(directory))


def describe(encoder: EncoderSettings, recordings: Recordings) -> dict[str, Any]:
    """Returns values for JSON that describe encoder, recordings and machine, and the peak memory so far, in bytes."""
    return {
        "encoder": encoder.name,
        "precision": encoder.precision,
        "leads": encoder.num_leads,
        "samples": recordings.format.num_samples,
        "simulated": recordings.simulated,
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "machine": describe_machine(),
        **devices.memory_metrics(),
    }


def _measure(settings: PretrainingSettings, *, steps: int, by_layer: bool) -> dict[str, Any]:
    run, compile_s = harness.timed(prepare_run, settings)
    stream = run.batches(run.sampler)
    batch = next(stream)
    # Shapes are kept, because the first step takes the state's memory.
    abstract = jax.eval_shape(lambda *args: args, run.state, batch)
    views = _views(run)
    product, moved = step_ceilings.matrix_product(PRECISIONS[settings.encoder.precision]), step_ceilings.copy()
    repetition = _Repetition(run, steps)
    seconds = harness.take_turns(
        {
            "step": lambda: repetition(lambda: batch),
            "streamed": lambda: repetition(lambda: next(stream), waits=True),
            "views": lambda: jax.block_until_ready(views(batch)),
            "product": product.run,
            "copy": moved.run,
        }
    )
    stream.close()
    alone, streamed = seconds["step"] / steps, seconds["streamed"] / steps
    flops, peak = run.flops_per_step, devices.peak_flops()
    rate = None if flops is None else flops / alone
    product_rate = product.amount / seconds["product"]
    taken_apart = {}
    if by_layer:
        one = step_ceilings.Timed(product.run, product.amount / jax.device_count())
        taken = breakdown(_gradient(run), abstract, product=one, step_s=alone, num_devices=run.mesh.size)
        taken_apart = {"breakdown": taken}
    return {
        **describe(settings.encoder, run.recordings),
        "objective": settings.objective.name,
        "relation": settings.relation.name,
        "miner": settings.miner.name,
        "batch_size": run.batch_size,
        "embeddings_a_record": run.layout.rows,
        "rate_hz": run.recordings.format.sampling_rate_hz,
        "prepare_and_compile_s": compile_s,
        "step_ms": 1e3 * alone,
        "ecgs_per_sec": run.batch_size / alone,
        "stream_step_ms": 1e3 * streamed,
        "stream_ecgs_per_sec": run.batch_size / streamed,
        "input_wait_frac": repetition.waited / repetition.streamed,
        "augmentation_ms": 1e3 * seconds["views"],
        "augmentation_frac": seconds["views"] / alone,
        "flops_per_step": flops,
        "compiler_flops_per_step": _compiler_flops(run),
        "flops_per_sec": rate,
        "matrix_product_flops_per_sec": product_rate,
        "of_matrix_product": None if rate is None else rate / product_rate,
        "copy_bytes_per_sec": moved.amount / seconds["copy"],
        "mfu": None if rate is None or peak is None else rate / peak,
        **taken_apart,
    }


class _Repetition:
    """Runs some steps, each from the state that the previous one left.

    Attributes:
        waited: Seconds of waiting for the stream's batches.
        streamed: Seconds of all repetitions that were fed by the stream.
    """

    def __init__(self, run: Run, steps: int):
        self._run, self._state, self._steps = run, run.state, steps
        self.waited = self.streamed = 0.0

    def __call__(self, batch: Callable[[], Batch], *, waits: bool = False) -> None:
        begun = time.perf_counter()
        for _ in range(self._steps):
            asked = time.perf_counter()
            rows = batch()
            if waits:
                self.waited += time.perf_counter() - asked
            self._state, metrics = self._run.step(self._state, rows)
        jax.block_until_ready((self._state, metrics))
        if waits:
            self.streamed += time.perf_counter() - begun


def _compiler_flops(run: Run) -> float | None:
    """Returns the FLOP that the compiler counts for one device's share of the program, times the number of devices;
    None where it counts none.
    """
    if not isinstance(run.step, Compiled):  # A step with checks compiled into it is not what is measured.
        return None
    flops = (run.step.cost_analysis() or {}).get("flops")
    return flops * run.mesh.size if flops else None


def _gradient(run: Run) -> Callable[[TrainState, Batch], Any]:
    """Returns the uncompiled function `(state, batch) → gradient of the loss`, which holds all products of a step."""

    def gradient(state: TrainState, batch: Batch) -> Any:
        return jax.grad(run.loss, has_aux=True)(state.params, state.stats, batch, state.step, train=True)

    return gradient


def _views(run: Run) -> Callable[[Batch], jax.Array]:
    """Returns a compiled function that makes the views of a batch."""
    settings = run.settings
    views = make_views(
        settings.augment,
        settings.views,
        num_leads=settings.encoder.num_leads,
        rate_hz=run.recordings.format.sampling_rate_hz,
    )
    overlay = make_overlay(views, tiling=Tiling(settings.tiling.form, mesh=run.mesh))

    def make(batch: Batch) -> jax.Array:
        keys = row_keys(settings.seed, jnp.int32(0), batch["row"], stream="views")
        recorded, towards = Recorded(batch["valid_start"], batch["valid_samples"]), None
        if overlay is not None:
            valid = unanimous(batch["valid"])
            towards, _ = overlay(batch["signal"], batch[partners.COLUMN], recorded=recorded, valid=valid)
        return views(keys, batch["signal"], recorded=recorded, towards=towards)

    return jax.jit(make)
