"""Settings of the task that is predicted beside the objective."""

from __future__ import annotations

import dataclasses

from ecgjax.data.settings import TASK_COLUMNS
from ecgjax.settings.bounds import BELOW_ONE, ONE_OR_MORE, POSITIVE, ZERO_OR_MORE
from ecgjax.settings.leaf import leaf


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """`config.task`: what is predicted beside the objective; `config.columns.task` or `measurements` say which."""

    name: str = leaf(
        "",
        'What is predicted: a label, "binary" or a number ("regression"), or all measured waves ("measurements"); '
        "empty for nothing.",
        choices=("", *TASK_COLUMNS),
    )
    weight: float = leaf(1.0, "Weight of the prediction's loss.", bound=ZERO_OR_MORE)
    reads: str = leaf(
        "embedding",
        'What the head reads: the embedding, which the objective shapes too, or the pooled "features" before it.',
        choices=("embedding", "features"),
    )
    views: tuple[int, ...] = leaf((), "Numbers of the views that predict, from 0; empty for all.", bound=ZERO_OR_MORE)
    delta: float = leaf(
        1.0, 'Error, in deviations, from which the loss of "measurements" is linear (Huber).', bound=POSITIVE
    )
    hidden: int = leaf(128, "Width inside the head.", bound=ONE_OR_MORE)
    dropout: float = leaf(0.3, "Dropout inside the head.", bound=BELOW_ONE)
