"""Measured waves as targets: which measurements a pretraining predicts, and what they are like on the training side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.physiology.measurement_groups import GROUP_OF, GROUPS, measurements_of
from data_pipelines.physiology.robust_scale import robust_scale
from data_pipelines.system.near_names import meant_or_else
from ecgjax.data.settings import ColumnSettings
from ecgjax.errors import ConfigError


class MeasuredWaves(NamedTuple):
    """Measurements that are predicted, and their location and scale on the training side.

    Attributes:
        names: Names of the measurements, in column order.
        location: Median, `f32[measurements]`, in the unit of each.
        scale: Winsorised standard deviation, `f32[measurements]`; 1 where nothing is predicted.
        predicted: Mask of those that vary on the training side, `bool[measurements]`; the others are no targets.
        number: Training records that have the measurement, `int64[measurements]`.
    """

    names: tuple[str, ...]
    location: np.ndarray
    scale: np.ndarray
    predicted: np.ndarray
    number: np.ndarray

    def about(self) -> list[dict[str, Any]]:
        """Returns name, group, median, scale (None where it is no target) and number of values of each, for JSON."""
        columns = zip(self.names, self.location, self.scale, self.predicted, self.number, strict=True)
        return [
            {
                "name": name,
                "group": GROUP_OF[name],
                "median": float(location),
                "scale": float(scale) if predicted else None,
                "records": int(number),
            }
            for name, location, scale, predicted, number in columns
        ]

    def describe(self) -> str:
        """Returns a line on the targets, and on measurements that are none because they hardly vary."""
        same = [name for name, predicted in zip(self.names, self.predicted, strict=True) if not predicted]
        without = f"; constant on the training side, and no targets: {', '.join(same)}" if same else ""
        return f"{int(self.predicted.sum())} measurements of every recording are predicted{without}"


def chosen_measurements(settings: ColumnSettings) -> tuple[str, ...]:
    """Returns the names of the measurements that are predicted, in column order.

    Measurements of single beats are never among them: a crop shows other beats than the first ones.

    Args:
        settings: Settings of the columns, of which `measured_on`, `measurements` and `without_measurements` are read.

    Raises:
        ConfigError: There is no such measurement or group, or none is left.
    """
    on = settings.measured_on
    kept = _named(settings.measurements or tuple(GROUPS[on]), on=on, leaf="measurements")
    left_out = _named(settings.without_measurements, on=on, leaf="without_measurements")
    chosen = tuple(name for name in kept if name not in left_out)
    if not chosen:
        raise ConfigError(
            f"config.columns.without_measurements={settings.without_measurements} leaves none of the measurements of "
            f"config.columns.measurements={settings.measurements}; leave fewer out"
        )
    return chosen


def measured_waves(names: Sequence[str], values: np.ndarray, train: np.ndarray) -> MeasuredWaves:
    """Returns location and scale of measurements, which are those of the training side alone.

    Args:
        names: Names of the measurements, in column order.
        values: Measurements of all recordings, `f32[n, measurements]`, NaN where missing.
        train: Numbers of the records that are trained on, `int64[m]`.

    Raises:
        ConfigError: No measurement varies among the training records.
    """
    found = robust_scale(values, train)
    predicted = np.isfinite(found.scale)
    if not predicted.any():
        raise ConfigError(
            f"config.task.name='measurements': none of {', '.join(names)} varies among the {len(train)} training "
            "records; choose others in config.columns.measurements, or train on more recordings"
        )
    return MeasuredWaves(
        names=tuple(names),
        location=found.location.astype(np.float32),
        scale=np.where(predicted, found.scale, 1.0).astype(np.float32),
        predicted=predicted,
        number=found.number,
    )


def _named(names: tuple[str, ...], *, on: str, leaf: str) -> tuple[str, ...]:
    try:
        return measurements_of(names, on=on)
    except KeyError as error:
        (name,) = error.args
        groups = GROUPS[on]
        possible = (*groups, *(each for members in groups.values() for each in members))
        listed = "; ".join(f"{group} ({', '.join(members)})" for group, members in groups.items())
        raise ConfigError(
            f"config.columns.{leaf} names {name!r}, which is no group and no measurement of "
            f"config.columns.measured_on={on!r}{meant_or_else(name, possible, f'there are the groups {listed}')}"
        ) from None
