"""The unit and scale of samples as a file states them, compared with the declaration.

A gain (converter counts per unit) or a step (units per count), with a zero, says what counts mean. Samples that are all
whole numbers are such counts, and samples with fractions have already been scaled. The file is refused where this is
ambiguous, which is the case for whole numbers that are said to be in microvolts.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.refusals import header_disagrees, missing_metadata, unreadable_header
from data_pipelines.files.samples import Matrix, as_float, converted, row_blocks
from data_pipelines.lead_names import standard_lead
from data_pipelines.recording import Samples
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import Kind, voltage
from data_pipelines.statements.stated import Statement, Statements, disagreement
from data_pipelines.statements.stated_leads import LeadNames
from data_pipelines.statements.stated_units import check_calibrated, lead_key, settled_units, stated_units
from data_pipelines.statements.stated_values import quantity, shown

# Possible resolutions of a converter, in bits.
_BITS = frozenset((8, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 32))

# Matches `200`, `200/mV`, `200(1024)/mV`, `4.88 uV`, `4.88 uV/bit`, `200 adu/mV`.
_WFDB_GAIN = re.compile(
    r"(?P<gain>[+-]?[\d.]+(?:e[+-]?\d+)?)\s*(?:\((?P<zero>-?\d+)\))?\s*(?:[a-z]*\s*/\s*(?P<unit>[a-zµμ]+))?", re.I
)


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scale by which counts become samples in a unit.

    Attributes:
        number: Units per count, or counts per unit, `f64[1]` or `f64[lead]`.
        is_gain: Whether the number is in counts per unit.
        unit: Unit of the scaled samples, or empty where the statement does not say.
        where: Name of the statement in the file.
    """

    number: np.ndarray
    is_gain: bool
    unit: str
    where: str

    @property
    def step(self) -> np.ndarray:
        """Units per count, `f64[1]` or `f64[lead]`."""
        return 1 / self.number if self.is_gain else self.number


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """Samples in their units.

    Attributes:
        samples: Samples, `[time, lead]`, read by rows.
        units: Unit of each lead.
    """

    samples: Samples
    units: tuple[str, ...]


def calibrated(samples: Matrix, leads: LeadNames, stated: Statements, declared: Declared, *, source: str) -> Calibrated:
    """Returns the samples in the units that file and declaration agree on.

    Args:
        samples: Samples as the file has them, `[time, lead]`.
        leads: Names of the leads, and the unit that each name ends with.
        stated: Statements of the file.
        declared: Declaration of the user.
        source: Name of the file, for messages.

    Raises:
        RecordError: No unit is stated or declared (`missing_metadata`), two statements differ or it is ambiguous
            whether a scale was applied (`header_disagrees`), or a stated scale is invalid (`unreadable_header`).
    """
    names = leads.names
    units = stated_units(stated, names, leads.units, source)
    if (said := stated.of(Kind.GAIN) + stated.of(Kind.STEP)) and _are_counts(samples):
        scales = _scales(stated, names, source)
        unit = _unit_of_scale(scales[0], units, names, declared, source) if scales else _SCALED_ALREADY
        if unit != _SCALED_ALREADY:
            return _scaled(samples, names, unit, scales, stated, source)
        said = said if scales else []
    elif said and units is None and declared.unit is None:
        raise missing_metadata(
            f"{source}: '{said[0].where}' states a scale, but its samples have fractions, so that they cannot be "
            "counts, and nothing states their unit; say it for all such files with --declared_unit"
        )
    if not said:
        check_calibrated(stated, declared, source=source)
    kept = samples if isinstance(samples, np.ndarray) and samples.dtype == np.float64 else as_float(samples)
    return Calibrated(kept, settled_units(units, names, declared, source))


def _scales(stated: Statements, names: tuple[str, ...], source: str) -> list[Scale]:
    """Returns the stated scales, without those that are 1 and name no unit."""
    scales = [_gain(statement, names, source) for statement in stated.of(Kind.GAIN)]
    scales += [_step(statement, names, source) for statement in stated.of(Kind.STEP)]
    return [scale for scale in scales if scale is not None and (scale.unit or not np.all(scale.step == 1))]


