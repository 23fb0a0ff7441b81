"""The account of a run's time: what was spent by each start, what was lost by its end, and what lay between them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from ecgjax.training.run_time.events import FAILED, FINISHED, KINDS, OF_STEPS, STOPPED, TimeEvent

#: Kinds of an account: those of a start, steps that were done again later, and the time between two starts.
ALL_KINDS = (*KINDS, "lost", "down")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a run.

    Attributes:
        begun: Time of its beginning, in seconds since the epoch.
        first: Step that it went on from; None where it ended before that was known.
        last: Last step that it is known to have finished.
        ended: How it ended, as `TimeEvent.occasion` has it; empty where it was killed, or still runs.
        spent: Seconds by kind (`ALL_KINDS`); `down` is the time after its end, up to the next start.
        lost_steps: Number of its steps that a later start did again.
        clock_went_back: Whether the next start began, by its clock, before this one had ended.
    """

    begun: float
    first: int | None
    last: int
    ended: str
    spent: Mapping[str, float]
    lost_steps: int
    clock_went_back: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """The time of a run over all its starts.

    Attributes:
        starts: Starts in their order.
    """

    starts: Sequence[Start]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by kind (`ALL_KINDS`)."""
        return {kind: sum(start.spent[kind] for start in self.starts) for kind in ALL_KINDS}

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the whole time by kind; all are 0 where there is none."""
        seconds = self.seconds
        whole = sum(seconds.values())
        return {kind: value / whole if whole else 0.0 for kind, value in seconds.items()}

    @property
    def goodput(self) -> float:
        """Share of the whole time that went into steps which were kept."""
        return self.shares["step"]


def account_of(events: Sequence[TimeEvent]) -> Account:
    """Returns the account of a run.

    A step is lost where a later start goes on from an earlier one. What was spent up to the step that is gone back to
    is what the lines of that step say; where they are missing, the time between two lines is divided evenly over their
    steps. Compiling and opening the data are never lost: they are no part of a step.

    Args:
        events: Events of all starts, those of one in their order.
    """
    grouped: dict[float, list[TimeEvent]] = {}
    for event in events:
        grouped.setdefault(event.begun, []).append(event)
    starts, back = [], None
    for own, following in reversed(list(itertools.zip_longest(grouped.values(), list(grouped.values())[1:]))):
        starts.append(_start(own, back=back, following=following))
        first = own[-1].first
        if first is not None:
            back = first if back is None else min(back, first)
    return Account(starts=starts[::-1])


def _start(own: Sequence[TimeEvent], *, back: int | None, following: Sequence[TimeEvent] | None) -> Start:
    """Returns the account of a start.

    Args:
        own: Its events.
        back: Earliest step that a later start goes on from; None where there is none.
        following: Events of the next start; None for the last one.
    """
    last = own[-1]
    spent = dict(last.spent)
    lost = {kind: 0.0 for kind in OF_STEPS}
    lost_steps = 0
    if back is not None and last.first is not None and back < last.step:
        lost_steps = last.step - max(back, last.first)
        kept = _spent_at(own, max(back, last.first))
        lost = {kind: max(0.0, spent[kind] - kept[kind]) for kind in OF_STEPS}
    gap = 0.0 if following is None or last.occasion == FINISHED else following[0].begun - last.at
    return Start(
        begun=last.begun,
        first=last.first,
        last=last.step,
        ended=last.occasion if last.occasion in (FINISHED, STOPPED, FAILED) else "",
        spent={
            **{kind: spent[kind] - lost.get(kind, 0.0) for kind in KINDS},
            "lost": sum(lost.values()),
            "down": max(0.0, gap),
        },
        lost_steps=lost_steps,
        clock_went_back=gap < 0,
    )


def _spent_at(own: Sequence[TimeEvent], step: int) -> Mapping[str, float]:
    """Returns the seconds by kind up to the end of a step."""
    nothing = {kind: 0.0 for kind in KINDS}
    known = [event for event in own if event.first is not None]
    before = [event for event in known if event.step <= step]
    after = [event for event in known if event.step > step]
    low = before[-1].spent if before else nothing
    if (before and before[-1].step == step) or not after:
        return low
    low_step = before[-1].step if before else (known[0].first or 0)
    share = (step - low_step) / (after[0].step - low_step)
    return {kind: low[kind] + share * (after[0].spent[kind] - low[kind]) for kind in KINDS}
