"""Recognises the twelve standard leads by name, in any published spelling; other names are no leads."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from data_pipelines.errors import RecordError
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.system.counted import named

# Accepted are 'II', 'Lead II', 'lead_ii', 'Lead-II', 'ECG Lead II', 'MDC_ECG_LEAD_II' (ISO/IEEE 11073, aECG and DICOM);
# aVR in any capitals; 'DI DII DIII' and 'D1 D2 D3', as the limb leads are written in South America and the south of
# Europe; and 'C1' to 'C6', IEC's names of V1 to V6. Names with a sign ('-aVR'), a modification ('MLII', 'II mod') or a
# bare number are other signals, and are not accepted.
_SPELLING = re.compile(
    r"(?:MDC[ _])?(?:(?:ECG|EKG)[ _.:-]?)?(?:LEAD[ _.:-]?)?"
    r"(?:D?(?P<limb>I{1,3})|D(?P<number>[123])|(?P<other>AV[RLF]|V[1-6])|C(?P<chest>[1-6]))",
    flags=re.IGNORECASE,
)
_BY_UPPERCASE = {lead.upper(): lead for lead in STANDARD_LEADS}


@functools.lru_cache(maxsize=4096)
def standard_lead(name: str) -> str | None:
    """Returns the standard name of a lead (`"AVR"` → `"aVR"`), or None where `name` is no standard lead."""
    if (match := _SPELLING.fullmatch(name.strip())) is None:
        return None
    if match["chest"]:
        return f"V{match['chest']}"
    return _BY_UPPERCASE[(match["limb"] or match["other"] or "I" * int(match["number"])).upper()]


def _is_iec(name: str) -> bool:
    """Returns whether the name of a standard lead is one of IEC's, `C1` to `C6`."""
    return name.strip()[-2:-1] in ("C", "c")


def lead_columns(channels: Sequence[str], *, source: str) -> dict[str, int]:
    """Finds the standard leads among a recording's channels.

    Leads I and II are never derived from other limb leads, since every 12-lead source has them.

    Args:
        channels: Names of the channels as the file spells them; those that are no standard lead are ignored.
        source: Name of the recording for messages.

    Returns:
        Column of every standard lead found; all of `STORED_LEADS` are among them.

    Raises:
        RecordError: A lead comes twice (`duplicate_lead`) or is missing (`missing_lead`).
    """
    columns: dict[str, int] = {}
    # Where there is a V3, a C3 is no lead but a position on the skull. An aVR ends in a V and a letter, and is no V3.
    has_v = any((standard_lead(name) or "").startswith("V") and not _is_iec(name) for name in channels)
    for column, name in enumerate(channels):
        if (lead := standard_lead(name)) is None or (has_v and _is_iec(name)):
            continue
        if lead in columns:
            raise RecordError(
                f"{source}: lead {lead} comes twice, as '{channels[columns[lead]]}' (channel {columns[lead]}) and "
                f"'{name}' (channel {column}); remove or rename one",
                reason="duplicate_lead",
            )
        columns[lead] = column
    if missing := [lead for lead in STORED_LEADS if lead not in columns]:
        raise RecordError(
            f"{source}: {named(missing, 'lead')} not found among its channels ({', '.join(channels) or 'none'}); "
            f"needed are {' '.join(STORED_LEADS)}, by name",
            reason="missing_lead",
        )
    return columns
