"""A training of this process that stops at a given step, as after a signal."""

import itertools

from ecgjax.processes.stop_request import StopRequest


def stop_at(patch, step, *, start=0):
    """Has the next training, which begins at `start`, stop after `step` updates; the loop asks once a step."""
    steps = itertools.count(start)
    patch.setattr(StopRequest, "requested", lambda _: next(steps) >= step)
