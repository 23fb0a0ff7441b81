"""The leaves of a config as `--help` lists them, with value, meaning and possible values."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from ecgjax.settings.leaf import Leaf, Value

#: Most letters on a line of a meaning: longer ones are hard to read, however wide the terminal is.
_WIDTH = 100


def describe_leaves(
    leaves: Mapping[str, Leaf], values: Mapping[str, Value], *, of: str, columns: int | None = None
) -> str:
    """Returns the text in which `--help` lists leaves with their values, section by section.

    Args:
        leaves: Leaves by path.
        values: Values of the chosen config by path.
        of: Name of the config for the heading.
        columns: Number of letters that fit on a line of the terminal; None where there is no terminal.
    """
    heading = f"Settings of {of}. Each is changed by --config.NAME=VALUE; None, where it is possible, by =None."
    lines = [*(textwrap.wrap(heading, columns, break_on_hyphens=False) if columns else [heading]), ""]
    width = min(columns or _WIDTH, _WIDTH)
    section = ""
    for path, leaf in sorted(leaves.items(), key=lambda item: (item[0].rpartition(".")[0], item[0])):
        above = path.rpartition(".")[0]
        if above != section:
            lines += ["", f"  {above}"]
            section = above
        lines += _leaf(path, leaf, values.get(path, leaf.default), width)
    return "\n".join(lines)


def _leaf(path: str, leaf: Leaf, value: Value, width: int) -> list[str]:
    kind = leaf.kind.__name__ + (" or None" if leaf.optional else "")
    bound = "" if leaf.bound is None else f", {leaf.bound.words}"
    bound += f": {', '.join(map(repr, leaf.choices))}" if leaf.choices else ""
    meaning = f"{leaf.meaning} ({kind}{bound})" if leaf.meaning else f"({kind}{bound})"
    indent = " " * 8
    return [
        f"    --config.{path}={value!r}",
        *textwrap.wrap(meaning, width, initial_indent=indent, subsequent_indent=indent),
    ]
