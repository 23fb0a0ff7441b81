"""Draws how RR intervals vary and how often ventricular beats come, of the cohort that asks what a beat cannot tell.

Its numbers are judgement, held against PTB-XL's strips (docs/simulator.md).
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from data_pipelines.simulation.random_numbers import Draws
from data_pipelines.simulation.states import States

#: Median RMSSD at 62 years, its log-sd, correlation between visits, and fall of its log per year of age.
_RMSSD_MS, _RMSSD_LOG_SD, _RMSSD_CORRELATION, _RMSSD_PER_YEAR = 24.0, 0.7, 0.6, 0.012
_RMSSD_OF_DYSFUNCTION, _SMALLEST_RMSSD_FACTOR = 0.35, 0.2
#: Smallest and largest respiratory share of the variance of successive differences.
_RESPIRATORY_SHARE = (0.2, 0.8)
#: Correlation of successive intervals, apart from breathing.
_AUTOREGRESSION = 0.5

#: Median number of premature ventricular beats of a carrier in 10 s, the log-sd over carriers, and its rise with h.
_BURDEN, _BURDEN_LOG_SD, _BURDEN_OF_DYSFUNCTION = 1.0, 0.8, 0.5
#: Share of carriers whose coupling interval varies, as it does in parasystole, and its sd as a share of RR.
_VARIABLE_COUPLING, _COUPLING_SD = 0.35, 0.07
_COUPLING_BOUNDS = (0.45, 0.80)


def draw_rr_variability(
    draws: Draws, between: States, *, mean_rr_s: np.ndarray, breath_hz: np.ndarray, num_beats: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws respiratory arrhythmia and autoregressive noise whose differences have a log-normal root mean square.

    That root mean square (RMSSD) falls with age and with a low LVEF.

    Args:
        draws: Random numbers of the records.
        between: States as the changes between beats show them.
        mean_rr_s: Mean RR intervals, `f64[n]`.
        breath_hz: Rates of breathing, `f64[n]`.
        num_beats: Number of intervals.

    Returns:
        Amplitudes of the respiratory arrhythmia, `f64[n]`, and the noise, `f64[n, beats]`, as shares of the mean RR
        interval.
    """
    hs = between.dysfunction * between.lvef_strength
    falls = np.maximum(1 - _RMSSD_OF_DYSFUNCTION * hs, _SMALLEST_RMSSD_FACTOR)
    score = draws.correlated_normal("rmssd", correlation=_RMSSD_CORRELATION)
    rmssd_ms = _RMSSD_MS * np.exp(_RMSSD_LOG_SD * score - _RMSSD_PER_YEAR * (between.age_years - 62)) * falls
    rmssd = rmssd_ms / 1000 / mean_rr_s
    least, most = _RESPIRATORY_SHARE
    respiratory = least + (most - least) * draws.uniform("respiratory share")
    # Successive samples of a sine of amplitude 1 differ by √2 · sin(π f RR) in root mean square.
    amplitude = rmssd * np.sqrt(respiratory / 2) / np.maximum(np.abs(np.sin(np.pi * breath_hz * mean_rr_s)), 0.3)
    # An AR(1) series of sd 1 and correlation φ has differences of variance 2 · (1 − φ).
    sd = rmssd * np.sqrt((1 - respiratory) / (2 * (1 - _AUTOREGRESSION)))
    innovations = draws.normal("rr innovation", (num_beats,))
    innovations[:, 1:] *= np.sqrt(1 - _AUTOREGRESSION**2)
    return amplitude, sd[:, None] * lfilter([1.0], [1.0, -_AUTOREGRESSION], innovations, axis=1)


def draw_burden(
    draws: Draws, between: States, *, mean_rr_s: np.ndarray, usual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws after which beats of a carrier a premature ventricular beat comes, and how early.

    Such beats come as a Poisson process, whose rate differs from patient to patient and rises with a low LVEF.

    Args:
        draws: Random numbers of the records.
        between: States as the changes between beats show them.
        mean_rr_s: Mean RR intervals, `f64[n]`.
        usual: Coupling interval of a patient in whom it is fixed, as a share of RR, `f64[n, beats]`.

    Returns:
        Candidates for premature beats, `bool[n, beats]`, and their coupling intervals as shares of RR, `f64[n, beats]`.
    """
    hs = between.dysfunction * between.lvef_strength
    in_ten_seconds = _BURDEN * np.exp(_BURDEN_LOG_SD * draws.lasting_normal("ectopy rate"))
    a_second = in_ten_seconds * (1 + _BURDEN_OF_DYSFUNCTION * hs) / 10
    chance = 1 - np.exp(-a_second * mean_rr_s)
    candidates = draws.uniform("ectopy in time", usual.shape[1:]) < chance[:, None]
    varies = draws.lasting_uniform("coupling varies") < _VARIABLE_COUPLING
    deviation = _COUPLING_SD * draws.normal("coupling", usual.shape[1:])
    return candidates, np.clip(usual + varies[:, None] * deviation, *_COUPLING_BOUNDS)
