"""Spaces in which records are compared: what a record is there, before principal components.

A record is an array `[samples, lead]` of the eight stored leads in mV, each lead about its own mean, because the level
of a lead is no likeness. Its amplitude is one: leads are scaled by the deviation that they have over all training
records (`components.py`), and not in every record by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from data_pipelines.physiology.beats import NoBeatsError, prepare
from data_pipelines.physiology.median_beat import BEAT_SAMPLES, shown_beat
from data_pipelines.records import STORED_LEADS, SignalFormat

#: Rate at which whole signals are compared.
SIGNAL_RATE_HZ = 25

_MICROVOLTS = 1000.0


class Recorded(NamedTuple):
    """A stored signal and the part of it that was recorded.

    Attributes:
        signal: Signal in µV, `int16[time, lead]`.
        start: First recorded sample.
        samples: Number of recorded samples.
    """

    signal: np.ndarray
    start: int
    samples: int


class Space(NamedTuple):
    """A space.

    Attributes:
        samples: Function from the format of the records to the number of samples of their vectors.
        vector: Function of a record and its rate in Hz that returns `f64[samples, lead]` in mV, NaN where nothing was
            recorded; None for a record that has no place in the space.
    """

    samples: Callable[[SignalFormat], int]
    vector: Callable[[Recorded, int], np.ndarray | None]


def vector_of(space: Space, recorded: Recorded, signal_format: SignalFormat) -> np.ndarray:
    """Returns a record in a space, each lead about its own mean.

    Args:
        space: Space of the vector.
        recorded: Record.
        signal_format: Rate and length of the record.

    Returns:
        Vector, `f32[samples, lead]`, in mV; NaN where nothing was recorded, and everywhere for a record that has no
        place in the space. One without any deflection has none either: it would be like every small one.
    """
    whole = np.full((space.samples(signal_format), len(STORED_LEADS)), np.nan, np.float32)
    vector = space.vector(recorded, signal_format.sampling_rate_hz)
    if vector is None:
        return whole
    known = np.isfinite(vector).all(axis=1)
    # The mean of equal numbers need not be equal to them: what varies is asked before it is subtracted.
    if known.any() and np.ptp(vector[known], axis=0).any():
        whole[known] = vector[known] - vector[known].mean(axis=0)
    return whole


def _signal_samples(signal_format: SignalFormat) -> int:
    return signal_format.num_samples * SIGNAL_RATE_HZ // signal_format.sampling_rate_hz


def _low_rate_signal(recorded: Recorded, rate_hz: int) -> np.ndarray | None:
    """Averages a signal over parts of 1/25 s; a part counts if all of its samples were recorded."""
    number = len(recorded.signal) * SIGNAL_RATE_HZ // rate_hz
    edges = np.arange(number + 1) * rate_hz // SIGNAL_RATE_HZ
    # Sums of whole numbers are exact in any order.
    sums = np.concatenate([np.zeros((1, recorded.signal.shape[1]), np.int64), np.cumsum(recorded.signal, axis=0)])
    means = np.diff(sums[edges], axis=0) / (np.diff(edges)[:, None] * _MICROVOLTS)
    whole = (edges[:-1] >= recorded.start) & (edges[1:] <= recorded.start + recorded.samples)
    return np.where(whole[:, None], means, np.nan)


def _median_beat(recorded: Recorded, rate_hz: int) -> np.ndarray | None:
    signal = recorded.signal[recorded.start : recorded.start + recorded.samples]
    try:
        return shown_beat(prepare(signal, sampling_rate_hz=rate_hz)).astype(np.float64)
    except NoBeatsError:
        return None


#: Space by name.
SPACES: Mapping[str, Space] = {
    "signal": Space(_signal_samples, _low_rate_signal),
    "median_beat": Space(lambda signal_format: BEAT_SAMPLES, _median_beat),
}
