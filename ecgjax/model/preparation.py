"""Prepares recordings that are in memory exactly as a build prepares those of files, by the same code.

An array becomes what a reader returns of a file, and `signals/conversion.py` does the rest. Only what concerns a call
as a whole is checked here: its axes, type, unit, rate and lead names.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from data_pipelines.errors import DataError, RecordError
from data_pipelines.lead_names import lead_columns
from data_pipelines.recording import Recording
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.signals.conversion import MILLIVOLTS_PER_UNIT, StoredSignal, stored_signal
from data_pipelines.signals.lead_checks import HIGHEST_SOURCE_RATE_HZ, LOWEST_SOURCE_RATE_HZ
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.signals.window import rate_ratio
from data_pipelines.statements.names import voltage
from ecgjax.errors import ConfigError

_UNITS = ", ".join(MILLIVOLTS_PER_UNIT)

#: Reasons for which a recording is refused that another unit of its samples could explain.
_OF_THE_UNIT = ("wrong_unit", "out_of_range", "flat_lead", "einthoven", "broken_gain")

#: Reasons that concern what is kept of a longer recording, and not the recording as a whole.
_OF_THE_PART = ("nan", "flat_lead", "wrong_unit", "broken_gain", "einthoven", "out_of_range")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Recordings in the form that encoders were trained on.

    Attributes:
        signals: Samples in µV of the eight stored leads, `int16[n, time, 8]`, zero where padded.
        valid_start: Position of the first recorded sample of each, `i32[n]`.
        valid_samples: Number of recorded samples of each, `i32[n]`.
    """

    signals: np.ndarray
    valid_start: np.ndarray
    valid_samples: np.ndarray


def prepare_rows(
    x: ArrayLike,
    *,
    rate_hz: float | None,
    unit: str | None,
    leads: Sequence[str] | None,
    recipe: SignalRecipe,
) -> Prepared:
    """Prepares recordings of one rate, unit and length.

    Args:
        x: Samples, `[n, time, lead]`.
        rate_hz: Samples a second of each lead.
        unit: Unit of the samples: mV, uV, nV or V, in any usual spelling.
        leads: Names of the leads, in the order of the last axis and in any usual spelling; others than the standard
            leads are passed over.
        recipe: Recipe of the stored signals.

    Raises:
        ConfigError: What is said of the samples is missing, contradicts their shape, or is not possible.
        DataError: A recording is no plausible ECG; the message names its row.
    """
    samples = _samples(x)
    names = _names(leads)
    _check_axes(samples, len(names))
    rate, volts = _rate(rate_hz), _unit(unit)
    seconds = samples.shape[1] / rate
    if seconds < recipe.min_seconds:
        raise ConfigError(
            f"x of shape {samples.shape} at rate_hz={rate:g} is {seconds:.3g} s long, and the model takes "
            f"{recipe.min_seconds:g} s or more; give longer recordings, or correct rate_hz"
        )
    try:
        lead_columns(names, source="leads")
    except RecordError as error:
        raise ConfigError(str(error)) from error
    try:
        rate_ratio(rate, recipe.sampling_rate_hz, source="x")
    except RecordError as error:
        raise ConfigError(
            f"rate_hz={rate!r} does not resample to the model's {recipe.sampling_rate_hz} Hz by a ratio of integers "
            "below 10,000; give the nominal rate of the recorder"
        ) from error
    rows = [
        _prepared(samples[row], source=f"row {row} of x", rate=rate, unit=volts, leads=names, recipe=recipe)
        for row in range(len(samples))
    ]
    return Prepared(
        signals=np.stack([row.signal for row in rows]),
        valid_start=np.array([row.valid_start for row in rows], np.int32),
        valid_samples=np.array([row.valid_samples for row in rows], np.int32),
    )


def _prepared(
    samples: np.ndarray, *, source: str, rate: float, unit: str, leads: tuple[str, ...], recipe: SignalRecipe
) -> StoredSignal:
    recording = Recording(
        source=source,
        signal=samples.astype(np.float64),
        sampling_rate_hz=rate,
        channels=leads,
        units=(unit,) * len(leads),
    )
    try:
        return stored_signal(recording, recipe=recipe)
    except RecordError as error:
        remedy = _other_units(recording, recipe) if error.reason in _OF_THE_UNIT else ""
        raise DataError(f"{_without_flags(error, recording, recipe)}{remedy}", reason=error.reason) from error


