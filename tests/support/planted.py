"""Copies of ECGs as they turn up in other archives: filtered, rescaled, resampled, noisy, shifted, cut."""

from fractions import Fraction

import numpy as np
import scipy.signal


def resampled(signal, *, source_rate, rate):
    """Returns a float signal at another rate."""
    ratio = Fraction(rate, source_rate)
    return scipy.signal.resample_poly(signal, ratio.numerator, ratio.denominator, axis=0)


def filtered(signal, corner, kind, *, rate):
    """Returns a float signal through a zero-phase Butterworth filter."""
    return scipy.signal.sosfiltfilt(scipy.signal.butter(2, corner, kind, fs=rate, output="sos"), signal, axis=0)


def notched(signal, *, rate):
    """Returns a float signal without 50 Hz mains."""
    return scipy.signal.filtfilt(*scipy.signal.iirnotch(50, 30, fs=rate), signal, axis=0)


def noisy(signal, microvolts, *, seed):
    """Returns a float signal with white noise of this root mean square."""
    return signal + microvolts * np.random.default_rng(seed).standard_normal(signal.shape)


def stored(signal):
    """Returns a float signal as it is stored."""
    return np.clip(np.rint(signal), -32767, 32767).astype(np.int16)


#: What a copy went through, from `f64[time, 8]` at 250 Hz to the same at the given rate.
DISTORTIONS = {
    "same": (lambda x: x, 250),
    "100 Hz": (lambda x: resampled(x, source_rate=250, rate=100), 100),
    "500 Hz": (lambda x: resampled(x, source_rate=250, rate=500), 500),
    "100 Hz and back": (
        lambda x: resampled(resampled(x, source_rate=250, rate=100), source_rate=100, rate=250)[: len(x)],
        250,
    ),
    "high-pass": (lambda x: filtered(x, 0.5, "highpass", rate=250), 250),
    "low-pass": (lambda x: filtered(x, 40, "lowpass", rate=250), 250),
    "notch": (lambda x: notched(x, rate=250), 250),
    "a fifth": (lambda x: 0.2 * x, 250),
    "4.88-fold": (lambda x: 4.88 * x, 250),
    "noise": (lambda x: noisy(x, 40, seed=1), 250),
    "later": (lambda x: x[250:], 250),
    "earlier": (lambda x: x[:-250], 250),
    "middle 7 s": (lambda x: x[375:2125], 250),
    "all": (
        lambda x: resampled(
            0.3 * noisy(filtered(x, 0.5, "highpass", rate=250), 20, seed=2)[125:], source_rate=250, rate=100
        ),
        100,
    ),
}
