"""The age of this process: what came before the first line of its code is part of a start."""

from __future__ import annotations

import os
from pathlib import Path


def process_age_s(stat: Path = Path("/proc/self/stat"), uptime: Path = Path("/proc/uptime")) -> float:
    """Returns the seconds since the system started this process; 0 where it does not say.

    Args:
        stat: File with the state of this process, whose 22nd field is the time of its start in ticks since the boot.
        uptime: File with the seconds since the boot.
    """
    try:
        # The second field is the program's name in brackets, which may hold blanks and brackets itself.
        ticks = int(stat.read_text().rpartition(")")[2].split()[19])
        return max(0.0, float(uptime.read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0
