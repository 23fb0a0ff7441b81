"""Settings of the health metric of a pretraining."""

from __future__ import annotations

import dataclasses

from ecgjax.settings.bounds import between
from ecgjax.settings.leaf import leaf


@dataclasses.dataclass(frozen=True, kw_only=True)
class HealthSettings:
    """`config.health`: a vote of nearest neighbours on a question, at every evaluation; no weight sees its labels."""

    task: str = leaf(
        "",
        "Question on which labelled training records vote for validation records at every evaluation, such as "
        "'lvef<40', 'superdiagnostic:*' or 'age_years'; empty for no vote.",
    )
    neighbours: int = leaf(20, "Training records that vote for each validation record.", bound=between(1, 1000))
    records: int = leaf(
        2000, "Most training records that vote, and most validation records that are asked.", bound=between(2, 20_000)
    )
    layer: str = leaf("features", 'Layer; "features" are pooled activations.', choices=("features", "embedding"))
