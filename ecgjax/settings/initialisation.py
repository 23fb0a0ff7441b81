"""Settings of the weights that a training begins with, and of the rates of a run that is extended."""

from __future__ import annotations

import dataclasses

from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE, SHARE
from ecgjax.settings.leaf import leaf

#: Ways in which an extended run goes on, values of `InitSettings.schedule`.
REWARM, CONSTANT = "rewarm", "constant"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Weights that an encoder begins with, and how they are matched to its own by name.

    Names are those of `config.optimizer.frozen`, such as `encoder/blocks/0/conv1/kernel`.
    """

    source: str | None = leaf(
        None, "Run's workdir or exported model whose weights the encoder begins with; None for random ones."
    )
    step: int | None = leaf(None, "Step of the source's checkpoint; None for the latest.", bound=ONE_OR_MORE)
    remap: tuple[str, ...] = leaf(
        (),
        'Changes of the source\'s names, each "REGEX=>REPLACEMENT", one after the other; a name that nothing is left '
        "of is not taken.",
    )
    fresh: tuple[str, ...] = leaf(
        (), 'Weights that stay at their initialisation, whatever the source has, such as ("encoder/head/",).'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitSettings(SourceSettings):
    """`config.init`: the weights that a run begins with, and the rates of one that `--extend` prolongs."""

    parts: tuple[str, ...] = leaf(
        ("encoder",),
        'Parts that begin with the source\'s weights: "encoder"; of a workdir also "objective", "task", "second".',
    )
    head_variance: float = leaf(
        1.0,
        "Variance of the first weights of the encoder's last layer, as a share of the usual; PyTorch's is 1/3 of it.",
        bound=POSITIVE,
    )
    schedule: str | None = leaf(
        None,
        'Learning rate of the steps of --extend; "rewarm" is a new warm-up and cosine over them; None goes on as the '
        "run ended.",
        choices=(REWARM, CONSTANT),
    )
    share: float | None = leaf(
        None, "Share of the peak rate that rewarm rises to (None for 1), or that constant stays at.", bound=SHARE
    )
