"""Flags what is doubtful about a stored signal, for users who want to leave such records out; a build keeps them.

Thresholds were set on 500 recordings of PTB-XL: 12.6 % of them wander, 0.6 % are noisy and 0.4 % have artefacts.
"""

from __future__ import annotations

import enum
import functools
import operator

import numpy as np
import scipy  # Its parts are imported where they are first asked for: that of signals takes a second.

from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT

#: The largest magnitude that is stored; a sample at it was at least as large.
STORED_LIMIT_UV = 32_767

#: A lead's deviation from its median beyond which it is an artefact: no heart makes it, mV.
ARTEFACT_MV = 8.0

#: Length of a stretch without any change in a lead, seconds, from which a lead had come off or an amplifier saturated.
STUCK_SECONDS = 0.5

#: Span of the means of single seconds of a lead beyond which its baseline wanders, mV.
WANDER_MV = 1.0

#: Root mean square above 40 Hz beyond which a lead is noisy, mV; the twentieth of the samples where it is largest (QRS)
#: is left out.
NOISE_MV = 0.04

_NOISE_ABOVE_HZ = 40.0
_QUIET_SHARE = 0.95


class QualityFlag(enum.IntFlag):
    """Flags of a record; several may hold."""

    PADDED = 1
    CLIPPED = 2
    ARTEFACT = 4
    STUCK = 8
    WANDER = 16
    NOISE = 32
    #: The size, polarity or rate is doubted, for this record or for all records of its origin (`groups.py`).
    CALIBRATION = 64


def clipped_samples(signal: np.ndarray) -> int:
    """Returns how many samples of a stored signal are at the limit of what can be stored.

    Args:
        signal: `int16[time, lead]`, µV.
    """
    return int(np.count_nonzero((signal >= STORED_LIMIT_UV) | (signal <= -STORED_LIMIT_UV)))


def quality_flags(signal: np.ndarray, *, sampling_rate_hz: int, valid_start: int, valid_samples: int) -> QualityFlag:
    """Returns the flags of what is doubtful about a stored signal.

    Args:
        signal: `int16[time, lead]`, µV.
        sampling_rate_hz: Rate of the signal.
        valid_start: Position of the first recorded sample.
        valid_samples: Number of recorded samples from there on.
    """
    # Each lead is laid out contiguously, since filters run several times faster along contiguous samples.
    recorded = np.ascontiguousarray(signal[valid_start : valid_start + valid_samples].T)
    millivolts = recorded.astype(np.float32) / MICROVOLTS_PER_MILLIVOLT
    millivolts -= np.median(millivolts, axis=1, keepdims=True)
    doubts = {
        QualityFlag.PADDED: valid_samples < len(signal),
        QualityFlag.CLIPPED: clipped_samples(signal) > 0,
        QualityFlag.ARTEFACT: np.abs(millivolts).max() > ARTEFACT_MV,
        QualityFlag.STUCK: _longest_stretch(recorded) >= STUCK_SECONDS * sampling_rate_hz,
        QualityFlag.WANDER: np.ptp(_by_second(millivolts, sampling_rate_hz), axis=1).max(initial=0) > WANDER_MV,
        QualityFlag.NOISE: sampling_rate_hz / 2 > _NOISE_ABOVE_HZ and _noise(millivolts, sampling_rate_hz) > NOISE_MV,
    }
    return functools.reduce(operator.or_, (flag for flag, holds in doubts.items() if holds), QualityFlag(0))


def flag_names(flags: int) -> tuple[str, ...]:
    """Returns the names of the flags set in a mask, in lower case."""
    return tuple(name.lower() for name, flag in QualityFlag.__members__.items() if flags & flag)


def _longest_stretch(leads: np.ndarray) -> int:
    """Returns the length in samples of the longest stretch in which some lead does not change.

    Args:
        leads: `int16[lead, time]`.
    """
    num_leads, num_samples = leads.shape
    # Edges mark where a stretch ends and the next begins, and the ends of every row; so one search does for all rows.
    edges = np.ones((num_leads, num_samples + 1), bool)
    edges[:, 1:-1] = leads[:, 1:] != leads[:, :-1]
    return int(np.diff(np.flatnonzero(edges)).max())


def _noise(leads: np.ndarray, sampling_rate_hz: int) -> float:
    """Returns the root mean square above 40 Hz of the noisiest lead, outside of its QRS complexes, mV.

    Args:
        leads: `f32[lead, time]`, mV.
        sampling_rate_hz: Rate of the leads.
    """
    power = scipy.signal.sosfilt(_highpass(sampling_rate_hz), leads, axis=1) ** 2
    quiet = max(1, int(_QUIET_SHARE * leads.shape[1]))
    return np.sqrt(np.partition(power, quiet - 1, axis=1)[:, :quiet].mean(axis=1)).max()


def _by_second(leads: np.ndarray, sampling_rate_hz: int) -> np.ndarray:
    """Returns the mean of every whole second of `[lead, time]`, as `[lead, second]`."""
    seconds = leads.shape[1] // sampling_rate_hz
    return leads[:, : seconds * sampling_rate_hz].reshape(len(leads), seconds, sampling_rate_hz).mean(axis=2)


@functools.cache
def _highpass(sampling_rate_hz: int) -> np.ndarray:
    # The coefficients have the type of the samples, since SciPy would filter in float64 otherwise.
    return scipy.signal.butter(2, _NOISE_ABOVE_HZ, "highpass", fs=sampling_rate_hz, output="sos").astype(np.float32)
