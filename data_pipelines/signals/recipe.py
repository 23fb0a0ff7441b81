"""Recipes: the named, versioned steps by which a recording becomes a stored signal; a data set's card has its recipe.

Two data sets with equal recipes can be trained on together. Every recipe's meaning is fixed by its name and version:
whoever changes what a named recipe does gives it a new version.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from data_pipelines.errors import DataError
from data_pipelines.records import SignalFormat

#: No recipe stores or accepts less, since there would be no beat to judge the quality by.
SHORTEST_SECONDS = 1.0

#: No recipe stores more in one record; this is a day.
LONGEST_SECONDS = 86_400.0

#: Lowest corner of a filter; below it the filter's coefficients are lost in rounding.
LOWEST_HZ = 0.01

#: Ways to treat the baseline: it is kept, or the running median over 200 ms and then 600 ms, which follows neither QRS
#: nor T wave, is subtracted (de Chazal et al., IEEE Trans. Biomed. Eng. 51, 2004).
BASELINES = ("keep", "median")

#: Part of a longer recording that is kept, and side or sides on which a shorter one is padded to the stored length.
CUTS = ("start", "center")
PADS = ("end", "both")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalRecipe:
    """Steps from a checked recording to the stored signal; the fields from `notch_hz` on are in the order of the steps.

    Attributes:
        name: Name of the recipe; that of a changed recipe says what was changed.
        version: Version of what the name stands for.
        sampling_rate_hz: Stored rate, reached by polyphase resampling.
        seconds: Stored length.
        min_seconds: Length below which recordings are refused, and the rests of recordings cut into pieces dropped.
        notch_hz: Mains frequency to take out (zero phase, quality factor 30), or None.
        highpass_hz: Corner of a zero-phase second-order Butterworth high-pass, or None.
        lowpass_hz: Corner of a zero-phase fourth-order Butterworth low-pass, or None.
        baseline: Treatment of the baseline, one of `BASELINES`.
        cut: Part of a longer recording that is kept, one of `CUTS`.
        pad: Side of the padding, one of `PADS`; with `both`, the recording stands in the middle.
    """

    name: str
    version: int
    sampling_rate_hz: int = 250
    seconds: float = 10.0
    min_seconds: float = 5.0
    notch_hz: float | None = None
    highpass_hz: float | None = None
    lowpass_hz: float | None = None
    baseline: str = "keep"
    cut: str = "start"
    pad: str = "end"

    def __post_init__(self) -> None:
        """Checks the recipe.

        Raises:
            DataError: A value is not one of those listed, a length is below a second or above a day, or the stored rate
                cannot hold a frequency.
        """
        for field in ("seconds", "min_seconds"):
            # NaN fails this comparison as well.
            if not SHORTEST_SECONDS <= getattr(self, field) <= LONGEST_SECONDS:
                raise DataError(
                    f"--{field}={getattr(self, field):g}: at least {SHORTEST_SECONDS:g} s are needed, and "
                    f"{LONGEST_SECONDS:g} s are the most"
                )
        num_samples = self.seconds * self.sampling_rate_hz
        # A product such as 2.3 s at 100 Hz is 229.99… in binary fractions.
        if abs(num_samples - round(num_samples)) > 1e-6:
            raise DataError(
                f"--seconds={self.seconds:g} at --target_rate_hz={self.sampling_rate_hz} is {num_samples:g} samples, "
                "a whole number is needed"
            )
        for field, known in (("baseline", BASELINES), ("cut", CUTS), ("pad", PADS)):
            if getattr(self, field) not in known:
                raise DataError(f"--{field}={getattr(self, field)}: choose one of {', '.join(known)}")
        for field in ("notch_hz", "highpass_hz", "lowpass_hz"):
            frequency = getattr(self, field)
            if frequency is not None and not LOWEST_HZ <= frequency < self.sampling_rate_hz / 2:
                raise DataError(
                    f"--{field}={frequency:g}: must lie between {LOWEST_HZ:g} and {self.sampling_rate_hz / 2:g} Hz, "
                    "half of the stored rate"
                )
        if self.highpass_hz and self.lowpass_hz and self.highpass_hz >= self.lowpass_hz:
            raise DataError(f"--highpass_hz={self.highpass_hz:g} is not below --lowpass_hz={self.lowpass_hz:g}")

    @property
    def signal_format(self) -> SignalFormat:
        """Rate and length of what is stored."""
        num_samples = round(self.seconds * self.sampling_rate_hz)
        return SignalFormat(sampling_rate_hz=self.sampling_rate_hz, num_samples=num_samples)

    @property
    def has_filters(self) -> bool:
        """Whether anything but resampling changes a signal: a filter, or the removal of the baseline."""
        return self.baseline != "keep" or any((self.notch_hz, self.highpass_hz, self.lowpass_hz))

    def changed(self, **changes: Any) -> SignalRecipe:
        """Returns the recipe with some fields changed, and with a name that says which.

        Args:
            **changes: New values by the field's name.

        Raises:
            DataError: A changed field is not valid, as for a new recipe.
        """
        changes = {field: value for field, value in changes.items() if value != getattr(self, field)}
        if not changes:
            return self
        suffix = ",".join(f"{field}={value}" for field, value in sorted(changes.items()))
        return dataclasses.replace(self, name=f"{self.name}({suffix})", **changes)

    def to_json(self) -> dict[str, Any]:
        """Returns every field by its name, for the card of a data set."""
        return dataclasses.asdict(self)


_NAMED = (
    # Signals stay as recorded, since filters remove what a network may use (ST segments, notches in QRS).
    SignalRecipe(name="plain", version=1),
    # This is what a bedside monitor shows, for sources with strong wander and muscle noise.
    SignalRecipe(name="monitor", version=1, highpass_hz=0.5, lowpass_hz=40.0),
    # The median takes the wander out without bending the ST segment as a high-pass filter does.
    SignalRecipe(name="level", version=1, baseline="median"),
)

#: Every named recipe, by its name.
RECIPES: Mapping[str, SignalRecipe] = types.MappingProxyType({recipe.name: recipe for recipe in _NAMED})
