"""Standard output that nobody reads any more, as after `… --help | head`."""

from __future__ import annotations

import contextlib
import os
import sys


def give_up_blocked_output() -> None:
    """Drops what standard output still holds where it cannot be written.

    The interpreter would try once more when it ends, and turn the status of a run that is good into 120.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
