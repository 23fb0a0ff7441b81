"""Sections of a config: conversion of settings classes to a config with their defaults, and of a config to settings.

A settings class is a frozen dataclass whose fields are leaves, sections (settings classes again), the arguments of a
method that is chosen by name, or the arguments of several methods by their names.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar

from ml_collections import ConfigDict, config_dict

from data_pipelines.system.near_names import meant
from ecgjax.errors import ConfigError, UnknownSettingError
from ecgjax.settings.bounds import FINITE
from ecgjax.settings.leaf import Arguments, Leaf, Plain, Value, leaf_of

#: A config as nested mappings, as `ConfigDict.to_dict` returns it.
Tree: TypeAlias = "Mapping[str, Value | Tree]"

S = TypeVar("S")

# Descriptions of the types of values in messages.
_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
_OF_MANY = {bool: "True or False", int: "whole numbers", float: "numbers", str: "texts"}


def arguments(leaves: Callable[[], Mapping[str, Leaf]]) -> Arguments:
    """Returns a field for the arguments of the method that a section chooses by name.

    The leaves of these arguments stand in the section itself.

    Args:
        leaves: Function that returns the leaves by name. The field holds those whose value is not None.
    """
    return dataclasses.field(default_factory=dict, metadata={"arguments": leaves})


def arguments_by_name(leaves: Callable[[], Mapping[str, Mapping[str, Leaf]]]) -> Mapping[str, Arguments]:
    """Returns a field for the arguments of several functions, each in a section of the function's name.

    Args:
        leaves: Function that returns the leaves of every function by the function's name.
    """
    return dataclasses.field(
        default_factory=lambda: {name: _defaults(own) for name, own in leaves().items()}, metadata={"by_name": leaves}
    )


def _defaults(leaves: Mapping[str, Leaf]) -> Arguments:
    return {name: leaf.default for name, leaf in leaves.items()}


def leaves_of(settings: Callable[[], object], prefix: str = "") -> dict[str, Leaf]:
    """Returns every leaf of a settings class, and of its sections, by its path, such as `probe.task`.

    Args:
        settings: Settings class, or a function that returns settings at their defaults.
        prefix: Prefix of every path.
    """
    return _leaves(settings(), prefix)


def _leaves(defaults: object, prefix: str) -> dict[str, Leaf]:
    found: dict[str, Leaf] = {}
    for name, part in _parts(defaults):
        if isinstance(part, Leaf):
            found[f"{prefix}{name}"] = part
        elif isinstance(part, Mapping):
            found |= {f"{prefix}{name}.{leaf}" if name else f"{prefix}{leaf}": own for leaf, own in part.items()}
        else:
            found |= _leaves(part, f"{prefix}{name}.")
    return found


def _parts(defaults: object) -> Iterator[tuple[str, Leaf | object | Mapping[str, Leaf]]]:
    """Yields the name and content of every field: a leaf, a section at its defaults, or leaves of arguments by name.

    Arguments whose leaves stand in the section itself have an empty name.
    """
    hints = _hints(type(defaults))  # type: ignore[arg-type]  # Every class can be hashed.
    for field in dataclasses.fields(defaults):  # type: ignore[arg-type]  # Settings are instances of a dataclass.
        if "arguments" in field.metadata:
            yield "", field.metadata["arguments"]()
        elif "by_name" in field.metadata:
            for name, leaves in field.metadata["by_name"]().items():
                yield f"{field.name}.{name}", leaves
        elif dataclasses.is_dataclass(value := getattr(defaults, field.name)):
            yield field.name, value
        else:
            meaning, bound = field.metadata.get("meaning", ""), field.metadata.get("bound")
            own = leaf_of(hints[field.name], default=value, meaning=meaning, bound=bound)
            yield field.name, dataclasses.replace(own, choices=field.metadata.get("choices", ()))


@functools.cache
def _hints(settings: type) -> Mapping[str, object]:
    return typing.get_type_hints(settings, include_extras=True)


def config_of(settings: Callable[[], object]) -> ConfigDict:
    """Returns a config with every leaf of a settings class at its default."""
    config = ConfigDict()
    for path, leaf in leaves_of(settings).items():
        *above, name = path.split(".")
        inner = config
        for section in above:
            if section not in inner:
                inner[section] = ConfigDict()
            inner = inner[section]
        # A leaf that may be None keeps its type only as a FieldReference.
        inner[name] = config_dict.FieldReference(leaf.default, field_type=leaf.kind) if leaf.optional else leaf.default
    return config


def read(settings: Callable[[], S], config: ConfigDict | Tree, *, path: str = "config") -> S:
    """Returns the settings of a config, or of a section of one.

    Args:
        settings: Settings class, or a function that returns settings at their defaults.
        config: Values by name. A missing value, as in a config of an older run, is at its default.
        path: Path of the section, which messages name.

    Raises:
        ConfigError: A value has another type, is none of the choices, or is out of its bound.
        UnknownSettingError: There is no such setting.
    """
    return _read(settings(), config.to_dict() if isinstance(config, ConfigDict) else config, path=path)


def _read(defaults: S, tree: Tree, *, path: str) -> S:
    values: dict[str, object] = {}
    known: set[str] = set()
    parts = dict(_parts(defaults))
    for field in dataclasses.fields(defaults):  # type: ignore[arg-type]  # Settings are instances of a dataclass.
        if "arguments" in field.metadata:
            leaves = field.metadata["arguments"]()
            given = {
                name: conform(tree[name], leaf, path=f"{path}.{name}") for name, leaf in leaves.items() if name in tree
            }
            # None stands for the chosen function's own default, which stays with the function.
            values[field.name] = {name: value for name, value in given.items() if value is not None}
            known |= set(leaves)
            continue
        known.add(field.name)
        if field.name not in tree:
            continue
        inner, below = tree[field.name], f"{path}.{field.name}"
        part = parts.get(field.name)
        if isinstance(part, Leaf):
            values[field.name] = conform(inner, part, path=below)
        elif not isinstance(inner, Mapping):
            raise ConfigError(f"{below}={inner!r} is not possible; it is a section with settings of its own")
        elif "by_name" in field.metadata:
            values[field.name] = _by_name(field.metadata["by_name"](), inner, path=below)
        else:
            values[field.name] = _read(part, inner, path=below)
    if unknown := sorted(set(tree) - known):
        raise _unknown(unknown[0], known, path=path)
    return dataclasses.replace(defaults, **values)  # type: ignore[type-var]  # Settings are instances of a dataclass.


def _by_name(leaves: Mapping[str, Mapping[str, Leaf]], tree: Tree, *, path: str) -> dict[str, Arguments]:
    found = {name: dict(_defaults(own)) for name, own in leaves.items()}
    for name, values in tree.items():
        below = f"{path}.{name}"
        if name not in leaves:
            raise _unknown(name, leaves, path=path)
        if not isinstance(values, Mapping):
            raise ConfigError(f"{below}={values!r} is not possible; it is a section with settings of its own")
        for leaf, value in values.items():
            if leaf not in leaves[name]:
                raise _unknown(leaf, leaves[name], path=below)
            found[name][leaf] = conform(value, leaves[name][leaf], path=f"{below}.{leaf}")
    return dict(found)


def _unknown(name: str, known: Iterable[str], *, path: str) -> UnknownSettingError:
    return UnknownSettingError(f"there is no setting {path}.{name}{meant(name, known, prefix=f'{path}.')}")


def conform(value: object, leaf: Leaf, *, path: str) -> Value:
    """Returns a value, converted to the type of its leaf and checked against the leaf's choices and bound.

    Args:
        value: Value as it was given.
        leaf: Leaf of the value.
        path: Path of the leaf, which messages name.

    Raises:
        ConfigError: The value has another type, is none of the leaf's choices, or is out of its bound.
    """
    if value is None and leaf.optional:
        return None
    found = _elements(value, leaf.element) if leaf.kind is tuple else _plain(value, leaf.kind)
    if found is None:
        raise ConfigError(f"{path}={value!r} is not possible; it must be {_possible(leaf)}")
    chosen = found if isinstance(found, tuple) else (found,)
    if leaf.choices and not set(chosen) <= set(leaf.choices):
        there_are = ", ".join(choice or "''" for choice in leaf.choices)
        raise ConfigError(f"{path}={value!r} is unknown; there are: {there_are}")
    # Infinity and NaN are floats, and no setting means them.
    bound = FINITE if leaf.bound is None and float in (leaf.kind, leaf.element) else leaf.bound
    if bound is not None:
        numbers = found if isinstance(found, tuple) else (found,)
        if len(numbers) < bound.fewest:
            raise ConfigError(f"{path}={value!r} is not possible; it must have at least {bound.fewest} elements")
        if not all(isinstance(each, int | float) and bound.holds(each) for each in numbers):
            each = "every one of them must" if isinstance(found, tuple) else "it must"
            raise ConfigError(f"{path}={value!r} is not possible; {each} be {bound.words}")
    return found


def _possible(leaf: Leaf) -> str:
    if leaf.kind is not tuple:
        return _WORDS[leaf.kind] + (", or None" if leaf.optional else "")
    many = "values" if leaf.element is None else _OF_MANY[leaf.element]
    return f"{many}, in brackets with commas between" + (", or None" if leaf.optional else "")


def _plain(value: object, kind: type) -> Plain | None:
    """Returns a value as a `bool`, `int`, `float` or `str`; None where it is not of that type."""
    # Python's True is an int: it must not pass for the number 1.
    if isinstance(value, bool):
        return value if kind is bool else None
    if kind is float and isinstance(value, int | float):
        try:
            return float(value)
        # A whole number has any number of digits, and may be beyond the range of float64.
        except OverflowError:
            return None
    if kind is int and isinstance(value, int):
        return value
    return value if kind is str and isinstance(value, str) else None


def _elements(value: object, kind: type | None) -> tuple[Plain | tuple[Plain, ...], ...] | None:
    """Returns a value as a tuple of elements of type `kind`; None where it is no such tuple or list.

    With `kind` None, elements are plain values of any type, or tuples of these.
    """
    if not isinstance(value, tuple | list):
        return None
    elements = [_nested(each) if kind is None else _plain(each, kind) for each in value]
    known = tuple(each for each in elements if each is not None)
    return known if len(known) == len(elements) else None


def _nested(value: object) -> Plain | tuple[Plain, ...] | None:
    if isinstance(value, tuple | list):
        known = tuple(each for each in value if isinstance(each, bool | int | float | str))
        return known if len(known) == len(value) else None
    return value if isinstance(value, bool | int | float | str) else None


def tree_of(settings: object) -> dict[str, Value | Tree]:
    """Returns settings as nested mappings, in the form of the config that they were read from.

    Args:
        settings: Instance of a settings class.
    """
    found: dict[str, Value | Tree] = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]  # Settings are instances of a dataclass.
        value = getattr(settings, field.name)
        if "arguments" in field.metadata:
            found |= {name: value.get(name) for name in field.metadata["arguments"]()}
        elif dataclasses.is_dataclass(value):
            found[field.name] = tree_of(value)
        else:
            found[field.name] = (
                {name: dict(own) for name, own in value.items()} if "by_name" in field.metadata else value
            )
    return found


def flat(tree: Tree, prefix: str = "") -> dict[str, Value]:
    """Returns the values of nested mappings by their paths, such as `probe.task`."""
    found: dict[str, Value] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
