"""Steps in which every operation is checked for NaN, so that the first one can be named.

A step is compiled before it is run and gives its state away, so that JAX's own option (`jax_debug_nans`), which runs a
failed step once more operation by operation, has nothing to run again. The checks are compiled into the step instead.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.experimental import checkify

import ecgjax
from ecgjax.errors import DivergedError

Step = Callable[[Any, Any], tuple[Any, Any]]

_PACKAGE = Path(str(ecgjax.__file__)).parent


def checked(step: Step) -> Callable[[Any, Any], tuple[Any, tuple[Any, Any]]]:
    """Returns the function `(state, batch) → (error, (state, metrics))` of a step with its checks, to be jitted."""
    return checkify.checkify(step, errors=checkify.nan_checks)


def telling(compiled: Callable[[Any, Any], tuple[Any, tuple[Any, Any]]]) -> Step:
    """Returns a step that raises a `DivergedError` where an operation gives NaN, and names it.

    Args:
        compiled: Compiled form of what `checked` returned.
    """

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        number = int(state.step) + 1  # The state is given away.
        error, after = compiled(state, batch)
        if (found := error.get_exception()) is not None:
            raise DivergedError(
                f"step {number}: {str(found).rstrip('.')}{_place(found)}; checkpoints from before stay. "
                "config.debug.nan_checks=True looked for it"
            )
        return after

    return step


def _place(error: Any) -> str:
    """Returns the line of this package that an operation comes from, as " in FILE:LINE (FUNCTION)"; "" if unknown."""
    try:
        frames = traceback.extract_tb(error.traceback_info.as_python_traceback())
    except AttributeError:
        return ""
    own = [frame for frame in frames if _PACKAGE in Path(frame.filename).parents]
    if not own:
        return ""
    path = Path(own[-1].filename).relative_to(_PACKAGE.parent)
    return f" in {path}:{own[-1].lineno} ({own[-1].name})"
