"""Steps beyond the length that a run was begun with, and their learning rates."""

from __future__ import annotations

import dataclasses

import optax

from ecgjax.errors import ConfigError
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.settings.initialisation import CONSTANT, REWARM

# Share of the peak rate below which nothing is learnt; a cosine that ends at 0 ends within rounding of it.
_NOTHING = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extension:
    """Steps that a run takes beyond its length.

    Attributes:
        begin: Number of steps beyond the length in the config after which they begin.
        end: Number of steps beyond that length after which they end.
        schedule: Learning rate of these steps, `"rewarm"` or `"constant"`; None where the schedule before goes on.
        share: Share of the peak rate that `"rewarm"` rises to, or `"constant"` stays at.
        given_at_step: Number of updates that were finished when the extension was asked for.
    """

    begin: int
    end: int
    schedule: str | None = None
    share: float | None = None
    given_at_step: int = 0


def check_rates(schedule: str | None, share: float | None) -> None:
    """Refuses rates of an extension that contradict each other.

    Raises:
        ConfigError: `"constant"` has no share, or there is a share and no schedule.
    """
    if schedule == CONSTANT and share is None:
        raise ConfigError(
            "config.init.schedule='constant' does not say at which rate: give --config.init.share, the share of the "
            "peak rate, such as .1"
        )
    if schedule is None and share is not None:
        raise ConfigError(
            f"config.init.share={share} is the share of the peak rate of config.init.schedule, which is None: give "
            f"--config.init.schedule={REWARM} or {CONSTANT}, or leave the share out"
        )


def extended(
    shape: optax.Schedule, extension: Extension, settings: OptimizerSettings, *, num_steps: int, fraction: float
) -> optax.Schedule:
    """Returns a schedule that goes on for the steps of an extension; its values before them stay bit for bit.

    Steps are counted from the first of the whole run, as the optimiser's state counts them.

    Args:
        shape: Schedule of the steps before, a function from a step to the share of the peak rate.
        extension: Steps to add.
        settings: Settings of the optimiser.
        num_steps: Number of steps of the run as its config has them.
        fraction: Share of the added steps that a new warm-up takes.

    Raises:
        ConfigError: The schedule before ends at a rate of 0, and the extension does not say how to go on.
    """
    start, steps = num_steps + extension.begin, extension.end - extension.begin
    ended_at = float(shape(start))
    if extension.schedule is None:
        if ended_at < _NOTHING:
            raise ConfigError(
                f"--extend: the learning rate has come to 0 at step {start:,} (config.optimizer.schedule="
                f"{settings.schedule!r}, config.optimizer.final_fraction={settings.final_fraction:g}), and {steps:,} "
                f"more steps would learn nothing; say how they go on: --config.init.schedule={REWARM} for a new "
                f"warm-up and cosine over them, or --config.init.schedule={CONSTANT} --config.init.share=.1 for a "
                "tenth of the peak rate"
            )
        return shape
    top = 1.0 if extension.share is None else extension.share
    if extension.schedule == CONSTANT:
        return optax.join_schedules([shape, optax.constant_schedule(top)], [start])
    # The rate rises from where it was, so that it does not fall to 0 between the two.
    again = optax.warmup_cosine_decay_schedule(
        init_value=ended_at,
        peak_value=top,
        warmup_steps=warmup_steps(fraction, steps),
        decay_steps=max(2, steps),
        end_value=top * settings.final_fraction,
    )
    return optax.join_schedules([shape, again], [start])


def warmup_steps(fraction: float, num_steps: int) -> int:
    """Returns the number of steps of a warm-up that takes a fraction of a number of steps."""
    # Warm-up and cosine get at least one step each, whatever the fraction: optax refuses a cosine of none.
    return min(max(1, round(fraction * num_steps)), max(1, num_steps - 1))
