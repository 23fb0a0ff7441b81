"""Parts of a recording: where they may lie beside padding, and cutting them out."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.augmentations.resampling import resample
from ecgjax.errors import ConfigError
from ecgjax.settings.bounds import Share

#: Places between two samples at which a resized part may begin.
_STEPS = 2**14


class Recorded(NamedTuple):
    """Which samples of a stored recording were recorded; the others are padding.

    Attributes:
        start: first recorded sample, `i32[]` (or `i32[batch]`).
        samples: number of recorded samples from there on, of the same shape.
    """

    start: Array
    samples: Array


def random_crop(key: Array, ecg: Array, *, recorded: Recorded | None = None, ratio: Share = 0.5) -> Array:
    """Cuts out a contiguous part of a fixed length at a random place, all leads together.

    Without it the two views of a recording share every beat's place in time, and an encoder can tell recordings apart
    by that alone. The part lies inside what was recorded where that is long enough, and covers it where it is not: a
    place drawn over the padding as well would give views of little but zeros.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`.
        recorded: of this row; None where all of it was recorded.
        ratio: the part's share of the time, rounded to whole samples, at least one.

    Returns:
        `f32[round(ratio · time), lead]`.
    """
    length = min(len(ecg), max(1, round(ratio * len(ecg))))
    low, high = _places(len(ecg), length, recorded)
    return jax.lax.dynamic_slice_in_dim(ecg, jax.random.randint(key, (), low, high + 1), length)


def resized_crop(
    key: Array,
    ecg: Array,
    *,
    recorded: Recorded | None = None,
    min_ratio: Share = 0.5,
    max_ratio: Share = 1.0,
    method: str = "linear",
) -> Array:
    """Cuts out a part of a random length at a random place, and resamples it to the length of the whole.

    It changes heart rate and intervals by up to a factor of 1 / min_ratio. The part lies as that of `random_crop` does.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`, at least two samples.
        recorded: of this row; None where all of it was recorded.
        min_ratio: the part's share of the time is U(min, max).
        max_ratio: at most 1.
        method: of interpolation, `"linear"` or `"cubic"`.

    Returns:
        `f32[time, lead]`; the same bits for ratios of 1.

    Raises:
        ConfigError: `min_ratio` exceeds `max_ratio`, or the method is unknown.

    References:
        Mehari and Strodthoff, Self-supervised representation learning from 12-lead ECG data, 2022 (arXiv 2103.12676).
    """
    if min_ratio > max_ratio:
        raise ConfigError(
            f"config.augment.resized_crop.min_ratio={min_ratio!r} exceeds max_ratio={max_ratio!r}; swap them"
        )
    key_ratio, key_start = jax.random.split(key)
    time = len(ecg)
    if time * _STEPS >= 2**31:
        raise ConfigError(f"config.augment.resized_crop takes fewer than {2**31 // _STEPS} samples, not {time}")
    # In integers: a compiler may round products of floating point in one batch size and not in another.
    shortest, longest = (round(ratio * time * _STEPS) for ratio in (min_ratio, max_ratio))
    length = jax.random.randint(key_ratio, (), shortest, longest + 1)
    low, high = _places(time * _STEPS, length, None if recorded is None else Recorded(*(x * _STEPS for x in recorded)))
    start = jax.random.randint(key_start, (), low, high + 1)
    # From its first sample to its last: a part of the whole length is the whole.
    position = start + jnp.arange(time) * ((length - _STEPS) // (time - 1))
    return resample(ecg, position.astype(jnp.float32) / _STEPS, method=method)


def segments_of(ecg: Array, recorded: Recorded | None, *, segments: int) -> tuple[Array, Recorded | None]:
    """Cuts a recording into adjacent parts of equal length.

    Parts of a recording with padding lie where crops do: inside what was recorded, spread evenly from its beginning to
    its end (overlapping, where it is shorter than all parts together), or covering it, where it is shorter than one;
    `segments_alike` tells which parts are then the same.

    Args:
        ecg: `[time, lead]`, of any type.
        recorded: of this row; None where all of it was recorded.
        segments: their number, at least 2.

    Returns:
        `[segments, time // segments, lead]`, and which samples of each were recorded, `i32[segments]`.
    """
    length = len(ecg) // segments
    starts = _segment_starts(len(ecg), recorded, segments=segments)
    parts = jnp.stack([jax.lax.dynamic_slice_in_dim(ecg, start, length) for start in starts])
    if recorded is None:
        return parts, None
    ends = (recorded.start, recorded.start + recorded.samples)
    begin, end = (jnp.stack([jnp.clip(edge - start, 0, length) for start in starts]) for edge in ends)
    return parts, Recorded(begin, end - begin)


def segments_alike(time: int, recorded: Recorded, *, segments: int) -> Array:
    """Tells which parts that `segments_of` cuts show the same recorded samples, in the same place or moved in padding.

    Of a recording that is no longer than a part every part shows all of it.

    Args:
        time: samples of a stored recording.
        recorded: First recorded sample and number of recorded samples of each recording, each `i32[batch]`.
        segments: number of parts, at least 2.

    Returns:
        The first part that shows what a part shows, itself where no other does: `i32[batch, segments]`.
    """
    starts = jnp.stack(_segment_starts(time, recorded, segments=segments), axis=-1)
    first, end = recorded.start[:, None], (recorded.start + recorded.samples)[:, None]
    begins, ends = (jnp.clip(edge, first, end) for edge in (starts, starts + time // segments))
    alike = (begins[:, :, None] == begins[:, None, :]) & (ends[:, :, None] == ends[:, None, :])
    return jnp.argmax(alike, axis=-1).astype(jnp.int32)


def _segment_starts(time: int, recorded: Recorded | None, *, segments: int) -> list[Array]:
    """The first stored sample of each part, `i32[]` (or `i32[batch]`)."""
    low, high = _places(time, time // segments, recorded)
    return [low + (high - low) * number // (segments - 1) for number in range(segments)]


def _places(time: int, length: int | Array, recorded: Recorded | None) -> tuple[Array, Array]:
    """The first and the last sample at which a part of a length may begin, `i32[]` each."""
    last = time - length
    if recorded is None:
        return jnp.zeros((), jnp.int32), jnp.asarray(last, jnp.int32)
    # The part's start where it begins with the recorded samples, and where it ends with them; which of the two comes
    # first depends on which is longer.
    begins, ends = recorded.start, recorded.start + recorded.samples - length
    return jnp.clip(jnp.minimum(begins, ends), 0, last), jnp.clip(jnp.maximum(begins, ends), 0, last)
