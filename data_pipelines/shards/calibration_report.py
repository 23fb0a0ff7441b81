"""Handles doubtful scales (stated gains and units) in a build.

A scale that a copy of the recording proves wrong is corrected; the others are reported by group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.calibration.doubts import AMPLITUDE_MV, MIN_PATIENTS
from data_pipelines.calibration.groups import Group, Measured, doubtful_records, far_records, judged_groups, rare_scales
from data_pipelines.metadata.origins import origin_parts
from data_pipelines.prepared.index import key_codes
from data_pipelines.records import SignalFormat
from data_pipelines.shards.calibration_copies import MAX_COMPARED, Search, StoredSignals, scaled_copies
from data_pipelines.shards.merging import gathered
from data_pipelines.shards.parts import ShardPart, by_shard
from data_pipelines.shards.readback import PATIENT_KEY
from data_pipelines.signals.quality import QualityFlag
from data_pipelines.system.counted import counted

#: Numbers of groups and records that the card lists; it counts all of them.
_GROUPS_KEPT = 100
_RECORDS_KEPT = 1000

#: Shares of the records of one place below which a stated scale is suspected: always, and if time allows.
_RARE, _LESS_USUAL = 0.1, 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The judgement of the scales (stated gains and units) of a data set's records.

    Attributes:
        measured: Measurements of all records.
        groups: Groups of records with one origin.
        single: Sentences about what is wrong with single records, by record number.
        search: Copies of doubtful records at another size.
    """

    measured: Measured
    groups: tuple[Group, ...]
    single: Mapping[int, str]
    search: Search

    @property
    def flags(self) -> np.ndarray:
        """Flags of the records, `int32[n]`: `QualityFlag.CALIBRATION` if a record or its group is doubted."""
        flags = np.zeros(len(self.measured.origin), np.int32)
        numbers = [group.records for group in self.groups if group.is_doubted]
        numbers += [np.array([*self.single, *(copy.suspect for copy in self.search.copies)], np.int64)]
        flags[np.concatenate(numbers)] = int(QualityFlag.CALIBRATION)
        return flags


def judge_calibration(
    parts: Sequence[ShardPart], shards: Sequence[Path], *, signal_format: SignalFormat
) -> Calibration:
    """Judges the scale (stated gain and unit) of every record of a build whose shards are finished.

    Args:
        parts: Parts of all shards, in stored order.
        shards: Files of the shards.
        signal_format: Format of the records.
    """
    measured = _measured(parts)
    groups, single = tuple(judged_groups(measured)), doubtful_records(measured)
    # Logarithm of the factor by which a record seems too large; 0 where it is not doubted.
    too_large = np.zeros(len(measured.origin))
    sizes = np.log(measured.values[list(single), 0] / AMPLITUDE_MV)
    too_large[list(single)] = np.where(np.isfinite(sizes), sizes, 0)
    for group in groups:
        if group.factor != 1:
            too_large[group.records] = np.log(group.factor)
    suspects = _suspects(measured, groups, too_large)
    search = Search(copies=(), num_compared=0)
    if len(suspects):
        signals = StoredSignals(parts, shards, signal_format)
        search = scaled_copies(suspects, measured, too_large=too_large, parts=parts, signals=signals)
    return Calibration(measured=measured, groups=groups, single=single, search=search)


def proven_factors(judged: Calibration, parts: Sequence[ShardPart]) -> dict[str, float]:
    """Returns, by record id, the factors that correct the records whose stated gain a copy proves wrong.

    A record's samples must be multiplied by its factor.

    Args:
        judged: Judgement of the build's records.
        parts: Parts of the shards, in stored order.
    """
    proven = [copy for copy in judged.search.copies if copy.is_proven]
    names = record_ids(parts, [copy.suspect for copy in proven])
    return {names[copy.suspect]: copy.factor for copy in proven}


def with_factors(items: Sequence[Any], factors: Mapping[str, float]) -> Sequence[Any]:
    """Returns the items with their factors multiplied by those given; unchanged where items have no field `factor`.

    Args:
        items: Items of a builder, of which each stands for one recording of the source.
        factors: Factors by record id.
    """
    if not factors or not all(hasattr(item, "factor") for item in items[:1]):
        return items
    return [
        dataclasses.replace(item, factor=item.factor * factors[item.record_id]) if item.record_id in factors else item
        for item in items
    ]


