"""Measures the speed of reading, or of the training step, or computes ceilings, and prints one JSON object.

  python -m ecgjax.benchmark --what=input                                     on two simulated cohorts made for it
  python -m ecgjax.benchmark --what=input --dataset=DIR,DIR2                  on prepared data sets
  python -m ecgjax.benchmark --what=input_wait --records=8192 --batch_size=512
  python -m ecgjax.benchmark --what=scale --records=1000000 --minutes=10      on an index of a million records
  python -m ecgjax.benchmark --what=objective --most_rows=131072 --most_timed=32768
  python -m ecgjax.benchmark --what=step --config=configs/simclr.py:small --config.batch_size=64 --breakdown
  python -m ecgjax.benchmark --what=step --config=configs/simclr.py --config.data.dir=DIR
  python -m ecgjax.benchmark --what=embed --config=configs/simclr.py:small
  python -m ecgjax.benchmark --what=search --records=1000000 --dimension=320
  python -m ecgjax.benchmark --what=roofline --encoders=resnet18,vit_b --chips=h100,v5e --price_per_hour=h100=2.5
  python -m ecgjax.benchmark --what=torch --encoders=resnet18,vit_s --rounds=15
  python -m ecgjax.benchmark --what=device --parts=smoke,steps,torch --out=DIR          on a machine with a GPU

`input`, `input_wait` and `scale` need no accelerator. `input` times the stream of training batches on the host from
both stores, warm beside a bare memory map of the same rows and cold beside the disk. `input_wait` times the stream onto
the devices by number of readers, and how long a step that only lasts waits for it, beside a loader that is slowed.
`scale` times what grows with the number of records: opening, the first batch, a step's record numbers; and watches the
memory while it streams. `step` times the compiled training step of any config alone and fed by the stream, and
simulates a data set where none is named; `--breakdown` takes it apart.
`objective` compiles losses for ever larger batches over all devices and tells their memory, and the
time of those that are run. `embed` times the encoder of a config from stored signals to embeddings, and a linear probe.
`search` builds an index of made-up embeddings and times its queries beside a plain matrix product.
`roofline` measures nothing: it computes from the traced training step what an encoder can reach on accelerators, beside
what hosts, network and storage must give; a table goes to standard error (docs/scaling.md).
`torch` times the training step of encoders in turns with copies of them in PyTorch, which must be installed, and every
product of the step alone in both. `device` measures what is worth the minutes of an accelerator that is lent: each part
has a process and a time limit of its own and writes DIR/PART.json after every measurement; `--rehearse` runs a small
form of the parts on a CPU (docs/speed.md).
"""

from __future__ import annotations

from data_pipelines.system import stop_signals
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from data_pipelines.benchmarks import harness, input, scale
from data_pipelines.benchmarks.machine import describe_machine
from data_pipelines.command import MOST_WORKERS, output_folder
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.records import SignalFormat
from ecgjax.config import run_config

if TYPE_CHECKING:
    from ecgjax.defaults import RunSettings

_WHATS = ("input", "input_wait", "scale", "objective", "step", "embed", "search", "roofline", "torch", "device")

_WHAT = flags.DEFINE_enum("what", None, list(_WHATS), "What to measure, or to compute.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "[step, embed] Config file of a pretraining run.", lock_config=True
)
_DATASET = flags.DEFINE_list(
    "dataset",
    [],
    "[input, input_wait] Prepared data sets of one rate and length, the first of which counts for input_wait; without, "
    "cohorts are simulated.",
)
_RECORDS = flags.DEFINE_integer(
    "records",
    8192,
    "[input, input_wait] How many records to read over and over. [scale, search] Size of the index.",
    lower_bound=1,
    upper_bound=1_000_000_000,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 256, "[input, input_wait, scale] Records of a batch.", lower_bound=1, upper_bound=1_000_000
)
_THREADS = flags.DEFINE_integer(
    "threads",
    None,
    "[input, input_wait] Threads that read batches; without, as many as training uses, and for input_wait 1, 2, 4, …",
    lower_bound=1,
    upper_bound=MOST_WORKERS,
)
_MINUTES = flags.DEFINE_float("minutes", 1.0, "[scale] How long to stream.", lower_bound=0.0, upper_bound=10_000)

_MOST_ROWS = flags.DEFINE_integer(
    "most_rows", 32768, "[objective] Largest batch to compile.", lower_bound=1024, upper_bound=2**24
)
_MOST_TIMED = flags.DEFINE_integer(
    "most_timed", 4096, "[objective] Largest batch to run.", lower_bound=0, upper_bound=2**24
)

