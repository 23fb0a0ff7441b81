"""What is measured of every record and stored beside a data set: intervals, amplitudes and rhythm, in two forms.

`BEATS` measures beat by beat in lead II, and keeps statistics over the beats (`vector.py`). `MEDIAN_BEAT` measures the
median beat, with amplitudes in every lead (`median_beat.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from data_pipelines.physiology import median_beat, vector


@dataclasses.dataclass(frozen=True, kw_only=True)
class Definition:
    """One form of the measurements.

    Attributes:
        name: Name of the form, as flags and settings have it.
        folder: Folder inside a data set in which they are stored.
        version: Version of the definition; measurements of another are not read.
        units: Unit of every measurement by its name, in column order.
        measure: Function `(int16[time, lead], sampling_rate_hz=…) → (f32[measurements], reasons)`, which gives NaN and
            a reason for what cannot be measured.
        reasons: Bit of every reason in `reasons`, by its name.
        unusable: Bits of which any means that nothing of a record was measured.
    """

    name: str
    folder: str
    version: int
    units: Mapping[str, str]
    measure: Callable[..., tuple[np.ndarray, int]]
    reasons: Mapping[str, int]
    unusable: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the measurements, in column order."""
        return tuple(self.units)

    def command(self, directory: object) -> str:
        """Returns the command that measures a data set.

        Args:
            directory: Directory of the data set.
        """
        form = "" if self is BEATS else f" --on={self.name}"
        return f"python -m data_pipelines.measure --dataset={directory}{form}"


_OF_RECORD = ("flat_lead", "no_r_peaks", "few_beats")
_REASONS = {name: 1 << bit for bit, name in enumerate((*_OF_RECORD, *median_beat.REASONS_OF_INTERVALS))}


def _median_beat_of(signal: np.ndarray, *, sampling_rate_hz: int) -> tuple[np.ndarray, int]:
    measured, _, reasons = median_beat.measure_record(signal, sampling_rate_hz=sampling_rate_hz)
    values = np.array([measured.get(name, math.nan) for name in median_beat.NAMES], np.float32)
    return values, sum(_REASONS[reason] for reason in reasons)


BEATS = Definition(
    name="beats",
    folder="physiology",
    version=vector.PHYSIOLOGY_VERSION,
    units={name: vector.UNITS[name] for name in vector.NAMES},
    measure=vector.measure_record,
    reasons={name.lower(): int(reason) for name, reason in vector.Missing.__members__.items()},
    unusable=int(vector.UNUSABLE),
)
MEDIAN_BEAT = Definition(
    name="median_beat",
    folder="median_beat",
    version=median_beat.VERSION,
    units=median_beat.UNITS,
    measure=_median_beat_of,
    reasons=_REASONS,
    unusable=sum(_REASONS[name] for name in _OF_RECORD),
)

#: Forms of the measurements by name.
DEFINITIONS: Mapping[str, Definition] = {each.name: each for each in (BEATS, MEDIAN_BEAT)}

#: Folders of measurements inside a data set.
FOLDERS = tuple(each.folder for each in DEFINITIONS.values())
