"""Variants of a config file: the text after the colon of `--config=FILE:VARIANT,small`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def variant_of(arg: str, variants: Sequence[str] = ()) -> tuple[str, bool]:
    """Parses the text after the colon of `--config=FILE:…`.

    Args:
        arg: Text after the colon: empty, `"small"`, a variant, or both with a comma between.
        variants: Names of the file's variants; the first is the default, which may have no name (`""`).

    Returns:
        The variant (`""` for a file that has none), and whether the small form is asked for.

    Raises:
        ValueError: The text names something else.
    """
    parts = [part.strip() for part in arg.split(",")] if arg.strip() else []
    chosen = [part for part in parts if part != "small"]
    if len(chosen) > 1 or not set(chosen) <= set(variants) or len(parts) - len(chosen) > 1:
        known = ", ".join(("small", *filter(None, variants)))
        raise ValueError(f"after the colon of --config may stand, with a comma between: {known}; not {arg!r}")
    return (chosen[0] if chosen else variants[0] if variants else ""), "small" in parts


def variants_of(arg: str, *choices: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Parses the text after the colon of `--config=FILE:…` of a file that has several choices.

    Args:
        arg: Text after the colon: at most one variant of each choice and `"small"`, in any order with commas between.
        *choices: Names of the variants of each choice; the first is the default, which may be empty.

    Returns:
        The variant of each choice, and whether the small form is asked for.

    Raises:
        ValueError: The text names something else.
    """
    parts = [part.strip() for part in arg.split(",")] if arg.strip() else []
    named = [[part for part in parts if part and part in choice] for choice in choices]
    if (
        any(len(own) > 1 for own in named)
        or parts.count("small") > 1
        or len(parts) != (sum(map(len, named)) + parts.count("small"))
    ):
        known = "; ".join(", ".join(filter(None, choice)) for choice in choices)
        raise ValueError(
            f"after the colon of --config may stand, with commas between, small and one of each of: {known}; "
            f"not {arg!r}"
        )
    return tuple(
        next(itertools.chain(own, choice)) for own, choice in zip(named, choices, strict=True)
    ), "small" in parts
