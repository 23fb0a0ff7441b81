"""Programs for devices other than those of the machine that traces them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

_PORTABLE: contextvars.ContextVar[bool] = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Lets encoders that are traced in the block take no form that suits the devices of this machine alone."""
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def is_portable() -> bool:
    """Whether the program that is traced will run on other devices."""
    return _PORTABLE.get()
