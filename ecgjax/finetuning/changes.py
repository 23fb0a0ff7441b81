"""What a fine-tuning that resumes may have changed: what `config.resume.allow` names, and never its records.

The best weights so far were chosen by looks at the validation records. With other records, labels or another encoder,
these looks could not be compared with those to come; such a change is a run of its own, which may begin with the model
of this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ecgjax.errors import ConfigError

#: Leaves and sections that decide the records, their labels, the encoder, or the folds of any of them.
FIXED = ("task", "label_fraction", "init", "data", "overlaps", "seed")


def check_allowed(names: Sequence[str]) -> None:
    """Refuses leaves that no fine-tuning can change in its course.

    Args:
        names: Leaves and sections that `config.resume.allow` names.

    Raises:
        ConfigError: One of them decides what the looks at validation are made of.
    """
    if fixed := [name for name in names if name.partition(".")[0] in FIXED]:
        raise ConfigError(
            f"config.resume.allow={fixed[0]}: the best weights of a fine-tuning were chosen on its validation records, "
            "and with other records, labels or another encoder its looks could not be compared; start a run in a "
            "workdir of its own"
        )


def is_same_run(before: Mapping[str, Any], now: Mapping[str, Any], *, allowed: Sequence[str]) -> bool:
    """Returns whether a checkpoint is of the run at hand, up to changes that are allowed.

    Args:
        before: Metadata of the checkpoint.
        now: Metadata that the run saves.
        allowed: Leaves and sections that may differ; those of `training` decide the order of the records.
    """
    if before.get("fingerprint") == now["fingerprint"]:
        return True
    order_may_differ = any(name.partition(".")[0] == "training" for name in allowed)
    return order_may_differ and before.get("digests", {}).get("data") == now["digests"]["data"]
