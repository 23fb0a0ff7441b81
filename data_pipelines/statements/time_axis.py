"""Columns of times and of sample numbers: checks that no sample is missing, and finds the rate that they state.

Times are rounded to a number of decimals, so steps of 2.778 ms read 3, 3, 2, … ms. Times count as even if each lies
within that rounding of the straight line through the first and the last; otherwise samples are missing, repeated or not
evenly spaced, and the message says where.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.refusals import header_disagrees
from data_pipelines.metadata.recorder_fields import moment

#: Plausible range of an ECG's rate; times without a unit are taken to be in one that gives a rate in this range.
PLAUSIBLE_RATES_HZ = (50.0, 50_000.0)

#: Units, in seconds, that times without a stated unit may be in: s, ms, µs, ns.
_UNITS = (1.0, 1e-3, 1e-6, 1e-9)

# Share of a step by which times may be off beyond their rounding, and share of the steps up to which odd ones count as
# lost samples.
_JITTER = 0.01
_RARE = 0.01

_CLOCK = re.compile(
    r"(?:(?P<date>\d{4}-\d{1,2}-\d{1,2}|\d{4}/\d{1,2}/\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{4})(?:[T ]\s*))?"
    r"(?:(?P<hours>\d{1,2}):)?(?P<minutes>\d{1,3}):(?P<seconds>\d{1,2})(?:[.,:](?P<fraction>\d{1,9}))?"
    r"\s*(?:Z|UTC|[+-]\d{2}:?\d{2})?",
    flags=re.ASCII,
)
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y")


@dataclasses.dataclass(frozen=True)
class EvenTimes:
    """Times that are evenly spaced.

    Attributes:
        step: Step between two times, in the unit of the times.
        error: Largest relative error of the step that rounding can cause.
    """

    step: float
    error: float

    def rates_hz(self, unit_seconds: float | None) -> tuple[float, ...]:
        """Returns the rates that the step may mean: a single one if the unit is known, else all plausible ones.

        Args:
            unit_seconds: Length of the times' unit in seconds, or None where it is unknown.
        """
        if unit_seconds is not None:
            return (self._whole(1 / (self.step * unit_seconds)),)
        rates = (self._whole(1 / (self.step * unit)) for unit in _UNITS)
        low, high = PLAUSIBLE_RATES_HZ
        return tuple(rate for rate in rates if low <= rate <= high) or (1 / self.step,)

    def _whole(self, rate: float) -> float:
        """Returns the whole number that is within the rounding error of a rate, else the rate itself."""
        return float(round(rate)) if abs(rate - round(rate)) <= rate * self.error else rate


def is_moment(text: str) -> bool:
    """Returns whether a text is a time of day, a date with one, or minutes and seconds."""
    return _CLOCK.fullmatch(text.strip()) is not None


def seconds_of(texts: Sequence[str]) -> np.ndarray | None:
    """Returns times of day, with or without a date, as seconds, `f64[n]`; None where one cannot be parsed.

    Days are counted from the first. A time of day without a date that follows midnight belongs to the next day.
    """
    seconds = np.empty(len(texts))
    day, first_day, with_date = 0.0, 0, False
    for number, text in enumerate(texts):
        if (match := _CLOCK.fullmatch(text.strip())) is None:
            return None
        hours, minutes, whole = (int(match[part] or 0) for part in ("hours", "minutes", "seconds"))
        fraction = match["fraction"] or ""
        value = hours * 3600.0 + minutes * 60.0 + whole + (int(fraction) / 10 ** len(fraction) if fraction else 0.0)
        if match["date"]:
            if (date := moment(match["date"], *_DATES)) is None:
                return None
            first_day = first_day if with_date else date.toordinal()
            with_date, day = True, (date.toordinal() - first_day) * 86400.0
        # More than half a day back is midnight; what goes back less is left for `even_times` to refuse.
        elif not with_date and number and value + day < seconds[number - 1] - 43200:
            day += 86400.0
        seconds[number] = value + day
    return seconds


def even_times(times: np.ndarray, *, name: str, source: str) -> EvenTimes | None:
    """Returns the step of evenly spaced times, or raises if they are not even.

    Args:
        times: Times as numbers, `[n]`.
        name: Name of the times in the file.
        source: Name of the file, for messages.

    Returns:
        The step, or None if there are fewer than three times.

    Raises:
        RecordError: The times are not evenly spaced (`header_disagrees`).
    """
    if len(times) < 3:
        return None
    precision = 4 * float(np.spacing(np.abs(times).max())) if times.dtype.kind == "f" else 0.0
    times = times.astype(np.float64, copy=False)
    if len(bad := np.flatnonzero(~np.isfinite(times))):
        raise _uneven(f"has no time at sample {bad[0] + 1}", name, source)
    steps = np.diff(times)
    if len(back := np.flatnonzero(steps <= 0)):
        at = int(back[0])
        what = "repeats" if steps[at] == 0 else "goes back"
        raise _uneven(f"{what} at sample {at + 2} ({times[at]:.10g}, then {times[at + 1]:.10g})", name, source)
    quantum = _quantum(times)
    usual = float(np.median(steps))
    odd = np.abs(steps - usual) > max(0.1 * quantum, _JITTER * usual)
    # Rounding gives two adjacent step sizes, both frequent; a lost sample gives a rare step size, or a long step.
    if np.count_nonzero(odd) > _RARE * len(steps):
        odd &= np.abs(steps - usual) > max(1.1 * quantum, _JITTER * usual)
    if odd.any():
        at = int(odd.argmax())
        what = f"goes from {times[at]:.10g} to {times[at + 1]:.10g} at sample {at + 2}, where {usual:.6g} is usual"
        raise _uneven(what, name, source)
    step = (times[-1] - times[0]) / (len(times) - 1)
    off = np.abs(times - (times[0] + step * np.arange(len(times))))
    at = int(off.argmax())
    if off[at] > 1.5 * quantum + _JITTER * step:
        raise _uneven(f"drifts: sample {at + 1} is {off[at]:.3g} off an even step of {step:.6g}", name, source)
    rounding = 1.5 * quantum if np.ptp(steps) > 0.1 * quantum else 0.0
    return EvenTimes(step=float(step), error=1e-9 + float((rounding + precision) / (times[-1] - times[0])))


def check_numbers(numbers: np.ndarray, *, name: str, source: str) -> None:
    """Checks that a column counts the samples.

    Args:
        numbers: Sample numbers, `[n]`.
        name: Name of the column in the file.
        source: Name of the file, for messages.

    Raises:
        RecordError: The numbers do not increase by one (`header_disagrees`).
    """
    if len(wrong := np.flatnonzero(np.diff(numbers) != 1)):
        at = int(wrong[0])
        raise _uneven(f"goes from {numbers[at]:.10g} to {numbers[at + 1]:.10g} at sample {at + 2}", name, source)


def _uneven(what: str, name: str, source: str) -> RecordError:
    return header_disagrees(
        f"{source}: '{name}' {what}: samples are missing, come twice or are not evenly spaced; give the recording "
        "whole, one sample at every step"
    )


def _quantum(times: np.ndarray) -> float:
    """Returns the unit that times are rounded to: a power of ten, else the precision of 32-bit floats.

    It is taken from the latest times: if times are written with a number of digits and not of decimals, these have the
    fewest decimals.
    """
    most = np.abs(times).max()
    latest = times[np.abs(times) >= 10.0 ** np.floor(np.log10(most))] if most > 0 else times
    times = latest if len(latest) > 2 else times
    for exponent in range(12):
        scaled = (times - times[0]) * 10.0**exponent
        if np.abs(scaled - np.rint(scaled)).max() < 1e-3:
            return 10.0**-exponent
    return float(np.spacing(np.float32(np.abs(times).max())))
