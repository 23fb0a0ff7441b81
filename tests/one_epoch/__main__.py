"""Trains one epoch over many distinct SIMULATED recordings, kills and resumes the run twice, and counts what it read.

    python -m tests.one_epoch --records=1000000 --out=DIR

makes the recordings (10 s at 100 Hz, 16 kB each) in DIR/cohort unless they are there, trains in DIR/run, and prints one
JSON object. The first kill is a SIGKILL at a third of the steps, after which the steps since the last checkpoint are
taken again; the second a SIGTERM at two thirds, at which the run saves. A million recordings take 16.5 GB: remove DIR
afterwards. The status is 1 unless each recording was read exactly once.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from data_pipelines.benchmarks.packed_cohort import make_packed_cohort
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset
from data_pipelines.records import SignalFormat
from data_pipelines.system.exit_status import ExitStatus
from ecgjax.training.run_log.metrics_file import read_metrics

ROOT = Path(__file__).parents[2]
COUNTS = "batches.int64"
FORMAT = SignalFormat(sampling_rate_hz=100, num_samples=1000)


def batches_in(path):
    """Yields step, process, own memory in bytes and records of every batch in a file that `counted_run` wrote."""
    numbers, at = np.fromfile(path, np.int64) if path.exists() else np.empty(0, np.int64), 0
    while at + 4 <= len(numbers) and at + 4 + numbers[at + 3] <= len(numbers):
        step, process, memory, rows = numbers[at : at + 4].tolist()
        yield step, process, memory, numbers[at + 4 : at + 4 + rows]
        at += 4 + rows


def read_once(path, *, num_records):
    """Counts how often the steps that led to the last state read each record of the first epoch; returns JSON values.

    A step that was taken again after a kill takes the place of what was taken before from it on.
    """
    steps, repeated, memory = [], 0, {}
    for step, process, own, records in batches_in(path):
        repeated += len(steps) - step
        steps[step:] = [records]
        memory.setdefault(process, []).append(own // 2**20)
    first = np.concatenate(steps)[:num_records]
    times = np.bincount(first, minlength=num_records)
    return {
        "steps": len(steps),
        "steps_taken_again": repeated,
        "records_read": len(first),
        "records_read_once": int((times == 1).sum()),
        "fewest_and_most_times": [int(times.min()), int(times.max())],
        # An entry a process, in MiB: one that resumes starts with memory of its own.
        "own_memory_mib": [
            {
                "batches": len(own),
                "after_a_tenth": own[len(own) // 10],
                "half_way": own[len(own) // 2],
                "last": own[-1],
                "highest": max(own),
            }
            for own in memory.values()
        ],
    }


def steps_taken(path):
    return max((step for step, *_ in batches_in(path)), default=-1) + 1


def train(cohort, out, *flags, kill_at=None, number=signal.SIGKILL):
    """Runs the training until its end, or until it has taken so many steps and is sent a signal; returns its status."""
    counts = out / COUNTS
    command = [
        sys.executable, "-m", "tests.one_epoch.counted_run", str(counts), "--config=tests/one_epoch/small_config.py",
        f"--config.data.dir={cohort}", f"--workdir={out / 'run'}", *flags,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (out / "log.txt").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if kill_at is not None and steps_taken(counts) >= kill_at:
                    process.send_signal(number)
                    break
            return process.wait()
        finally:
            process.kill()


def one_epoch(out, *, num_records, num_workers, flags=(), batch_size=512):
    """Makes the cohort, trains over it with two kills and counts; returns JSON values."""
    out.mkdir(parents=True, exist_ok=True)
    cohort, begun = out / "cohort", time.monotonic()
    if (cohort / CARD_FILE).exists():
        dataset = open_dataset(cohort)
    else:
        dataset = make_packed_cohort(
            cohort, num_records=num_records, seed=1, signal_format=FORMAT, num_workers=num_workers
        )
    made_s, begun = time.monotonic() - begun, time.monotonic()
    num_steps = -(-dataset.index.num_records // batch_size)
    flags = (*flags, f"--config.batch_size={batch_size}")
    killed = train(cohort, out, *flags, kill_at=num_steps // 3)
    stopped = train(cohort, out, *flags, kill_at=2 * num_steps // 3, number=signal.SIGTERM)
    ended = train(cohort, out, *flags)
    if (killed, stopped, ended) != (-signal.SIGKILL, ExitStatus.STOPPED, 0):
        raise SystemExit(f"the runs ended with {killed}, {stopped} and {ended}: see {out / 'log.txt'}")
    lines = [line for line in read_metrics(out / "run") if "perf/input_wait_frac" in line]
    return {
        "simulated": True,
        "records": dataset.index.num_records,
        "batch_size": batch_size,
        "making_s": round(made_s, 1),
        "training_s": round(time.monotonic() - begun, 1),
        "median_ecgs_per_sec": round(float(np.median([line["perf/ecgs_per_sec"] for line in lines]))),
        "input_wait_frac": round(float(np.mean([line["perf/input_wait_frac"] for line in lines])), 4),
        **read_once(out / COUNTS, num_records=dataset.index.num_records),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, help="fewest recordings")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cohort and the run")
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate")
    parser.add_argument("flags", nargs="*", help="further flags of ecgjax.pretrain, after --")
    given = parser.parse_args()
    found = one_epoch(given.out.resolve(), num_records=given.records, num_workers=given.workers, flags=given.flags)
    print(json.dumps(found, indent=1))
    sys.exit(found["records_read_once"] != found["records"])
