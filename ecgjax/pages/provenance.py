"""Sections at the end of every page: the command that repeats it, settings, and versions of software and devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ecgjax.pages.page import Block, Folded, Paragraph, Preformatted, Section, Table
from ecgjax.settings.sections import Tree, flat
from ecgjax.system.environment import describe_environment

#: Text for a setting that one side lacks.
_ABSENT = "(none)"


class Step(NamedTuple):
    """A step on the way from raw files to a page.

    Attributes:
        words: Sentence that introduces the command, or says why there is none.
        command: Command line for a shell; empty where it is not known.
    """

    words: str
    command: str = ""


def command_section(command: str, *, before: Sequence[Step] = (), note: str = "") -> Section:
    """Returns the section with the commands that produce the page again, from raw files on.

    Args:
        command: Command line for a shell that produces the page.
        before: Steps before that command, in order.
        note: Note below the command; may be empty.
    """
    steps = [*before, Step("This page:" if before else "", command)]
    blocks: list[Block] = []
    for number, (words, line) in enumerate(steps, start=1):
        blocks += [Paragraph(f"{number}. {words}")] if words else []
        blocks += [Preformatted(line)] if line else []
    return Section("How to make it again", [*blocks, *([Paragraph(note)] if note else [])])


def configuration_section(config: Tree, *, default: Tree) -> Section:
    """Returns the section with every leaf of a configuration, those that differ from the default first.

    Args:
        config: Nested, resolved config.
        default: Nested config that `config` is compared with; for a command the values of `RunSettings()`.
    """
    now, before = flat(config), flat(default)
    changed = [name for name in now if name not in before or not _same(now[name], before[name])]
    blocks: list[Block] = [Paragraph("All settings are as in ecgjax/defaults.py.")]
    if changed:
        rows = [(name, repr(now[name]), repr(before[name]) if name in before else _ABSENT) for name in changed]
        said = f"{len(changed)} of {len(now)} settings are not as in ecgjax/defaults.py:"
        blocks = [Paragraph(said), Table(header=("setting", "value", "base"), rows=rows)]
    every = Table(header=("setting", "value"), rows=[(name, repr(value)) for name, value in now.items()])
    return Section("Configuration", [*blocks, Folded(f"All {len(now)} settings", [every])])


def environment_section() -> Section:
    """Returns the section with the versions of software and the devices of this process."""
    return Section("Environment", [Table(header=("what", "version"), rows=list(describe_environment().items()))])


def _same(value: Any, other: Any) -> bool:
    # JSON has lists for tuples, and NaN equals itself only as text.
    as_list = [list(each) if isinstance(each, tuple) else each for each in (value, other)]
    return as_list[0] == as_list[1] or repr(as_list[0]) == repr(as_list[1])
