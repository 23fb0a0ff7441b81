"""A loss with its relation and miner, as settings name them, and the parameters that the loss itself learns.

Every setting of every loss, relation and miner is a leaf of the config, where None stands for the function's default.
So `--config.objective.name=triplet --config.miner.name=semi_hard` changes one method into another. A leaf that the
chosen loss, relation or miner does not take must stay None.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ecgjax.errors import ConfigError, chosen
from ecgjax.keys import step_key
from ecgjax.objectives.first_batch import median_distance
from ecgjax.objectives.miners.miners import MINERS
from ecgjax.objectives.miners.search import Mined
from ecgjax.objectives.pairs.distances import Distance
from ecgjax.objectives.pairs.outputs import LossOutput
from ecgjax.objectives.pairs.relations import RELATIONS, Relation, Rows
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.objectives.settings import (
    BY_NAME,
    OBJECTIVES,
    MinerSettings,
    ObjectiveSettings,
    RelationSettings,
    leaves_of_functions,
)
from ecgjax.settings.leaf import Arguments

#: Lowest learnt temperature, as in CLIP (Radford et al. 2021): below it training becomes unstable.
MIN_TEMPERATURE = 0.01

#: Settings that may be learnt; a temperature by its logarithm, so that it stays positive.
LEARNABLE = ("temperature", "log_scale", "bias", "beta")

# Name of the median distance of the first batch among what a loss keeps.
_MEDIAN = "median_distance"

#: Leaves of a miner with a schedule: its hardness changes evenly from the first to the last over so many steps.
SCHEDULE = ("first_hardness", "last_hardness", "over_steps")


class Objective:
    """The loss that settings name, with its relation and miner.

    Args:
        settings: Settings of the loss.
        relation: Settings of the relation.
        miner: Settings of the miner.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        num_views: Number of rows of each record.
        projected: Dimension of the partners' embeddings, and that of the ECGs', where the loss compares ECGs with
            another modality; None elsewhere.

    Attributes:
        weight: Weight of the loss beside others, `config.objective.weight`.

    Raises:
        ConfigError: A name is unknown, a needed setting is missing, or the chosen loss, relation or miner does not take
            a setting that is given.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        relation: RelationSettings,
        miner: MinerSettings,
        *,
        tiling: Tiling,
        num_views: int,
        projected: tuple[int, int] | None = None,
    ):
        self._function = chosen(OBJECTIVES, settings.name, setting="config.objective.name")
        self.weight = settings.weight
        takes = inspect.signature(self._function).parameters
        self._settings = _settings(self._function, settings.arguments, "config.objective", settings.name)
        self._learnt = _learnt(settings.learn, takes, settings.name)
        self._beta_classes = settings.beta_classes
        if self._beta_classes is not None and "beta" not in self._learnt:
            raise ConfigError(
                f"config.objective.beta_classes={self._beta_classes} is the number of classes of which each learns a β "
                "of its own: config.objective.learn must name 'beta'"
            )
        self._margin_share = _margin_share(settings)
        if "temperature" in self._learnt and self._start_of("temperature") < MIN_TEMPERATURE:
            raise ConfigError(
                f"config.objective.temperature={self._start_of('temperature')} is below {MIN_TEMPERATURE}, the lowest "
                "that is learnt"
            )
        # The miner whose hardness follows the step, where there is a schedule.
        self._scheduled: Callable[..., Mined] | None = None
        if "relation" in takes:
            self._settings["relation"] = _relation(relation)
        else:
            _refuse(relation, "relation", settings.name)
        if "miner" in takes:
            self._settings["miner"] = self._miner(miner)
        else:
            _refuse(miner, "miner", settings.name)
        offered = {"tiling": tiling, "views": num_views}
        self._settings |= {name: value for name, value in offered.items() if name in takes}
        if miner.name == "signal_distance" and relation.name != "nearest_signal":
            raise ConfigError(
                f"config.miner.name='signal_distance' needs config.relation.name='nearest_signal', not "
                f"{relation.name!r}, whose positives are others"
            )
        self._takes_key, self._takes_paired = "key" in takes, "paired" in takes
        self._projected = projected if self._takes_paired else None

    def _miner(self, miner: MinerSettings) -> Callable[..., Mined]:
        function = chosen(MINERS, miner.name, setting="config.miner.name")
        bound = _settings(function, miner.arguments, "config.miner", miner.name)
        scheduled = "schedule" in inspect.signature(function).parameters
        if scheduled:
            bound["schedule"] = _schedule(miner)
        elif given := [f"config.miner.{name}" for name in SCHEDULE if getattr(miner, name) is not None]:
            raise ConfigError(f"config.miner.name={miner.name!r} has no schedule; set {', '.join(given)} to None")
        miner_of_loss = functools.partial(function, **bound) if bound else function
        if scheduled:
            self._scheduled = miner_of_loss
        return miner_of_loss

    def init(self, *, seed: int = 0, stream: str = "projection") -> dict[str, Array]:
        """Returns the first values of the parameters that the loss learns.

        Args:
            seed: Seed of the projection of partners.
            stream: Purpose of the projection's random key, as `keys.step_key` takes it.

        Returns:
            First values by name: `f32[]` each, or `f32[classes]` for β where each class has one; and `projection`,
            `f32[partners' dim, dim]`, for losses of paired modalities.
        """
        starts = {name: self._start_of(name) for name in self._learnt}
        learnt = {
            name: jnp.asarray(jnp.log(start) if name == "temperature" else start, jnp.float32)
            for name, start in starts.items()
        }
        if self._beta_classes is not None:
            learnt["beta"] = jnp.full((self._beta_classes,), learnt["beta"])
        if self._projected is not None:
            draw = jax.nn.initializers.lecun_normal()
            learnt["projection"] = draw(step_key(seed, 0, stream=stream), self._projected, jnp.float32)
        return learnt

    def init_stats(self) -> dict[str, Array]:
        """Returns what the loss keeps of the first batch, before there is one: nothing for most losses."""
        return {} if self._margin_share is None else {_MEDIAN: jnp.zeros((), jnp.float32)}

    def stats_after(
        self, before: Mapping[str, Array], embeddings: Array, rows: Rows, *, step: Array
    ) -> dict[str, Array]:
        """Returns what the loss keeps of the first batch, measured in the first step.

        Args:
            before: What it has kept so far, as `init_stats` or this function returned it.
            embeddings: Embeddings, `[rows, dim]`.
            rows: Metadata of the embedding rows.
            step: Number of the training step, from 0, `i32[]`.
        """
        if self._margin_share is None:
            return {}
        distance = self._settings.get("distance", inspect.signature(self._function).parameters["distance"].default)
        if not isinstance(distance, Distance):
            raise TypeError(f"{distance!r} is no distance")
        measure = functools.partial(median_distance, distance=distance)
        embeddings = jax.lax.stop_gradient(embeddings)
        return {_MEDIAN: jax.lax.cond(step == 0, measure, lambda *_: before[_MEDIAN], embeddings, rows)}

    def __call__(
        self,
        params: Mapping[str, Array],
        embeddings: Array,
        rows: Rows,
        *,
        key: Array,
        step: Array,
        paired: Array | None = None,
        stats: Mapping[str, Array] | None = None,
    ) -> LossOutput:
        """Evaluates the loss.

        Args:
            params: Learnt values, as `init` returned them or after some training.
            embeddings: Embeddings, `[rows, dim]`.
            rows: Metadata of the embedding rows.
            key: Random key of the run's seed and this step, for miners that draw.
            step: Number of the training step, for miners with a schedule.
            paired: Embeddings of the partners, `f32[rows, partners' dim]`, for losses of paired modalities.
            stats: What `stats_after` returned for this step, where the loss keeps anything.

        Returns:
            The loss, whose statistics include the learnt scalars, and a margin that follows from the first batch.
        """
        settings = dict(self._settings)
        learnt = {
            name: _at_least_minimum(jnp.exp(params[name])) if name == "temperature" else params[name]
            for name in self._learnt
        }
        if self._scheduled is not None:
            settings["miner"] = functools.partial(self._scheduled, step=step)
        if self._takes_key:
            settings["key"] = key
        if self._takes_paired:
            if paired is None:
                raise ValueError("a loss of paired modalities needs the partners of the rows")
            settings["paired"] = jnp.matmul(paired, params["projection"])
        kept: dict[str, Array] = {}
        if self._margin_share is not None:
            if not stats:
                raise ValueError("a margin that is a share of distances needs what was kept of the first batch")
            settings["margin"] = kept["margin"] = jnp.float32(self._margin_share) * stats[_MEDIAN]
        out = self._function(embeddings, rows, **(settings | learnt))
        scalars = kept | {name: jax.lax.stop_gradient(value) for name, value in learnt.items() if not value.ndim}
        return out._replace(stats=out.stats | scalars)

    def _start_of(self, name: str) -> float:
        default = inspect.signature(self._function).parameters[name].default
        value = self._settings.get(name, default)
        if not isinstance(value, int | float):
            raise TypeError(f"{name}={value!r} is no number that could be learnt")
        return value


