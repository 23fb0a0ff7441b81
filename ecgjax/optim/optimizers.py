"""Optimisers and schedules, from a config.

The chosen optimiser runs at the schedule's shape, from 0 to 1, and every parameter's update is multiplied by its own
peak learning rate. That is the config's, scaled with the batch and lowered by depth, or one of the parameter's own.

An optimiser is a function `(shape, known, *, decay, …)`: `shape` is the schedule from 0 to 1, `known` holds the
properties of all parameters by name, `decay` is the transformation that adds weight decay, and the others are settings.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ecgjax.errors import ConfigError, chosen
from ecgjax.optim.extension import Extension, extended, warmup_steps
from ecgjax.optim.parameters import Parameter, layer_factors, matching, name_of, parameters
from ecgjax.optim.settings import OptimizerSettings

Known = Mapping[str, Parameter]

#: Adds a share of every decayed parameter to its update.
Decay: TypeAlias = optax.GradientTransformation

#: `config.optimizer.decayed` → whether weight decay concerns a parameter.
DECAYED: Mapping[str, Callable[[Parameter], bool]] = {
    "kernels": lambda parameter: parameter.kernel,
    "all": lambda parameter: True,
}

#: Batch size for which `config.optimizer.learning_rate` is given where it is scaled with the batch.
BASE_BATCH = 256

#: Share of the run over which the learning rate rises where a schedule has a warm-up and the config gives no share.
DEFAULT_WARMUP_FRACTION = 0.1

#: Name → factor of the learning rate, from batch size / `BASE_BATCH`.
SCALINGS: Mapping[str, Callable[[float], float]] = {
    "none": lambda ratio: 1.0,
    "linear": lambda ratio: ratio,
    "sqrt": lambda ratio: ratio**0.5,
}


def adamw(
    shape: optax.Schedule, known: Known, *, decay: Decay, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Returns Adam with weight decay apart from the gradient (Loshchilov and Hutter, ICLR 2019)."""
    return optax.chain(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), decay, optax.scale_by_learning_rate(shape))


def adam(
    shape: optax.Schedule, known: Known, *, decay: Decay, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Returns Adam with an L2 term in the gradient, which `torch.optim.Adam` calls `weight_decay`.

    References:
        Kingma and Ba, Adam, ICLR 2015.
    """
    return optax.chain(decay, optax.scale_by_adam(b1=b1, b2=b2, eps=eps), optax.scale_by_learning_rate(shape))


def lars(
    shape: optax.Schedule, known: Known, *, decay: Decay, momentum: float = 0.9, trust_coefficient: float = 1e-3
) -> optax.GradientTransformation:
    """Returns SGD whose step in a layer is a share of the norm of the layer's parameters.

    References:
        You, Gitman and Ginsburg, 2017 (arXiv 1708.03888).
    """
    return optax.chain(
        decay,
        _trust_ratio(known, trust_coefficient),
        optax.scale_by_learning_rate(shape),
        # As published, momentum gathers steps that the rate has already scaled.
        optax.trace(momentum),
    )


def lamb(
    shape: optax.Schedule, known: Known, *, decay: Decay, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6
) -> optax.GradientTransformation:
    """Returns AdamW whose step in a layer has the norm of the layer's parameters (You et al., ICLR 2020)."""
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        decay,
        _trust_ratio(known, 1.0),
        optax.scale_by_learning_rate(shape),
    )


OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": adamw,
    "adam": adam,
    "lars": lars,
    "lamb": lamb,
}

# Arguments of an optimiser that are no leaves of its own.
_NOT_SETTINGS = ("shape", "known", "decay")


