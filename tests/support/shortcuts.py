"""How well two views of a recording are matched by what says nothing about the heart: noise floor and beat timing.

`python -m tests.support.shortcuts` prints the table of docs/augmentations.md.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax.augmentations.beats import r_peaks
from ecgjax.augmentations.views import Views
from ecgjax.keys import row_keys

RATE_HZ = 250

#: What views are made of, by the words of the table: augmentations, and segments of which the first two are compared.
RECIPES = {
    "`random_crop`": ({"random_crop": {}}, 1),
    "and `gaussian_noise`": ({"random_crop": {}, "gaussian_noise": {}}, 1),
    "and `noise_floor`": ({"random_crop": {}, "noise_floor": {}}, 1),
    "and `noise_floor`, `lowpass`": ({"random_crop": {}, "noise_floor": {}, "lowpass": {}}, 1),
    "`stretched_crop`": ({"stretched_crop": {}}, 1),
    "`config.views.segments=2`, one view each": ({}, 2),
    "segments, `stretched_crop` of `ratio=.9`": ({"stretched_crop": {"ratio": 0.9}}, 2),
    "segments, `stretched_crop`, `noise_floor`, `lowpass`": (
        {"stretched_crop": {"ratio": 0.9}, "noise_floor": {}, "lowpass": {}},
        2,
    ),
}


def simulated(num):
    """First recordings of so many simulated patients, `int16[num, time, 8]`, in µV."""
    config = CohortConfig(seed=3, num_patients=num, visits_per_patient=(1, 1), sampling_rate_hz=RATE_HZ)
    return jnp.asarray(Cohort(config).simulate(0, num).signal)


def two_views(stored, augment, segments=1):
    """Two views of every recording, `f32[2, num, time, 8]`: of different segments where there are several."""
    views = Views(augment, num_views=1 if segments > 1 else 2, segments=segments, num_leads=8, rate_hz=RATE_HZ)
    keys = row_keys(0, 0, jnp.arange(len(stored), dtype=jnp.int32), stream="views")
    return np.moveaxis(np.asarray(jax.jit(views)(keys, stored))[:, :2], 1, 0)


def noise_floors(ecg):
    """Logarithms of each lead's noise floor at two bands, `[num, 16]`, from differences that waves hardly enter.

    The median magnitude of second differences is that of noise, because fewer than half of the samples lie in a QRS;
    those of neighbouring samples see higher frequencies than those of every second.
    """
    found = []
    for step in (1, 2):
        second = ecg[:, 2 * step :] - 2 * ecg[:, step:-step] + ecg[:, : -2 * step]
        found.append(np.log(np.median(np.abs(second), axis=1) + 1e-5))
    return np.concatenate(found, axis=1)


def rr_intervals(ecg):
    """RR intervals of every recording in seconds, a list of arrays."""
    peaks = np.asarray(jax.jit(jax.vmap(functools.partial(r_peaks, rate_hz=RATE_HZ)))(jnp.asarray(ecg)))
    return [np.diff(np.flatnonzero(one)) / RATE_HZ for one in peaks]


def sequence_distance(a, b):
    """Mean relative difference of two sequences of intervals where one lies best over the other, by 3 at least."""
    fewest = min(3, len(a), len(b))
    if not fewest:
        return np.inf
    shifts = range(fewest - len(b), len(a) - fewest + 1)
    pairs = ((a[max(0, s) : s + len(b)], b[max(0, -s) : max(0, -s) + len(a) - max(0, s)]) for s in shifts)
    return min(np.abs(np.log(x[: len(y)] / y[: len(x)])).mean() for x, y in pairs)


def top1(distance):
    """Share of rows whose nearest column is their own."""
    return float((distance.argmin(1) == np.arange(len(distance))).mean())


def matched_by_noise(first, second):
    """Top-1 of the nearest neighbour on noise floors alone."""
    a, b = noise_floors(first), noise_floors(second)
    return top1(np.square((a[:, None] - b[None, :]) / b.std(0)).sum(-1))


def matched_by_rr(first, second):
    """Top-1 of the nearest neighbour on the sequence of RR intervals alone."""
    a, b = rr_intervals(first), rr_intervals(second)
    return top1(np.array([[sequence_distance(x, y) for y in b] for x in a]))


if __name__ == "__main__":
    recordings = simulated(256)
    for words, (augment, segments) in RECIPES.items():
        views = two_views(recordings, augment, segments)
        print(f"| {words} | {matched_by_noise(*views):.2f} | {matched_by_rr(*views):.2f} |", flush=True)
