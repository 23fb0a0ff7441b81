"""Settings of the trace of some steps."""

from __future__ import annotations

import dataclasses

from ecgjax.settings.bounds import ZERO_OR_MORE, between
from ecgjax.settings.leaf import leaf


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """`config.profile`: steps of which a trace is written to WORKDIR/profile."""

    start: int | None = leaf(
        None, "Step after which the trace begins; None for no trace. The first steps are not like the others.",
        bound=ZERO_OR_MORE,
    )  # fmt: skip
    steps: int = leaf(5, "Steps of the trace, whose files take some megabytes each.", bound=between(1, 1000))
