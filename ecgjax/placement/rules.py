"""Rules of `config.mesh.rules`, which lay parameters out by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.sharding import Mesh, PartitionSpec

from ecgjax.errors import ConfigError
from ecgjax.optim.parameters import matching

#: Axes of the mesh; rows of the batch are divided over the first.
AXES = ("data", "model")

_SETTING = "config.mesh.rules"


class Rule(NamedTuple):
    """A rule as it was read.

    Attributes:
        text: Rule as it was given.
        pattern: Regular expression that is found in a parameter's name.
        axes: Axis of the mesh that each dimension is divided over; None for a dimension that stays whole.
    """

    text: str
    pattern: str
    axes: tuple[str | None, ...]


def read_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Reads rules of the form `"REGEX=AXIS,AXIS"`, in which an empty axis leaves a dimension whole.

    Raises:
        ConfigError: A rule cannot be read, or names an axis that does not exist, or one twice.
    """
    return tuple(map(_read, texts))


def _read(text: str) -> Rule:
    pattern, equals, listed = text.rpartition("=")
    axes = tuple(axis.strip() or None for axis in listed.split(","))
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{_SETTING}: {pattern!r} is no regular expression ({error})") from error
    if not (pattern and equals):
        raise ConfigError(f"{_SETTING}: {text!r} is no rule; write REGEX=AXIS,AXIS")
    named = [axis for axis in axes if axis is not None]
    if unknown := [axis for axis in named if axis not in AXES]:
        raise ConfigError(f"{_SETTING}: {text!r} names the axis {unknown[0]!r}; there are: {', '.join(AXES)}")
    if len(set(named)) < len(named):
        raise ConfigError(f"{_SETTING}: {text!r} names an axis twice; a parameter is divided over an axis once")
    return Rule(text, pattern, axes)


def specs_by_rules(rules: Sequence[Rule], params: Mapping[str, Any], mesh: Mesh) -> dict[str, PartitionSpec]:
    """Returns the layout of the parameters that rules are found in, by name.

    Args:
        rules: Rules, of which the first that is found in a parameter's name counts.
        params: Parameters by name, arrays or their shapes.
        mesh: Mesh that they are laid out on.

    Raises:
        ConfigError: A rule is found in no parameter, names more axes than a parameter has dimensions, or divides a
            dimension over a number of devices that does not divide it.
    """
    found = matching([rule.pattern for rule in rules], params, setting=_SETTING)
    by_pattern = {rule.pattern: rule for rule in reversed(rules)}
    return {name: _spec(by_pattern[pattern], name, params[name].shape, mesh) for name, pattern in found.items()}


def _spec(rule: Rule, name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    if len(rule.axes) > len(shape):
        raise ConfigError(
            f"{_SETTING}: {rule.text!r} names {len(rule.axes)} axes, and {name} has the shape {shape}; give no more "
            "than it has dimensions, or an expression that is not found in it"
        )
    for dimension, axis in enumerate(rule.axes):
        if axis is not None and shape[dimension] % mesh.shape[axis]:
            raise ConfigError(
                f"{_SETTING}: {rule.text!r} divides dimension {dimension} of {name}, which has the shape {shape}, over "
                f"the axis {axis!r} of {mesh.shape[axis]} devices; give one that they divide, or an expression that "
                "is not found in it"
            )
    return PartitionSpec(*rule.axes)
