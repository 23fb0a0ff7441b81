"""Questions on which all processes of a run must act alike. Every process has to ask them, in the same order."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils


def any_process(flag: bool) -> bool:
    """Returns whether a flag is set on any process."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array([flag])).any())


def of_first_process(number: int) -> int:
    """Returns the number that the first process has, of 32 bits."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def number_of_first_process(number: float) -> float:
    """Returns the number that the first process has, to the last of its 64 bits."""
    if jax.process_count() == 1:
        return number
    # JAX has no float64 by default, so that the number travels as two of 32 bits.
    halves = multihost_utils.broadcast_one_to_all(np.array([number], np.float64).view(np.uint32))
    return float(np.asarray(halves, np.uint32).view(np.float64)[0])
