"""Which part of a recording becomes a record, and which of its rows are needed for that.

Stored samples lie on one grid for a recording: that of the whole recording, resampled. A window is a stretch of it. So
a record does not depend on how much of its recording was read to make it, and pieces follow one another exactly.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

from data_pipelines.errors import RecordError
from data_pipelines.signals.recipe import SignalRecipe

# A rest that is a rounding error short of the shortest length is as long as that.
_ROUNDING_S = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a recording.

    Attributes:
        start: first sample of it, at the stored rate.
        stop: last one plus one.
        num_samples: samples that the whole recording has at that rate.
        num_rows: rows of the recording, at its own rate.
        ratio: stored rate over the recording's.
    """

    start: int
    stop: int
    num_samples: int
    num_rows: int
    ratio: Fraction

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole recording."""
        return self.start == 0 and self.stop == self.num_samples

    @property
    def rows(self) -> tuple[int, int]:
        """The first row it stands for, and the last plus one."""
        return math.floor(self.start / self.ratio), min(self.num_rows, math.ceil(self.stop / self.ratio))

    def context(self, margin: int) -> tuple[int, int]:
        """Returns the rows to read: its own and those that filters look at, beginning where a stored sample does.

        Args:
            margin: rows before and after it that are wanted, as far as there are any.
        """
        first, stop = self.rows
        step = self.ratio.denominator
        return max(0, first - margin) // step * step, min(self.num_rows, stop + margin)


def rate_ratio(source_rate_hz: float, target_rate_hz: int, *, source: str) -> Fraction:
    """Returns the stored rate over a recording's.

    Raises:
        RecordError: `wrong_rate`: the two are no ratio of integers below 10,000.
    """
    ratio = (Fraction(target_rate_hz) / Fraction(source_rate_hz)).limit_denominator(10_000)
    if abs(float(ratio) * source_rate_hz / target_rate_hz - 1) > 1e-6 or ratio.numerator >= 10_000:
        raise RecordError(
            f"{source}: {source_rate_hz!r} Hz does not resample to {target_rate_hz} Hz by a ratio of integers below "
            "10,000; correct the rate in the header or choose another --target_rate_hz",
            reason="wrong_rate",
        )
    return ratio


def num_pieces(num_rows: int, *, sampling_rate_hz: float, recipe: SignalRecipe, source: str) -> int:
    """Returns into how many records a recording is cut: as many as it holds, one at least, and one of a rest.

    A rest shorter than the recipe's shortest is dropped.

    Args:
        num_rows: length of the recording, samples of each lead.
        sampling_rate_hz: rate of the recording.
        recipe: what is stored.
        source: what to name in messages.

    Raises:
        RecordError: `wrong_rate`, as of `rate_ratio`.
    """
    num_samples = math.ceil(num_rows * rate_ratio(sampling_rate_hz, recipe.sampling_rate_hz, source=source))
    num_full = num_samples // recipe.signal_format.num_samples
    rest = num_rows / sampling_rate_hz - num_full * recipe.seconds
    return max(1, num_full + (rest >= recipe.min_seconds - _ROUNDING_S))


def window_of(
    num_rows: int, *, sampling_rate_hz: float, recipe: SignalRecipe, source: str, piece: int | None = None
) -> Window:
    """Returns the part of a recording that a recipe stores.

    Args:
        num_rows: length of the recording, samples of each lead.
        sampling_rate_hz: rate of the recording.
        recipe: length, and which part of a longer recording is kept.
        source: what to name in messages.
        piece: number from 0 on of the piece that is wanted where a recording is cut into pieces, whatever the recipe
            says about longer ones.

    Raises:
        RecordError: `wrong_rate`, as of `rate_ratio`.
    """
    ratio = rate_ratio(sampling_rate_hz, recipe.sampling_rate_hz, source=source)
    num_samples, length = math.ceil(num_rows * ratio), recipe.signal_format.num_samples
    surplus = max(0, num_samples - length)
    start = (surplus // 2 if recipe.cut == "center" else 0) if piece is None else piece * length
    stop = min(start + length, num_samples)
    return Window(start=start, stop=stop, num_samples=num_samples, num_rows=num_rows, ratio=ratio)
