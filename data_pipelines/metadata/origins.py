"""Determines the origin of a record, as far as it decides its scale: errors of scale affect all records of one origin.

An origin is a place (the set of a builder, or a folder of the source), a form (format and rate) and the scale that the
file states. It is a text, `place | form | scale`, which a build keeps beside the records; parts may be empty.
"""

from __future__ import annotations

import re

from data_pipelines.recording import Recording

_BETWEEN = " | "

#: Number of different calibrations within a recording up to which they are named one by one.
_MOST_SCALES = 2

_GAIN = re.compile(r"(?P<gain>\d+(\.\d*)?(e[+-]?\d+)?)/(?P<unit>mv|uv|µv|μv|v)", flags=re.IGNORECASE)
_PER_MILLIVOLT = {"mv": 1.0, "uv": 1e3, "µv": 1e3, "μv": 1e3, "v": 1e-3}


def origin_of(recording: Recording, *, place: str = "", form: str = "") -> str:
    """Returns the origin of a recording.

    Args:
        recording: Recording as its file has it.
        place: Set or folder of the source that the recording is in.
        form: Format of the recording's file.
    """
    rate = f"{form} at {recording.sampling_rate_hz:g} Hz".strip()
    return origin_text(place, rate, stated_scale(recording))


def origin_text(place: str, form: str, scale: str) -> str:
    """Returns an origin, `place | form | scale`, from its parts."""
    return _BETWEEN.join(part.replace("|", "/") for part in (place, form, scale))


def origin_parts(origin: str) -> tuple[str, str, str]:
    """Returns place, form and scale (stated gain and unit) of an origin; empty for a record that has none."""
    parts = [part.strip() for part in origin.split("|")]
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ("", "", "")


def stated_scale(recording: Recording) -> str:
    """Returns the scale that a file states: gains with their unit where it has them, else the unit alone."""
    if len(scales := list(dict.fromkeys(recording.scales or recording.units))) > _MOST_SCALES:
        return "a scale of each lead's own"
    return ", ".join(scales)


def units_per_millivolt(scale: str) -> float | None:
    """Returns the number of units per millivolt that a stated gain means; None if the text states none, or several.

    Args:
        scale: Scale of an origin, such as `200/mV`.
    """
    if (match := _GAIN.fullmatch(scale)) is None or not float(match["gain"]):
        return None
    return float(match["gain"]) * _PER_MILLIVOLT[match["unit"].casefold()]


def folder_of(record_id: str) -> str:
    """Returns the first folder of a record id that is a path; empty where there is none."""
    first, slash, _ = record_id.partition("/")
    return f"{first}/" if slash else ""