_STEPS = flags.DEFINE_integer("steps", 3, "[step] Steps in each repetition.", lower_bound=1, upper_bound=1_000_000)
_BREAKDOWN = flags.DEFINE_bool("breakdown", False, "[step] Time every distinct product of the step by itself.")
# Format of simulated recordings.
_RATE_HZ = flags.DEFINE_integer(
    "rate_hz",
    250,
    "[step, embed, roofline] Rate of what is simulated where no data set is given, or of what is stored.",
    lower_bound=50,
    upper_bound=2000,
)
_SECONDS = flags.DEFINE_float("seconds", 10.0, "[step, embed, roofline] Its length.", lower_bound=2, upper_bound=600)

# Size of a search.
_DIMENSION = flags.DEFINE_integer(
    "dimension", 320, "[search] Numbers of an embedding.", lower_bound=1, upper_bound=65_536
)
_QUERIES = flags.DEFINE_integer(
    "queries", 256, "[search] Queries that are answered at a time.", lower_bound=1, upper_bound=1_000_000
)

# What a roofline is of.
_ENCODERS = flags.DEFINE_list(
    "encoders",
    [],
    "[roofline, torch] Names of encoders; without, all that have a published batch, or ResNet-18 beside PyTorch.",
)
_CHIPS = flags.DEFINE_list("chips", [], "[roofline] Names of chips; without, all that are known.")
_CHIP_COUNTS = flags.DEFINE_list("chip_counts", ["1", "8", "64", "512"], "[roofline] Numbers of chips.")
_CHIP_BATCH = flags.DEFINE_integer(
    "chip_batch",
    None,
    "[roofline] Recordings of each chip's step; without, the published batch, halved until it fits in the memory.",
    lower_bound=1,
    upper_bound=2**20,
)
_GLOBAL_BATCH = flags.DEFINE_integer(
    "global_batch",
    None,
    "[roofline] Recordings of the step of all chips, in place of --chip_batch.",
    lower_bound=1,
    upper_bound=2**20,
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 1, "[roofline] Epochs whose hours are told.", lower_bound=1, upper_bound=1_000_000
)
_PRICE_PER_HOUR = flags.DEFINE_list(
    "price_per_hour", [], "[roofline] Price of an hour of one chip, as CHIP=PRICE,…; a number alone is for all chips."
)
_ECGS_PER_SEC_PER_CORE = flags.DEFINE_float(
    "ecgs_per_sec_per_core",
    None,
    "[roofline] Records of 40 kB that a host's core delivers; without, 53,850, as measured on 2 cores (docs/speed.md).",
    lower_bound=1,
    upper_bound=1e9,
)
_CORES_PER_HOST = flags.DEFINE_integer(
    "cores_per_host", 100, "[roofline] Cores of a host.", lower_bound=1, upper_bound=MOST_WORKERS
)
_MARKDOWN = flags.DEFINE_bool("markdown", False, "[roofline] Print the tables of docs/scaling.md in place of JSON.")

# A comparison with PyTorch, and a visit to an accelerator.
_ROUNDS = flags.DEFINE_integer(
    "rounds", 15, "[torch] Rounds in which the frameworks take turns.", lower_bound=2, upper_bound=100_000
)
_PARTS = flags.DEFINE_list("parts", [], "[device] Parts in their order; without, all.")
_OUT = flags.DEFINE_string("out", None, "[device] Folder of the reports.")
_REHEARSE = flags.DEFINE_bool("rehearse", False, "[device] Run a small form of the parts on a CPU.")

_NUM_SIMULATED = 2


