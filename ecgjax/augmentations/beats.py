"""Beats of a recording: R peaks found on the device, and whole beats in another order."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.augmentations.draws import sometimes
from ecgjax.settings.bounds import Probability

#: Seconds over which a turn, the second difference, is taken: a QRS turns sharply at this scale, a T wave does not.
_TURN_S = 0.020
#: Seconds over which turns are averaged, the length of a QRS.
_QRS_S = 0.120
#: Seconds about a QRS within which there is no other.
_REFRACTORY_S = 0.240
#: Seconds about a QRS within which the level, the greatest sharpness, is taken. A QRS must reach the first share of the
#: level, and the second share of the level's mean over the recording.
_LEVEL_REACH_S = 1.2
_OF_LEVEL, _OF_MEAN_LEVEL = 0.35, 0.2
#: Seconds about the sharpest place of a QRS within which its R peak, the sharpest single turn, is looked for.
_R_REACH_S = 0.080

# Operations whose result does not depend on how often they see a sample.
_IDEMPOTENT = (jnp.maximum, jnp.logical_or)


def r_peaks(ecg: Array, *, rate_hz: float) -> Array:
    """Finds R peaks by how sharply all leads turn together.

    A turn is the second difference of a lead. Each lead's turns count in units of their mean, so that a lead full of
    noise, which turns everywhere, says little. Their squares are averaged over the length of a QRS; maxima above an
    adaptive threshold are QRS complexes, and the R peak of each is its sharpest turn. Slopes in place of turns would
    take tall T waves of hyperkalaemia for QRS complexes. The function takes a fixed number of sums, maxima and
    comparisons, so that it can be jitted.

    Args:
        ecg: Recording, `f32[time, lead]`, in any unit.
        rate_hz: Sampling rate, in samples per second.

    Returns:
        Mask that is true at R peaks, `bool[time]`; a recording of zeros has none.
    """
    # 1. Measure the turns of every lead, in units of the lead's mean turn.
    reach = _samples(_TURN_S, rate_hz)
    padded = jnp.pad(ecg, ((reach, reach), (0, 0)), mode="edge")
    turns = jnp.abs(padded[: len(ecg)] + padded[2 * reach :] - 2 * ecg)
    mean = turns.mean(0, keepdims=True)
    turns = turns * jnp.where(mean > 0, 1 / jnp.where(mean > 0, mean, 1), 0)

    # 2. Average their squares over the length of a QRS, and take maxima above an adaptive threshold for QRS complexes.
    half = _samples(_QRS_S / 2, rate_hz)
    energy = _centred(jnp.add, jnp.sum(jnp.square(turns), 1), half, fill=0.0)
    sharpness = jnp.sqrt(energy / (2 * half + 1))
    level = _centred(jnp.maximum, sharpness, _samples(_LEVEL_REACH_S, rate_hz), fill=0.0)
    threshold = jnp.maximum(_OF_LEVEL * level, _OF_MEAN_LEVEL * level.mean())
    sharpest = _is_largest(sharpness, _refractory(rate_hz)) & (sharpness > threshold)

    # 3. The R peak of each QRS complex is the sharpest single turn near its maximum.
    reach = _samples(_R_REACH_S, rate_hz)
    near = _centred(jnp.logical_or, sharpest, reach, fill=False)
    turn = jnp.where(near, jnp.sum(turns, 1), 0)
    return _is_largest(turn, 2 * reach) & (turn > 0)


def heartbeat_shuffle(key: Array, ecg: Array, *, rate_hz: float, p: Probability = 1.0) -> Array:
    """Puts whole beats, from R peak to R peak, in a random order, all leads together.

    What precedes the first R peak and what follows the last stay where they are. Samples only change places. The order
    of RR intervals is lost, their distribution is not.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, in any unit.
        rate_hz: Sampling rate, in samples per second.
        p: Probability that the augmentation acts.

    Returns:
        The recording with its beats in another order, `f32[time, lead]`; unchanged where fewer than three R peaks are
        found.

    References:
        Maghsoodi et al., PhysioCLR, 2025 (arXiv 2509.08116), whose code loses what precedes the first R peak.
    """
    key_order, key_p = jax.random.split(key)
    peaks = peak_positions(r_peaks(ecg, rate_hz=rate_hz), rate_hz=rate_hz)
    return sometimes(key_p, permute_beats(key_order, ecg, peaks), ecg, p=p)


def peak_positions(peaks: Array, *, rate_hz: float) -> Array:
    """Returns the sample numbers of R peaks, in a fixed number of entries that holds as many as `r_peaks` can find.

    Args:
        peaks: Mask of R peaks that `r_peaks` returned, `bool[time]`.
        rate_hz: Sampling rate, in samples per second.

    Returns:
        Sample numbers of the R peaks, `i32[peaks]`, ascending; entries after the last peak hold the number of samples.
    """
    num_samples = len(peaks)
    most = (num_samples - 1) // (_refractory(rate_hz) + 1) + 1
    # R peaks are so far apart that a block holds one at most. Sorting blocks takes a thirtieth of the time of
    # `jax.lax.top_k` over samples, on a CPU.
    block = 2 * _samples(_R_REACH_S, rate_hz) + 1
    position = jnp.where(peaks, jnp.arange(num_samples), num_samples)
    position = jnp.pad(position, (0, -num_samples % block), constant_values=num_samples)
    return jnp.sort(position.reshape(-1, block).min(1))[:most]


def permute_beats(key: Array, ecg: Array, peaks: Array) -> Array:
    """Permutes the parts of a recording between its R peaks.

    Args:
        key: Random key of the order.
        ecg: Recording, `f32[time, lead]`.
        peaks: Sample numbers of the R peaks, `i32[peaks]`, ascending; entries without a peak hold the number of
            samples.

    Returns:
        The recording with its parts in another order, `f32[time, lead]`.
    """
    num_samples = len(ecg)
    start, end = peaks[:-1], peaks[1:]
    length = jnp.where(end < num_samples, end - start, 0)
    # Beats come in a random order; entries that are no beat, of length 0, come after them.
    draw = jnp.where(length > 0, jax.random.uniform(key, length.shape, jnp.float32), 2)
    order = jnp.argsort(draw)
    start, length = start[order], length[order]
    end = peaks[0] + jnp.cumsum(length)
    # Each beat's samples are read from a fixed distance farther on or back. The distance changes where a beat begins,
    # and is 0 again after the last beat.
    begin = jnp.append(end - length, end[-1])
    shift = jnp.append(jnp.where(length > 0, start - end + length, 0), 0)
    changes = (begin, jnp.diff(shift, prepend=0))
    time = jnp.arange(num_samples)
    # The changes are added up in a pass over time for each beat: one sum over `[time, beat]` took ten times as long on
    # a CPU.
    source, _ = jax.lax.scan(
        lambda source, change: (source + jnp.where(time >= change[0], change[1], 0), None), time, changes, unroll=8
    )
    return ecg[source]


def _samples(seconds: float, rate_hz: float) -> int:
    return max(1, round(seconds * rate_hz))


def _refractory(rate_hz: float) -> int:
    return _samples(_REFRACTORY_S, rate_hz)


def _is_largest(x: Array, reach: int) -> Array:
    """Returns which entries of `[time]` exceed all others within `reach`, `bool[time]`; the first of equal ones."""
    windows = _windows(jnp.maximum, x, reach, fill=-jnp.inf)
    return (x > windows[: len(x)]) & (x >= windows[reach + 1 :])


def _centred(combine: Callable[[Array, Array], Array], x: Array, reach: int, *, fill: float | bool) -> Array:
    """Combines each sample of `x` with `reach` samples on each side, or `fill` beyond the ends; `[time]` → `[time]`."""
    return _windows(combine, x, 2 * reach + 1, fill=fill)[reach + 1 : reach + 1 + len(x)]


def _windows(combine: Callable[[Array, Array], Array], x: Array, width: int, *, fill: float | bool) -> Array:
    """Combines every window of a width, from the one that ends before the first sample to the one after the last.

    Windows of 2, 4, 8 … samples are combined from two windows of half the width, and a window of any width from these,
    so that the number of passes grows with the logarithm of the width. Where a sample may count twice, two windows that
    overlap are enough for any width.

    Args:
        combine: Operation `jnp.add`, or one of `_IDEMPOTENT`.
        x: Values, `[time]`.
        width: Width of a window, in samples.
        fill: Value that stands beyond the ends.

    Returns:
        Combined values, `[time + width + 1]`; the window at i is that of samples i − width … i − 1.
    """
    level = jnp.pad(x, (width, width), constant_values=fill)
    length, offset = len(x) + width + 1, 0
    total: Array | None = None
    if combine in _IDEMPOTENT:
        span = 1
        while 2 * span <= width:
            level = combine(level[:-span], level[span:])
            span *= 2
        return combine(level[:length], level[width - span : width - span + length])
    for bit in range(width.bit_length()):
        span = 1 << bit
        if width & span:
            part = level[offset : offset + length]
            total = part if total is None else combine(total, part)
            offset += span
        level = combine(level[:-span], level[span:])
    if total is None:
        raise ValueError(f"a window of {width} samples is none")
    return total
