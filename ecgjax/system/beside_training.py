"""Work beside a training that may fail, or take too long, and yet neither stops nor holds up the run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

import jax

from data_pipelines.system.visible_text import visible
from ecgjax.system.terminal import warn

T = TypeVar("T")


def on_the_host() -> contextlib.AbstractContextManager[object]:
    """Returns a context in which JAX computes on the host: an accelerator would first finish the steps it was given."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS may leave the host out; the accelerator gives the same numbers, later.
        return contextlib.nullcontext()


def in_time(work: Callable[[], T], *, limit_s: float, otherwise: T, what: str) -> T:
    """Returns what work gives; where it fails, or does not end in time, a warning says so and the run goes on.

    Work that does not end in time stays in its thread, and what it gives later is dropped.

    Args:
        work: Work to do, in a thread of its own.
        limit_s: Seconds that it may take.
        otherwise: Value in its place.
        what: Result of the work in words, which begin the warning.
    """
    results: list[T] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # Whatever it is, it is not worth a run.
            failures.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(limit_s)
    if results:
        return results[0]
    cause = f"{type(failures[0]).__name__}: {failures[0]}" if failures else f"no answer for {limit_s:g} s"
    warn(f"{what} cannot be had ({visible(cause)}); training goes on without")
    return otherwise
