"""Brings a data set to where it is read fastest: plain `.npy` shards on a local disk, memory-mapped.

  python -m data_pipelines.stage --dataset=DIR
  python -m data_pipelines.stage --dataset=gs://bucket/folder --out=DIR
  python -m data_pipelines.stage --dataset=… --shuffle_patients [--seed=0] [--out=DIR]

The first makes the packed copy of a local data set in DIR/packed, beside its ArrayRecord shards. The second makes a
local data set of one on another disk or in a bucket: card, index, physiology where there is some, and the packed copy,
without the ArrayRecord shards. It reads whatever fsspec reaches; gs:// needs the package gcsfs, s3:// the package s3fs.

With --shuffle_patients the copy holds its patients in a random order, a patient's records behind each other, for runs
with config.sampling.shuffle=blocks: blocks of neighbours are then a sample of all sites and sources. Record numbers,
and what is read by them, stay as they are.

A packed copy takes 40 kB a record (ten seconds at 250 Hz). Every record is checked against the index on the way, every
shard read back. The same command goes on after an interruption, and checks a copy that is finished.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from absl import flags

from data_pipelines.buckets.remote_folder import TIMEOUT_S
from data_pipelines.command import command, print_report, run
from data_pipelines.errors import DataError
from data_pipelines.packing.local_copy import stage_dataset
from data_pipelines.packing.packed_copy import pack
from data_pipelines.packing.staging_bar import StagingBar
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.packed_format import PACKED_DIR


def define_flags() -> None:
    """Defines the flags of the command in a function, as at import they would collide with those of other commands."""
    flags.DEFINE_string("dataset", None, "Directory or, with --out, URL of a prepared data set.")
    flags.DEFINE_string("out", None, "Directory of the local data set to be made.")
    flags.DEFINE_boolean(
        "shuffle_patients", False, "Put the patients in a random order on the disk, for config.sampling.shuffle=blocks."
    )
    flags.DEFINE_integer("seed", 0, "Seed of --shuffle_patients.", lower_bound=0, upper_bound=2**63 - 1)
    flags.DEFINE_float(
        "timeout", TIMEOUT_S, "Seconds that a remote may take for one answer.", lower_bound=0.001, upper_bound=86_400
    )


@command
def main() -> None:
    """Stages the data set that the flags name."""
    source, out = flags.FLAGS.dataset, flags.FLAGS.out
    if out is None and "://" in source:
        raise DataError(f"--dataset={source}: name a local directory for its copy with --out=DIR")
    if out is not None and "://" in out:
        raise DataError(f"--out={out}: a copy is made in a directory; give one on a local disk")
    if flags.FLAGS["seed"].present and not flags.FLAGS.shuffle_patients:
        raise DataError(f"--seed={flags.FLAGS.seed} is the seed of --shuffle_patients; give both, or neither")
    seed = flags.FLAGS.seed if flags.FLAGS.shuffle_patients else None
    with contextlib.closing(StagingBar()) as bar:
        told: dict[str, Any] = {"progress": bar.update, "read_back": bar.read_back}
        if out is None:
            dataset = open_dataset(source)
            bar.start(dataset)
            made = pack(dataset, seed=seed, **told)
        else:
            told |= {"started": bar.start, "downloaded": bar.downloaded}
            made = stage_dataset(source, Path(out), timeout_s=flags.FLAGS.timeout, seed=seed, **told)
            dataset = open_dataset(out)
    num_bytes = sum(path.stat().st_size for path in (dataset.directory / PACKED_DIR).iterdir())
    state = "staged" if made else "staged already and whole, nothing to do"
    where = out or dataset.directory / PACKED_DIR
    order = "" if seed is None else f", patients shuffled by seed {seed}"
    print_report(f"{where}: {dataset.index.num_records} ECGs, {num_bytes / 1e9:.2f} GB{order}, {state}")


if __name__ == "__main__":
    define_flags()
    run(main, required=["dataset"])
