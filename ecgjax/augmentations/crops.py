"""Parts of a recording: where they may lie beside padding, and how they are cut out."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.augmentations.resampling import resample
from ecgjax.errors import ConfigError
from ecgjax.settings.bounds import Share, between

#: Places between two samples at which a resized part may begin.
_STEPS = 2**14

#: Relative change of the speed of time.
Change = Annotated[float, between(0, 1)]


class Recorded(NamedTuple):
    """Range of a stored recording that was recorded; its other samples are padding.

    Attributes:
        start: First recorded sample, `i32[]` (or `i32[batch]`).
        samples: Number of recorded samples from `start` on, `i32[]` (or `i32[batch]`).
    """

    start: Array
    samples: Array


def random_crop(key: Array, ecg: Array, *, recorded: Recorded | None = None, ratio: Share = 0.5) -> Array:
    """Cuts out a contiguous part of a fixed length at a random place, all leads together.

    Without a crop the two views of a recording share every beat's place in time, and an encoder can tell recordings
    apart by that alone. The part lies inside the recorded samples where they are long enough, and covers them where
    they are not: a place drawn over the padding as well would give views of little but zeros.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`.
        recorded: Samples of this row that are no padding; None where all of it was recorded.
        ratio: Share of the time that the cut-out part has, rounded to whole samples, at least one.

    Returns:
        The part, `f32[round(ratio · time), lead]`.
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

    The resampling changes heart rate and intervals by up to a factor of 1 / min_ratio. The part lies where that of
    `random_crop` may lie.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, of at least two samples.
        recorded: Samples of this row that are no padding; None where all of it was recorded.
        min_ratio: Lowest share of the time that the cut-out part has; the share is U(min, max).
        max_ratio: Greatest share of the time that the cut-out part has, at most 1.
        method: Method of interpolation, `"linear"` or `"cubic"`.

    Returns:
        The part at the length of the whole, `f32[time, lead]`; with ratios of 1 it has the same bits as the whole.

    Raises:
        ConfigError: `min_ratio` exceeds `max_ratio`, the method is unknown, or there are 131,072 samples or more.

    References:
        Mehari and Strodthoff, Self-supervised representation learning from 12-lead ECG data, 2022 (arXiv 2103.12676).
    """
    if min_ratio > max_ratio:
        raise ConfigError(
            f"config.augment.resized_crop.min_ratio={min_ratio!r} exceeds max_ratio={max_ratio!r}; swap them"
        )
    key_ratio, key_start = jax.random.split(key)
    time = len(ecg)
    _check_countable(time, "resized_crop")
    # Lengths and places are integers: a compiler may round products of floating point in one batch size and not in
    # another.
    shortest, longest = (round(ratio * time * _STEPS) for ratio in (min_ratio, max_ratio))
    length = jax.random.randint(key_ratio, (), shortest, longest + 1)
    low, high = _places(time * _STEPS, length, None if recorded is None else Recorded(*(x * _STEPS for x in recorded)))
    start = jax.random.randint(key_start, (), low, high + 1)
    # Positions run from the part's first sample to its last, so that a part of the whole length is the whole.
    position = start + jnp.arange(time) * ((length - _STEPS) // (time - 1))
    return resample(ecg, position.astype(jnp.float32) / _STEPS, method=method)


def stretched_crop(
    key: Array,
    ecg: Array,
    *,
    recorded: Recorded | None = None,
    ratio: Share = 0.5,
    max_change: Change = 0.1,
    method: str = "linear",
) -> Array:
    """Cuts out a part at a random place and plays it faster or slower, all leads together.

    The speed is U(1 / (1 + max_change), 1 + max_change): two views of a recording differ in heart rate and in every RR
    interval by up to (1 + max_change)², so that neither tells them to be of one recording. The result has a fixed
    length, as that of `random_crop`, and the part lies where that of `random_crop` may lie.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, of at least two samples.
        recorded: Samples of this row that are no padding; None where all of it was recorded.
        ratio: Share of the time that the result has, rounded to whole samples, at least two.
        max_change: Greatest relative change of the speed.
        method: Method of interpolation, `"linear"` or `"cubic"`.

    Returns:
        The part at its new speed, `f32[round(ratio · time), lead]`.

    Raises:
        ConfigError: At its greatest speed the part is longer than the recording, the method is unknown, or there are
            131,072 samples or more.
    """
    time = len(ecg)
    _check_countable(time, "stretched_crop")
    length = min(time, max(2, round(ratio * time)))
    slowest, fastest = round(_STEPS / (1 + max_change)), round(_STEPS * (1 + max_change))
    if (length - 1) * fastest > (time - 1) * _STEPS:
        raise ConfigError(
            f"config.augment.stretched_crop.ratio={ratio!r} leaves no room for max_change={max_change!r}: together "
            f"they must fit the recording, a ratio of at most 1 / {1 + max_change:g}"
        )
    key_speed, key_start = jax.random.split(key)
    # Speeds and places are integers for the reason that `resized_crop` gives.
    speed = jax.random.randint(key_speed, (), slowest, fastest + 1)
    span = (length - 1) * speed + _STEPS
    low, high = _places(time * _STEPS, span, None if recorded is None else Recorded(*(x * _STEPS for x in recorded)))
    position = jax.random.randint(key_start, (), low, high + 1) + jnp.arange(length) * speed
    return resample(ecg, position.astype(jnp.float32) / _STEPS, method=method)


def _check_countable(time: int, name: str) -> None:
    """Raises an error where JAX, which counts in 32 bits unless it is told otherwise, could not count the places."""
    if time * _STEPS >= 2**31:
        raise ConfigError(f"config.augment.{name} takes fewer than {2**31 // _STEPS} samples, not {time}")


def segments_of(ecg: Array, recorded: Recorded | None, *, segments: int) -> tuple[Array, Recorded | None]:
    """Cuts a recording into adjacent parts of equal length.

    Parts of a recording with padding lie where crops do. They lie inside the recorded samples, spread evenly from their
    beginning to their end, and overlap where these are shorter than all parts together. Where the recorded samples are
    shorter than one part, every part covers them; `segments_alike` finds the parts that are then the same.

    Args:
        ecg: Recording, `[time, lead]`, of any type.
        recorded: Samples of this row that are no padding; None where all of it was recorded.
        segments: Number of parts, at least 2.

    Returns:
        The parts, `[segments, time // segments, lead]`, and the recorded samples of each, `i32[segments]`.
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
    """Finds the parts of `segments_of` that show the same recorded samples, in the same place or moved in padding.

    Where a recording is no longer than a part, every part shows all of it.

    Args:
        time: Number of samples of a stored recording.
        recorded: First recorded sample and number of recorded samples of each recording, each `i32[batch]`.
        segments: Number of parts, at least 2.

    Returns:
        For every part the number of the first part that shows the same samples, `i32[batch, segments]`; the part's own
        number where no earlier part does.
    """
    starts = jnp.stack(_segment_starts(time, recorded, segments=segments), axis=-1)
    first, end = recorded.start[:, None], (recorded.start + recorded.samples)[:, None]
    begins, ends = (jnp.clip(edge, first, end) for edge in (starts, starts + time // segments))
    alike = (begins[:, :, None] == begins[:, None, :]) & (ends[:, :, None] == ends[:, None, :])
    return jnp.argmax(alike, axis=-1).astype(jnp.int32)


def _segment_starts(time: int, recorded: Recorded | None, *, segments: int) -> list[Array]:
    """Returns the first stored sample of each part of `segments_of`, each `i32[]` (or `i32[batch]`)."""
    low, high = _places(time, time // segments, recorded)
    return [low + (high - low) * number // (segments - 1) for number in range(segments)]


def _places(time: int, length: int | Array, recorded: Recorded | None) -> tuple[Array, Array]:
    """Returns the first and the last of `time` samples at which a part may begin, `i32[]` (or `i32[batch]`) each."""
    last = time - length
    if recorded is None:
        return jnp.zeros((), jnp.int32), jnp.asarray(last, jnp.int32)
    # One start makes the part begin with the recorded samples, the other makes it end with them. Which of the two comes
    # first depends on whether the part or the recorded range is longer.
    begins, ends = recorded.start, recorded.start + recorded.samples - length
    return jnp.clip(jnp.minimum(begins, ends), 0, last), jnp.clip(jnp.maximum(begins, ends), 0, last)
