"""Groups records that share an origin and judges their size, sampling rate and polarity, wrong in all or in none.

An origin is a place (a folder or set of the source), a form (file format and sampling rate) and a scale (the stated
gain and unit).

A header that states a gain of 200 where 1000 is true makes all leads five times too large. No check of a single record
notices that, since people differ by more than that in size. A group of enough people shows it: its median is compared
with that of adults and with that of all other records of the set.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from data_pipelines.calibration.doubts import MIN_PATIENTS, Numbers, doubts_of
from data_pipelines.calibration.size_and_polarity import MEASURES
from data_pipelines.metadata.origins import origin_parts, origin_text

#: Number of places above which the places of a source are patients or days rather than archives.
MAX_PLACES = 40


#: Median age in years below which a group is of children.
ADULT = 16

#: Limits beyond which a single record is doubted, if its amplitude is steady; that of artefacts is not.
RECORD_AMPLITUDE_MV = (0.4, 7.8)
RECORD_CHEST_TO_LIMB = (0.25, 15.0)
STEADY = 0.12

#: Ratio to the rest of the set beyond which a group is compared with all other records for copies, which prove what is
#: wrong.
SUSPECT = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Records of one origin, with measures and doubts.

    Attributes:
        origin: Origin that they share.
        records: Record numbers, `int64[n]`.
        num_patients: Number of patients among the records.
        numbers: Median, 5th and 95th percentile of each of `MEASURES`; None where none is known.
        doubts: Sentences that say what is wrong with the records; empty where nothing is.
        factor: Factor by which the records seem too large, 1 where their size is not doubted.
    """

    origin: str
    records: np.ndarray
    num_patients: int
    numbers: Numbers
    doubts: tuple[str, ...]
    factor: float = 1.0

    @property
    def is_doubted(self) -> bool:
        """Whether anything is wrong with the records."""
        return bool(self.doubts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Measures, origins, patients and ages of all records of a set.

    Attributes:
        values: Values of `size_and_polarity.MEASURES`, `f32[n, 9]`.
        origin: Position of each record's origin in `origins`, `int64[n]`.
        origins: All origins of the set.
        patient: Codes of patients, `int64[n]`.
        age_years: Ages, `f32[n]`, NaN where unknown.
    """

    values: np.ndarray
    origin: np.ndarray
    origins: Sequence[str]
    patient: np.ndarray
    age_years: np.ndarray

    def column(self, name: str, records: np.ndarray) -> np.ndarray:
        """Returns the known values of a measure of some records, `f32[known]`.

        Args:
            name: Name of the measure, one of `MEASURES`.
            records: Record numbers, `int64[n]`.
        """
        values = self.values[records, MEASURES.index(name)]
        return values[np.isfinite(values)]


def judged_groups(measured: Measured) -> list[Group]:
    """Divides records into groups by their origin and judges each; the largest groups come first."""
    groups = [
        Group(
            origin=origin,
            records=records,
            num_patients=len(np.unique(measured.patient[records])),
            numbers={name: _spread(measured.column(name, records)) for name in MEASURES},
            doubts=(),
        )
        for origin, records in sorted(_members(measured).items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return [_judged(group, groups, measured) for group in groups]


def rare_scales(measured: Measured, *, share: float) -> np.ndarray:
    """Returns the numbers of records whose stated gain and unit are rare among the records of the same place.

    Args:
        measured: Measures and origins of all records; a place is the folder or set in an origin.
        share: Share of a place's records below which a gain is rare.

    Returns:
        Record numbers, `int64[rare records]`.
    """
    parts = [origin_parts(origin) for origin in measured.origins]
    count = np.bincount(measured.origin, minlength=len(parts))
    of_place: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for (place, _, scale), number in zip(parts, count.tolist(), strict=True):
        of_place[place][scale] += number
    rare = [of_place[place][scale] < share * of_place[place].total() for place, _, scale in parts]
    return np.flatnonzero(np.array(rare, bool)[measured.origin]) if parts else np.zeros(0, np.int64)


def far_records(groups: Sequence[Group], measured: Measured) -> np.ndarray:
    """Returns the numbers of records, `int64[n]`, whose group's median amplitude is far from that of others."""
    far = [np.zeros(0, np.int64)]
    for group in groups:
        others = measured.column("amplitude_mv", _others(group, groups))
        size = group.numbers["amplitude_mv"]
        if size is not None and len(others) and abs(math.log(size[0] / np.median(others))) > math.log(SUSPECT):
            far.append(group.records)
    return np.concatenate(far)


def doubtful_records(measured: Measured) -> dict[int, str]:
    """Returns, by record number, a sentence about every record with an implausible measure, whatever its group is."""
    found: dict[int, str] = {}
    steady = measured.values[:, MEASURES.index("unsteady")] < STEADY
    for name, (low, high), words, unit in (
        ("amplitude_mv", RECORD_AMPLITUDE_MV, "its largest lead moves by", " mV"),
        ("chest_to_limb", RECORD_CHEST_TO_LIMB, "its chest leads as a multiple of its limb leads:", ""),
    ):
        values = measured.values[:, MEASURES.index(name)]
        for number in np.flatnonzero(steady & ((values < low) | (values > high))).tolist():
            found.setdefault(number, f"{words} {values[number]:.3g}{unit}, {low:g} to {high:g}{unit} is plausible")
    return found


def _members(measured: Measured) -> dict[str, np.ndarray]:
    """Returns the record numbers of each group, `int64[n]`, by a text for what its records share.

    A group has one origin where that has enough patients; else it joins origins that share form or place, but always
    the scale. Records that are still too few form one group of their own.
    """
    parts = [origin_parts(origin) for origin in measured.origins]
    if len({place for place, _, _ in parts}) > MAX_PLACES:
        parts = [("", form, scale) for _, form, scale in parts]
    left = np.arange(len(measured.origin))
    members: dict[str, np.ndarray] = {}
    # Whether place and form are shared, the closest group first; the scale always is, since it is what is judged.
    for by_place, by_form in ((True, True), (True, False), (False, True), (False, False)):
        of_name: dict[str, list[int]] = collections.defaultdict(list)
        for code, (place, form, scale) in enumerate(parts):
            of_name[origin_text(place if by_place else "", form if by_form else "", scale)].append(code)
        few = [np.zeros(0, np.int64)]
        for name, codes in of_name.items():
            records = left[np.isin(measured.origin[left], codes)]
            if len(np.unique(measured.patient[records])) < MIN_PATIENTS:
                few.append(records)
            else:
                members[name] = np.concatenate([members[name], records]) if name in members else records
        left = np.sort(np.concatenate(few))
    if len(left):
        members[origin_text("", "", "others, too few of an origin to judge")] = left
    return members


def _others(group: Group, groups: Sequence[Group]) -> np.ndarray:
    """Returns the records of all other groups."""
    return np.concatenate([np.zeros(0, np.int64), *(each.records for each in groups if each is not group)])


def _judged(group: Group, groups: Sequence[Group], measured: Measured) -> Group:
    if group.num_patients < MIN_PATIENTS:
        return group
    found = doubts_of(
        group.numbers,
        {name: measured.column(name, group.records) for name in MEASURES},
        num_patients=group.num_patients,
        of_children=_is_of_children(group, measured),
        others_mv=measured.column("amplitude_mv", _others(group, groups)),
    )
    return dataclasses.replace(group, doubts=found.sentences, factor=found.factor)


def _is_of_children(group: Group, measured: Measured) -> bool:
    ages = measured.age_years[group.records]
    known = ages[np.isfinite(ages)]
    return bool(len(known)) and float(np.median(known)) < ADULT


def _spread(values: np.ndarray) -> tuple[float, float, float] | None:
    return tuple(np.percentile(values, (50, 5, 95)).tolist()) if len(values) else None
