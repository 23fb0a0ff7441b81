"""Settings of a loss, its relation and its miner: their names, and the arguments of the chosen functions."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping

from ecgjax.objectives.losses.registry import LOSSES
from ecgjax.objectives.losses.triplet import TRIPLET_LOSSES
from ecgjax.objectives.miners.miners import MINERS
from ecgjax.objectives.pairs.distances import DISTANCES, Distance
from ecgjax.objectives.pairs.outputs import REDUCERS, LossOutput, Reducer
from ecgjax.objectives.pairs.relations import RELATIONS
from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE, ZERO_OR_MORE
from ecgjax.settings.leaf import Arguments, Leaf, arguments_of, leaf
from ecgjax.settings.sections import arguments

#: Every loss by name; those of triplets take a miner.
OBJECTIVES: dict[str, Callable[..., LossOutput]] = {**LOSSES, **TRIPLET_LOSSES}

#: Arguments that are functions, chosen by name.
BY_NAME: Mapping[str, Mapping[str, Distance | Reducer]] = {"distance": DISTANCES, "reducer": REDUCERS}

#: Arguments that come from elsewhere than a leaf of the same name.
NOT_LEAVES = (
    "embeddings", "rows", "anchors", "keys", "relation", "miner", "tiling", "key", "step", "views", "paired",
    "schedule",
)  # fmt: skip


def leaves_of_functions(functions: Collection[Callable[..., object]]) -> dict[str, Leaf]:
    """Returns the leaves of functions' arguments by name; where several functions share a name, the last one counts."""
    found: dict[str, Leaf] = {}
    for function in functions:
        named = {name: Leaf(str, None, None, True, _choice(name)) for name in BY_NAME}
        own = arguments_of(function, without=(*NOT_LEAVES, *named))
        found |= own | {name: named[name] for name in named if name in inspect.signature(function).parameters}
    return found


def _choice(name: str) -> str:
    return f"Name of the {name}: {', '.join(BY_NAME[name])}."


def _optional(functions: Collection[Callable[..., object]]) -> dict[str, Leaf]:
    leaves = sorted(leaves_of_functions(functions).items())
    # Functions that share a setting may have other defaults for it: None leaves each its own.
    return {name: dataclasses.replace(own, default=None, optional=True) for name, own in leaves}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """`config.objective`: the loss.

    Attributes:
        arguments: Arguments of the loss that differ from its defaults.
    """

    name: str | None = leaf(None, "Name of the loss; docs/objectives.md lists them.")
    learn: tuple[str, ...] = leaf((), 'Settings that are learnt, such as ("temperature",).')
    weight: float = leaf(1.0, "Weight of the loss beside others.", bound=ZERO_OR_MORE)
    margin_share: float | None = leaf(
        None,
        'Width of the hinge of "triplet" as a share of the median distance in the first batch, in place of `margin`.',
        bound=POSITIVE,
    )
    beta_classes: int | None = leaf(None, "Classes of which each learns a β of its own.", bound=ONE_OR_MORE)
    arguments: Arguments = arguments(lambda: _optional(OBJECTIVES.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelationSettings:
    """`config.relation`: which rows are positives of which.

    Attributes:
        arguments: Arguments of the relation that differ from its defaults.
    """

    name: str | None = leaf(None, "Name of the relation; None where the loss takes none.")
    arguments: Arguments = arguments(lambda: _optional(RELATIONS.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinerSettings:
    """`config.miner`: which positives and negatives a triplet loss uses.

    Attributes:
        arguments: Arguments of the miner that differ from its defaults.
    """

    name: str | None = leaf(None, "Name of the miner; None where the loss takes none.")
    first_hardness: float | None = leaf(None, 'Hardness of "scheduled" at the first step.')
    last_hardness: float | None = leaf(None, 'Hardness of "scheduled" after its steps.')
    over_steps: int | None = leaf(None, 'Steps over which the hardness of "scheduled" changes.')
    arguments: Arguments = arguments(lambda: _optional(MINERS.values()))