def schedule(settings: OptimizerSettings, num_steps: int, *, extensions: Sequence[Extension] = ()) -> optax.Schedule:
    """Returns the schedule: a function from a step to the share of the peak learning rate, 0 to 1.

    `warmup_cosine` rises evenly from 0 over `warmup_fraction` of the run and falls in a cosine to `final_fraction`.
    `warmup_constant` rises in the same way and stays at 1. `constant` is 1, after a warm-up where a fraction is given.

    Args:
        settings: Settings of the optimiser.
        num_steps: Number of steps of the run as its config has them.
        extensions: Steps beyond these.

    Raises:
        ConfigError: The schedule's name is unknown, or it ends at 0 and an extension does not say how to go on.
    """
    fraction = settings.warmup_fraction
    if fraction is None:
        fraction = 0.0 if settings.schedule == "constant" else DEFAULT_WARMUP_FRACTION
    warmup = warmup_steps(fraction, num_steps)
    schedules: dict[str, Callable[[], optax.Schedule]] = {
        "warmup_cosine": lambda: optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=1.0,
            warmup_steps=warmup,
            decay_steps=max(2, num_steps),
            end_value=settings.final_fraction,
        ),
        "warmup_constant": lambda: optax.linear_schedule(0.0, 1.0, warmup),
        "constant": lambda: optax.linear_schedule(0.0, 1.0, warmup) if fraction else optax.constant_schedule(1.0),
    }
    shape = chosen(schedules, settings.schedule, setting="config.optimizer.schedule")()
    again = DEFAULT_WARMUP_FRACTION if settings.warmup_fraction is None else settings.warmup_fraction
    for each in extensions:
        shape = extended(shape, each, settings, num_steps=num_steps, fraction=again)
    return shape


def create(
    settings: OptimizerSettings,
    *,
    num_steps: int,
    batch_size: int,
    params: Any,
    extensions: Sequence[Extension] = (),
) -> optax.GradientTransformation:
    """Builds the optimiser that settings name.

    Gradients are first clipped by their global norm, where settings ask for it. Weight decay (unless `decayed` is
    `"all"`) and the trust ratios of LARS and LAMB concern kernels only. Frozen parameters take part in none of this,
    the clipping included, and have no state.

    Args:
        settings: Settings of the optimiser.
        num_steps: Number of steps of the run as its config has them.
        batch_size: Number of recordings of the global batch.
        params: Parameters to optimise, arrays or shapes, with the encoder's under `encoder`.
        extensions: Steps beyond these.

    Raises:
        ConfigError: A name is unknown, the optimiser does not take a setting, a pattern of `rates` or `frozen` is found
            in no parameter, every parameter is frozen, or the schedule ends at 0 and an extension does not say how to
            go on.
    """
    known = parameters(params)
    function = chosen(OPTIMIZERS, settings.name, setting="config.optimizer.name")
    arguments = {name: getattr(settings, name) for other in OPTIMIZERS.values() for name in _settings(other)}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if unknown := sorted(set(arguments) - set(_settings(function))):
        raise ConfigError(
            f"config.optimizer.{unknown[0]}={arguments[unknown[0]]!r} is no setting of {settings.name!r}, which takes: "
            f"{', '.join(_settings(function))}; give --config.optimizer.{unknown[0]}=None"
        )
    rates = peak_rates(settings, known, batch_size=batch_size)
    clip = [] if settings.clip_norm is None else [optax.clip_by_global_norm(settings.clip_norm)]
    decayed = chosen(DECAYED, settings.decayed or "kernels", setting="config.optimizer.decayed")
    decay = _decay(known, settings.weight_decay, decayed)
    optimizer = optax.chain(
        *clip,
        function(schedule(settings, num_steps, extensions=extensions), known, decay=decay, **arguments),
        # The schedule runs up to 1 for all; the peaks differ by parameter, and are multiplied in last.
        _by_parameter(lambda name, update, _: update * jnp.asarray(rates[name], update.dtype)),
    )
    frozen = frozen_parameters(settings, params)
    if not frozen:
        return optimizer
    if len(frozen) == len(known):
        raise ConfigError(f"config.optimizer.frozen={settings.frozen} freezes every parameter: nothing is trained")
    # Frozen parameters are kept out of the chain as a whole: weight decay would still move them.
    labels = jax.tree_util.tree_map_with_path(lambda p, _: "frozen" if name_of(p) in frozen else "trained", params)
    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def frozen_parameters(settings: OptimizerSettings, params: Any) -> frozenset[str]:
    """Returns the names of the parameters that match `config.optimizer.frozen`; arguments are those of `create`."""
    return frozenset(matching(settings.frozen, parameters(params), setting="config.optimizer.frozen"))


