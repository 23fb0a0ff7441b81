"""A loss, its relation and its miner as a config names them, and what the loss learns itself.

Every setting of every loss, relation and miner is a leaf of the config, None standing for its own default: so that
`--config.objective.name=triplet --config.miner.name=semi_hard` changes one method into another. A leaf that the chosen
one does not take must stay None.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict, config_dict

from ecgjax.errors import ConfigError
from ecgjax.keys import step_key
from ecgjax.objectives.losses.registry import LOSSES
from ecgjax.objectives.losses.triplet import TRIPLET_LOSSES
from ecgjax.objectives.miners.miners import MINERS
from ecgjax.objectives.pairs.distances import DISTANCES
from ecgjax.objectives.pairs.outputs import REDUCERS, LossOutput
from ecgjax.objectives.pairs.relations import RELATIONS, Rows
from ecgjax.objectives.pairs.tiles import Tiling

#: Every loss by name; those of triplets take a miner.
OBJECTIVES: Mapping[str, Callable[..., LossOutput]] = {**LOSSES, **TRIPLET_LOSSES}

#: Lowest learnt temperature, as in CLIP (Radford et al. 2021): below it training becomes unstable.
MIN_TEMPERATURE = 0.01

#: Settings that may be learnt; a temperature by its logarithm, so that it stays positive.
LEARNABLE = ("temperature", "log_scale", "bias", "beta")

#: Leaves of a miner with a schedule: its hardness changes evenly from the first to the last over so many steps.
SCHEDULE = {"first_hardness": float, "last_hardness": float, "over_steps": int}

# Leaves of `config.objective` that concern every loss.
_OF_ALL = ("name", "learn", "weight", "beta_classes")

# Arguments that come from elsewhere than a leaf of the same name.
_NOT_LEAVES = (
    "embeddings",
    "rows",
    "anchors",
    "keys",
    "relation",
    "miner",
    "tiling",
    "key",
    "step",
    "views",
    "paired",
    "schedule",
)
_BY_NAME = {"distance": DISTANCES, "reducer": REDUCERS}


def default_config() -> tuple[ConfigDict, ConfigDict, ConfigDict]:
    """Returns `config.objective`, `config.relation` and `config.miner` with every leaf that there is, all None.

    A config then sets the names, and the settings that differ from the methods' own defaults.
    """
    objective, relation, miner = (
        ConfigDict({name: config_dict.placeholder(kind) for name, kind in sorted(_leaves(functions).items())})
        for functions in (OBJECTIVES.values(), RELATIONS.values(), MINERS.values())
    )
    for section in (objective, relation, miner):
        section.name = config_dict.placeholder(str)
    for name, kind in SCHEDULE.items():
        miner[name] = config_dict.placeholder(kind)
    objective.learn = ()
    objective.weight = 1.0
    objective.beta_classes = config_dict.placeholder(int)
    return objective, relation, miner


class Objective:
    """The loss that a config names.

    Args:
        config: with the sections `objective`, `relation` and `miner` of `default_config`.
        tiling: how pairs are gone through.
        num_views: rows of each record.
        projected: `(dimension of partners, of embeddings)`, where the loss compares with another modality's partners.

    Attributes:
        weight: of the loss beside others, `config.objective.weight`.

    Raises:
        ConfigError: an unknown name, or a setting that what is chosen does not take.
    """

    def __init__(self, config: ConfigDict, *, tiling: Tiling, num_views: int, projected: tuple[int, int] | None = None):
        self._function = _chosen(OBJECTIVES, config.objective.name, "config.objective")
        self.weight = config.objective.weight
        takes = inspect.signature(self._function).parameters
        own = {name: value for name, value in config.objective.items() if name not in _OF_ALL}
        self._settings = _settings(self._function, own, "config.objective", config.objective.name)
        self._learnt = _learnt(tuple(config.objective.learn), takes, config.objective.name)
        self._beta_classes = config.objective.beta_classes
        if self._beta_classes is not None and ("beta" not in self._learnt or self._beta_classes < 1):
            raise ConfigError(
                f"config.objective.beta_classes={self._beta_classes} is the number of classes, at least 1, of which "
                "each learns a β of its own: config.objective.learn must name 'beta'"
            )
        if "temperature" in self._learnt and self._start_of("temperature") < MIN_TEMPERATURE:
            raise ConfigError(
                f"config.objective.temperature={self._start_of('temperature')} is below {MIN_TEMPERATURE}, the lowest "
                "that is learnt"
            )
        self._scheduled = False
        self._from_config(config, takes)
        if "tiling" in takes:
            self._settings["tiling"] = tiling
        if "views" in takes:
            self._settings["views"] = num_views
        if config.miner.name == "signal_distance" and config.relation.name != "nearest_signal":
            raise ConfigError(
                f"config.miner.name='signal_distance' needs config.relation.name='nearest_signal', not "
                f"{config.relation.name!r}, whose positives are others"
            )
        self._takes_key, self._takes_paired = "key" in takes, "paired" in takes
        self._projected = projected if self._takes_paired else None

    def _from_config(self, config: ConfigDict, takes: Mapping[str, Any]) -> None:
        """Binds relation and miner, and refuses them where the loss takes none."""
        for section, registry in (("relation", RELATIONS), ("miner", MINERS)):
            chosen = {name: value for name, value in config[section].items() if value is not None}
            if section not in takes:
                if chosen:
                    raise ConfigError(
                        f"config.objective.name={config.objective.name!r} takes no {section}; set config.{section} to "
                        f"None ({', '.join(f'{name}={value!r}' for name, value in chosen.items())})"
                    )
                continue
            name = chosen.pop("name", None)
            function = _chosen(registry, name, f"config.{section}")
            bound = {}
            if "schedule" in inspect.signature(function).parameters:
                self._scheduled = True
                bound["schedule"] = _schedule(chosen, name)
            bound |= _settings(function, chosen, f"config.{section}", name)
            self._settings[section] = functools.partial(function, **bound) if bound else function

    def init(self, *, seed: int = 0) -> dict[str, Array]:
        """Returns what the loss learns, at its first values.

        Args:
            seed: of the projection of partners.

        Returns:
            Name → `f32[]`, β `f32[classes]` where each class has one; and `projection`, `f32[partners' dim, dim]`, of
            losses of paired modalities.
        """
        learnt = {name: jnp.asarray(_start(name, self._start_of(name)), jnp.float32) for name in self._learnt}
        if self._beta_classes is not None:
            learnt["beta"] = jnp.full((self._beta_classes,), learnt["beta"])
        if self._projected is not None:
            draw = jax.nn.initializers.lecun_normal()
            learnt["projection"] = draw(step_key(seed, 0, stream="projection"), self._projected, jnp.float32)
        return learnt

    def __call__(
        self,
        params: Mapping[str, Array],
        embeddings: Array,
        rows: Rows,
        *,
        key: Array,
        step: Array,
        paired: Array | None = None,
    ) -> LossOutput:
        """Evaluates the loss.

        Args:
            params: what `init` returned, after some training.
            embeddings: `[rows, dim]`.
            rows: their metadata.
            key: of the run's seed and this step, for miners that draw.
            step: of training, for miners with a schedule.
            paired: `f32[rows, partners' dim]`, for losses of paired modalities.

        Returns:
            The loss; its statistics include what is learnt.
        """
        settings = dict(self._settings)
        learnt = {name: _value(name, params[name]) for name in self._learnt}
        if self._scheduled:
            settings["miner"] = functools.partial(settings["miner"], step=step)
        if self._takes_key:
            settings["key"] = key
        if self._takes_paired:
            settings["paired"] = jnp.matmul(paired, params["projection"])
        out = self._function(embeddings, rows, **(settings | learnt))
        scalars = {name: jax.lax.stop_gradient(value) for name, value in learnt.items() if not value.ndim}
        return out._replace(stats=out.stats | scalars)

    def _start_of(self, name: str) -> float:
        if name in self._settings:
            return self._settings[name]
        return inspect.signature(self._function).parameters[name].default


def _start(name: str, value: float) -> Any:
    return jnp.log(value) if name == "temperature" else value


def _value(name: str, param: Array) -> Array:
    return _at_least_minimum(jnp.exp(param)) if name == "temperature" else param


@jax.custom_vjp
def _at_least_minimum(temperature: Array) -> Array:
    """The temperature, or the lowest one; from below that a gradient passes only if it leads back up.

    The gradient of a plain maximum is 0 there: a temperature that a step took too low would never come back.
    """
    return jnp.maximum(temperature, jnp.float32(MIN_TEMPERATURE))


_at_least_minimum.defvjp(
    lambda temperature: (_at_least_minimum(temperature), temperature > jnp.float32(MIN_TEMPERATURE)),
    lambda above, gradient: (jnp.where(above | (gradient < 0), gradient, jnp.float32(0)),),
)


def _schedule(values: dict[str, Any], miner: str) -> optax.Schedule:
    """Takes the leaves of a schedule out of a miner's settings."""
    first, last, steps = (values.pop(name, None) for name in SCHEDULE)
    if first is None or last is None or steps is None or min(first, last) < 0 or steps < 1:
        raise ConfigError(
            f"config.miner.name={miner!r} needs config.miner.first_hardness and last_hardness, 0 or more, and "
            "over_steps, 1 or more"
        )
    return optax.linear_schedule(first, last, steps)


