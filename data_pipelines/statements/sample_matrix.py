"""Makes a recording from a matrix of samples, the statements of its file, and the user's declaration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.files.refusals import unreadable_header
from data_pipelines.files.samples import Matrix, row_blocks
from data_pipelines.metadata import recorder_fields
from data_pipelines.recording import Recording
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import Kind, stated_name
from data_pipelines.statements.nested_values import NamedValue
from data_pipelines.statements.stated import Statement, Statements, statements
from data_pipelines.statements.stated_leads import (
    LeadNames,
    check_leads_declared,
    check_num_leads,
    lead_names,
    stated_leads,
    stated_orientation,
)
from data_pipelines.statements.stated_rates import StatedRate, rates_of_times, settled_rate, stated_rates
from data_pipelines.statements.stated_scales import calibrated
from data_pipelines.statements.time_axis import check_numbers

#: Names that a file may have for its samples, in any case.
SIGNAL_NAMES = ("signal", "ecg", "data", "val")

_FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("patient_id", "patientid", "patient id"), recorder_fields.PATIENT_ID),
    "age": recorder_fields.AGE,
    "sex": recorder_fields.SEX,
}


def is_signal_name(name: str) -> bool:
    """Returns whether a name is one of `SIGNAL_NAMES`."""
    return name.casefold() in SIGNAL_NAMES


def is_matrix(value: object) -> bool:
    """Returns whether a value is a numeric matrix in which neither axis has length one."""
    return isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "iuf" and min(value.shape) > 1


def described_fields(values: Iterable[NamedValue]) -> dict[str, str]:
    """Returns patient id, age and sex as texts, as far as a file states them, under the names that all formats share.

    Args:
        values: Named values of the file.
    """
    found: dict[str, str] = {}
    for value in values:
        field = _FIELDS.get(value.path[-1].casefold()) if value.path else None
        if field is None or isinstance(value.value, tuple):
            continue
        if isinstance(value.value, str):
            found.setdefault(field, value.value)
        elif value.value.size == 1:
            found.setdefault(field, str(value.value.reshape(())))
    return found


def matrix_recording(
    samples: Matrix, path: Path, declared: Declared, *, values: Sequence[NamedValue], beside: Sequence[str] = ()
) -> Recording:
    """Returns the recording of a matrix and the other values of its file.

    Args:
        samples: Matrix of the samples, as `stated_recording` takes it.
        path: Path of the file, for messages.
        declared: Declaration of the user.
        values: Values of the file besides the samples.
        beside: Path of the group or struct that the samples are in.

    Raises:
        RecordError: The statements are incomplete or contradictory (`missing_metadata`, `header_disagrees`).
    """
    stated = statements(values, beside=beside)
    return stated_recording(samples, path, declared, stated=stated, fields=described_fields(values))


def stated_recording(
    samples: Matrix, path: Path, declared: Declared, *, stated: Statements, fields: Mapping[str, str]
) -> Recording:
    """Returns the recording of a matrix and the statements of its file.

    Args:
        samples: Numbers, `[time, lead]` or `[lead, time]`, read by rows, or a structured array, `[time]`, with one
            field per lead.
        path: Path of the file.
        declared: Declaration for what the file does not state.
        stated: Statements of the file.
        fields: Metadata that the file states, as `described_fields` returns them.

    Raises:
        RecordError: The samples or a statement cannot be interpreted (`unreadable_header`), something is not stated
            (`missing_metadata`), or statements contradict each other, the declaration or the samples
            (`header_disagrees`).
    """
    source, leads = str(path), None
    if isinstance(samples, np.ndarray) and samples.dtype.names and samples.ndim == 1:
        leads = lead_names(samples.dtype.names, "names of its columns")
        samples = _columns(samples, source)
    if samples.dtype.kind not in "iuf":
        raise unreadable_header(f"{path}: its samples are of type {samples.dtype}; numbers are needed")
    if leads is None:
        leads = stated_leads(stated, declared, shape=samples.shape, source=source)
        orientation = stated_orientation(stated, declared, source=source)
    else:
        check_leads_declared(leads, declared, source=source)
        orientation = "time_lead"
    names = declared.leads_of(source) if leads is None else leads.names
    by_time = declared.by_time(samples, num_leads=len(names), source=source, orientation=orientation)
    leads = leads or LeadNames(names, ("",) * len(names), "")
    return recording_of(by_time, leads, stated, declared, fields=fields, source=source)


def recording_of(
    samples: Matrix,
    leads: LeadNames,
    stated: Statements,
    declared: Declared,
    *,
    fields: Mapping[str, str],
    source: str,
    rates: Iterable[StatedRate] = (),
) -> Recording:
    """Returns the recording of samples whose axes and channel names are known.

    Args:
        samples: Matrix of the samples, `[time, channel]`; channels of times and of sample numbers are checked.
        leads: Names of the channels.
        stated: Other statements of the file.
        declared: Declaration for what the file does not state.
        fields: Metadata that the file states, as `described_fields` returns them.
        source: Name of the file, for messages.
        rates: Rates that have been found already.

    Raises:
        RecordError: A statement cannot be interpreted (`unreadable_header`), something is not stated
            (`missing_metadata`), or statements contradict each other, the declaration or the samples
            (`header_disagrees`).
    """
    num_samples, num_channels = samples.shape
    rates = [*rates, *_rates_of_columns(samples, leads.names, stated, source)]
    num_others = sum(not {Kind.TIMES, Kind.INDEX}.isdisjoint(stated_name(name).kinds) for name in leads.names)
    check_num_leads(stated, num_channels - num_others, num_samples=num_samples, source=source)
    rates += stated_rates(stated, num_samples=num_samples, source=source)
    rate = settled_rate(rates, stated, declared, num_samples=num_samples, source=source)
    made = calibrated(samples, leads, stated, declared, source=source)
    return Recording(
        source=source, signal=made.samples, sampling_rate_hz=rate, channels=leads.names, units=made.units, fields=fields
    )


def _columns(table: np.ndarray, source: str) -> np.ndarray:
    """Returns the columns of a structured array, `f64[time, column]`."""
    names = table.dtype.names or ()
    if wrong := [name for name in names if table.dtype[name].kind not in "iuf"]:
        message = f"{source}: its column '{wrong[0]}' is of type {table.dtype[wrong[0]]}; numbers are needed"
        raise unreadable_header(message)
    return np.stack([table[name].astype(np.float64) for name in names], axis=1)


def _column(samples: Matrix, column: int) -> np.ndarray:
    """Returns one column of samples, `[time]`; a matrix that can be read only by rows is read block by block."""
    if isinstance(samples, np.ndarray):
        return samples[:, column]
    return np.concatenate([samples[start:stop][:, column] for start, stop in row_blocks(samples.shape)])


def _rates_of_columns(samples: Matrix, names: tuple[str, ...], stated: Statements, source: str) -> list[StatedRate]:
    """Checks the channels that are times or sample numbers, and returns the rates that times state.

    A channel that states a rate or a sampling interval is added to `stated`.
    """
    rates: list[StatedRate] = []
    for column, text in enumerate(names):
        name = stated_name(text)
        if Kind.INDEX in name.kinds:
            check_numbers(_column(samples, column), name=text, source=source)
        elif Kind.TIMES in name.kinds:
            rates += rates_of_times(_column(samples, column), name=text, unit=name.unit, source=source)
        elif Kind.RATE in name.kinds or (Kind.INTERVAL in name.kinds and not name.weak):
            kind = Kind.RATE if Kind.RATE in name.kinds else Kind.INTERVAL
            stated.add(kind, Statement(where=text, value=np.unique(_column(samples, column))[:9], unit=name.unit))
    return rates
