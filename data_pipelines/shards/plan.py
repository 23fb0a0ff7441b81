"""Which records of a source go into which shard: a function of their number and size alone.

Whoever builds, with however many processes and on whichever machines, so writes the same shards.
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

#: Shards are the units of work of a build: so many keep the cores of any one machine busy to the end …
_SHARDS_TO_SHARE_OUT = 64

#: … as long as each is worth its file and the start of a process.
_MIN_SHARD_BYTES = 8 * 2**20

#: Bytes of a record beside its signal: ids, labels, a report. A bound for sizing shards, not a limit.
_OTHER_BYTES_PER_RECORD = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive items of a source and the file that their records go to.

    Attributes:
        number: position of the shard, from 0 on.
        start: first item.
        stop: last item plus one.
        file_name: as TFDS names it.
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
    """Deals the items of a source to shards of equal size.

    Args:
        num_items: items of the source, one a record.
        signal_format: of the records.
        name: of the data set.

    Returns:
        The shards in order; a single, empty one for a source without items.
    """
    total_bytes = num_items * (2 * math.prod(signal_format.shape) + _OTHER_BYTES_PER_RECORD)
    needed = math.ceil(total_bytes / MAX_SHARD_BYTES)
    worthwhile = min(_SHARDS_TO_SHARE_OUT, total_bytes // _MIN_SHARD_BYTES)
    num_shards = max(1, min(num_items, max(needed, worthwhile)))
    bounds = [round(num_items * shard / num_shards) for shard in range(num_shards + 1)]
    return tuple(
        Shard(
            number=number,
            start=start,
            stop=stop,
            file_name=f"{name}-{SPLIT}.array_record-{number:05d}-of-{num_shards:05d}",
        )
        for number, (start, stop) in enumerate(itertools.pairwise(bounds))
    )