def _gain(statement: Statement, names: tuple[str, ...], source: str) -> Scale | None:
    value, unit = statement.value, statement.unit
    texts = (value,) if isinstance(value, str) else value
    if isinstance(texts, tuple):
        if any("mm" in text.casefold() for text in texts):
            return None  # This is the gain of a paper print.
        matches = [match for text in texts if (match := _WFDB_GAIN.fullmatch(text.strip()))]
        units = {(match["unit"] or "") for match in matches}
        if len(matches) != len(texts) or len(units) != 1:
            raise _no_scale(statement, source)
        numbers, unit = np.array([float(match["gain"]) for match in matches]), units.pop() or unit
    else:
        numbers = texts
    return Scale(_factors(statement, numbers, names, source), True, voltage(unit) or "", statement.where)


def _step(statement: Statement, names: tuple[str, ...], source: str) -> Scale | None:
    value, unit = statement.value, statement.unit
    if not isinstance(value, np.ndarray):
        texts = (value,) if isinstance(value, str) else value
        if any(
            "mm" in text.casefold() or "bit" in text.casefold().replace("/bit", "").replace("per bit", "")
            for text in texts
        ):
            return None  # This is the scale of a paper print, or the resolution of a converter in bits.
        found = quantity(tuple(re.split(r"\s*(?:/|per)\s*", text.strip())[0] for text in texts))
        if found is None:
            raise _no_scale(statement, source)
        value, unit = found[0], found[1] or unit
    steps = _factors(statement, value, names, source)
    if "resolution" in statement.where.casefold() and not voltage(unit) and set(steps) <= _BITS:
        return None
    return Scale(steps, False, voltage(unit) or "", statement.where)


def _factors(statement: Statement, value: np.ndarray, names: tuple[str, ...], source: str) -> np.ndarray:
    factors = _of_each_lead(statement, value, names, source)
    if not np.all(np.isfinite(factors)) or np.any(factors == 0):
        raise _no_scale(statement, source)
    return factors


def _of_each_lead(statement: Statement, value: np.ndarray, names: tuple[str, ...], source: str) -> np.ndarray:
    values = np.asarray(value, np.float64).reshape(-1)
    if statement.of_leads:
        by_lead = {lead_key(lead): entry for lead, entry in zip(statement.of_leads, values, strict=True)}
        return np.array([by_lead.get(lead_key(name), np.nan if standard_lead(name) else 1.0) for name in names])
    if len(values) not in (1, len(names)):
        raise header_disagrees(
            f"{source}: '{statement.where}' states {len(values)} values ({shown(values)}) for {len(names)} leads; "
            "state one, or one a lead"
        )
    return values


def _no_scale(statement: Statement, source: str) -> RecordError:
    return unreadable_header(
        f"{source}: '{statement.where}' states a scale of '{shown(statement.value)}', which is none; a number that is "
        "not 0 is needed, with or without its unit"
    )


def _are_counts(samples: Matrix) -> bool:
    blocks = (samples[start:stop] for start, stop in row_blocks(samples.shape))
    return samples.dtype.kind in "iu" or all(np.all((rows == np.rint(rows)) | ~np.isfinite(rows)) for rows in blocks)


def _scaled(
    samples: Matrix, names: tuple[str, ...], unit: str, scales: list[Scale], stated: Statements, source: str
) -> Calibrated:
    """Returns counts in units, by the stated scales, which must agree.

    Args:
        samples: Counts, `[time, lead]`.
        names: Names of the leads; channels that are no standard lead are not scaled.
        unit: Unit of the scaled samples: `nV`, `uV`, `mV` or `V`.
        scales: Stated scales, at least one; a scale without a unit is in `unit`.
        stated: Statements of the file, which may include a zero.
        source: Name of the file, for messages.

    Raises:
        RecordError: Two scales or two zeros differ (`header_disagrees`).
    """
    first = scales[0]
    step = first.step * _MICROVOLTS[unit]
    for other in scales[1:]:
        # Steps are written with few digits, such as 4.88 µV for 5 mV over 1024 counts.
        other_step = other.step * _MICROVOLTS[other.unit or unit]
        if not np.allclose(step, other_step, rtol=1e-3, atol=0):
            also = f"'{other.where}' {shown(other_step)}"
            raise disagreement(source, first.where, f"{shown(step)} µV a count", also)
    is_lead = np.array([standard_lead(name) is not None for name in names])
    zero = np.where(is_lead, _zero(stated, names, source), 0.0)
    factor = np.where(is_lead, first.number, 1.0)

    def scaled(start: int, stop: int) -> np.ndarray:
        counts = samples[start:stop] - zero
        return counts / factor if first.is_gain else counts * factor

    return Calibrated(converted(samples.shape, scaled), tuple(unit if lead else "" for lead in is_lead))


