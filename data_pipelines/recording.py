"""What every reader returns: one recording as its file declares it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from data_pipelines.records import Remark


class Samples(Protocol):
    """Samples of a recording, `f64[time, channel]` wherever they are looked at; a NumPy array of that type is one.

    Others (`readers/samples.py`) hold what the file has, or where it lies, and convert the rows that are asked for.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """`(time, channel)`."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Returns some rows, `f64[time, channel]`.

        Raises:
            RecordError: the file cannot be read any more.
        """
        ...

    def __mul__(self, factor: float, /) -> Samples:
        """Returns the samples times a number."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording, nothing about it decided yet: channels, units and rate are the file's own.

    Attributes:
        source: what to name in messages, usually the path of the file.
        signal: `f64[time, channel]` in `units`, read by slices of rows; NaN where the file marks a sample as invalid.
        sampling_rate_hz: samples per second and channel.
        channels: name of each channel as spelled in the file; they need not all be ECG leads.
        units: physical unit of each channel as spelled in the file.
        fields: free `key: value` metadata of the file, keys as spelled there.
        remarks: what a build should tell of it though it can be stored.
        scales: scale of each channel as stated, such as `1000/mV`; empty where the file states none.
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
        """Returns the recording with all its channels multiplied, which its stated scales then say."""
        if factor == 1:
            return self
        scales = tuple(f"{scale} times {factor:g}" for scale in self.scales or self.units)
        return dataclasses.replace(self, signal=self.signal * factor, scales=scales)

    def field(self, name: str) -> str | None:
        """Returns the metadata value under `name`, whatever its capitals, or None."""
        wanted = name.strip().casefold()
        return next((value for key, value in self.fields.items() if key.casefold() == wanted), None)