def _datasets(given: Sequence[str], folder: Path, *, simulated: int) -> list[Dataset]:
    """Opens data sets; without any, it simulates some in a folder that have the records of `--records` together."""
    return [open_dataset(dataset_folder(each, flag="dataset")) for each in given] or [
        input.simulated_dataset(
            folder / f"simulated_{seed}",
            num_records=-(-_RECORDS.value // simulated),
            seed=seed,
            num_workers=len(os.sched_getaffinity(0)),
        )
        for seed in range(simulated)
    ]


def _input() -> dict[str, Any]:
    # The folder is temporary, because the cohorts and the bare map are deleted once they have been read.
    with tempfile.TemporaryDirectory(prefix="ecgjax-benchmark-") as scratch:
        folder = Path(scratch)
        return input.measure(
            _datasets(_DATASET.value, folder, simulated=_NUM_SIMULATED),
            scratch=folder,
            num_records=_RECORDS.value,
            batch_size=_BATCH_SIZE.value,
            num_threads=_THREADS.value,
        )


def _input_wait() -> dict[str, Any]:
    # This is imported here because it loads JAX.
    from ecgjax.benchmarks import input_wait

    with tempfile.TemporaryDirectory(prefix="ecgjax-benchmark-") as scratch:
        (dataset,) = _datasets(_DATASET.value[:1], Path(scratch), simulated=1)
        readers = None if _THREADS.value is None else [_THREADS.value]
        return input_wait.measure(dataset, num_records=_RECORDS.value, batch_size=_BATCH_SIZE.value, readers=readers)


def _scale() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ecgjax-benchmark-") as scratch:
        return scale.measure(
            Path(scratch), num_records=_RECORDS.value, batch_size=_BATCH_SIZE.value, minutes=_MINUTES.value
        )


def _objective() -> dict[str, Any]:
    from ecgjax.benchmarks import objective

    return objective.measure(most_rows=_MOST_ROWS.value, most_timed=_MOST_TIMED.value)


def _step() -> dict[str, Any]:
    from ecgjax.benchmarks import training_step

    return training_step.measure(
        _settings(), steps=_STEPS.value, by_layer=_BREAKDOWN.value, simulated_format=_simulated_format()
    )


def _embed() -> dict[str, Any]:
    from ecgjax.benchmarks import embed

    return embed.measure(_settings(), simulated_format=_simulated_format())


def _search() -> dict[str, Any]:
    from ecgjax.benchmarks import search

    with tempfile.TemporaryDirectory(prefix="ecgjax-benchmark-") as scratch:
        return search.measure(
            Path(scratch), num_rows=_RECORDS.value, dimension=_DIMENSION.value, num_queries=_QUERIES.value
        )


def _roofline() -> dict[str, Any]:
    # This is imported here because it loads JAX and the models.
    from ecgjax.benchmarks import roofline, roofline_request, roofline_tables

    chips = _CHIPS.value or roofline.KNOWN_CHIPS
    settings = roofline.RooflineSettings(
        encoders=_ENCODERS.value or tuple(roofline.WORKLOADS),
        chips=chips,
        chip_counts=roofline_request.chip_counts(_CHIP_COUNTS.value),
        chip_batch=_CHIP_BATCH.value,
        global_batch=_GLOBAL_BATCH.value,
        epochs=_EPOCHS.value,
        prices=roofline_request.prices(_PRICE_PER_HOUR.value, chips),
        ecgs_per_core=_ECGS_PER_SEC_PER_CORE.value or roofline.MEASURED_ECGS_PER_CORE,
        cores_per_host=_CORES_PER_HOST.value,
        signal_format=_simulated_format(),
    )
    figures = roofline.compute(settings)
    if not _MARKDOWN.value:
        print(roofline_tables.terminal(figures), file=sys.stderr, flush=True)
    return figures


def _torch() -> dict[str, Any]:
    # This process only asks on what it runs, and must leave the device's memory to the two that measure.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from ecgjax.benchmarks.device import against_torch

    encoders = against_torch.chosen_encoders(_ENCODERS.value)
    if importlib.util.find_spec("torch") is None:
        raise run_config.ConfigError("--what=torch needs PyTorch; install it with: pip install 'ecgjax[torch]'")
    return {
        "encoders": against_torch.compare_encoders(encoders, rounds=_ROUNDS.value),
        "machine": describe_machine(),
    }


def _device() -> dict[str, Any]:
    if _OUT.value is None:
        raise run_config.ConfigError("--what=device needs --out=DIR, the folder of its reports")
    from ecgjax.benchmarks.device import visit

    parts = visit.chosen_parts(_PARTS.value)
    return visit.measure(parts, output_folder("out", _OUT.value), rehearse=_REHEARSE.value)


def _settings() -> RunSettings:
    if _CONFIG.value is None:
        raise run_config.ConfigError(f"--what={_WHAT.value} needs --config=FILE, as pretraining takes it")
    # This is imported here because it loads JAX and the models, which `input` and `scale` do not need.
    from ecgjax import defaults

    return defaults.settings_of(_CONFIG.value)


def _simulated_format() -> SignalFormat:
    return SignalFormat(sampling_rate_hz=_RATE_HZ.value, num_samples=round(_RATE_HZ.value * _SECONDS.value))


def main(_: list[str]) -> None:
    """Takes the measurements that the flags ask for, and prints them as one JSON object."""
    measure = {
        "input": _input,
        "input_wait": _input_wait,
        "scale": _scale,
        "objective": _objective,
        "step": _step,
        "embed": _embed,
        "search": _search,
        "roofline": _roofline,
        "torch": _torch,
        "device": _device,
    }
    what = flags.FLAGS.what
    if _MARKDOWN.value and what != "roofline":
        raise run_config.ConfigError(f"--markdown is for --what=roofline, not --what={what}; leave it out")
    figures = measure[what]()
    if _MARKDOWN.value:
        from ecgjax.benchmarks import roofline_tables

        print(roofline_tables.markdown(figures), flush=True)
    else:
        harness.print_report(what, figures)


if __name__ == "__main__":
    flags.mark_flag_as_required("what")
    run_config.run(main)
