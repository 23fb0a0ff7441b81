"""What a service that keeps metrics is asked to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a service is told when a run begins or resumes.

    Attributes:
        workdir: Folder of the run.
        leaves: Every leaf of the config by its path.
        run_id: Id under which the service knows the run; None where it does not yet.
        keep: Function that keeps a new id for the resumption.
    """

    workdir: Path
    leaves: Mapping[str, object]
    run_id: str | None
    keep: Callable[[str], None]


class Tracker(Protocol):
    """A service that keeps metrics; its methods are called by one thread, and may fail or hang."""

    def begin(self, beginning: Beginning) -> None:
        """Makes the run known to the service, or goes on with the one that it knows."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hands over the metrics of a step, all finite."""

    def end(self, *, finished: bool, failed: bool) -> None:
        """Says how the run ended: at its end, by an error, or by a signal."""
