"""Finds recordings that a data set holds twice at two sizes, and tells by their groups which size is wrong.

Only a copy at another factor proves that a stated scale is wrong; the amplitude of a group merely raises a suspicion.
Here suspects are compared with all records of the set, by signatures and then by the signals, and the factor is taken
from the scales that both state, if these explain it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.calibration.doubts import AMPLITUDE_MV
from data_pipelines.calibration.groups import Measured
from data_pipelines.duplicates.near_duplicates import Alignable, candidates_among, match
from data_pipelines.duplicates.signature import band_of
from data_pipelines.metadata.origins import origin_parts, units_per_millivolt
from data_pipelines.records import SignalFormat
from data_pipelines.shards.parts import ShardPart, by_shard
from data_pipelines.storage.array_record_shard import opened
from data_pipelines.storage.example_format import parse

#: Smallest cosine between the signatures of a recording at two factors, which differ only by rounding and clipping.
MIN_COSINE = 0.98
MIN_AGREEMENT = 0.995

#: Largest ratio between the factors of the single leads for them to count as one factor.
SAME_FACTOR = 1.05

#: Smallest factor that counts; a copy that differs by less was rescaled on purpose, or filtered.
SMALLEST_FACTOR = 1.5

#: Factors between units and gains that are often confused; a measured factor within `NEAR` of one, or of its inverse,
#: is taken for it. `NEAR` is a difference of logarithms.
KNOWN_FACTORS = (2.0, 2.5, 4.0, 4.88, 5.0, 8.0, 10.0, 20.0, 24.0, 25.0, 40.0, 50.0, 100.0, 200.0, 1000.0)
NEAR = 0.02

#: Difference of log amplitudes from the usual one by which the right record of two must be nearer to it, where neither
#: group's amplitude is doubted.
CLEARLY = 0.4

#: Limit on comparisons of signatures, above which they would take minutes: only every k-th suspect is compared then.
MAX_COMPARED = 4_000_000_000

_MAX_CANDIDATES = 8
_SIGNALS_AT_A_TIME = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledCopy:
    """A suspect (a record whose scale is doubted) and another record of the same recording at another size.

    Attributes:
        suspect: Number of the suspect.
        other: Number of the other record.
        factor: Factor by which the suspect must be multiplied to have the size of the other record.
        is_proven: Whether the evidence shows that the other record's size is the right one.
    """

    suspect: int
    other: int
    factor: float
    is_proven: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """The result of a search for copies.

    Attributes:
        copies: Copies that were found, at most one for each suspect; a proven one is preferred.
        num_compared: Number of suspects that were compared.
    """

    copies: tuple[ScaledCopy, ...]
    num_compared: int


class StoredSignals:
    """Reads signals of a build's records by their numbers in stored order."""

    def __init__(self, parts: Sequence[ShardPart], shards: Sequence[Path], signal_format: SignalFormat):
        self._parts, self._shards, self._format = parts, shards, signal_format

    def bands(self, numbers: np.ndarray) -> dict[int, np.ndarray]:
        """Returns the bands of records by record number, `f32[8, samples]` each, as `signature.band_of` makes them."""
        bands = {}
        for shard, inside, positions in by_shard(self._parts, numbers):
            with contextlib.closing(opened(self._shards[shard])) as reader:
                examples = reader.read(positions.tolist())
            for number, example in zip(inside.tolist(), examples, strict=True):
                bands[number] = self._band(parse(example))
        return bands

    def _band(self, feature: Mapping) -> np.ndarray:
        return band_of(
            np.frombuffer(feature["signal"].bytes_list.value[0], np.int16).reshape(self._format.shape),
            sampling_rate_hz=self._format.sampling_rate_hz,
            valid_start=feature["valid_start"].int64_list.value[0],
            valid_samples=feature["valid_samples"].int64_list.value[0],
        )


