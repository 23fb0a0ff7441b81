"""The type that every reader returns: one recording as its file declares it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from data_pipelines.records import Remark


class Samples(Protocol):
    """Samples of a recording, which read as `f64[time, channel]`; a NumPy array of that type is one implementation.

    Other implementations (`files/samples.py`) keep the file's numbers, or their position in the file, and convert rows
    when they are accessed.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Shape `(time, channel)`."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Returns some rows, `f64[time, channel]`.

        Raises:
            RecordError: The file can no longer be read.
        """
        ...

    def __mul__(self, factor: float, /) -> Samples:
        """Returns the samples times a number."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording as its file states it: channels, units and rate are the file's own, and nothing is checked yet.

    Attributes:
        source: Name of the recording for messages, usually the path of the file.
        signal: `f64[time, channel]` in `units`, read by slices of rows; NaN where the file marks a sample as invalid.
        sampling_rate_hz: Samples per second of each channel.
        channels: Name of each channel as spelled in the file; they need not all be ECG leads.
        units: Physical unit of each channel as spelled in the file.
        fields: Free `key: value` metadata of the file, with keys as spelled there.
        remarks: Remarks that a build reports although the recording can be stored.
        scales: Scale of each channel as stated, such as `1000/mV`; empty where the file states none.
    """

    source: str
    signal: Samples
    sampling_rate_hz: float
    channels: tuple[str, ...]
    units: tuple[str, ...]
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    scales: tuple[str, ...] = ()

    def rescaled(self, factor: float) -> Recording:
        """Returns the recording with all channels multiplied by a factor; its stated scales then mention the factor."""
        if factor == 1:
            return self
        scales = tuple(f"{scale} times {factor:g}" for scale in self.scales or self.units)
        return dataclasses.replace(self, signal=self.signal * factor, scales=scales)

    def field(self, name: str) -> str | None:
        """Returns the metadata value under `name`, whatever its capitals, or None."""
        wanted = name.strip().casefold()
        return next((value for key, value in self.fields.items() if key.casefold() == wanted), None)
