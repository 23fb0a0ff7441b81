"""Records simulated leads: a site's low-pass filter, and an amplifier whose calibration is a little off."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.signal

from data_pipelines.simulation.random_numbers import Draws

_FILTER_ORDER = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorder:
    """Recorder of a site.

    Attributes:
        sampling_rate_hz: Rate at which the site records; None for the rate at which recordings are stored.
        lowpass_hz: Corner (−6 dB) of the recorder's zero-phase low-pass, a Butterworth filter of fourth order run both
            ways; None for none.
        gain: Median over recordings of the value that is shown of 1 mV, mV.
        log_sd_gain: Standard deviation of the logarithm of the gain over recordings.
    """

    sampling_rate_hz: int | None = None
    lowpass_hz: float | None = None
    gain: float = 1.0
    log_sd_gain: float = 0.0


#: Recorder of a cohort without a site, which shows the leads as they are.
EXACT_RECORDER = Recorder()


def draw_gain(draws: Draws, recorder: Recorder) -> np.ndarray:
    """Draws what the recorder shows of 1 mV in each recording, `f64[n]`, mV.

    Args:
        draws: Random numbers of the records.
        recorder: Recorder of the site.
    """
    return recorder.gain * np.exp(recorder.log_sd_gain * draws.normal("recorder gain"))


def recorded(millivolts: np.ndarray, recorder: Recorder, *, gain: float, sampling_rate_hz: int) -> np.ndarray:
    """Returns the leads of one recording as a recorder shows them, `f32[lead, time]`, mV.

    Args:
        millivolts: Leads with their noise, `f32[lead, time]`, mV.
        recorder: Recorder of the site.
        gain: Value that it shows of 1 mV in this recording, mV.
        sampling_rate_hz: Rate of the leads; a corner at or above half of it has no effect.
    """
    if recorder.lowpass_hz is not None and recorder.lowpass_hz < sampling_rate_hz / 2:
        sections = scipy.signal.butter(_FILTER_ORDER, recorder.lowpass_hz, fs=sampling_rate_hz, output="sos")
        millivolts = scipy.signal.sosfiltfilt(sections, millivolts, axis=1).astype(np.float32)
    return np.float32(gain) * millivolts
