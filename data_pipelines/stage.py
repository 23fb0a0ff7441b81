"""Brings a data set to where it is read fastest: plain `.npy` shards on a local disk, memory-mapped.

  python -m data_pipelines.stage --dataset=DIR
  python -m data_pipelines.stage --dataset=gs://bucket/folder --out=DIR

The first makes the packed copy of a local data set in DIR/packed, beside its ArrayRecord shards. The second makes a
local data set of one on another disk or in a bucket: card, index, physiology where there is some, and the packed copy,
without the ArrayRecord shards. It reads whatever fsspec reaches; gs:// needs the package gcsfs, s3:// the package s3fs.

A packed copy takes 40 kB a record (ten seconds at 250 Hz). Every record is checked against the index on the way, every
shard read back. The same command goes on after an interruption, and checks a copy that is finished.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from data_pipelines.command import command, run
from data_pipelines.errors import DataError
from data_pipelines.packing.local_copy import stage_dataset
from data_pipelines.packing.packed_copy import pack
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.storage.packed_format import PACKED_DIR, record_bytes
from data_pipelines.system.remote import TIMEOUT_S


class _Bar:
    """Progress bar in records, which also shows the gigabytes written and downloaded."""

    def __init__(self) -> None:
        self._bar = tqdm(unit=" ECGs", desc="staging", disable=None)
        self._num_records = self._record_bytes = self._downloaded = 0

    def close(self) -> None:
        self._bar.close()

    def start(self, dataset: Dataset) -> None:
        # Only now, with the index here, is the number of records known.
        self._num_records = dataset.index.num_records
        self._bar.reset(self._num_records)
        self._record_bytes = record_bytes(dataset.format)

    def update(self, num_records: int) -> None:
        self._bar.update(num_records)
        self._show(refresh=False)  # The bar refreshes itself in time.

    def downloaded(self, num_bytes: int) -> None:
        self._downloaded += num_bytes
        self._show(refresh=True)

    def _show(self, *, refresh: bool) -> None:
        written, total = (number * self._record_bytes / 1e9 for number in (self._bar.n, self._num_records))
        came = f", {self._downloaded / 1e9:.2f} downloaded" if self._downloaded else ""
        self._bar.set_postfix_str(f"{written:.2f} of {total:.2f} GB{came}", refresh)


def define_flags() -> None:
    """Defines the flags of the command in a function, as at import they would collide with those of other commands."""
    flags.DEFINE_string("dataset", None, "Directory or, with --out, URL of a prepared data set.")
    flags.DEFINE_string("out", None, "Directory of the local data set to be made.")
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
    with contextlib.closing(_Bar()) as bar:
        if out is None:
            dataset = open_dataset(source)
            bar.start(dataset)
            made = pack(dataset, progress=bar.update)
        else:
            told: dict[str, Any] = {"started": bar.start, "progress": bar.update, "downloaded": bar.downloaded}
            made = stage_dataset(source, Path(out), timeout_s=flags.FLAGS.timeout, **told)
            dataset = open_dataset(out)
    num_bytes = sum(path.stat().st_size for path in (dataset.directory / PACKED_DIR).iterdir())
    state = "staged" if made else "staged already and whole, nothing to do"
    where = out or dataset.directory / PACKED_DIR
    print(f"{where}: {dataset.index.num_records} ECGs, {num_bytes / 1e9:.2f} GB, {state}")


if __name__ == "__main__":
    define_flags()
    run(main, required=["dataset"])