def _margin_share(settings: ObjectiveSettings) -> float | None:
    """Returns the share of the median distance that is the margin, which only a hinge without a margin can have."""
    share = settings.margin_share
    if share is None:
        return None
    if settings.name != "triplet" or settings.arguments.get("form", "hinge") != "hinge":
        raise ConfigError(
            f"config.objective.margin_share={share} is of the hinge of config.objective.name='triplet'; give "
            "--config.objective.margin_share=None"
        )
    if "margin" in settings.arguments:
        raise ConfigError(
            f"config.objective.margin_share={share} and margin={settings.arguments['margin']} both say how wide the "
            "hinge is; set one of them to None"
        )
    return share


@jax.custom_vjp
def _at_least_minimum(temperature: Array) -> Array:
    """Returns the temperature, at least `MIN_TEMPERATURE`; below it a gradient passes only if it leads back up.

    The gradient of a plain maximum is 0 there: a temperature that a step took too low would never come back.
    """
    return jnp.maximum(temperature, jnp.float32(MIN_TEMPERATURE))


_at_least_minimum.defvjp(
    lambda temperature: (_at_least_minimum(temperature), temperature > jnp.float32(MIN_TEMPERATURE)),
    lambda above, gradient: (jnp.where(above | (gradient < 0), gradient, jnp.float32(0)),),
)