def calibration_section(
    judged: Calibration, parts: Sequence[ShardPart], *, corrected: Mapping[str, float]
) -> dict[str, Any]:
    """Returns the section of a data set's card on scales (stated gains and units), as values that JSON can hold.

    Args:
        judged: Judgement of the records as they are stored.
        parts: Parts of the shards.
        corrected: Factors that records were multiplied by because a copy proved their stated gain wrong, by record id.
    """
    copies = judged.search.copies[:_RECORDS_KEPT]
    single = dict(list(judged.single.items())[:_RECORDS_KEPT])
    names = record_ids(parts, [*single, *(number for copy in copies for number in (copy.suspect, copy.other))])
    groups = sorted(judged.groups, key=lambda group: not group.is_doubted)
    return {
        "groups": [_group(group) for group in groups[:_GROUPS_KEPT]],
        "num_groups": len(groups),
        "corrected": dict(list(corrected.items())[:_RECORDS_KEPT]),
        "num_corrected": len(corrected),
        "contradicting": [[names[copy.suspect], names[copy.other], round(copy.factor, 4)] for copy in copies],
        "num_contradicting": len(judged.search.copies),
        "records": {names[number]: words for number, words in single.items()},
        "num_records": len(judged.single),
    }


def calibration_lines(section: Mapping[str, Any] | None) -> list[str]:
    """Returns the lines of a build's final report on scales (stated gains and units).

    There are none where no scale is doubted or corrected.

    Args:
        section: Section of the card that `calibration_section` made, or None for data sets that were built before it
            existed.
    """
    if section is None:
        return []
    lines = []
    if section["num_corrected"]:
        shown = [f"{name} × {factor:g}" for name, factor in list(section["corrected"].items())[:5]]
        lines.append(
            f"  CORRECTED SCALE     {counted(section['num_corrected'], 'record')} whose stated gain a copy of "
            f"the same recording "
            f"in this set proves wrong ({_some(shown, section['num_corrected'])})"
        )
    doubted = [group for group in section["groups"] if group["doubts"]]
    for group in doubted:
        lines.append(f"  WARNING: {counted(group['records'], 'record')} of '{_shown(group['origin'])}':")
        lines += [f"    {doubt}" for doubt in group["doubts"]]
    if section["num_contradicting"]:
        shown = [f"{one} is {1 / factor:.3g} times {other}" for one, other, factor in section["contradicting"][:5]]
        lines.append(
            f"  WARNING: {counted(section['num_contradicting'], 'record is', 'records are')} another record's "
            f"recording at another size, and "
            f"which is right is not known: {_some(shown, section['num_contradicting'])}"
        )
    if section["num_records"]:
        shown = [f"{name} ({words})" for name, words in list(section["records"].items())[:3]]
        some = _some(shown, section["num_records"])
        lines.append(f"  implausible size    {counted(section['num_records'], 'record')}: {some}")
    if doubted or section["num_contradicting"] or section["num_records"]:
        lines.append("    (quality flag 'calibration' marks these records; correct their headers, or leave them out)")
    return lines


def record_ids(parts: Sequence[ShardPart], numbers: Sequence[int]) -> dict[int, str]:
    """Returns the ids of records by their numbers in stored order."""
    names: dict[int, str] = {}
    for shard, inside, positions in by_shard(parts, np.unique(np.array(numbers, np.int64))):
        names |= dict(zip(inside.tolist(), parts[shard].column("record_id")[positions].tolist(), strict=True))
    return names


def _some(shown: Sequence[str], total: int) -> str:
    return "; ".join(shown) + ("; …" if total > len(shown) else "")


def _shown(origin: str) -> str:
    """Returns an origin without its empty parts."""
    return " | ".join(filter(None, origin_parts(origin))) or origin


def _suspects(measured: Measured, groups: Sequence[Group], too_large: np.ndarray) -> np.ndarray:
    """Returns the numbers of the records to compare with all others, `int64[n]`; only the worst if there are many.

    Args:
        measured: Measurements of all records.
        groups: Groups of records with one origin.
        too_large: Logarithm of the factor by which each record seems too large, `f64[records]`; 0 where it is not
            doubted.
    """
    small = [group.records for group in groups if group.num_patients < MIN_PATIENTS]
    lesser = (rare_scales(measured, share=_LESS_USUAL), far_records(groups, measured), *small)
    worst = np.union1d(np.flatnonzero(too_large), rare_scales(measured, share=_RARE))
    everyone = np.unique(np.concatenate([worst, *lesser]))
    return everyone if len(everyone) * len(too_large) <= MAX_COMPARED else worst


def _measured(parts: Sequence[ShardPart]) -> Measured:
    origins: dict[str, int] = {}
    codes = []
    for part in parts:
        # A part numbers its own origins, and one without records has none.
        of_part = [origins.setdefault(origin, len(origins)) for origin in part.origins]
        codes.append(np.array(of_part, np.int32)[part.column("origin")] if of_part else np.zeros(0, np.int32))
    return Measured(
        values=gathered(parts, "measures"),
        origin=np.concatenate(codes),
        origins=tuple(origins),
        patient=key_codes(gathered(parts, PATIENT_KEY)),
        age_years=gathered(parts, "age_years"),
    )


def _group(group: Group) -> dict[str, Any]:
    return {
        "origin": group.origin,
        "records": len(group.records),
        "patients": group.num_patients,
        "doubts": list(group.doubts),
        "factor": round(group.factor, 3),
        "numbers": {name: values and [round(value, 4) for value in values] for name, values in group.numbers.items()},
    }
