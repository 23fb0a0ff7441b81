"""Variants of a config file: the text after the colon of `--config=FILE:VARIANT,small`."""

from __future__ import annotations

from collections.abc import Sequence


def variant_of(arg: str, variants: Sequence[str] = ()) -> tuple[str, bool]:
    """Parses the text after the colon of `--config=FILE:…`.

    Args:
        arg: Text after the colon: empty, `"small"`, a variant, or both with a comma between.
        variants: Names of the file's variants; the first is the default.

    Returns:
        The variant (`""` for a file that has none), and whether the small form is asked for.

    Raises:
        ValueError: The text names something else.
    """
    parts = [part.strip() for part in arg.split(",")] if arg.strip() else []
    chosen = [part for part in parts if part != "small"]
    if len(chosen) > 1 or not set(chosen) <= set(variants) or len(parts) - len(chosen) > 1:
        known = ", ".join(("small", *variants))
        raise ValueError(f"after the colon of --config may stand, with a comma between: {known}; not {arg!r}")
    return (chosen[0] if chosen else variants[0] if variants else ""), "small" in parts
