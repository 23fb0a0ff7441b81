"""Settings of a run that looks for a fault or measures speed."""

from __future__ import annotations

import dataclasses

from ecgjax.settings.leaf import leaf


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebugSettings:
    """`config.debug`: what is done to find a fault or to measure a share of the time."""

    reuse_batch: bool = leaf(False, "Whether every step takes the first batch: no model, but the speed without input.")
    fake_data: bool = leaf(False, "Whether signals are noise and none is read: no model, but the speed without a disk.")
    nan_checks: bool = leaf(
        False, "Whether every operation of a step is checked for NaN, and the first one is named; steps are slower."
    )

    @property
    def untrained(self) -> str:
        """Leaf that keeps the run from training a model, with its value; empty where none does."""
        for name in ("fake_data", "reuse_batch"):
            if getattr(self, name):
                return f"config.debug.{name}=True"
        return ""

    @property
    def caution(self) -> str:
        """Sentence on what the run is not; empty for a run that trains a model."""
        if not self.untrained:
            return ""
        return f"This run trains {self.words} ({self.untrained}): it is NO MODEL, and no command takes it for one."

    @property
    def marks(self) -> dict[str, float]:
        """Metrics that mark every line of such a run."""
        names = ("fake_data", "reuse_batch")
        return {f"debug/{name}": 1.0 for name in names if getattr(self, name)}

    @property
    def words(self) -> str:
        """What the run trains on instead of its recordings, in words; empty where it trains on these."""
        return "on noise" if self.fake_data else "on one batch" if self.reuse_batch else ""