#: Counts with WFDB's usual gain of 1000 per mV are whole microvolts, so a step of 1e-3 means that nothing is left to
#: scale.
_SCALED_ALREADY, _STEP_OF_1000 = "", 1e-3

_MICROVOLTS = {"nV": 1e-3, "uV": 1.0, "mV": 1e3, "V": 1e6}


def _unit_of_scale(
    scale: Scale, units: list[tuple[str, str]] | None, names: tuple[str, ...], declared: Declared, source: str
) -> str:
    """Returns the unit that counts are in after scaling; `_SCALED_ALREADY` where the samples are microvolts.

    Args:
        scale: Scale that the file states.
        units: Unit of each lead and the name of the statement that has it, as `stated_units` returns them.
        names: Names of the leads.
        declared: Declaration of the user.
        source: Name of the file, for messages.

    Raises:
        RecordError: No unit or no single unit is known (`missing_metadata`), or the unit contradicts the declaration or
            may be that of scaled samples (`header_disagrees`).
    """
    if scale.unit:
        if declared.unit is not None and voltage(declared.unit) != scale.unit:
            said, remedy = f"--declared_unit says {declared.unit}", "leave the declaration out, or correct one of them"
            raise disagreement(source, scale.where, f"counts of a scale in {scale.unit}", said, remedy)
        return scale.unit
    settled = settled_units(units, names, declared, source)
    of_leads = {unit for name, unit in zip(names, settled, strict=True) if standard_lead(name)}
    known = {voltage(unit) for unit in of_leads}
    unit = known.pop() if len(known) == 1 else None
    if unit is None:
        raise missing_metadata(
            f"{source}: '{scale.where}' states a scale without its unit, and the leads are in "
            f"{', '.join(sorted(of_leads))}; name it with its unit, such as uv_per_bit"
        )
    if unit == "uV" and np.all(scale.step == _STEP_OF_1000):
        return _SCALED_ALREADY
    if unit in ("uV", "nV"):
        raise header_disagrees(
            f"{source}: '{scale.where}' states a scale of {shown(scale.step)} {unit} a count, and its samples are "
            f"whole numbers said to be in {unit}; they may be counts or scaled already. Call it 'uv_per_bit' if they "
            "are counts, and take it out if not"
        )
    return unit


def _zero(stated: Statements, names: tuple[str, ...], source: str) -> np.ndarray:
    """Returns the count that stands for zero voltage: `f64[1]` for all leads, or `f64[lead]`."""
    zeros = []
    for statement in stated.of(Kind.GAIN):
        texts = (statement.value,) if isinstance(statement.value, str) else statement.value
        if isinstance(texts, tuple):
            inner = [match["zero"] for text in texts if (match := _WFDB_GAIN.fullmatch(text.strip()))]
            if len(inner) == len(texts) and all(inner):
                zeros.append((statement.where, _of_each_lead(statement, np.array(inner, float), names, source)))
    # In WFDB, the baseline takes precedence over the converter's zero.
    said = [statement for statement in stated.of(Kind.ZERO) if "adc" not in statement.where.casefold()]
    for statement in said or stated.of(Kind.ZERO):
        if (found := quantity(statement.value)) is None or found[1]:
            raise _no_scale(statement, source)
        zeros.append((statement.where, _of_each_lead(statement, found[0], names, source)))
    for where, other in zeros[1:]:
        if not np.allclose(zeros[0][1], other, rtol=0, atol=1e-6):
            raise disagreement(source, zeros[0][0], f"the zero {shown(zeros[0][1])}", f"'{where}' {shown(other)}")
    return zeros[0][1] if zeros else np.zeros(1)
