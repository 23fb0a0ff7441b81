"""Trains a few steps of every published config on simulated recordings, and prints a line of JSON for each.

python -m tests.support.run_configs                      # published size, two steps of four recordings
python -m tests.support.run_configs --size=small --batch_size=16 --steps=20 --only=physioclr
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from data_pipelines.physiology.store import measure_dataset
from ecgjax import defaults
from ecgjax.training.run import prepare_run
from tests.project.test_configs import CASES, load
from tests.support.fixtures import make_simulated_dataset

NUM_PATIENTS = 80


def train(config, *, steps):
    start = time.perf_counter()
    run = prepare_run(defaults.settings_of(config))
    compiled = time.perf_counter()
    stream, state, losses = run.batches(run.sampler), run.state, []
    for _ in range(steps):
        state, metrics = run.step(state, next(stream))
        losses.append(float(metrics["loss"]))
    stream.close()
    return {
        "parameters": sum(x.size for x in jax.tree.leaves(run.split.params)),
        "embeddings_a_recording": run.layout.rows,
        "first_losses": [round(loss, 4) for loss in losses[:2]],
        "last_loss": round(losses[-1], 4),
        "finite": bool(np.isfinite(losses).all()),
        "seconds_to_compile": round(compiled - start, 1),
        "seconds_a_step": round((time.perf_counter() - compiled) / steps, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("published", "small"), default="published")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rate_hz", type=int, default=500)
    parser.add_argument("--only", default="", help="names of configs, with commas between")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if not arguments.only or case[0] in arguments.only.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_simulated_dataset(Path(folder), num_patients=NUM_PATIENTS, rate=arguments.rate_hz)
        measure_dataset(dataset.directory, num_workers=1)
        for name, variant in chosen:
            config = load(name, variant, "small" if arguments.size == "small" else "")
            config.data.dir, config.batch_size = str(dataset.directory), arguments.batch_size
            config.duration.value, config.duration.unit = float(arguments.steps), "steps"
            config.micro_batch.parts = min(config.micro_batch.parts, 2)
            if name == "clocs":
                config.encoder.input_samples = 5 * arguments.rate_hz
            line = {"config": name, "variant": variant, "size": arguments.size, "batch_size": arguments.batch_size}
            print(json.dumps(line | train(config, steps=arguments.steps)), flush=True)


if __name__ == "__main__":
    main()
