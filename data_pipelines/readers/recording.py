"""What every reader returns: one recording as its file declares it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from data_pipelines.records import Remark


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording, nothing about it decided yet: channels, units and rate are the file's own.

    Attributes:
        source: what to name in messages, usually the path of the file.
        signal: `f64[time, channel]` in `units`; NaN where the file marks a sample as invalid.
        sampling_rate_hz: samples per second and channel.
        channels: name of each channel as spelled in the file; they need not all be ECG leads.
        units: physical unit of each channel as spelled in the file.
        fields: free `key: value` metadata of the file, keys as spelled there.
        remarks: what a build should tell of it though it can be stored.
    """

    source: str
    signal: np.ndarray
    sampling_rate_hz: float
    channels: tuple[str, ...]
    units: tuple[str, ...]
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()

    def field(self, name: str) -> str | None:
        """Returns the metadata value under `name`, whatever its capitals, or None."""
        wanted = name.strip().casefold()
        return next((value for key, value in self.fields.items() if key.casefold() == wanted), None)
