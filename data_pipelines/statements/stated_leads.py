"""Lead names and orientation that a file states, compared with the declaration."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np

from data_pipelines.lead_names import standard_lead
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import Kind, voltage
from data_pipelines.statements.stated import Statement, Statements, disagreement
from data_pipelines.statements.stated_values import one_number, shown

# Matches 'I (mV)', 'I [µV]', 'I/mV', and also 'II_uV' and 'II mV', but not with a bare V, which may be part of a name.
_WITH_UNIT = re.compile(
    r"(?P<name>.*?)\s*(?:[(\[{]\s*(?P<inner>[^()\[\]{}\s]+)\s*[)\]}]|/\s*(?P<after>[^\s/]+)|"
    r"[\s_.,-]+(?P<bare>[munµμ]v|[a-zµμ]*volts?))",
    flags=re.IGNORECASE,
)
# Matches 'I V' and 'V1_V'; it counts only where the text before the V is a lead name by itself.
_WITH_VOLT = re.compile(r"(?P<name>.*?)[\s_.]+V", flags=re.IGNORECASE)
_SEPARATORS = re.compile(r"\s*[,;|/]\s*|\s+")

_TIME_WORDS = ("time", "times", "t", "sample", "samples", "samp", "timesteps", "steps", "points", "nsamples")
_LEAD_WORDS = frozenset(
    ["lead", "leads", "channel", "channels", "chan", "ch", "c", "l", "signals", "electrodes", "nleads", "nsig"]
)
_WORDS_OF_AXES = re.compile(r"[^\W_]+")
_PACKED_AXES = {"tc": "time_lead", "tl": "time_lead", "ct": "lead_time", "lt": "lead_time"}


@dataclasses.dataclass(frozen=True)
class LeadNames:
    """The names of leads in a file.

    Attributes:
        names: Names without units.
        units: Unit that each name ends with, or empty.
        where: Place of the names in the file.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    where: str


@functools.lru_cache(maxsize=4096)
def without_unit(name: str) -> tuple[str, str]:
    """Splits the unit of voltage off a name: `II [µV]` → (`II`, `uV`); without a unit, the second item is empty."""
    match = _WITH_UNIT.fullmatch(name.strip())
    unit = voltage(match["inner"] or match["after"] or match["bare"]) if match else None
    if unit is None and (volt := _WITH_VOLT.fullmatch(name.strip())) and standard_lead(volt["name"]):
        return volt["name"].strip(), "V"
    return (match["name"].strip(" _"), unit) if match and unit and match["name"] else (name.strip(), "")


def lead_names(names: Sequence[str], where: str) -> LeadNames:
    """Returns the names of leads without their units.

    Args:
        names: Names in the file, which may include units.
        where: Place of the names in the file.
    """
    pairs = [without_unit(name) for name in names]
    return LeadNames(tuple(name for name, _ in pairs), tuple(unit for _, unit in pairs), where)


def stated_leads(stated: Statements, declared: Declared, *, shape: tuple[int, ...], source: str) -> LeadNames | None:
    """Returns the lead names that all statements and the declaration agree on; None where no statement has any.

    Args:
        stated: Statements of the file.
        declared: Declaration of the user.
        shape: Shape of the matrix of samples.
        source: Name of the file, for messages.

    Raises:
        RecordError: The statements or the declaration differ (`header_disagrees`).
    """
    if not (found := [leads for leads in map(_of_statement, stated.of(Kind.LEADS)) if leads is not None]):
        return None
    # A list of another length may name the columns of a table that includes times.
    fitting = [leads for leads in found if len(leads.names) in shape]
    chosen = (fitting or found)[0]
    for other in found:
        if not _same(chosen.names, other.names):
            also = f"'{other.where}' {shown(other.names)}"
            raise disagreement(source, chosen.where, f"the lead names {shown(chosen.names)}", also)
    check_leads_declared(chosen, declared, source=source)
    return chosen


