"""Measures the speed of reading, or of the training step, and prints one JSON object.

  python -m ecgjax.benchmark --what=input                                     on a simulated cohort made for it
  python -m ecgjax.benchmark --what=input --dataset=DIR                       on a prepared data set
  python -m ecgjax.benchmark --what=step --config=configs/simclr_ptbxl.py --config.data.dir=DIR

`input` needs no accelerator: it times the stream of training batches on the host from both stores, beside a bare
memory map of the same rows. `step` times the compiled training step alone and fed by the stream.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from data_pipelines.dataset import open_dataset
from data_pipelines.input_benchmark import measure, simulated_dataset
from ecgjax import configuration

_WHAT = flags.DEFINE_enum("what", None, ["input", "step"], "What to measure.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "[step] Config file of a pretraining run.", lock_config=True)
_DATASET = flags.DEFINE_string("dataset", None, "[input] A prepared data set; without, a cohort is simulated.")
_RECORDS = flags.DEFINE_integer("records", 8192, "[input] How many records to read over and over.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "[input] Records of a batch.", lower_bound=1)
_THREADS = flags.DEFINE_integer(
    "threads", None, "[input] Threads that read batches; without, as many as training uses.", lower_bound=1
)


def _input() -> dict[str, Any]:
    # Beside nothing that a user keeps: the cohort and the bare map go when they have been read.
    with tempfile.TemporaryDirectory(prefix="ecgjax-benchmark-") as scratch:
        folder = Path(scratch)
        if _DATASET.value is None:
            num_workers = len(os.sched_getaffinity(0))
            dataset = simulated_dataset(folder / "simulated", num_records=_RECORDS.value, num_workers=num_workers)
        else:
            dataset = open_dataset(_DATASET.value)
        return measure(
            dataset,
            scratch=folder,
            num_records=_RECORDS.value,
            batch_size=_BATCH_SIZE.value,
            num_threads=_THREADS.value,
        )


def _step() -> dict[str, Any]:
    # Loads JAX and the models, of which reading knows nothing.
    from ecgjax import step_benchmark

    if _CONFIG.value is None:
        raise configuration.ConfigError("--what=step needs --config=FILE, as pretraining takes it")
    return step_benchmark.measure(_CONFIG.value)


def main(_: list[str]) -> None:
    """Prints what the flags ask for."""
    print(json.dumps(_input() if _WHAT.value == "input" else _step(), indent=1))


if __name__ == "__main__":
    flags.mark_flag_as_required("what")
    configuration.run(main)
