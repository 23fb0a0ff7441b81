"""Settings of an optimiser and its schedule."""

from __future__ import annotations

import dataclasses

from ecgjax.settings.bounds import BELOW_ONE, POSITIVE, PROBABILITY, SHARE, ZERO_OR_MORE
from ecgjax.settings.leaf import leaf


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """`config.optimizer`: optimiser and schedule. Settings of only some optimisers are None for these' defaults."""

    name: str = leaf("adamw", 'Optimiser; "adam" has L2 in the gradient.', choices=("adamw", "adam", "lars", "lamb"))
    learning_rate: float = leaf(1e-3, "Learning rate at its peak.", bound=POSITIVE)
    scaling: str = leaf("none", "Scaling of the rate with batch size / 256.", choices=("none", "linear", "sqrt"))
    schedule: str = leaf(
        "warmup_cosine", "Schedule of the rate.", choices=("warmup_cosine", "warmup_constant", "constant")
    )
    warmup_fraction: float | None = leaf(
        None, "Share of the run that warm-up takes; None for .1 of warmup_*, none of constant.", bound=PROBABILITY
    )
    final_fraction: float = leaf(0.0, "Share of the peak rate at the end of the cosine.", bound=PROBABILITY)
    weight_decay: float = leaf(1e-2, "Rate of weight decay.", bound=ZERO_OR_MORE)
    decayed: str | None = leaf(
        None,
        'Parameters that decay; "all" are biases, scales and scalars too, None is kernels.',
        choices=("kernels", "all"),
    )
    clip_norm: float | None = leaf(None, "Greatest norm of the gradient over all parameters.", bound=POSITIVE)
    b1: float | None = leaf(None, "Decay of Adam's and LAMB's first moment.", bound=BELOW_ONE)
    b2: float | None = leaf(None, "Decay of Adam's and LAMB's second moment.", bound=BELOW_ONE)
    eps: float | None = leaf(None, "Adam's and LAMB's ε.", bound=POSITIVE)
    momentum: float | None = leaf(None, "Momentum of LARS.", bound=BELOW_ONE)
    trust_coefficient: float | None = leaf(None, "Trust coefficient of LARS.", bound=POSITIVE)
    layer_decay: float = leaf(1.0, "Factor of the learning rate from each block to the one below.", bound=SHARE)
    rates: tuple[tuple[str, float], ...] = leaf(
        (), 'Learning rates of parameters by regular expression, such as (("objective/beta", 5e-4),).'
    )
    frozen: tuple[str, ...] = leaf((), 'Parts that stay as they are, such as ("encoder/stem_",).')
    ema_decay: float | None = leaf(
        None, "Decay of averaged weights, which evaluation and loaded encoders use.", bound=BELOW_ONE
    )