def scaled_copies(
    suspects: np.ndarray,
    measured: Measured,
    *,
    too_large: np.ndarray,
    parts: Sequence[ShardPart],
    signals: StoredSignals,
) -> Search:
    """Finds other records that show the suspects' recordings at another size.

    Args:
        suspects: Numbers of records to look for, `int64[n]`: their scale (stated gain and unit) is doubted, or is rare
            in their folder or set.
        measured: Measurements of all records of the set.
        too_large: Logarithm of the factor by which each record seems too large, `f64[records]`; 0 where it is not
            doubted.
        parts: Parts of the set's shards.
        signals: Signals of the set.
    """
    step = max(1, -(-len(suspects) * len(measured.origin) // MAX_COMPARED))
    suspects = np.sort(suspects)[::step]
    pairs = _alike(suspects, parts)
    best: dict[int, ScaledCopy] = {}
    for start in range(0, len(pairs), _SIGNALS_AT_A_TIME):
        some = pairs[start : start + _SIGNALS_AT_A_TIME]
        ready = {number: Alignable(band) for number, band in signals.bands(np.unique(some)).items()}
        for suspect, other in some.tolist():
            if (factor := _factor(ready[suspect], ready[other])) is None:
                continue
            found, known = _copy(suspect, other, factor, measured, too_large), best.get(suspect)
            if found is not None and (known is None or found.is_proven > known.is_proven):
                best[suspect] = found
    return Search(copies=tuple(_once(best)), num_compared=len(suspects))


def _once(best: Mapping[int, ScaledCopy]) -> Iterator[ScaledCopy]:
    """Yields copies in order of the suspects; of two suspects that are each other's copy, only one is yielded.

    Args:
        best: Best copy of each suspect, by the suspect's number.
    """
    for suspect in sorted(best):
        copy = best[suspect]
        back = best.get(copy.other)
        is_said = back is not None and back.other == suspect and (back.is_proven or copy.other < suspect)
        if copy.is_proven or not is_said:
            yield copy


def _alike(suspects: np.ndarray, parts: Sequence[ShardPart]) -> np.ndarray:
    """Returns pairs of suspects and records with nearly equal signatures, `int64[pairs, 2]`, shard by shard.

    Args:
        suspects: Record numbers, `int64[n]`.
        parts: Parts of the set's shards.
    """
    placed = by_shard(parts, suspects)
    asked = np.concatenate([parts[shard].column("signature")[positions] for shard, _, positions in placed])
    pairs, start = [], 0
    for part in parts:
        if part.num_stored:
            signatures = part.column("signature")
            found = candidates_among(asked, signatures, min_cosine=MIN_COSINE, max_candidates=_MAX_CANDIDATES)
            pairs.append(np.stack([suspects[found.first], found.second + start], axis=1))
        start += part.num_stored
    joined = np.concatenate(pairs)
    # Every suspect is also found as its own copy.
    return joined[joined[:, 0] != joined[:, 1]]


def _factor(suspect: Alignable, other: Alignable) -> float | None:
    """Returns how many times as large as the suspect the other record is, equally in all leads.

    It returns None where the two are not the same recording, or leads differ in the factor.
    """
    if (found := match(suspect, other)) is None or not found.is_near_duplicate or found.agreement < MIN_AGREEMENT:
        return None
    one, two = (np.sqrt(np.mean(np.square(each.band), axis=1, dtype=np.float64)) for each in (suspect, other))
    both = (one > 0) & (two > 0)
    ratios = two[both] / one[both]
    return found.gain if ratios.max() <= SAME_FACTOR * ratios.min() else None


def _copy(suspect: int, other: int, factor: float, measured: Measured, too_large: np.ndarray) -> ScaledCopy | None:
    if abs(np.log(factor)) < np.log(SMALLEST_FACTOR):
        return None
    explained = _explained(suspect, other, factor, measured)
    is_proven = explained is not None and too_large[other] == 0
    if too_large[suspect]:
        is_proven &= bool(np.sign(too_large[suspect]) == -np.sign(np.log(factor)))
    else:
        is_proven &= _is_more_usual(suspect, other, measured)
    return ScaledCopy(suspect=suspect, other=other, factor=explained or factor, is_proven=is_proven)


def _is_more_usual(suspect: int, other: int, measured: Measured) -> bool:
    """Returns whether the other record's amplitude is clearly nearer to the usual one, and its gain stated more often.

    Args:
        suspect: Number of the suspect.
        other: Number of the other record.
        measured: Measurements of all records of the set.
    """
    distance, other_distance = np.abs(np.log(measured.values[[suspect, other], 0] / AMPLITUDE_MV))
    scales = np.array([origin_parts(origin)[2] for origin in measured.origins])
    counts = np.bincount(measured.origin, minlength=len(scales))
    own, others = (counts[scales == scales[measured.origin[number]]].sum() for number in (suspect, other))
    return bool(other_distance + CLEARLY < distance) and others > own


def _explained(suspect: int, other: int, factor: float, measured: Measured) -> float | None:
    """Returns the ratio of the stated gains if it is near the measured factor, else a known factor near it, else None.

    Args:
        suspect: Number of the suspect.
        other: Number of the other record.
        factor: Measured factor.
        measured: Measurements of all records of the set.
    """
    origins = (measured.origins[measured.origin[number]] for number in (suspect, other))
    own, others = (units_per_millivolt(origin_parts(origin)[2]) for origin in origins)
    candidates = [own / others] if own and others else []
    candidates += [each for known in KNOWN_FACTORS for each in (known, 1 / known)]
    return next((candidate for candidate in candidates if abs(np.log(candidate / factor)) < NEAR), None)