def _without_flags(error: RecordError, recording: Recording, recipe: SignalRecipe) -> str:
    """Returns the message of an error without the flags of a build, which are no remedy here."""
    cause = error.__cause__
    longer = recording.signal.shape[0] / recording.sampling_rate_hz > recipe.seconds
    if not (longer and error.reason in _OF_THE_PART and isinstance(cause, RecordError)):
        return str(error)
    part = "first" if recipe.cut == "start" else "middle"
    return f"{cause}; the model takes the {part} {recipe.seconds:g} s of a recording: give another part of it"


def _other_units(recording: Recording, recipe: SignalRecipe) -> str:
    """Names the units in which a refused recording would be an ECG."""
    possible = [unit for unit in MILLIVOLTS_PER_UNIT if _is_ecg(recording, unit, recipe)]
    return f"; as unit={' or '.join(map(repr, possible))} it would be an ECG" if possible else ""


def _is_ecg(recording: Recording, unit: str, recipe: SignalRecipe) -> bool:
    try:
        stored_signal(dataclasses.replace(recording, units=(unit,) * len(recording.channels)), recipe=recipe)
    except RecordError:
        return False
    return True


def _samples(x: ArrayLike) -> np.ndarray:
    try:
        samples = np.asarray(x)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"x is no array ({error}); give numbers of the shape [n, time, lead]") from error
    if samples.dtype.kind not in "iuf":
        raise ConfigError(
            f"x holds {samples.dtype}, and samples are integers or floats; convert them, such as to float32"
        )
    if samples.size == 0:
        raise ConfigError(f"x of shape {samples.shape} is empty; give at least one recording")
    return samples


def _names(leads: Sequence[str] | None) -> tuple[str, ...]:
    if leads is None:
        raise ConfigError(f"leads=None: name the leads in the order of x, such as leads={list(STANDARD_LEADS)}")
    listed = isinstance(leads, Sequence | np.ndarray) and not isinstance(leads, str)
    if not listed or not all(isinstance(name, str) for name in leads):
        raise ConfigError(f"leads={ascii(leads)[:80]} is no list of names; give one name for each lead of x")
    return tuple(leads)


def _check_axes(samples: np.ndarray, num_leads: int) -> None:
    shape = samples.shape
    if samples.ndim == 2:
        raise ConfigError(f"x of shape {shape} has no axis of recordings; give x[None] for a single one")
    if samples.ndim != 3:
        raise ConfigError(f"x of shape {shape} has {samples.ndim} axes; give [n, time, lead]")
    if shape[2] == num_leads:
        return
    if shape[1] == num_leads:
        raise ConfigError(f"x of shape {shape} has its leads before time; give x.swapaxes(1, 2)")
    raise ConfigError(f"x of shape {shape} has {shape[2]} leads, and leads= names {num_leads}; give one name for each")


def _rate(rate_hz: Any) -> float:
    if rate_hz is None:
        raise ConfigError("rate_hz=None: say how many samples a second x has, such as rate_hz=500")
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, numbers.Real):
        raise ConfigError(f"rate_hz={ascii(rate_hz)[:60]} is no number; give samples a second, such as rate_hz=500")
    rate = float(rate_hz)
    if not (math.isfinite(rate) and LOWEST_SOURCE_RATE_HZ <= rate < HIGHEST_SOURCE_RATE_HZ):
        raise ConfigError(
            f"rate_hz={rate:g} is no rate of a 12-lead ECG, which has {LOWEST_SOURCE_RATE_HZ} Hz or more and less than "
            f"{HIGHEST_SOURCE_RATE_HZ:g}; give samples a second"
        )
    return rate


def _unit(unit: Any) -> str:
    if unit is None:
        raise ConfigError("unit=None: say what x is in, such as unit='mV'; a factor of 1,000 cannot be guessed")
    known = voltage(unit) if isinstance(unit, str) else None
    if known is None:
        raise ConfigError(
            f"unit={ascii(unit)[:60]} is no voltage; known are {_UNITS}; scale counts of a converter first"
        )
    return known
