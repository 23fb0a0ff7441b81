"""The units that a file states for its leads, compared with the declaration."""

from __future__ import annotations

import re

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.refusals import header_disagrees, missing_metadata, unreadable_header
from data_pipelines.lead_names import standard_lead
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import Kind, hertz_per, seconds_per, voltage
from data_pipelines.statements.stated import Statement, Statements, disagreement
from data_pipelines.statements.stated_values import shown
from data_pipelines.system.counted import named

# Units that mean that samples are not calibrated.
_UNCALIBRATED = frozenset(
    {"adu", "adus", "count", "counts", "adc", "adcunit", "adcunits", "lsb", "lsbs", "raw", "digital", "bit", "bits"}
    | {"au", "a.u."}
)
_COUNTS = _UNCALIBRATED | {"none", "nd", "nan", "na", "n/a", "unknown", "-", ""}


def settled_units(
    units: list[tuple[str, str]] | None, names: tuple[str, ...], declared: Declared, source: str
) -> tuple[str, ...]:
    """Returns a unit for every channel, with an empty text for channels that are no standard lead.

    Args:
        units: Unit of each channel and the name of the statement that has it, as `stated_units` returns them; None
            where the file states none, so that the declared unit is taken.
        names: Names of the channels.
        declared: Declaration of the user, which must agree with the file's units.
        source: Name of the file, for messages.

    Raises:
        RecordError: A stated unit differs from the declared one (`header_disagrees`), or a lead has neither
            (`missing_metadata`).
    """
    if units is None:
        unit = declared.unit_of(source)
        # The declared unit is that of the leads and does not apply to a column of times.
        return tuple(unit if standard_lead(name) else "" for name in names)
    if declared.unit is not None:
        for name, (unit, where) in zip(names, units, strict=True):
            if unit and standard_lead(name) and (voltage(unit) or unit) != (voltage(declared.unit) or declared.unit):
                raise disagreement(source, where, f"the unit {unit}", f"--declared_unit says {declared.unit}")
    without = [name for name, (unit, _) in zip(names, units, strict=True) if standard_lead(name) and not unit]
    if without and declared.unit is None:
        raise missing_metadata(f"{source}: does not state the unit of {named(without, 'lead')}; say it for all leads")
    filled = (unit or (declared.unit or "") for unit, _ in units)
    return tuple(unit if standard_lead(name) else "" for name, unit in zip(names, filled, strict=True))


def check_calibrated(stated: Statements, declared: Declared, *, source: str) -> None:
    """Raises if a file without a scale states that its samples are converter counts.

    Args:
        stated: Statements of the file.
        declared: Declaration of the user.
        source: Name of the file, for messages.

    Raises:
        RecordError: The samples are counts, and a unit was declared (`header_disagrees`) or not (`missing_metadata`).
    """
    for statement in stated.of(Kind.UNIT):
        texts = (statement.value,) if isinstance(statement.value, str) else statement.value
        if isinstance(texts, tuple) and any(text.strip(" ()[]").casefold() in _UNCALIBRATED for text in texts):
            but = f", but --declared_unit says {declared.unit}" if declared.unit else ""
            raise RecordError(
                f"{source}: '{statement.where}' states the unit {shown(texts)}, counts without a scale{but}; state a "
                "gain, or what a count is (uv_per_bit)",
                reason="header_disagrees" if declared.unit else "missing_metadata",
            )


def stated_units(
    stated: Statements, names: tuple[str, ...], units_of_names: tuple[str, ...], source: str
) -> list[tuple[str, str]] | None:
    """Returns the unit of each lead and the name of the statement that has it; None where no unit is stated.

    Args:
        stated: Statements of the file.
        names: Names of the leads.
        units_of_names: Unit that each name ends with, or empty.
        source: Name of the file, for messages.

    Raises:
        RecordError: Two statements differ (`header_disagrees`), or one is no unit (`unreadable_header`).
    """
    found: list[tuple[str, str]] = [(unit, name) for unit, name in zip(units_of_names, names, strict=True)]
    for statement in stated.of(Kind.UNIT):
        for column, unit in enumerate(_units_of(statement, names, source)):
            if not unit:
                continue
            if found[column][0] and (voltage(found[column][0]) or found[column][0]) != (voltage(unit) or unit):
                known, where = found[column]
                raise disagreement(source, where, f"the unit {known}", f"'{statement.where}' {unit}")
            found[column] = (unit, statement.where)
    return found if any(unit for unit, _ in found) else None


def _units_of(statement: Statement, names: tuple[str, ...], source: str) -> tuple[str, ...]:
    """Returns the unit of each lead that one statement has, or an empty text.

    Args:
        statement: Statement of a unit or of several.
        names: Names of the leads.
        source: Name of the file, for messages.

    Raises:
        RecordError: The statement is no unit (`unreadable_header`), or has another number of units than there are leads
            (`header_disagrees`).
    """
    value = statement.value
    if isinstance(value, np.ndarray):
        raise unreadable_header(
            f"{source}: '{statement.where}' states a unit of {shown(value)}, which is no unit; correct or rename it"
        )
    texts = (value,) if isinstance(value, str) else value
    # One text may list the units of all leads, such as 'mV, mV, uV'.
    if len(texts) == 1 and not voltage(texts[0]) and len(re.split(r"[,;\s]+", texts[0])) == len(names) > 1:
        texts = tuple(re.split(r"[,;\s]+", texts[0]))
    units = tuple(_plain_unit(text) for text in texts)
    if statement.of_leads:
        by_lead = {lead_key(lead): unit for lead, unit in zip(statement.of_leads, units, strict=True)}
        return tuple(by_lead.get(lead_key(name), "") for name in names)
    # One unit, or the same for a list of any length, is that of every lead.
    if len(set(units)) == 1:
        return units[:1] * len(names)
    if len(units) != len(names):
        raise header_disagrees(
            f"{source}: '{statement.where}' states {len(units)} units ({shown(texts)}) for {len(names)} leads; state "
            "one, or one a lead"
        )
    return units


def _plain_unit(text: str) -> str:
    """Returns a voltage in standard spelling, an empty text for counts and units of time, and other units unchanged."""
    text = text.strip(" ()[]")
    if text.casefold() in _COUNTS or seconds_per(text) or (hertz_per(text) and not voltage(text)):
        return ""
    return voltage(text) or text


def lead_key(name: str) -> str:
    """Returns a key that is the same for all spellings of a lead: its standard name, or the name in lower case."""
    return standard_lead(name) or name.strip().casefold()
