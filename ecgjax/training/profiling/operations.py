"""The operations of a trace by the time that each takes, read from the trace itself."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax.profiler import ProfileData

from ecgjax.training.profiling.step_trace import PROFILE_DIR

#: Line of a device that has its operations, where there is one; otherwise events say which operation they are of.
_OPERATIONS = "XLA Ops"


class Operation(NamedTuple):
    """An operation of a compiled program.

    Attributes:
        name: Name in the program, such as `fusion.12`.
        program: Name of the program; empty where the trace does not say.
        seconds: Time in it, without that of operations inside it, of all devices or threads together.
        executions: Number of its executions.
        share: Share in the time of all operations.
    """

    name: str
    program: str
    seconds: float
    executions: int
    share: float


class Span(NamedTuple):
    """An execution of an operation; times in nanoseconds."""

    begin: float
    length: float
    name: str
    program: str


def latest_trace(workdir: str | Path) -> list[Path]:
    """Returns the files of the latest trace of a run, one for each process; none where there is no trace.

    Args:
        workdir: Folder of the run.
    """
    folders = sorted((Path(workdir) / PROFILE_DIR / "plugins" / "profile").glob("*"))
    files = [sorted(folder.glob("*.xplane.pb")) for folder in folders]
    return next((found for found in reversed(files) if found), [])


def operations_of(files: Iterable[Path]) -> list[Operation]:
    """Returns all operations of a trace, those that took longest first.

    Args:
        files: Files of the trace, `HOST.xplane.pb`.
    """
    seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for file in files:
        for line in _lines(ProfileData.from_file(str(file))):
            for span, own in own_times(line):
                seconds[span.name, span.program] += own / 1e9
                counts[span.name, span.program] += 1
    whole = sum(seconds.values())
    return [
        Operation(name, program, value, counts[name, program], value / whole if whole else 0.0)
        for (name, program), value in sorted(seconds.items(), key=lambda item: (-item[1], item[0]))
    ]


def own_times(spans: Iterable[Span]) -> Iterator[tuple[Span, float]]:
    """Yields the executions on one line, each with its time without that of those inside it.

    Args:
        spans: Executions, of which one lies inside another or beside it.
    """
    around: list[list[Any]] = []
    for span in sorted(spans, key=lambda each: (each.begin, -each.length)):
        while around and around[-1][0].begin + around[-1][0].length <= span.begin:
            outer, inside = around.pop()
            yield outer, max(0.0, outer.length - inside)
        if around:
            around[-1][1] += span.length
        around.append([span, 0.0])
    for outer, inside in around:
        yield outer, max(0.0, outer.length - inside)


def _lines(data: ProfileData) -> Iterator[Sequence[Span]]:
    for plane in data.planes:
        lines = list(plane.lines)
        only = [line for line in lines if line.name == _OPERATIONS]
        for line in only or lines:
            spans = [_span(event, named=bool(only)) for event in line.events]
            yield [span for span in spans if span is not None]


def _span(event: Any, *, named: bool) -> Span | None:
    stats = {name: value for name, value in event.stats if name in ("hlo_op", "hlo_module")}
    if not named and "hlo_op" not in stats:
        return None
    name = str(stats.get("hlo_op", event.name))
    return Span(event.start_ns, event.duration_ns, name, str(stats.get("hlo_module", "")))
