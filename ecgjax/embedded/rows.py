"""Rows of a table of embeddings before they are embedded, with the intervals and amplitudes measured on them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipelines.records import STORED_LEADS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A prepared recording.

    Attributes:
        record: Id of the recording in its source.
        source: File of the recording below the input, or name of the data set.
        signal: Samples in µV of the eight stored leads, `int16[time, 8]`.
        valid_start: Position of the first recorded sample.
        valid_samples: Number of recorded samples from there on.
        labels: Values of further columns.
        measured: Intervals, rates and amplitudes by name, as `median_beat.measure_record` returns them; None where they
            were not asked for.
    """

    record: str
    source: str
    signal: np.ndarray
    valid_start: int
    valid_samples: int
    labels: Mapping[str, Any]
    measured: Mapping[str, float] | None = None

    def with_measurements(self, *, sampling_rate_hz: int) -> Row:
        """Returns the row with what is measured on its recorded part."""
        # It brings NeuroKit, which takes seconds to import.
        from data_pipelines.physiology.median_beat import measure_record

        recorded = self.signal[self.valid_start : self.valid_start + self.valid_samples]
        measured, _, _ = measure_record(recorded, sampling_rate_hz=sampling_rate_hz)
        return dataclasses.replace(self, measured=measured)


def interval_units() -> dict[str, str]:
    """Returns the measurements of a record as a whole, each with its unit."""
    from data_pipelines.physiology.median_beat import UNITS

    return {name: unit for name, unit in UNITS.items() if name.rpartition("_")[2] not in STORED_LEADS}


def by_lead(measured: Mapping[str, float]) -> str:
    """Returns the amplitudes of each lead as JSON, such as `{"I": {"R": 0.61, "T": 0.15}}`, in mV."""
    leads: dict[str, dict[str, float]] = {lead: {} for lead in STORED_LEADS}
    for name, value in measured.items():
        wave, _, lead = name.rpartition("_")
        if lead in leads and math.isfinite(value):
            leads[lead][wave] = round(value, 4)
    return json.dumps(leads)
