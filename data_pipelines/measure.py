"""Measures every record of a data set: intervals, amplitudes and rhythm.

  python -m data_pipelines.measure --dataset=DIR [--num_workers=N]
  python -m data_pipelines.measure --dataset=DIR --on=median_beat

On beats: statistics over all beats in lead II, and its first beats one by one (159 numbers, DIR/physiology). On the
median beat: intervals, and the amplitudes of P, R, S, ST and T in every lead (52 numbers, DIR/median_beat). Either
takes 30 ms of a core and at most 640 bytes a record. An interrupted run leaves nothing there; the same command again
goes on where it stopped.
"""

from __future__ import annotations

import os

from absl import flags

from data_pipelines.command import MOST_WORKERS, command, given, print_report, progress_bar, run
from data_pipelines.physiology.definitions import DEFINITIONS
from data_pipelines.physiology.store import Physiology, measure_dataset, open_physiology
from data_pipelines.prepared.dataset import open_dataset

_DATASET = flags.DEFINE_string("dataset", None, "Directory of a prepared data set.")
_ON = flags.DEFINE_enum("on", "beats", list(DEFINITIONS), "What is measured: every beat, or the median beat.")
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", os.cpu_count() or 1, "Processes that measure.", lower_bound=1, upper_bound=MOST_WORKERS
)


def summary(physiology: Physiology) -> str:
    """Returns counts and shares of what could not be measured, as text."""
    card, total = physiology.card, physiology.card["num_records"]
    lines = [
        f"  measurements        {len(physiology.names)} a record",
        f"  without a vector    {card['num_unusable']} of {total} records ({card['num_unusable'] / total:.1%})",
        "  records by reason   (several may hold)",
        *(f"    {reason:<18}{count} ({count / total:.1%})" for reason, count in card["reasons"].items() if count),
    ]
    return "\n".join(lines)


@command
def main() -> None:
    """Measures the data set that the flags name."""
    dataset, definition = open_dataset(given(_DATASET)), DEFINITIONS[_ON.value]
    with progress_bar("measuring", dataset.index.num_records) as tell:
        made = measure_dataset(dataset.directory, num_workers=_NUM_WORKERS.value, definition=definition, progress=tell)
    physiology = open_physiology(dataset, definition)
    state = "measured" if made else "measured already, nothing to do"
    print_report(f"{dataset.directory / definition.folder}: {dataset.index.num_records} ECGs, {state}")
    print_report(summary(physiology))


if __name__ == "__main__":
    run(main, required=["dataset"])
