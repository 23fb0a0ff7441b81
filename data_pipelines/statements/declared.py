"""A user's declaration of what files do not state; what they do state must agree with it (`stated_*.py`)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from data_pipelines.errors import DataError
from data_pipelines.files.refusals import header_disagrees, missing_metadata
from data_pipelines.files.samples import Matrix
from data_pipelines.lead_names import lead_columns
from data_pipelines.statements.names import voltage

#: Names of the orders of a matrix's axes, of which one is time.
ORIENTATIONS = ("time_lead", "lead_time")
_FLAGS = {"rate": "--declared_rate_hz", "unit": "--declared_unit", "lead names": "--declared_leads"}
_LEAD_AXIS = {"time_lead": 1, "lead_time": 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    """The facts that a user declares about all files of a kind; None where nothing is known.

    Attributes:
        sampling_rate_hz: Samples per second and lead.
        unit: Unit of the samples, such as `mV`.
        leads: Names of the leads, in the order of the files.
        orientation: Order of the axes, one of `ORIENTATIONS`.
    """

    sampling_rate_hz: float | None = None
    unit: str | None = None
    leads: tuple[str, ...] | None = None
    orientation: str | None = None

    def check(self) -> None:
        """Checks that the declaration can be true of a file.

        Raises:
            DataError: The rate is not positive and finite, the unit is not a voltage, or a lead is missing or repeated.
        """
        if self.sampling_rate_hz is not None and not 0 < self.sampling_rate_hz < math.inf:
            raise DataError(f"--declared_rate_hz={self.sampling_rate_hz:g}: a number of Hz above zero is needed")
        if self.unit is not None and voltage(self.unit) is None:
            raise DataError(f"--declared_unit={self.unit}: is no voltage; mV, uV and V are known")
        if self.leads is not None:
            lead_columns(self.leads, source="--declared_leads")

    def rate_of(self, source: str) -> float:
        """Returns the declared rate in Hz, for a file that does not state its own.

        Args:
            source: Name of the file, for messages.

        Raises:
            RecordError: No rate was declared (`missing_metadata`).
        """
        return float(self._needed("rate", source))

    def unit_of(self, source: str) -> str:
        """Returns the declared unit for a file that states none: `mV`, `uV`, `nV`, `V`, or as the user wrote it.

        Args:
            source: Name of the file, for messages.

        Raises:
            RecordError: No unit was declared (`missing_metadata`).
        """
        unit = self._needed("unit", source)
        return voltage(unit) or unit

    def leads_of(self, source: str) -> tuple[str, ...]:
        """Returns the declared lead names, for a file that does not state its own.

        Args:
            source: Name of the file, for messages.

        Raises:
            RecordError: No lead names were declared (`missing_metadata`).
        """
        return tuple(self._needed("lead names", source))

    def by_time(self, samples: Matrix, *, num_leads: int, source: str, orientation: str | None = None) -> Matrix:
        """Returns a matrix of samples with time as its first axis.

        Args:
            samples: Matrix of the samples, `[time, lead]` or `[lead, time]`.
            num_leads: Number of leads.
            source: Name of the file, for messages.
            orientation: Orientation that the file states and that agrees with the declaration, or None.

        Returns:
            The samples as a view, `[time, lead]`.

        Raises:
            RecordError: Neither axis, or both, has as many entries as there are leads and the declaration does not
                decide, or the declared axis has another number of entries (`header_disagrees`).
        """
        if samples.ndim != 2:
            message = f"{source}: holds an array of shape {samples.shape}; a matrix of samples by leads is needed"
            raise header_disagrees(message)
        orientation = orientation or self.orientation
        fits = [name for name, axis in _LEAD_AXIS.items() if samples.shape[axis] == num_leads]
        if len(fits := [name for name in fits if orientation in (name, None)]) != 1:
            declared = f" as {orientation}" if orientation else ""
            raise header_disagrees(
                f"{source}: an array of shape {samples.shape} cannot be told to be {num_leads} leads over "
                f"time{declared}; check --declared_leads and --declared_orientation"
            )
        return samples if fits[0] == "time_lead" else samples.T

    def _needed(self, name: str, source: str) -> Any:
        known = {"rate": self.sampling_rate_hz, "unit": self.unit, "lead names": self.leads}
        if known[name] is not None:
            return known[name]
        # The message names all missing values at once; otherwise a user would meet a new refusal after supplying each.
        others = [_FLAGS[other] for other, value in known.items() if value is None and other != name]
        likewise = f", and with {' and '.join(others)} what else they do not state" if others else ""
        message = f"{source}: does not state its {name}; say it for all such files with {_FLAGS[name]}{likewise}"
        raise missing_metadata(message)
