"""What a user says about files that do not say it themselves; what they do say is set against it (`stated_*.py`)."""

from __future__ import annotations

import dataclasses
import math
from typing import TypeVar

from data_pipelines.errors import DataError, RecordError
from data_pipelines.files.samples import Matrix
from data_pipelines.lead_names import lead_columns
from data_pipelines.statements.names import voltage

Value = TypeVar("Value")

#: Which axis of a matrix of samples is time.
ORIENTATIONS = ("time_lead", "lead_time")
_FLAGS = {"rate": "--declared_rate_hz", "unit": "--declared_unit", "lead names": "--declared_leads"}
_LEAD_AXIS = {"time_lead": 1, "lead_time": 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    """What is known about all files of a kind; None where nothing is.

    Attributes:
        sampling_rate_hz: samples per second and lead.
        unit: of the samples, such as `mV`.
        leads: their names in the files' order.
        orientation: one of `ORIENTATIONS`.
    """

    sampling_rate_hz: float | None = None
    unit: str | None = None
    leads: tuple[str, ...] | None = None
    orientation: str | None = None

    def check(self) -> None:
        """Checks that what was declared can be true of any file.

        Raises:
            DataError: a rate that is none, a unit that is no voltage, or leads among which one is missing or twice.
        """
        if self.sampling_rate_hz is not None and not 0 < self.sampling_rate_hz < math.inf:
            raise DataError(f"--declared_rate_hz={self.sampling_rate_hz:g}: a number of Hz above zero is needed")
        if self.unit is not None and voltage(self.unit) is None:
            raise DataError(f"--declared_unit={self.unit}: is no voltage; mV, uV and V are known")
        if self.leads is not None:
            lead_columns(self.leads, source="--declared_leads")

    def rate_of(self, source: str) -> float:
        """Returns the rate of a file that does not state its own.

        Raises:
            RecordError: `missing_metadata`.
        """
        return float(self._needed("rate", self.sampling_rate_hz, source))

    def unit_of(self, source: str) -> str:
        """Returns the unit of a file that does not state its own.

        Raises:
            RecordError: `missing_metadata`.
        """
        unit = self._needed("unit", self.unit, source)
        return voltage(unit) or unit

    def leads_of(self, source: str) -> tuple[str, ...]:
        """Returns the lead names of a file that does not state its own.

        Raises:
            RecordError: `missing_metadata`.
        """
        return tuple(self._needed("lead names", self.leads, source))

    def by_time(self, samples: Matrix, *, num_leads: int, source: str, orientation: str | None = None) -> Matrix:
        """Turns a matrix of samples so that time comes first.

        Args:
            samples: `[time, lead]` or `[lead, time]`.
            num_leads: how many leads there are names for.
            source: what to name in messages.
            orientation: stated by the file, where it agrees with the declaration.

        Returns:
            `[time, lead]`, a view.

        Raises:
            RecordError: `header_disagrees`: no axis, or both, has as many entries as there are leads and the
                declaration does not decide; or the declared one has not.
        """
        if samples.ndim != 2:
            raise RecordError(
                f"{source}: holds an array of shape {samples.shape}; a matrix of samples by leads is needed",
                reason="header_disagrees",
            )
        orientation = orientation or self.orientation
        fits = [name for name, axis in _LEAD_AXIS.items() if samples.shape[axis] == num_leads]
        if orientation is not None:
            fits = [name for name in fits if name == orientation]
        if len(fits) != 1:
            declared = f" as {orientation}" if orientation else ""
            raise RecordError(
                f"{source}: an array of shape {samples.shape} cannot be told to be {num_leads} leads over "
                f"time{declared}; check --declared_leads and --declared_orientation",
                reason="header_disagrees",
            )
        return samples if fits[0] == "time_lead" else samples.T

    def _needed(self, name: str, declared: Value | None, source: str) -> Value:
        if declared is not None:
            return declared
        known = {"rate": self.sampling_rate_hz, "unit": self.unit, "lead names": self.leads}
        # All at once, for one that states nothing would be refused once for each.
        others = [_FLAGS[other] for other, value in known.items() if value is None and other != name]
        likewise = f", and with {' and '.join(others)} what else they do not state" if others else ""
        raise RecordError(
            f"{source}: does not state its {name}; say it for all such files with {_FLAGS[name]}{likewise}",
            reason="missing_metadata",
        )
