"""The rate that a file states, as a number, interval, times or duration, compared with the declaration."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable

import numpy as np

from data_pipelines.files.refusals import header_disagrees, unreadable_header
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import Kind, hertz_per, seconds_per
from data_pipelines.statements.stated import Statement, Statements, disagreement
from data_pipelines.statements.stated_values import MOST_LEADS, one_number, quantity, shown
from data_pipelines.statements.time_axis import PLAUSIBLE_RATES_HZ, EvenTimes, even_times, seconds_of

#: Upper bound of a rate; no converter is faster.
MAX_RATE_HZ = 1e6

# Relative error allowed: rates are written with all digits, but intervals are rounded (`dt = 0.0028` for 360 Hz).
_EXACT, _ROUNDED = 1e-6, 0.01

# Durations are often rounded to seconds; with this tolerance, a rate that is wrong by a factor of two is still found.
_DURATION_SHARE, _DURATION_SECONDS = 0.05, 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatedRate:
    """A rate as one place of a file states it.

    Attributes:
        where: Name of the statement in the file.
        hertz: Rate in Hz, or the rates that the statement may mean.
        error: Largest relative error of the rate that rounding can cause.
    """

    where: str
    hertz: tuple[float, ...]
    error: float

    def allows(self, hertz: float) -> bool:
        """Returns whether the statement may mean this rate."""
        return any(abs(own - hertz) <= (self.error + _EXACT) * hertz for own in self.hertz)


def stated_rates(stated: Statements, *, num_samples: int, source: str) -> list[StatedRate]:
    """Returns the rates that follow from stated rates, intervals, and vectors with one time per sample.

    Args:
        stated: Statements of the file.
        num_samples: Number of samples per lead.
        source: Name of the file, for messages.

    Raises:
        RecordError: A value that must be a rate or an interval is none (`unreadable_header`), or the leads have several
            rates, or times are uneven or have another number than the samples (`header_disagrees`).
    """
    rates = [_rate(statement, source) for statement in stated.of(Kind.RATE)]
    unit = next((s.value for s in stated.of(Kind.TIME_UNIT) if isinstance(s.value, str)), "")
    rates += [_interval(statement, unit, source) for statement in stated.of(Kind.INTERVAL)]
    of_times = [_of_times(statement, unit, num_samples, source) for statement in stated.of(Kind.TIMES)]
    return [rate for rate in (*rates, *itertools.chain(*of_times)) if rate is not None]


def rates_of_times(times: np.ndarray, *, name: str, unit: str, source: str) -> list[StatedRate]:
    """Returns the rate that evenly spaced times state, alone in a list that is empty for too few times.

    Args:
        times: Times as numbers, `[n]`.
        name: Name of the times in the file.
        unit: Unit of the times, or an empty text where it is not known.
        source: Name of the file, for messages.

    Raises:
        RecordError: The times are not evenly spaced (`header_disagrees`).
    """
    even = even_times(times, name=name, source=source)
    return [] if even is None else [StatedRate(where=name, hertz=even.rates_hz(seconds_per(unit)), error=even.error)]


def settled_rate(
    rates: Iterable[StatedRate], stated: Statements, declared: Declared, *, num_samples: int, source: str
) -> float:
    """Returns the rate that the declaration and all statements of a file agree on.

    Args:
        rates: Rates that statements or times gave.
        stated: Statements of the file, which may include durations and doubtful rates.
        declared: Declaration of the user.
        num_samples: Number of samples per lead.
        source: Name of the file, for messages.

    Raises:
        RecordError: No rate is stated or declared (`missing_metadata`), or two differ (`header_disagrees`).
    """
    # The most exact statement is the one that the others are compared with.
    rates, remedy = sorted(rates, key=lambda rate: rate.error), "correct one of them"
    if declared.sampling_rate_hz is not None:
        rate, said_by = float(declared.sampling_rate_hz), f"--declared_rate_hz says {declared.sampling_rate_hz}"
        remedy = "correct one of them, or build the files of each rate apart"
    elif rates:
        rate, said_by = rates[0].hertz[0], f"'{rates[0].where}' the rate {rates[0].hertz[0]}"
    else:
        rate, said_by = declared.rate_of(source), ""
    for other in rates:
        if not other.allows(rate):
            raise disagreement(source, other.where, f"the rate {_either(other.hertz)}", said_by, remedy)
    if not rates:
        _check_doubtful(stated.doubtful_rates, rate, source)
    _check_durations(stated.of(Kind.DURATION), rate, num_samples, source)
    return rate


def _either(hertz: tuple[float, ...]) -> str:
    return " or ".join(f"{value:.10g}" if value != round(value) else str(float(value)) for value in hertz)


def _rate(statement: Statement, source: str) -> StatedRate | None:
    if isinstance(statement.value, np.ndarray) and statement.value.size > MOST_LEADS:
        return None  # So many values are the frequencies of a spectrum.
    if (found := one_number(statement.value)) is None and statement.is_weak:
        return None
    if found is None and (several := quantity(statement.value)) is not None and len(several[0]) > 1:
        raise header_disagrees(
            f"{source}: '{statement.where}' states several rates ({shown(statement.value)}); leads of one rate are "
            "read: resample them first"
        )
    number, unit = found or (math.nan, "")
    factor = hertz_per(unit or (statement.unit if hertz_per(statement.unit) else "hz"))
    low, high = PLAUSIBLE_RATES_HZ
    if statement.is_weak and not (factor and low <= number * factor <= high):
        return None
    # The name is that of a rate, but the value is an interval, as in 'fs: 2 ms'.
    if factor is None and seconds_per(unit) is not None:
        return _interval(dataclasses.replace(statement, is_weak=False), "", source)
    if factor is None or not 0 < number * factor < MAX_RATE_HZ:
        raise unreadable_header(
            f"{source}: '{statement.where}' states a rate of '{shown(statement.value)}', which is no number of Hz; "
            "correct or rename it"
        )
    return StatedRate(where=statement.where, hertz=(number * factor,), error=0.0)


def _interval(statement: Statement, unit_of_times: str, source: str) -> StatedRate | None:
    found = one_number(statement.value)
    unit = (found[1] if found else "") or statement.unit or unit_of_times
    seconds = seconds_per(unit) if unit else None
    number = found[0] if found is not None and found[0] > 0 else None
    hertz = hertz_per(unit) if unit and seconds is None else None
    if number is not None and hertz:
        return StatedRate(where=statement.where, hertz=(number * hertz,), error=0.0)
    rates = EvenTimes(number, 0.0).rates_hz(seconds) if number is not None and (seconds or not unit) else ()
    low, high = PLAUSIBLE_RATES_HZ
    if statement.is_weak and not (rates and low <= rates[0] <= high):
        return None
    if not rates:
        raise unreadable_header(
            f"{source}: '{statement.where}' states a sampling interval of '{shown(statement.value)}', which is no "
            "number of seconds or milliseconds above zero; correct or rename it"
        )
    return StatedRate(where=statement.where, hertz=rates, error=_ROUNDED)


def _of_times(statement: Statement, unit_of_times: str, num_samples: int, source: str) -> list[StatedRate]:
    value, unit = statement.value, statement.unit or unit_of_times
    if isinstance(value, str) or len(np.shape(value)) == 0:
        return []  # The value is the recording's start or its length.
    if isinstance(value, tuple):
        times, unit = (seconds_of(value), "s") if len(value) == num_samples else (None, "")
    elif value.dtype.kind == "M":
        times, unit = value.reshape(-1).astype("M8[ns]").astype(np.int64), "ns"
        # Nanoseconds since 1970 have more digits than float64, to which they are converted later.
        times = times - times[0]
    else:
        times = value.reshape(-1)
    if times is None or (len(times) != num_samples and (statement.is_weak or len(times) <= MOST_LEADS)):
        return []
    if len(times) != num_samples:
        raise header_disagrees(
            f"{source}: '{statement.where}' has {len(times)} times for {num_samples} samples; give one for each, or "
            "none"
        )
    return rates_of_times(times, name=statement.where, unit=unit, source=source)


def plain_hertz(statement: Statement) -> float | None:
    """Returns the rate that a statement gives as one number with or without a unit, else None."""
    found = one_number(statement.value)
    factor = hertz_per(found[1] or statement.unit or "hz") if found else None
    return found[0] * factor if found and factor else None


def _check_doubtful(statements: list[Statement], rate: float, source: str) -> None:
    for statement in statements:
        if (hertz := plain_hertz(statement)) is not None and not math.isclose(hertz, rate, rel_tol=_EXACT):
            raise header_disagrees(
                f"{source}: '{statement.where}' is {shown(statement.value)}, but --declared_rate_hz says {rate}, and "
                "nothing in the file tells which is the samples' own rate; call that 'fs' in the file"
            )


def _check_durations(statements: list[Statement], rate: float, num_samples: int, source: str) -> None:
    for statement in statements:
        stated = _seconds(statement)
        actual = num_samples / rate
        if stated and not any(abs(value - actual) <= _DURATION_SHARE * actual + _DURATION_SECONDS for value in stated):
            taken = f"{num_samples} samples at {rate:g} Hz take {actual:g} s"
            raise disagreement(source, statement.where, f"a duration of {shown(statement.value)}", taken)


def _seconds(statement: Statement) -> tuple[float, ...]:
    """Returns the durations in seconds that a statement may mean; empty where it is not a duration."""
    if (found := one_number(statement.value)) is None:
        clock = seconds_of([statement.value]) if isinstance(statement.value, str) else None
        return () if clock is None or ":" not in statement.value else (float(clock[0]),)
    if isinstance(statement.value, np.ndarray) and statement.value.size > 1:
        return ()  # These are times, which share some names with durations.
    unit = found[1] or statement.unit
    factor = seconds_per(unit) if unit else None
    if unit:
        return () if factor is None else (found[0] * factor,)
    return (found[0], found[0] / 1000, found[0] * 60)
