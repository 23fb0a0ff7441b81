"""Converts a recording as its file has it to the stored signal: units, checks and the recipe, as int16 µV.

Only what is stored is checked: the recipe determines which part of a longer recording is kept, and the checks
(`lead_checks.py`) are made on that part, before and after filtering and resampling. They run in a fixed order, and the
first that fails gives the reason. All thresholds are constants, so that two builds of one source by one recipe store
the same records.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.lead_names import lead_columns
from data_pipelines.recording import Recording
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STORED_LEADS
from data_pipelines.signals.filters import filtered, hold_finite, lay_end, margin, resample
from data_pipelines.signals.lead_checks import check_leads, check_stored, check_timing
from data_pipelines.signals.quality import STORED_LIMIT_UV
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.signals.window import Window, window_of
from data_pipelines.statements.names import voltage

#: Millivolts per unit, by the unit's canonical spelling.
MILLIVOLTS_PER_UNIT = {"mV": 1.0, "uV": 1e-3, "nV": 1e-6, "V": 1e3}

#: A lead with a larger share of its samples beyond what can be stored is refused. Fewer such samples are clipped, and
#: counted by `quality.clipped_samples`.
MOST_CLIPPED = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredSignal:
    """A signal ready to store.

    Attributes:
        signal: `int16[time, lead]`, µV, leads in the order of `STORED_LEADS`, zero where padded.
        valid_start: Position of the first recorded sample.
        valid_samples: Number of recorded samples from there on.
        recording_seconds: Length in seconds of the recording that the signal was taken from.
        start_seconds: Time of the first recorded sample within that recording, in seconds.
    """

    signal: np.ndarray
    valid_start: int
    valid_samples: int
    recording_seconds: float
    start_seconds: float


def stored_signal(recording: Recording, *, recipe: SignalRecipe, piece: int | None = None) -> StoredSignal:
    """Returns a recording, or a part of it, in the stored form.

    Args:
        recording: Recording with any channels, units and rate.
        recipe: Recipe of the stored signal.
        piece: Number, from 0 on, of the piece that is wanted, where a recording is cut into pieces; None for the part
            that the recipe keeps of a longer recording.

    Returns:
        The stored signal. Samples beyond ±32.767 mV are stored as that limit as long as their share of a lead is at
        most `MOST_CLIPPED`.

    Raises:
        RecordError: The signal cannot be stored. The reason is `missing_lead`, `duplicate_lead`, `wrong_unit`,
            `wrong_rate`, `too_short`, `nan`, `flat_lead`, `broken_gain`, `einthoven`, `out_of_range`, or
            `truncated_file` where the file can no longer be read.
    """
    source, rate = recording.source, recording.sampling_rate_hz
    columns = lead_columns(recording.channels, source=source)
    scaled = {lead: (column, _millivolts_per_unit(recording, column)) for lead, column in columns.items()}
    num_rows = recording.signal.shape[0]
    check_timing(num_rows, sampling_rate_hz=rate, min_seconds=recipe.min_seconds, source=source)
    window = window_of(num_rows, sampling_rate_hz=rate, recipe=recipe, source=source, piece=piece)
    try:
        microvolts = _microvolts_of(recording, window, scaled=scaled, recipe=recipe)
    except RecordError as error:
        if window.is_whole:
            raise
        raise RecordError(f"{error}; {_which_part(window, recipe, piece)}", reason=error.reason) from error
    missing = recipe.signal_format.num_samples - len(microvolts)
    valid_start = missing // 2 if recipe.pad == "both" else 0
    return StoredSignal(
        signal=np.pad(microvolts, ((valid_start, missing - valid_start), (0, 0))),
        valid_start=valid_start,
        valid_samples=len(microvolts),
        recording_seconds=num_rows / rate,
        start_seconds=window.start / recipe.sampling_rate_hz,
    )


def _which_part(window: Window, recipe: SignalRecipe, piece: int | None) -> str:
    """Returns a clause on which part of a recording was checked, and on how to keep another part.

    Args:
        window: Part of the recording.
        recipe: Recipe of the stored signal.
        piece: Number of the piece, from 0 on; None where the recording is not cut into pieces.
    """
    first, last, whole = (each / recipe.sampling_rate_hz for each in (window.start, window.stop, window.num_samples))
    part = f"this is about {first:.6g} to {last:.6g} s of its {whole:.6g} s"
    if piece is not None:
        return f"{part}, piece {piece + 1}; its other pieces are judged on their own"
    other = "center" if recipe.cut == "start" else "start"
    return f"{part}, which are kept: keep others with --cut={other}, or all that are good with --pieces"


def _microvolts_of(
    recording: Recording, window: Window, *, scaled: dict[str, tuple[int, float]], recipe: SignalRecipe
) -> np.ndarray:
    """Returns the checked samples of a window, `int16[time, lead]`, µV.

    Args:
        recording: Recording.
        window: Part of the recording.
        scaled: Column and millivolts per unit of each lead.
        recipe: Recipe of the stored signal.

    Raises:
        RecordError: A check fails, as `stored_signal` says.
    """
    source, rate = recording.source, recording.sampling_rate_hz
    start, stop = window.context(margin(recipe, sampling_rate_hz=rate, ratio=window.ratio))

    def leads_of(first: int, last: int) -> dict[str, np.ndarray]:
        samples = recording.signal[first:last]
        return {lead: samples[:, column] * factor for lead, (column, factor) in scaled.items()}

    leads = leads_of(start, stop)
    own = slice(window.rows[0] - start, window.rows[1] - start)
    check_leads({lead: values[own] for lead, values in leads.items()}, source=source)
    millivolts = _stacked(leads)
    if not window.is_whole:
        hold_finite(millivolts, own)
        begins, ends = start == 0, stop == window.num_rows
        if begins != ends and window.ratio != 1 and not recipe.has_filters:
            far = window.num_rows - 1 if begins else 0
            other_end = _stacked(leads_of(far, far + 1))[0]
            lay_end(millivolts, other_end, distance=window.num_rows - 1, begins=begins)
    millivolts = filtered(millivolts, sampling_rate_hz=rate, recipe=recipe)
    millivolts = resample(millivolts, source_rate_hz=rate, target_rate_hz=recipe.sampling_rate_hz, source=source)
    first = window.start - int(start * window.ratio)
    microvolts = _microvolts(millivolts[first : first + window.stop - window.start], source)
    check_stored(microvolts, sampling_rate_hz=recipe.sampling_rate_hz, is_filtered=recipe.has_filters, source=source)
    return microvolts


def _stacked(leads: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([leads[lead] for lead in STORED_LEADS], axis=1)


def _millivolts_per_unit(recording: Recording, column: int) -> float:
    unit = recording.units[column].strip()
    if (factor := MILLIVOLTS_PER_UNIT.get(voltage(unit) or "")) is None:
        raise RecordError(
            f"{recording.source}: lead {recording.channels[column]} is in '{unit}', which is no voltage; "
            "known units are mV, µV (uV), nV and V",
            reason="wrong_unit",
        )
    return factor


def _microvolts(millivolts: np.ndarray, source: str) -> np.ndarray:
    microvolts = np.rint(millivolts * MICROVOLTS_PER_MILLIVOLT)
    beyond = np.abs(microvolts) > STORED_LIMIT_UV
    worst = int(beyond.sum(axis=0).argmax())
    if (share := float(beyond[:, worst].mean())) > MOST_CLIPPED:
        raise RecordError(
            f"{source}: {share:.1%} of lead {STORED_LEADS[worst]} lie beyond ±{STORED_LIMIT_UV / 1e3:g} mV, up to "
            f"{np.abs(microvolts[:, worst]).max() / 1e3:.6g} mV; a wrong unit or gain, or nothing but artefact",
            reason="out_of_range",
        )
    return np.clip(microvolts, -STORED_LIMIT_UV, STORED_LIMIT_UV).astype(np.int16)