def peak_rates(settings: OptimizerSettings, known: Known, *, batch_size: int) -> dict[str, float | np.ndarray]:
    """Returns the learning rate of every parameter at the schedule's peak.

    Rates of `config.optimizer.rates` are taken as they are, neither scaled with the batch nor lowered by depth.

    Args:
        settings: Settings of the optimiser.
        known: Properties of the parameters by name.
        batch_size: Number of recordings of the global batch.

    Returns:
        Learning rates by name of the parameter; where layers are stacked, one rate for each layer, shaped to be
        multiplied with the parameter.

    Raises:
        ConfigError: The scaling is unknown, a pattern is found in no parameter, or `layer_decay` is set and the encoder
            has no blocks.
    """
    peak = base_rate(settings, batch_size=batch_size)
    factors = dict.fromkeys(known, 1.0) if settings.layer_decay == 1 else layer_factors(known, settings.layer_decay)
    own = _own_rates(settings.rates)
    hits = matching(tuple(own), known, setting="config.optimizer.rates")
    return {name: own[hits[name]] if name in hits else peak * factors[name] for name in known}


def base_rate(settings: OptimizerSettings, *, batch_size: int) -> float:
    """Returns the learning rate at the schedule's peak, before depth lowers it; arguments are those of `peak_rates`."""
    scaling = chosen(SCALINGS, settings.scaling, setting="config.optimizer.scaling")
    return settings.learning_rate * scaling(batch_size / BASE_BATCH)


def _own_rates(rates: tuple[Any, ...]) -> dict[str, float]:
    for pair in rates:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and _is_rate(pair[1])):
            raise ConfigError(
                f"config.optimizer.rates={rates!r} must be pairs of a pattern and a learning rate of 0 or more, "
                "such as (('objective/beta', 5e-4),)"
            )
    return {pattern: float(rate) for pattern, rate in rates}


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _settings(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in _NOT_SETTINGS]


def _by_parameter(function: Callable[[str, Array, Array], Array]) -> optax.GradientTransformation:
    """Returns a stateless transformation from a function `(name, update, parameter) → update` of one parameter."""
    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(
            lambda path, update, param: function(name_of(path), update, param), updates, params
        )
    )


def _decay(known: Known, rate: float, decayed: Callable[[Parameter], bool]) -> Decay:
    return _by_parameter(
        lambda name, update, param: update + jnp.asarray(rate, param.dtype) * param if decayed(known[name]) else update
    )


def _trust_ratio(known: Known, coefficient: float) -> optax.GradientTransformation:
    """Scales a layer's update to its parameters' norm times a coefficient; where either norm is 0 it stays as it is.

    Unlike `optax.scale_by_trust_ratio` it scales stacked layers one by one.
    """

    def scale(name: str, update: Array, param: Array) -> Array:
        if not known[name].kernel:
            return update
        # Blocks whose parameters are stacked in one array have a norm each, as if they stood apart.
        axes = tuple(range(known[name].stacked > 0, param.ndim))
        norm, update_norm = (jnp.sqrt(jnp.sum(x * x, axis=axes, keepdims=True)) for x in (param, update))
        some = (norm > 0) & (update_norm > 0)
        ratio = jnp.asarray(coefficient, param.dtype) * norm / jnp.where(some, update_norm, jnp.ones_like(norm))
        return update * jnp.where(some, ratio, jnp.ones_like(ratio))

    return _by_parameter(scale)
