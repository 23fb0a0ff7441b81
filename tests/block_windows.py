"""Prints what shuffling the patients of a packed copy changes: the sites in a window of blocks, and the time of a read.

    python -m tests.block_windows --plain=DIR --shuffled=DIR

Both folders hold one data set, staged without and with --shuffle_patients. Its patients are divided by number into
sites, so that sites lie one after another in the plain copy. Figures stand in docs/speed.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.store import Store, open_store
from data_pipelines.streaming.block_order import BlockOrder
from data_pipelines.streaming.orders import Order, RecordOrder

_EPOCHS, _ROUNDS, _BATCHES_A_ROUND = 4, 11, 64


def main() -> None:
    """Prints a line of every way of drawing, and one of every store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", type=Path, required=True)
    parser.add_argument("--shuffled", type=Path, required=True)
    for name, default in (("sites", 6), ("block", 64), ("window", 8), ("batch_size", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    index = open_dataset(asked.plain).index
    stores = {name: open_store(folder) for name, folder in (("plain", asked.plain), ("shuffled", asked.shuffled))}
    every = np.arange(index.num_records)
    equal = all(np.array_equal(*(store.read(part) for store in stores.values())) for part in np.array_split(every, 64))
    print(f"{index.num_records} records read by number: {'equal' if equal else 'NOT EQUAL'}")
    records, patient = index.split(train_folds=range(1, 9), val_folds=(9, 10)).train, np.asarray(index.patient)
    site = patient * asked.sites // (patient.max() + 1)
    orders: dict[str, Order] = {"full": RecordOrder(records, seed=0)}
    for name, store in stores.items():
        stored = store.in_stored_order(records)
        orders[f"blocks, {name}"] = BlockOrder(stored, block=asked.block, window=asked.window, seed=0)
    for name, order in orders.items():
        print(f"{name}: {_mix(order, records, site=site, patient=patient, asked=asked)}")
    for name, times in _times(stores, records).items():
        shown = f"median {statistics.median(times):.3f}, {min(times):.3f} to {max(times):.3f}"
        print(f"{name}: ms of processor time for 256 warm records: {shown}")


def _mix(order: Order, records: np.ndarray, *, site: np.ndarray, patient: np.ndarray, asked: argparse.Namespace) -> str:
    """Returns in words how sites share the windows of four epochs, and how many pairs of a patient share a batch.

    Args:
        order: Order in which the records are drawn.
        records: Numbers of the records that are drawn, `int64[n]`.
        site: Site of every record of the data set.
        patient: Code of every record's patient.
        asked: The flags.
    """
    count, size = len(records), asked.block * asked.window
    shares = np.bincount(site[records], minlength=asked.sites) / count
    drawn = order.units(np.arange(_EPOCHS * count))[:, 0]
    starts = [start for epoch in range(_EPOCHS) for start in _starts(epoch * count, count, size)]
    found = np.array([np.bincount(site[drawn[at : at + size]], minlength=asked.sites) / size for at in starts])
    apart, largest = np.abs(found - shares).sum(axis=1) / 2, found.max(axis=1)
    pairs = [_pairs(patient[drawn[at : at + asked.batch_size]]) for at in _starts(0, len(drawn), asked.batch_size)]
    return (
        f"difference {apart.mean():.3f}, at most {apart.max():.3f}; largest share {largest.mean():.2f}, at most "
        f"{largest.max():.2f} of {shares.max():.2f}; same-patient pairs a batch {np.mean(pairs):.1f}"
    )


def _starts(first: int, length: int, size: int) -> range:
    return range(first, first + length - size + 1, size)


def _pairs(patients: np.ndarray) -> int:
    counts = np.unique(patients, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _times(stores: dict[str, Store], records: np.ndarray) -> dict[str, list[float]]:
    """Returns the milliseconds of processor time that a batch of 256 takes, store by store in turns."""
    generator = np.random.default_rng(0)
    batches = [generator.choice(records, 256) for _ in range(_BATCHES_A_ROUND)]
    times: dict[str, list[float]] = {name: [] for name in stores}
    for round_ in range(_ROUNDS):
        for name in sorted(stores, reverse=bool(round_ % 2)):
            out = np.empty((256, *stores[name].shape), np.int16)
            start = time.process_time()
            for numbers in batches:
                stores[name].read(numbers, out)
            times[name].append((time.process_time() - start) / _BATCHES_A_ROUND * 1e3)
    return {name: found[1:] for name, found in times.items()}


if __name__ == "__main__":
    main()
