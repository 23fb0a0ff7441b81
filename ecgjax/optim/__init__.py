"""Optimisers, learning-rate schedules, their settings, and averaged weights."""

from ecgjax.optim.averaging import average
from ecgjax.optim.extension import Extension
from ecgjax.optim.logged_rate import logged_rate
from ecgjax.optim.optimizers import (
    BASE_BATCH,
    DECAYED,
    DEFAULT_WARMUP_FRACTION,
    OPTIMIZERS,
    SCALINGS,
    create,
    frozen_parameters,
    peak_rates,
    schedule,
)
from ecgjax.optim.settings import OptimizerSettings

__all__ = [
    "BASE_BATCH",
    "DECAYED",
    "DEFAULT_WARMUP_FRACTION",
    "Extension",
    "OPTIMIZERS",
    "OptimizerSettings",
    "SCALINGS",
    "average",
    "create",
    "frozen_parameters",
    "logged_rate",
    "peak_rates",
    "schedule",
]
