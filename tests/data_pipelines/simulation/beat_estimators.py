"""Plain estimators of what differs between the beats of a strip, which know the signal alone."""

import dataclasses

import numpy as np
from scipy import signal as scipy_signal

from data_pipelines.records import STORED_LEADS

#: Window of a beat about R, seconds.
_BEFORE_S, _AFTER_S = 0.30, 0.50


@dataclasses.dataclass(frozen=True)
class Cut:
    """A strip cut into beats.

    Attributes:
        peaks: `f64[peaks]`, times of all R peaks, seconds.
        usual: `bool[peaks]`, whether a beat looks like most others.
        beats: `f64[beats, time, lead]`, µV, usual beats that lie wholly in the strip.
        number: `int64[beats]`, position of each of `beats` among all peaks.
        rate: Rate of the samples.
    """

    peaks: np.ndarray
    usual: np.ndarray
    beats: np.ndarray
    number: np.ndarray
    rate: int

    def window(self, start_s, stop_s):
        """Returns the beats between two times from R, `f64[beats, time, lead]`."""
        first, last = (round((_BEFORE_S + at) * self.rate) for at in (start_s, stop_s))
        return self.beats[:, first:last]


def cut(strip, rate):
    """Finds the R peaks of a strip, `int16[time, lead]`, and cuts it into beats."""
    ecg = scipy_signal.sosfiltfilt(scipy_signal.butter(2, 0.5, "highpass", fs=rate, output="sos"), strip, axis=0)
    fast = scipy_signal.sosfiltfilt(scipy_signal.butter(2, (3, 30), "bandpass", fs=rate, output="sos"), ecg, axis=0)
    energy = np.sqrt((fast**2).sum(axis=1))
    energy = scipy_signal.sosfiltfilt(scipy_signal.butter(2, 12, fs=rate, output="sos"), energy)
    rough, _ = scipy_signal.find_peaks(energy, height=0.5 * np.percentile(energy, 98), distance=round(0.30 * rate))
    half = round(0.06 * rate)
    rough = rough[(rough >= 2 * half) & (rough < len(ecg) - 2 * half)]
    around = np.arange(-2 * half, 2 * half + 1)
    pieces = fast[rough[:, None] + around]
    template = np.median(pieces, axis=0)
    inner = template[half:-half]
    fits = np.stack([(pieces[:, shift : shift + len(inner)] * inner).sum(axis=(1, 2)) for shift in range(2 * half + 1)])
    best = fits.argmax(axis=0)
    matched = np.stack([piece[shift : shift + len(inner)] for piece, shift in zip(pieces, best, strict=True)])
    size = np.sqrt((matched**2).sum(axis=(1, 2)) * (inner**2).sum())
    usual = fits.max(axis=0) > 0.85 * size
    peaks = rough - half + best + _vertex(fits, best)
    offsets = np.arange(-round(_BEFORE_S * rate), round(_AFTER_S * rate))
    at = np.rint(peaks).astype(int)
    whole = usual & (at + offsets[0] >= 0) & (at + offsets[-1] < len(ecg))
    beats = _delayed(ecg[at[whole][:, None] + offsets], (at - peaks)[whole])
    return Cut(peaks / rate, usual, beats, np.flatnonzero(whole), rate)


def _delayed(beats, samples):
    """Returns beats, `f64[beats, time, lead]`, moved by parts of a sample, so that their R peaks coincide."""
    turns = np.fft.rfftfreq(beats.shape[1])[:, None]
    spectrum = np.fft.rfft(beats, axis=1) * np.exp(2j * np.pi * turns * -samples[:, None, None])
    return np.fft.irfft(spectrum, n=beats.shape[1], axis=1)


def _vertex(fits, best):
    """Returns how far the vertex of the parabola through the best fit and its neighbours lies from the best fit."""
    at = np.clip(best, 1, len(fits) - 2)
    left, middle, right = (np.take_along_axis(fits, (at + step)[None], axis=0)[0] for step in (-1, 0, 1))
    curve = left - 2 * middle + right
    shift = np.where(curve < 0, 0.5 * (left - right) / np.where(curve < 0, curve, 1), 0)
    return np.where(best == at, np.clip(shift, -0.5, 0.5), 0)


def rmssd_ms(strip):
    """Root mean square of successive differences of RR between usual beats."""
    rr = np.diff(strip.peaks)
    three = strip.usual[:-2] & strip.usual[1:-1] & strip.usual[2:]
    steps = np.diff(rr)[three]
    return 1000 * np.sqrt(np.mean(steps**2)) if len(steps) else np.nan


def premature_count(strip):
    """Number of beats that look unlike the others and come early."""
    rr = np.diff(strip.peaks)
    return int((~strip.usual[1:] & (rr < 0.88 * np.median(rr))).sum())


def _scores(waves, *, rate, more=()):
    """Size, delay (ms) and amounts of further waves in each beat, by regression in all leads at once.

    Terms are the median wave, its slope, the further waves, and a line in each lead, which takes the wander.

    Args:
        waves: Beats, `f64[beats, time, lead]`.
        rate: Rate of the samples.
        more: Further waves, `f64[time, lead]` each.
    """
    median = np.median(waves, axis=0)
    each = np.eye(len(STORED_LEADS))
    line = np.linspace(-1, 1, len(median))
    lines = [np.outer(one, lead) for lead in each for one in (np.ones(len(line)), line)]
    terms = np.stack([one.ravel() for one in (median, np.gradient(median, axis=0), *more, *lines)], axis=1)
    found = np.linalg.lstsq(terms, waves.reshape(len(waves), -1).T, rcond=None)[0]
    return found[0], -found[1] * 1000 / rate, found[2 : 2 + len(more)]


def qt_jitter_ms(strip):
    """Standard deviation of the T wave's time."""
    return np.std(_scores(strip.window(0.12, 0.50), rate=strip.rate)[1], ddof=1)


def alternans_uv(strip):
    """Half the difference between T waves of even and of odd beats, in the lead where they are largest."""
    waves = strip.window(0.12, 0.50)
    size, even = _scores(waves, rate=strip.rate)[0], strip.number % 2 == 0
    if even.all() or not even.any():
        return 0.0
    largest = np.ptp(np.median(waves, axis=0), axis=0).max()
    return largest * abs(size[even].mean() - size[~even].mean()) / 2


def p_variability(strip):
    """Standard deviation of the P wave's size as a share of the median P wave."""
    return np.std(_scores(strip.window(-0.26, -0.06), rate=strip.rate)[0], ddof=1)


def late_p_uv(strip):
    """Largest late P wave of single beats over the beats' median, of all leads, µV."""
    waves = strip.window(-0.26, -0.05)
    time_ms = -260 + 1000 * np.arange(waves.shape[1]) / strip.rate
    bump = np.exp(-0.5 * ((time_ms + 92) / 14) ** 2)
    amount = _scores(waves, rate=strip.rate, more=[np.outer(bump, lead) for lead in np.eye(len(STORED_LEADS))])[2]
    excess = amount - np.median(amount, axis=1, keepdims=True)
    return excess.max()


def notch_uv(strip):
    """Largest wave above 64 Hz in the end of the QRS of the mean beat, µV, in each lead: `f64[lead]`."""
    wave = strip.window(-0.10, 0.15).mean(axis=0)
    narrow = scipy_signal.butter(3, (64, 100), "bandpass", fs=strip.rate, output="sos")
    fast = scipy_signal.sosfiltfilt(narrow, wave, axis=0)
    return np.abs(fast[round(0.115 * strip.rate) : round(0.155 * strip.rate)]).max(axis=0)
