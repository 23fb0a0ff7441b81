"""A leaf of a config: type, default, meaning and bound of one setting.

Settings that the code refers to by name are fields of frozen dataclasses. Settings of methods that are chosen by name
(encoders, losses, augmentations) are the arguments of functions and classes, and their leaves are read from the
signatures: the bound from an annotation such as `Annotated[float, POSITIVE]`, the meaning from the docstring.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias, TypeVar

from ecgjax.settings.bounds import Bound

Plain: TypeAlias = bool | int | float | str

#: Value of a setting as a command line or a file gives it; tuples are at most two deep.
Value: TypeAlias = Plain | tuple[Plain | tuple[Plain, ...], ...] | None

#: Values of settings by name, as arguments of the function or class that was chosen.
Arguments: TypeAlias = Mapping[str, Value]

T = TypeVar("T")
S = TypeVar("S")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One setting.

    Attributes:
        kind: Type of the value: `bool`, `int`, `float`, `str` or `tuple`.
        element: Type of every element of a tuple; None where elements differ.
        default: Value where nothing else is given.
        optional: Whether the value may be None.
        meaning: Meaning of the setting in words.
        bound: Condition on a number, or on every element of a tuple.
        choices: Possible texts, or elements of a tuple; empty where any text is possible.
    """

    kind: type
    element: type | None
    default: Value
    optional: bool
    meaning: str = ""
    bound: Bound | None = None
    choices: tuple[str, ...] = ()


def leaf(default: T, meaning: str, *, bound: Bound | None = None, choices: tuple[str, ...] = ()) -> T:
    """Returns a field of a settings dataclass, with default and metadata.

    Args:
        default: Value where nothing else is given.
        meaning: Meaning of the setting in words.
        bound: Condition on a number, or on every element of a tuple.
        choices: Possible texts; empty where any text is possible.
    """
    return dataclasses.field(default=default, metadata={"meaning": meaning, "bound": bound, "choices": choices})


def section(settings: Callable[[], S]) -> S:
    """Returns a field that is a section with settings of its own; `settings` makes them at their defaults."""
    return dataclasses.field(default_factory=settings)


def leaf_of(hint: object, *, default: Value, meaning: str = "", bound: Bound | None = None) -> Leaf:
    """Returns the leaf for a type hint.

    Args:
        hint: Type hint, such as `float`, `Annotated[int, ONE_OR_MORE] | None` or `tuple[int, ...]`.
        default: Value where nothing else is given.
        meaning: Meaning of the setting in words.
        bound: Bound that holds unless the hint is annotated with one.

    Raises:
        TypeError: The hint is none of `bool`, `int`, `float`, `str`, a sequence or literal of these, or one of them or
            None.
    """
    optional, element = False, None
    while not isinstance(hint, type) or typing.get_origin(hint) is not None:
        origin, options = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            hint, bound = options[0], next((each for each in options[1:] if isinstance(each, Bound)), bound)
        elif origin in (types.UnionType, typing.Union):
            optional |= type(None) in options
            hint = next(each for each in options if each is not type(None))
        elif origin is typing.Literal:
            hint = str
        elif isinstance(origin, type) and issubclass(origin, Sequence):
            hint, elements = tuple, {each for each in options if each is not Ellipsis}
            if len(elements) == 1:
                (only,) = elements
                if typing.get_origin(only) is not tuple:
                    of_element = leaf_of(only, default=None, bound=bound)
                    element, bound = of_element.kind, of_element.bound
        else:
            raise TypeError(f"no setting can be of the type {hint}")
    if hint not in (bool, int, float, str, tuple):
        raise TypeError(f"no setting can be of the type {hint}")
    return Leaf(hint, element, default, optional or default is None, meaning, bound)


def arguments_of(function: Callable[..., object], *, without: Collection[str]) -> dict[str, Leaf]:
    """Returns the leaves of the arguments of a function or class, by the arguments' names.

    Args:
        function: Function or class with a docstring in Google's style.
        without: Names of arguments that configs cannot set.
    """
    return dict(_arguments_of(function, frozenset(without)))


# Every reading of a config asks for the same functions, about 80, whose type hints take most of its time to evaluate.
@functools.cache
def _arguments_of(function: Callable[..., object], without: frozenset[str]) -> Mapping[str, Leaf]:
    hints, meanings = typing.get_type_hints(_called(function), include_extras=True), described(function)
    leaves = {}
    for name, parameter in inspect.signature(_called(function)).parameters.items():
        if name in without:
            continue
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        leaves[name] = leaf_of(hints.get(name, type(default)), default=default, meaning=meanings.get(name, ""))
    return leaves


def _called(function: Callable[..., object]) -> Callable[..., object]:
    # For a class this is `__init__`, because the annotations of the class itself describe its attributes.
    return vars(function)["__init__"] if isinstance(function, type) else function


def described(function: Callable[..., object]) -> dict[str, str]:
    """Returns the description of each argument by name, from the `Args` section of the function's docstring."""
    _, _, after = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")
    meanings: dict[str, str] = {}
    name = ""
    for line in after.split("\n"):
        if line and not line.startswith(" "):
            break
        if found := re.match(r" {4}(\w+): (.*)", line):
            name = found[1]
            meanings[name] = found[2]
        elif name and line.strip():
            meanings[name] += f" {line.strip()}"
    return meanings
