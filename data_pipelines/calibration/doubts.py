"""Judges, in sentences, what is wrong with a group of records: a size, polarity or heart rate that people do not have.

All limits were set on 939 real recordings of five archives (PTB-XL, CODE-15 %, CPSC 2018 and two draws from the sets of
the PhysioNet challenges). The largest lead moves by 2.0 mV in the median there, in the band of comparison: by 1.7 mV in
PTB-XL, 1.0 in Georgia, 3.0 in CODE-15 %. Archives differ so much that a factor of 5 is always seen, and one of 2.5 only
where it makes a group larger or smaller than these. No archive is doubted, alone or with the others, nor are those with
low voltage, with hypertrophy, of children, of the slowest or of the fastest hearts alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

#: Median, 5th and 95th percentile by name of a measure (`size_and_polarity.py`); None where none is known.
Numbers = Mapping[str, tuple[float, float, float] | None]

#: Smallest number of patients of a group; smaller groups are judged together with those they have most in common with.
MIN_PATIENTS = 5

#: Usual values, as medians over adults.
AMPLITUDE_MV = 2.0
CHEST_TO_LIMB = 1.9

#: Limits of a group's median. In a group that is too large, all but a twentieth also lie above `LARGEST_LOW_MV`.
LARGEST_MEDIAN_MV, LARGEST_LOW_MV = 3.4, 1.9
SMALLEST_MEDIAN_MV = 0.8

#: Factor by which a group of children may be larger, since their chest walls are thin.
OF_CHILDREN = 1.3

#: Limits of the median of chest leads as a multiple of limb leads.
LARGEST_CHEST_TO_LIMB, SMALLEST_CHEST_TO_LIMB = 5.0, 0.7

#: Limits are wider by e^(this / √n) for a group of n people, since the median of few people may be off by that.
FEW = 0.65

#: Median skewness below which a group is upside down; 2.6 is usual in leads whose QRS points upwards.
UPSIDE_DOWN = -1.0

#: Limits of a sampling rate that is wrong by a factor of two. At twice the true rate hearts beat faster than the first
#: (s between beats), complexes are narrower than the second (ms), and, since the band cuts them, less skewed than the
#: third; at half of it both are larger.
FAST_BEAT_S, FAST_WIDTH_MS, FAST_SKEWNESS = 0.47, 15.8, 1.8
SLOW_BEAT_S, SLOW_WIDTH_MS = 1.3, 20.0

#: Logarithmic spread below which the sizes of different people's records show that each was scaled to one size.
SAME_SIZE = 0.04


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doubts:
    """Doubts about a group.

    Attributes:
        sentences: Sentences, one for each thing that is wrong.
        factor: Factor by which the group seems too large, 1 where its size is not doubted.
    """

    sentences: tuple[str, ...]
    factor: float


def doubts_of(
    numbers: Numbers, values: Mapping[str, np.ndarray], *, num_patients: int, of_children: bool, others_mv: np.ndarray
) -> Doubts:
    """Judges a group of at least `MIN_PATIENTS` people.

    Args:
        numbers: Median and percentiles of the group's measures.
        values: Known values of the group's records, `f32[known]`, by name of a measure.
        num_patients: Number of people in the group.
        of_children: Whether the group's median age is that of a child.
        others_mv: `f32[n]`, amplitudes of the other records of the set, with which the sentences compare the group's.

    Returns:
        The doubts; without sentences where nothing is wrong.
    """
    slack = math.exp(FEW / math.sqrt(num_patients))
    size = numbers["amplitude_mv"]
    factor, sentences = 1.0, []
    if size is not None and _is_odd(size, slack=slack, of_children=of_children):
        factor = size[0] / AMPLITUDE_MV
        sentences.append(_size_doubt(size, factor, others_mv))
    sentences += _chest_doubt(numbers, slack) + _equal_size_doubt(values) + _polarity_doubt(numbers)
    # The limits of the rate are those of adults, and children's hearts beat faster.
    sentences += [] if of_children else _rate_doubt(numbers)
    return Doubts(sentences=tuple(sentences), factor=factor)


def _is_odd(size: tuple[float, float, float], *, slack: float, of_children: bool) -> bool:
    middle, low, _ = size
    largest = LARGEST_MEDIAN_MV * slack * (OF_CHILDREN if of_children else 1)
    return (middle > largest and low > LARGEST_LOW_MV) or middle < SMALLEST_MEDIAN_MV / slack


def _size_doubt(size: tuple[float, float, float], factor: float, others: np.ndarray) -> str:
    known = f", {np.median(others):.2g} mV in the other groups of this set" if len(others) else ""
    return (
        f"all leads seem {_times(factor)} too {'large' if factor > 1 else 'small'}: the largest lead moves by "
        f"{size[0]:.2g} mV in the median (5 to 95 %: {size[1]:.2g} to {size[2]:.2g}), by {AMPLITUDE_MV:g} mV in "
        f"adults{known}; the gain or unit that is stated may be wrong"
    )


def _times(factor: float) -> str:
    return f"{max(factor, 1 / factor):.2g} times"


def _chest_doubt(numbers: Numbers, slack: float) -> list[str]:
    ratio = numbers["chest_to_limb"]
    if ratio is None or SMALLEST_CHEST_TO_LIMB / slack <= ratio[0] <= LARGEST_CHEST_TO_LIMB * slack:
        return []
    factor = ratio[0] / CHEST_TO_LIMB
    return [
        f"the chest leads seem {_times(factor)} too {'large' if factor > 1 else 'small'} beside the limb leads: "
        f"{ratio[0]:.2g} times as large in the median, {CHEST_TO_LIMB:g} times in adults; one of the gains may be wrong"
    ]


def _equal_size_doubt(values: Mapping[str, np.ndarray]) -> list[str]:
    all_words = {"largest_mv": "largest sample", "span_mv": "span of samples", "deviation_mv": "standard deviation"}
    for name, words in all_words.items():
        if len(sizes := values[name]) < MIN_PATIENTS or sizes.min() <= 0:
            continue
        low, middle, high = np.percentile(sizes, (10, 50, 90))
        if math.log(high / low) < SAME_SIZE:
            return [
                f"the {words} of nearly every record is {middle:.3g} mV: each was scaled by itself, and its size in mV "
                "is lost"
            ]
    return []


def _polarity_doubt(numbers: Numbers) -> list[str]:
    if (upright := numbers["upright"]) is None or upright[0] > UPSIDE_DOWN:
        return []
    return [
        f"all leads seem to be upside down: QRS complexes of I, II, V5 and V6 point downwards (skewness "
        f"{upright[0]:.2g} in the median)"
    ]


def _rate_doubt(numbers: Numbers) -> list[str]:
    beat, width, upright = (numbers[name] for name in ("beat_s", "width_ms", "upright"))
    if beat is None or width is None or upright is None:
        return []
    too_fast = beat[0] < FAST_BEAT_S and width[0] < FAST_WIDTH_MS and abs(upright[0]) < FAST_SKEWNESS
    too_slow = beat[0] > SLOW_BEAT_S and width[0] > SLOW_WIDTH_MS
    if not (too_fast or too_slow):
        return []
    return [
        f"hearts seem to beat too {'fast' if too_fast else 'slowly'}: {60 / beat[0]:.0f} a minute in the median, and "
        f"QRS complexes are {'narrow' if too_fast else 'wide'} as well; the sampling rate that is stated may be wrong"
    ]
