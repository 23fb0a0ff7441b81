"""Settings of the checkpoints of a run."""

from __future__ import annotations

import dataclasses

from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE
from ecgjax.settings.leaf import leaf


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """`config.checkpoint`: how often the state is saved, and how many checkpoints are kept."""

    every: int = leaf(100, "Steps between checkpoints.", bound=ONE_OR_MORE)
    minutes: float | None = leaf(
        None, "Minutes after which there is one in any case, looked at every log_every steps.", bound=POSITIVE
    )
    keep: int = leaf(2, "Latest checkpoints that are kept.", bound=ONE_OR_MORE)
    keep_every: int | None = leaf(None, "Steps whose multiples are kept for good.", bound=ONE_OR_MORE)
    best: str = leaf(
        "", 'Metric of the evaluation by which the best checkpoint is saved and kept, as "eval/loss"; empty for none.'
    )
    best_mode: str = leaf("min", "Direction in which that metric is better.", choices=("min", "max"))
