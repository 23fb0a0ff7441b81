"""Parts of wrong command lines that several commands share."""

from __future__ import annotations

#: What is said of an address where a path is read.
ADDRESS = "=gs://bucket/x"


def setting_lines(begin: str, *rows: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Returns lines that set one leaf each to what it cannot be: the error must name the leaf, or what is said here.

    Where the leaf belongs to a method by name, the name's leaf stands before it.
    """
    lines = []
    for text, *told in rows:
        leaves = text.split(" --config.")
        flags = " ".join(f'"--config.{leaf}"' for leaf in leaves)
        lines.append((f"{begin} {flags}", *(told or [f"config.{leaves[-1].partition('=')[0]}"])))
    return tuple(lines)