def check_leads_declared(leads: LeadNames, declared: Declared, *, source: str) -> None:
    """Checks that the declaration, if any, names the same leads in the same order, in any spelling.

    Args:
        leads: Lead names that the file states.
        declared: Declaration of the user.
        source: Name of the file, for messages.

    Raises:
        RecordError: The declared lead names differ (`header_disagrees`).
    """
    if declared.leads is not None and not _same(declared.leads, leads.names):
        said = f"--declared_leads says {', '.join(declared.leads)}"
        raise disagreement(source, leads.where, f"the lead names {', '.join(leads.names)}", said)


def check_num_leads(stated: Statements, num_leads: int, *, num_samples: int, source: str) -> None:
    """Checks the numbers of leads and of samples that a file states against its contents.

    Args:
        stated: Statements of the file.
        num_leads: Number of leads in the file.
        num_samples: Number of samples per lead.
        source: Name of the file, for messages.

    Raises:
        RecordError: A stated number is wrong (`header_disagrees`).
    """
    for kind, actual in ((Kind.NUM_LEADS, num_leads), (Kind.NUM_SAMPLES, num_samples)):
        for statement in stated.of(kind):
            if (found := one_number(statement.value)) is None or statement.is_weak:
                continue
            number, unit = found
            if number == int(number) > 0 and not unit and number != actual:
                said = f"a {kind.value} of {number:g}"
                raise disagreement(source, statement.where, said, f"it holds {actual}")


def stated_orientation(stated: Statements, declared: Declared, *, source: str) -> str | None:
    """Returns the orientation that the declaration and the file's statements agree on; None where there is neither.

    Args:
        stated: Statements of the file.
        declared: Declaration of the user.
        source: Name of the file, for messages.

    Raises:
        RecordError: Two of them differ (`header_disagrees`).
    """
    orientation, said_by = declared.orientation, f"--declared_orientation says {declared.orientation}"
    for statement in stated.of(Kind.ORIENTATION):
        if (own := orientation_of(statement.value)) is None:
            continue
        if orientation is not None and own != orientation:
            raise disagreement(source, statement.where, f"the orientation {own}", said_by)
        orientation, said_by = own, f"'{statement.where}' {own}"
    return orientation


def orientation_of(value: str | tuple[str, ...] | np.ndarray) -> str | None:
    """Returns `time_lead` or `lead_time` if texts name both axes, such as `samples x channels`, else None."""
    if isinstance(value, np.ndarray):
        return None
    text = " ".join(value) if isinstance(value, tuple) else value
    words = [word.casefold() for word in _WORDS_OF_AXES.findall(text)]
    words = [word for word in words if word not in ("n", "num", "number", "of", "x", "by", "axis", "major", "dim")]
    if len(words) == 1 and words[0] in _PACKED_AXES:
        return _PACKED_AXES[words[0]]
    # 'Channels first' and 'channels last' name the axes of arrays in deep learning.
    if len(words) == 2 and words[0] in _LEAD_WORDS and words[1] in ("first", "last"):
        return "lead_time" if words[1] == "first" else "time_lead"
    if len(words) != 2:
        return None
    if words[0] in _TIME_WORDS and words[1] in _LEAD_WORDS:
        return "time_lead"
    return "lead_time" if words[0] in _LEAD_WORDS and words[1] in _TIME_WORDS else None


def _of_statement(statement: Statement) -> LeadNames | None:
    value = statement.value
    if isinstance(value, np.ndarray):
        return None
    names = _SEPARATORS.split(value.strip(" ()[]{}")) if isinstance(value, str) else value
    leads = lead_names([name.strip(" '\"") for name in names], statement.where)
    num_known = sum(standard_lead(name) is not None for name in leads.names)
    # A single text, or one under an ambiguous name, counts as lead names only if it holds several known leads.
    if num_known < 2 and (statement.is_weak or isinstance(value, str)):
        return None
    return leads


def _same(first: Sequence[str], second: Sequence[str]) -> bool:
    first, second = _plain(first), _plain(second)
    if len(first) == len(second):
        return first == second
    # One of the lists may name further columns, such as times; the leads among them must be the same.
    leads = [[name for name in names if standard_lead(name)] for names in (first, second)]
    return bool(leads[0]) and leads[0] == leads[1]


def _plain(names: Sequence[str]) -> list[str]:
    return [standard_lead(without_unit(name)[0]) or name.strip().casefold() for name in names]