def _learnt(names: tuple[str, ...], takes: Mapping[str, Any], loss: str) -> tuple[str, ...]:
    possible = [name for name in LEARNABLE if name in takes]
    if unknown := sorted(set(names) - set(possible)):
        raise ConfigError(
            f"config.objective.learn names {', '.join(unknown)}; {loss!r} can learn: {', '.join(possible) or 'nothing'}"
        )
    return names


def _chosen(registry: Mapping[str, Callable[..., Any]], name: str | None, section: str) -> Callable[..., Any]:
    if name not in registry:
        raise ConfigError(f"{section}.name={name!r} is unknown; there are: {', '.join(registry)}")
    return registry[name]


def _settings(function: Callable[..., Any], values: Mapping[str, Any], section: str, name: str) -> dict[str, Any]:
    """Returns the settings that are not None, looked up where they are names of functions."""
    possible = _leaves([function])
    settings = {key: value for key, value in values.items() if value is not None}
    if unknown := sorted(set(settings) - set(possible)):
        raise ConfigError(
            f"{section}.{unknown[0]}={settings[unknown[0]]!r} is no setting of {name!r}, which takes: "
            f"{', '.join(possible) or 'none'}; set it to None"
        )
    parameters = inspect.signature(function).parameters
    missing = [key for key in possible if key not in settings and parameters[key].default is inspect.Parameter.empty]
    if missing:
        raise ConfigError(f"{section}.name={name!r} needs {' and '.join(f'{section}.{key}' for key in missing)}")
    return {key: _chosen_by_name(key, value, section) if key in _BY_NAME else value for key, value in settings.items()}


def _chosen_by_name(key: str, value: str, section: str) -> Any:
    if value not in _BY_NAME[key]:
        raise ConfigError(f"{section}.{key}={value!r} is unknown; there are: {', '.join(_BY_NAME[key])}")
    return _BY_NAME[key][value]


def _leaves(functions: Any) -> dict[str, type]:
    """Returns the settings of functions, with the types that a command line gives them."""
    found: dict[str, type] = {}
    for function in functions:
        hints = typing.get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if name not in _NOT_LEAVES:
                found[name] = str if name in _BY_NAME else _leaf_type(hints.get(name, type(parameter.default)))
    return found


def _leaf_type(hint: Any) -> type:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next(kind for kind in (float, int, str, bool) if kind in options)
