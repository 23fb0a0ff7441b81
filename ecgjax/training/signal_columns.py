"""Columns of embedding rows that hold the nearest and farthest recordings of the batch in signal space."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import Array

from ecgjax import leads
from ecgjax.data.settings import ColumnSettings
from ecgjax.errors import ConfigError, chosen
from ecgjax.objectives.miners.signal_space import SIGNAL_DISTANCES, downsample, nearest_and_farthest
from ecgjax.objectives.pairs.relations import Rows
from ecgjax.objectives.pairs.tiles import Tiling

#: Relations and miners that look at neighbours in signal space.
LOOK_AT_SIGNALS = ("nearest_signal", "signal_distance")


class SignalNeighbours:
    """Finds the nearest recording and the farthest ones of every recording of a batch (Jeong et al. 2023).

    Signals are compared as they are stored, before any augmentation, in mV and all eight leads.

    Args:
        columns: Settings, of which `signal_distance` is a key of `SIGNAL_DISTANCES`.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Raises:
        ConfigError: The distance is unknown, `"dtw"` has no radius, or another distance has one.
    """

    def __init__(self, columns: ColumnSettings, *, tiling: Tiling):
        distance = chosen(SIGNAL_DISTANCES, columns.signal_distance, setting="config.columns.signal_distance")
        if (columns.signal_distance == "dtw") != (columns.signal_radius is not None):
            raise ConfigError(
                f"config.columns.signal_radius={columns.signal_radius} with signal_distance="
                f"{columns.signal_distance!r}: 'dtw' needs the radius of its band in samples, the others have none"
            )
        if columns.signal_radius is not None:
            distance = functools.partial(distance, radius=columns.signal_radius)
        self._find = functools.partial(
            nearest_and_farthest, distance=distance, num_farthest=columns.signal_farthest, tiling=tiling
        )
        self._factor = columns.signal_downsample

    def __call__(self, signal: Array, recordings: Rows, *, num_views: int) -> dict[str, Array]:
        """Finds the neighbours of all views of the batch.

        Args:
            signal: Recordings of the batch, `int16[batch, time, 8]`, in µV.
            recordings: Metadata of the batch, one row for each recording.
            num_views: Number of views of each recording. The neighbour of view v is the view v of the neighbouring
                recording.

        Returns:
            Columns `nearest` and `nearest_record`, `i32[batch · views]`, and `farthest`, `i32[batch · views, num]`, as
            `Rows` describes them.
        """
        found = self._find(downsample(leads.millivolts(signal), self._factor), recordings)
        view = jnp.arange(num_views, dtype=jnp.int32)

        def of_views(row: Array) -> Array:
            """Turns row numbers of recordings into those of their views, `[batch, ...]` → `[batch · views, ...]`."""
            places = view.reshape(1, num_views, *(1,) * (row.ndim - 1))
            spread = jnp.where(row[:, None] >= 0, row[:, None] * num_views + places, -1)
            return spread.reshape(-1, *row.shape[1:])

        return {
            "nearest": of_views(found.nearest),
            "nearest_record": jnp.repeat(found.nearest_record, num_views),
            "farthest": of_views(found.farthest),
        }
