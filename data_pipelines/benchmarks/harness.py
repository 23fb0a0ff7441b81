"""Timing, comparison and printing that all benchmarks share."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

#: Number of timed repetitions, of which the median is reported.
REPEATS = 5

#: A process is at rest when it uses less than `_REST_SHARE` of one processor during `_REST_S` seconds; programs wait
#: for this at most `_REST_AT_MOST_S` seconds.
_REST_SHARE, _REST_S, _REST_AT_MOST_S = 0.1, 0.02, 5.0

_Result = TypeVar("_Result")


def timed(function: Callable[..., _Result], *args: Any) -> tuple[_Result, float]:
    """Returns the result of a function, and the seconds that it took."""
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


def take_turns(programs: Mapping[str, Callable[[], Any]], *, at_most_s: float = math.inf) -> dict[str, float]:
    """Returns the median seconds of each program, timed by `repetitions`.

    Args:
        programs: Functions by name, each of which returns when its work is done.
        at_most_s: Seconds after which no further repetition begins.
    """
    timings = repetitions(programs, at_most_s=at_most_s)
    return {name: statistics.median(values) for name, values in timings.items()}


def repetitions(
    programs: Mapping[str, Callable[[], Any]], *, repeats: int | None = None, at_most_s: float = math.inf
) -> dict[str, list[float]]:
    """Times programs in turns, so that a slow moment of the machine affects all of them.

    Args:
        programs: Functions by name, each of which returns when its work is done.
        repeats: Number of timed repetitions; None for `REPEATS`.
        at_most_s: Seconds after which no further repetition begins; one is always timed.

    Returns:
        Seconds of every timed repetition of each program.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    begun = time.perf_counter()
    for repetition in range(1 + (repeats or REPEATS)):
        for name, program in programs.items():
            # Otherwise a stream that reads ahead after its turn would slow the next program.
            wait_for_rest()
            seconds[name].append(timed(program)[1])
        if repetition and time.perf_counter() - begun > at_most_s:
            break
    # The first repetition compiles programs and fills caches, so that it tells nothing of the others.
    return {name: values[1:] for name, values in seconds.items()}


def beside(speeds: Sequence[float], ceiling: str, of_ceiling: Sequence[float]) -> dict[str, Any]:
    """Returns speeds, the speeds of a ceiling measured in the same run, and the ratio of their medians, for JSON.

    Args:
        speeds: ECGs/s of every repetition.
        ceiling: Name of the ceiling, which becomes part of the keys.
        of_ceiling: ECGs/s of every repetition of the ceiling.
    """
    median, median_of_ceiling = statistics.median(speeds), statistics.median(of_ceiling)
    return {
        "ecgs_per_sec": round(median),
        "repetitions": [round(speed) for speed in speeds],
        f"{ceiling}_ecgs_per_sec": round(median_of_ceiling),
        f"{ceiling}_repetitions": [round(speed) for speed in of_ceiling],
        f"ratio_to_{ceiling}": round(median / median_of_ceiling, 3),
    }


def print_report(what: str, figures: Mapping[str, Any]) -> None:
    """Prints the result of a benchmark as one JSON object.

    Args:
        what: Name of the benchmark.
        figures: Results, as values that JSON can hold.
    """
    print(json.dumps({"what": what, **figures}, indent=1, ensure_ascii=False), flush=True)


def wait_for_rest() -> None:
    """Waits until this process's threads use almost no processor time, but no longer than a few seconds."""
    deadline = time.perf_counter() + _REST_AT_MOST_S
    while time.perf_counter() < deadline:
        used = time.process_time()
        time.sleep(_REST_S)
        if time.process_time() - used < _REST_SHARE * _REST_S:
            return