def _relation(relation: RelationSettings) -> Relation:
    function = chosen(RELATIONS, relation.name, setting="config.relation.name")
    bound = _settings(function, relation.arguments, "config.relation", relation.name)
    return functools.partial(function, **bound) if bound else function


def _refuse(settings: RelationSettings | MinerSettings, section: str, loss: str | None) -> None:
    """Raises a `ConfigError` where a relation or miner is set for a loss that takes none."""
    names = ("name", *(SCHEDULE if isinstance(settings, MinerSettings) else ()))
    every = {name: getattr(settings, name) for name in names} | dict(settings.arguments)
    chosen = {name: value for name, value in every.items() if value is not None}
    if chosen:
        given = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
        raise ConfigError(
            f"config.objective.name={loss!r} takes no {section}; set config.{section} to None: {given} "
            f"({' '.join(f'--config.{section}.{name}=None' for name in chosen)})"
        )


def _schedule(miner: MinerSettings) -> optax.Schedule:
    first, last, steps = miner.first_hardness, miner.last_hardness, miner.over_steps
    if first is None or last is None or steps is None or min(first, last) < 0 or steps < 1:
        raise ConfigError(
            f"config.miner.name={miner.name!r} needs config.miner.first_hardness and last_hardness, 0 or more, and "
            "over_steps, 1 or more"
        )
    return optax.linear_schedule(first, last, steps)


def _learnt(names: tuple[str, ...], takes: Mapping[str, inspect.Parameter], loss: str | None) -> tuple[str, ...]:
    possible = [name for name in LEARNABLE if name in takes]
    if unknown := sorted(set(names) - set(possible)):
        raise ConfigError(
            f"config.objective.learn names {', '.join(unknown)}; {loss!r} can learn: {', '.join(possible) or 'nothing'}"
        )
    return names


def _settings(
    function: Callable[..., object], arguments: Arguments, section: str, name: str | None
) -> dict[str, object]:
    """Returns the arguments of a loss, relation or miner by name, with functions in place of their names.

    Args:
        function: Loss, relation or miner.
        arguments: Arguments as the config has them, such as `distance="cosine"`.
        section: Section of the config, for messages.
        name: Name of the function in the config, for messages.

    Raises:
        ConfigError: The function does not take an argument, or one without a default is missing.
    """
    possible = list(leaves_of_functions([function]))
    if unknown := sorted(set(arguments) - set(possible)):
        raise ConfigError(
            f"{section}.{unknown[0]}={arguments[unknown[0]]!r} is no setting of {name!r}, which takes: "
            f"{', '.join(possible) or 'none'}; give --{section}.{unknown[0]}=None"
        )
    parameters = inspect.signature(function).parameters
    missing = [key for key in possible if key not in arguments and parameters[key].default is inspect.Parameter.empty]
    if missing:
        raise ConfigError(f"{section}.name={name!r} needs {' and '.join(f'{section}.{key}' for key in missing)}")
    return {
        key: chosen(BY_NAME[key], value, setting=f"{section}.{key}") if key in BY_NAME else value
        for key, value in arguments.items()
    }
