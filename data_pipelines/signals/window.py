"""Determines which part of a recording becomes a record, and which rows of the recording are needed for it.

All stored samples of a recording lie on one grid: that of the whole recording, resampled. A window is a stretch of it.
Therefore a record does not depend on how many rows were read to make it, and pieces follow one another without gap.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

from data_pipelines.errors import RecordError
from data_pipelines.signals.recipe import SignalRecipe

# A rest that misses the shortest length by no more than this counts as that long.
_ROUNDING_S = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a recording.

    Attributes:
        start: Position of the window's first sample, at the stored rate.
        stop: Position after the window's last sample.
        num_samples: Number of samples that the whole recording has at the stored rate.
        num_rows: Number of rows of the recording, at its own rate.
        ratio: Stored rate divided by the recording's rate.
    """

    start: int
    stop: int
    num_samples: int
    num_rows: int
    ratio: Fraction

    @property
    def is_whole(self) -> bool:
        """Whether the window is the whole recording."""
        return self.start == 0 and self.stop == self.num_samples

    @property
    def rows(self) -> tuple[int, int]:
        """First row of the window in the recording, and the row after its last."""
        return math.floor(self.start / self.ratio), min(self.num_rows, math.ceil(self.stop / self.ratio))

    def context(self, margin: int) -> tuple[int, int]:
        """Returns the first row to read and the row after the last; the first falls on a stored sample.

        The rows are those of the window and those beside it that filters depend on.

        Args:
            margin: Number of rows wanted before and after the window, as far as there are any.
        """
        first, stop = self.rows
        step = self.ratio.denominator
        return max(0, first - margin) // step * step, min(self.num_rows, stop + margin)


def rate_ratio(source_rate_hz: float, target_rate_hz: int, *, source: str) -> Fraction:
    """Returns the stored rate divided by a recording's.

    Args:
        source_rate_hz: Sampling rate of the recording.
        target_rate_hz: Stored rate.
        source: Name of the recording, for messages.

    Raises:
        RecordError: The two rates are no ratio of integers below 10,000 (`wrong_rate`).
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
    """Returns the number of records that a recording is cut into, at least one.

    A rest shorter than the recipe's `min_seconds` is dropped.

    Args:
        num_rows: Length of the recording in samples of each lead.
        sampling_rate_hz: Rate of the recording.
        recipe: Recipe, which says how long the pieces are.
        source: Name of the recording for messages.

    Raises:
        RecordError: The two rates are no ratio of integers below 10,000 (`wrong_rate`).
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
        num_rows: Length of the recording in samples of each lead.
        sampling_rate_hz: Rate of the recording.
        recipe: Recipe, which says the length, and which part of a longer recording is kept.
        source: Name of the recording for messages.
        piece: Number, from 0 on, of the piece that is wanted where a recording is cut into pieces, whatever the recipe
            says about longer ones; None for the part that the recipe keeps.

    Raises:
        RecordError: The two rates are no ratio of integers below 10,000 (`wrong_rate`).
    """
    ratio = rate_ratio(sampling_rate_hz, recipe.sampling_rate_hz, source=source)
    num_samples, length = math.ceil(num_rows * ratio), recipe.signal_format.num_samples
    surplus = max(0, num_samples - length)
    start = (surplus // 2 if recipe.cut == "center" else 0) if piece is None else piece * length
    stop = min(start + length, num_samples)
    return Window(start=start, stop=stop, num_samples=num_samples, num_rows=num_rows, ratio=ratio)
