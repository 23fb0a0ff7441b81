"""The page of where a run's time went: a bar for each of its starts, and the same in numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime

from matplotlib.figure import Figure

from data_pipelines.system.counted import counted
from ecgjax.pages.page import Block, Page, Paragraph, Picture, Section, Table
from ecgjax.training.run_time.account import ALL_KINDS, Account, Start

#: Kinds of time in words, with the colour of each.
_KINDS = {
    "step": ("steps that were kept", "#3a8f4c"),
    "init": ("start: processes, data, restoring", "#8a5fb0"),
    "compile": ("compiling", "#1f6fb4"),
    "input": ("waiting for input", "#e08a3c"),
    "evaluate": ("evaluation", "#7fb8d8"),
    "save": ("saving", "#c9b458"),
    "lost": ("steps that were lost and done again", "#b3202c"),
    "down": ("nothing running", "#dddddd"),
}

#: Most starts that have a bar of their own; of more, the last ones are drawn.
_MOST_BARS = 40


def time_page(account: Account, *, title: str, more: Sequence[Section] = ()) -> Page:
    """Returns the page of an account.

    Args:
        account: Account of the run.
        title: Name of the run.
        more: Sections that follow.
    """
    return Page(
        title=f"Where the time of {title} went",
        cautions=_cautions(account),
        summary=[Paragraph(summary_of(account))],
        sections=[
            Section("Starts", [_picture(account), starts_table(account)]),
            Section("Kinds of time", [kinds_table(account), Paragraph(_EXPLANATION)]),
            *more,
        ],
    )


_EXPLANATION = (
    "The times are those of the first process. A step is at work on the devices while the host does other things, so "
    "that waiting for input counts as such even where the devices still had work. What came after the last line that a "
    "killed start wrote, at most ten seconds, counts as nothing running; so does the time that a scheduler took."
)


def summary_of(account: Account) -> str:
    """Returns an account in one sentence."""
    starts, shares = len(account.starts), account.shares
    lost = sum(start.lost_steps for start in account.starts)
    rest = ", ".join(f"{kind} {shares[kind]:.1%}" for kind in _KINDS if kind != "step" and shares[kind] >= 5e-4)
    return (
        f"goodput {account.goodput:.1%} of {duration(sum(account.seconds.values()))} in {starts} "
        f"start{'s' * (starts != 1)}"
        + (f": {rest}" if rest else "")
        + (f"; {counted(lost, 'step')} lost" if lost else "")
    )


def starts_table(account: Account) -> Table:
    """Returns a table with a row for each start."""
    return Table.of(
        {
            "start (UTC)": lambda start: datetime.fromtimestamp(start.begun, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            "steps": lambda start: "none" if start.first is None else f"{start.first:,} to {start.last:,}",
            "lost steps": lambda start: f"{start.lost_steps:,}",
            **{kind: functools.partial(_spent, kind=kind) for kind in _KINDS},
            "end": lambda start: start.ended or "killed, or still running",
        },
        account.starts,
    )


def _spent(start: Start, *, kind: str) -> str:
    return duration(start.spent[kind])


def kinds_table(account: Account) -> Table:
    """Returns a table with a row for each kind of time."""
    seconds, shares = account.seconds, account.shares
    return Table.of(
        {
            "kind": lambda kind: f"{kind}: {_KINDS[kind][0]}",
            "time": lambda kind: duration(seconds[kind]),
            "share": lambda kind: f"{shares[kind]:.1%}",
        },
        _KINDS,
    )


def duration(seconds: float) -> str:
    """Returns a time in words, such as `2.5 h`."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _cautions(account: Account) -> list[str]:
    if any(start.clock_went_back for start in account.starts):
        return ["A start began, by its clock, before the one before it had ended: the time between is not known."]
    return []


def _picture(account: Account) -> Block:
    drawn = account.starts[-_MOST_BARS:]
    unit, name = _unit(drawn)
    figure = Figure(figsize=(8, 1.4 + 0.28 * len(drawn)), layout="constrained")
    axes = figure.subplots()
    for place, start in enumerate(drawn):
        left = 0.0
        for kind, (_, color) in _KINDS.items():
            axes.barh(place, start.spent[kind] / unit, left=left / unit, color=color, height=0.8)
            left += start.spent[kind]
    first = len(account.starts) - len(drawn) + 1
    axes.set_yticks(range(len(drawn)), [str(first + place) for place in range(len(drawn))])
    axes.invert_yaxis()
    axes.set_xlabel(name)
    axes.set_ylabel("start")
    handles = [axes.barh(0, 0, color=color, label=words) for words, color in _KINDS.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    of = f"the last {len(drawn)} of {len(account.starts)} starts" if first > 1 else "every start"
    return Picture(
        figure=figure,
        alt=f"A horizontal bar for {of}, divided by what the time was spent on; the table below has the numbers.",
        caption=f"Time of {of} by kind, and the time to the next one.",
    )


def _unit(starts: Sequence[Start]) -> tuple[float, str]:
    longest = max((sum(start.spent[kind] for kind in ALL_KINDS) for start in starts), default=0.0)
    return (3600.0, "hours") if longest >= 7200 else (60.0, "minutes") if longest >= 120 else (1.0, "seconds")
