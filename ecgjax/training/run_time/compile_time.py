"""The time that JAX spends on tracing and compiling, whatever asked for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import jax.monitoring

#: Parts of a compilation that JAX tells of, each at its end; one may lie inside another.
_PARTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


class CompileTime:
    """Context manager that passes on the seconds which its own thread spends on compiling, each once.

    Args:
        add: Function that is given the seconds of a part, without what lay inside it and was given before.
        clock: Clock in seconds.
    """

    def __init__(self, add: Callable[[float], None], *, clock: Callable[[], float] = time.monotonic):
        self._add, self._clock = add, clock
        self._thread = threading.get_ident()
        self._parts: list[tuple[float, float]] = []  # beginning and length of parts that none was around so far

    def __enter__(self) -> CompileTime:
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event in _PARTS and threading.get_ident() == self._thread:
            self.part(duration_secs)

    def part(self, duration: float) -> None:
        """Takes account of a part that ends now.

        Args:
            duration: Length of the part in seconds.
        """
        begin, inside = self._clock() - duration, 0.0
        # Parts lie one inside another or one after another, so that those inside this one are the last ones.
        while self._parts and self._parts[-1][0] >= begin:
            inside += self._parts.pop()[1]
        self._parts.append((begin, duration))
        del self._parts[:-_MOST_PARTS]
        self._add(max(0.0, duration - inside))


#: Number of parts that are remembered: one compilation has fewer inside it that none of them is around.
_MOST_PARTS = 4096
