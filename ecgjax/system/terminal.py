"""Lines for the user that can fail without ending a run.

Standard output may be a file on a disk that is full, or a pipe whose reader has gone: what a run says is lost then, and
nothing else.
"""

from __future__ import annotations

import contextlib
import sys

from tqdm import tqdm

from data_pipelines.system.terminal_lines import for_stream


def say(line: str) -> bool:
    """Writes a line to standard output, past a progress bar, and returns whether it could be written."""
    try:
        tqdm.write(for_stream(line, sys.stdout), file=sys.stdout)
        sys.stdout.flush()
    except (OSError, ValueError):  # A closed stream raises a ValueError.
        return False
    return True


def warn(line: str) -> None:
    """Writes a warning to standard error, past a progress bar, if that can be written.

    Args:
        line: Text of the warning, without the word itself.
    """
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(for_stream(f"warning: {line}", sys.stderr), file=sys.stderr)
        sys.stderr.flush()
