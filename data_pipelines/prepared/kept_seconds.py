"""Sums up the seconds of recordings that a data set stores, and those that were dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipelines.prepared.index import Index
from data_pipelines.records import SignalFormat


def kept_seconds(index: Index, signal_format: SignalFormat) -> dict[str, Any]:
    """Returns sums over the recordings that have a record in the data set.

    Args:
        index: Index of the data set.
        signal_format: Format of the records.

    Returns:
        A mapping with `recordings`, their number; `recorded`, `kept` and `dropped`, the seconds of all, of what was
        stored and of what was not; `cut`, the number of recordings that are not stored as a whole; `longest`, the
        length of the longest recording in seconds; and `unknown`, the number of records whose recording has no known
        length, which the other entries leave out. The mapping is empty for an index without such columns.
    """
    if index.recording is None or index.recording_seconds is None:
        return {}
    known = ~np.isnan(index.recording_seconds)
    recording, first = np.unique(np.asarray(index.recording)[known], return_index=True)
    place = np.searchsorted(recording, np.asarray(index.recording)[known])
    seconds = np.asarray(index.recording_seconds)[known][first]
    # Pieces of one recording add up to what is kept of it.
    stored = np.asarray(index.valid_samples)[known] / signal_format.sampling_rate_hz
    # A recording whose length is not a whole number of stored samples is stored with one sample more.
    kept = np.minimum(np.bincount(place, weights=stored, minlength=len(recording)), seconds)
    dropped = seconds - kept
    return {
        "recordings": len(recording),
        "recorded": float(seconds.sum()),
        "kept": float(kept.sum()),
        "dropped": float(dropped.sum()),
        "cut": int(np.count_nonzero(dropped > 1 / signal_format.sampling_rate_hz)),
        "longest": float(seconds.max(initial=0.0)),
        "unknown": int(np.count_nonzero(~known)),
    }


def kept_sentence(seconds: Mapping[str, Any]) -> str:
    """Returns a sentence on the result of `kept_seconds`."""
    parts = [
        f"{_number(seconds['kept'])} s kept of {_number(seconds['recorded'])} s recorded in "
        f"{_counted(seconds['recordings'])}; {_number(seconds['dropped'])} s dropped"
    ]
    if seconds["cut"]:
        parts.append(
            f"{_counted(seconds['cut'])} not stored whole (the longest recording has {_number(seconds['longest'])} s)"
        )
    parts += [f"records from recordings of unknown length: {seconds['unknown']:,}"] if seconds["unknown"] else []
    return "; ".join(parts)


def place_text(index: Index, signal_format: SignalFormat, number: int) -> str:
    """Returns a text on the position of a record in its recording; empty if this is unknown or the record is all of it.

    Args:
        index: Index of the data set.
        signal_format: Format of the records.
        number: Number of the record.
    """
    if index.recording_seconds is None or index.start_seconds is None or np.isnan(index.recording_seconds[number]):
        return ""
    whole, start = float(index.recording_seconds[number]), float(index.start_seconds[number])
    stored = int(index.valid_samples[number]) / signal_format.sampling_rate_hz
    if whole - stored <= 1 / signal_format.sampling_rate_hz:
        return ""
    return f"{stored:.6g} s of a recording of {whole:.6g} s, from {start:.6g} s on"


def _counted(count: int) -> str:
    return f"{count:,} recording{'' if count == 1 else 's'}"


def _number(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")
