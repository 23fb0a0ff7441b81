"""Assigns the records of a source to shards, by their number and size alone.

The shards are therefore the same for any number of processes, on any machines.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

from data_pipelines.records import SignalFormat

#: Name of the one TFDS split of a data set ('all' is reserved by TFDS).
SPLIT = "ecgs"

#: Upper bound of a shard's size; small enough to move, large enough for sequential reads.
MAX_SHARD_BYTES = 128 * 2**20

#: Number of shards, the units of work of a build, that keeps all cores of one machine busy to the end …
_SHARDS_TO_SHARE_OUT = 64

#: … provided that each shard is worth a file and the start of a process.
_MIN_SHARD_BYTES = 8 * 2**20

#: Bytes of a record besides its signal: ids, labels, a report. It is an estimate for sizing shards, not a limit.
_OTHER_BYTES_PER_RECORD = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """A range of items of a source and the file that their records go to.

    Attributes:
        number: Position of the shard, counted from 0.
        start: Position of the first item.
        stop: Position of the last item plus one.
        file_name: Name of the shard's file, by the rules of TFDS.
    """

    number: int
    start: int
    stop: int
    file_name: str

    @property
    def num_items(self) -> int:
        """Number of items."""
        return self.stop - self.start


def plan_shards(num_items: int, *, signal_format: SignalFormat, name: str) -> tuple[Shard, ...]:
    """Divides the items of a source into shards of equal size.

    Args:
        num_items: Number of items of the source, one for each record.
        signal_format: Format of the records.
        name: Name of the data set.

    Returns:
        The shards in order; a source without items has a single, empty one.
    """
    total_bytes = num_items * (2 * math.prod(signal_format.shape) + _OTHER_BYTES_PER_RECORD)
    needed = math.ceil(total_bytes / MAX_SHARD_BYTES)
    worthwhile = min(_SHARDS_TO_SHARE_OUT, total_bytes // _MIN_SHARD_BYTES)
    num_shards = max(1, min(num_items, max(needed, worthwhile)))
    bounds = [round(num_items * shard / num_shards) for shard in range(num_shards + 1)]
    of_all = f"of-{num_shards:05d}"
    return tuple(
        Shard(number=number, start=start, stop=stop, file_name=f"{name}-{SPLIT}.array_record-{number:05d}-{of_all}")
        for number, (start, stop) in enumerate(itertools.pairwise(bounds))
    )
