"""Finds near-duplicates: candidates by their signatures, then by a comparison of the signals themselves.

Two records are near-duplicates if they come from one recording, whatever the rate, filter, gain or piece of it.
Candidates are all pairs whose signatures have a large cosine, found by an exact blocked matrix product; each is then
aligned on the signals and judged by how well they agree.

Agreement is the correlation over the overlap, all leads counting alike, corrected for noise: a copy to which noise was
added differs as much between the beats as within them, whereas two people with similar hearts and rates differ within
them. The difference in the quiet half of the time is therefore subtracted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import scipy.fft

from data_pipelines.duplicates.signature import BAND_RATE_HZ, level_leads

#: Smallest cosine of signatures of a candidate; 0.014 % of the pairs of 930 real records reach it.
CANDIDATE_COSINE = 0.92

#: Largest number of candidates of a record that are compared, the closest first.
MAX_CANDIDATES = 16

#: Shortest overlap on which records are compared, after 0.3 s were left off at both ends.
MIN_OVERLAP_S = 4.0

#: Smallest agreement of near-duplicates; it is larger where the overlap is short, since a few beats are easily alike.
#: It was chosen on 431,914 pairs of 930 real records of different people, where the largest is 0.956 (0.961 below 6 s)
#: among those that correlate by more than 0.7, and on 4,981 simulated records, where it is 0.958 (0.980 below 6 s)
#: among the pairs with similar signatures and a correlation of 0.8. The smallest of 4,950 distorted copies of real
#: records is 0.977, with 60 µV of movement artefact, apart from some that saturated when enlarged fivefold.
MIN_AGREEMENT = 0.97
MIN_AGREEMENT_SHORT = 0.99
SHORT_OVERLAP_S = 6.0

#: Smallest correlation of near-duplicates without the correction for noise.
MIN_CORRELATION = 0.8

#: Rows and columns of the product that are in memory at a time, which takes 16 MB.
_BLOCK = 2048

# Beats are told from the time between them by the size of the signal within ±45 ms, the width of a QRS complex.
_QRS_SAMPLES = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """Alignment of the second record of a pair with the first.

    Attributes:
        correlation: Correlation over the overlap, mean over leads.
        agreement: Correlation corrected for the noise between the beats.
        lag_s: Seconds by which the second record begins later than the first.
        gain: Factor by which the second record is larger than the first.
        overlap_s: Seconds that were compared.
    """

    correlation: float
    agreement: float
    lag_s: float
    gain: float
    overlap_s: float

    @property
    def is_near_duplicate(self) -> bool:
        """Whether both records come from one recording."""
        needed = MIN_AGREEMENT if self.overlap_s >= SHORT_OVERLAP_S else MIN_AGREEMENT_SHORT
        return self.agreement >= needed and self.correlation >= MIN_CORRELATION

    def turned(self) -> Match:
        """Returns the alignment of the first record with the second."""
        return dataclasses.replace(self, lag_s=-self.lag_s, gain=1 / self.gain)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """Pairs of signatures that are alike.

    Attributes:
        first: `int64[pairs]`, smaller record number of each pair, or the query's.
        second: `int64[pairs]`, larger record number of each pair, or the signature's.
        crowded: Number of records with more candidates than may be kept, of which the closest were taken.
    """

    first: np.ndarray
    second: np.ndarray
    crowded: int


def candidates(
    signatures: np.ndarray,
    *,
    min_cosine: float = CANDIDATE_COSINE,
    max_candidates: int = MAX_CANDIDATES,
    progress: Callable[[int], None] = lambda rows: None,
) -> Candidates:
    """Finds all pairs of signatures that are alike, exactly.

    A record with more than `max_candidates` others keeps the closest; a pair is found if either record keeps it. Sums
    are of whole numbers below 2²⁴ and therefore exact in float32: apart from ties at the limit, neither the order of
    the records nor the blocks change what is found.

    Args:
        signatures: `int8[n, 192]`; all-zero ones have no candidates.
        min_cosine: Smallest cosine of a pair.
        max_candidates: Largest number of candidates that one record keeps.
        progress: Function that is told how many further records are done.

    Returns:
        The pairs, each once, in order of `first`, then `second`.
    """
    found = candidates_among(
        signatures, signatures, min_cosine=min_cosine, max_candidates=max_candidates, apart=True, progress=progress
    )
    unique = np.unique(np.sort(np.stack([found.first, found.second], axis=1), axis=1), axis=0)
    return Candidates(first=unique[:, 0], second=unique[:, 1], crowded=found.crowded)


def candidates_among(
    queries: np.ndarray,
    signatures: np.ndarray,
    *,
    min_cosine: float,
    max_candidates: int,
    apart: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> Candidates:
    """Finds for every query the signatures that are most like it, exactly.

    Args:
        queries: `int8[m, 192]`; all-zero ones have no candidates.
        signatures: `int8[n, 192]`; all-zero ones are no candidates.
        min_cosine: Smallest cosine of a pair.
        max_candidates: Largest number of candidates that one query keeps.
        apart: Whether the signature with the query's own number is left out.
        progress: Function that is told how many further queries are done.

    Returns:
        The pairs: `first` is the number of the query, `second` that of the signature; they are in order of both.
    """
    length = _lengths(signatures)
    pairs, crowded = [np.empty((0, 2), np.int64)], 0
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        row, other, cosine = _alike(block, signatures, length, min_cosine)
        row += start
        if apart:
            row, other, cosine = (each[row != other] for each in (row, other, cosine))
        kept, too_many = _closest(row, cosine, max_candidates)
        crowded += too_many
        pairs.append(np.stack([row[kept], other[kept]], axis=1))
        progress(len(block))
    unique = np.unique(np.concatenate(pairs), axis=0)
    return Candidates(first=unique[:, 0], second=unique[:, 1], crowded=crowded)


def _lengths(signatures: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.square(signatures, dtype=np.int64).sum(axis=1))
    length[length == 0] = np.inf
    return length


def _alike(
    block: np.ndarray, signatures: np.ndarray, length: np.ndarray, min_cosine: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the pairs of a query of the block and a signature whose cosine is large enough, ordered by query.

    Args:
        block: Signatures of some queries, `int8[queries, 192]`.
        signatures: `int8[n, 192]`.
        length: Euclidean length of each signature, `f64[n]`, infinite for zeros.
        min_cosine: Smallest cosine of a pair.

    Returns:
        Rows of `block`, rows of `signatures`, and cosines, each `[pairs]`.
    """
    block_length = _lengths(block)
    block = block.astype(np.float32)
    nothing = np.empty(0, np.int64)
    found = [(nothing, nothing, np.empty(0))]
    for start in range(0, len(signatures), _BLOCK):
        columns = slice(start, min(start + _BLOCK, len(signatures)))
        product = block @ signatures[columns].astype(np.float32).T
        # All signatures are nearly equally long, so one bound sorts out nearly all pairs in a single pass.
        least = min_cosine * block_length.min() * length[columns].min()
        row, column = np.divmod(np.flatnonzero(product >= np.float32(0.999 * least)), product.shape[1])
        cosine = product[row, column] / (block_length[row] * length[columns][column])
        near = cosine >= min_cosine
        found.append((row[near], column[near] + start, cosine[near]))
    row, other, cosine = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(row, kind="stable")
    return row[order], other[order], cosine[order]


def _closest(row: np.ndarray, cosine: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """Returns the positions of the largest cosines of every query, and the number of queries that had more.

    Args:
        row: Query of each pair, `int64[pairs]`.
        cosine: Cosine of each pair, `[pairs]`.
        most: Number of pairs to keep for each query.
    """
    order = np.lexsort((-cosine, row))
    ordered = row[order]
    rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    return order[rank < most], len(np.unique(ordered[rank >= most]))


class Alignable:
    """A record prepared for comparison with many others: its levelled leads, their energy and their spectra."""

    def __init__(self, band: np.ndarray):
        """Levels the leads and sums their energy.

        Args:
            band: `f32[8, samples]` from `signature.band_of`.
        """
        self.band = band
        self.leads = level_leads(band)
        self.energy = np.concatenate([[0.0], np.cumsum(np.square(self.leads).sum(axis=0, dtype=np.float64))])
        self._spectra: dict[int, np.ndarray] = {}

    @property
    def num_samples(self) -> int:
        """Length in samples of 10 ms."""
        return self.band.shape[1]

    def spectrum(self, size: int) -> np.ndarray:
        """Returns the leads' Fourier transform of a given size: `complex64[8, size // 2 + 1]`."""
        if size not in self._spectra:
            self._spectra[size] = scipy.fft.rfft(self.leads, size)
        return self._spectra[size]


def alignables(numbers: np.ndarray, read_bands: Callable[[np.ndarray], list[np.ndarray]]) -> dict[int, Alignable]:
    """Returns the records of some numbers, prepared for comparison, by number.

    Args:
        numbers: Record numbers, `int64[n]`, which may contain repetitions.
        read_bands: Function from record numbers to the bands of these records.
    """
    unique = np.unique(numbers)
    return dict(zip(unique.tolist(), map(Alignable, read_bands(unique)), strict=True))


def match(first: Alignable, second: Alignable) -> Match | None:
    """Aligns two records by cross-correlation, and measures how well they agree.

    Returns:
        The best match, or None where no overlap is long enough or no lead is other than flat in both records.
    """
    shortest = round(MIN_OVERLAP_S * BAND_RATE_HZ)
    if min(first.num_samples, second.num_samples) < shortest:
        return None
    size = scipy.fft.next_fast_len(first.num_samples + second.num_samples, real=True)
    product = (first.spectrum(size) * second.spectrum(size).conj()).sum(axis=0)
    lags = np.arange(shortest - second.num_samples, first.num_samples - shortest + 1)
    begin, end = np.maximum(lags, 0), np.minimum(first.num_samples, second.num_samples + lags)
    energy = (first.energy[end] - first.energy[begin]) * (second.energy[end - lags] - second.energy[begin - lags])
    if not (energy > 0).any():
        return None
    correlation = scipy.fft.irfft(product, size)[lags] / np.sqrt(np.where(energy > 0, energy, np.inf))
    peak = int(correlation.argmax())
    return _judge(first, second, lag=int(lags[peak]), fraction=_summit(correlation, peak), size=size)


def _summit(values: np.ndarray, peak: int) -> float:
    """Returns the position of a peak's top between samples, -0.5 … 0.5, by a parabola through it and its neighbours."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    before, at, after = values[peak - 1 : peak + 2].astype(np.float64)
    bend = before - 2 * at + after
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0


def _judge(first: Alignable, second: Alignable, *, lag: int, fraction: float, size: int) -> Match | None:
    # The second is shifted by the fraction of a sample, since copies of another rate would differ in their QRS
    # otherwise.
    frequency = np.arange(size // 2 + 1) / size
    turned = second.spectrum(size) * np.exp(-2j * np.pi * frequency * fraction).astype(np.complex64)
    moved = scipy.fft.irfft(turned, size)[:, : second.num_samples]
    begin, end = max(lag, 0), min(first.num_samples, second.num_samples + lag)
    one, two = level_leads(first.leads[:, begin:end]), level_leads(moved[:, begin - lag : end - lag])
    both = one.any(axis=1) & two.any(axis=1)
    if not both.any():
        return None
    one, two = one[both], two[both]
    difference = np.square(one - two).mean(axis=0)
    size_of_signal = np.convolve(np.square(one + two).sum(axis=0), np.ones(_QRS_SAMPLES), mode="same")
    quiet = difference[np.argsort(size_of_signal, kind="stable")[: len(difference) // 2]].mean()
    # For leads of unit mean square, the mean square of the difference is twice one minus the correlation.
    lacking = float(difference.mean()) / 2
    ratios = _rms(second.band[both, begin - lag : end - lag]) / _rms(first.band[both, begin:end])
    return Match(
        correlation=1 - lacking,
        agreement=1 - max(lacking - float(quiet) / 2, 0.0),
        lag_s=(lag + fraction) / BAND_RATE_HZ,
        gain=float(np.median(ratios)),
        overlap_s=(end - begin) / BAND_RATE_HZ,
    )


def _rms(band: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(np.square(band), axis=1, dtype=np.float64))


def verify(
    found: Candidates, read_bands: Callable[[np.ndarray], list[np.ndarray]], *, pairs_at_a_time: int = 1024
) -> Iterator[tuple[int, int, Match]]:
    """Compares the signals of candidate pairs.

    Args:
        found: Pairs of records to compare.
        read_bands: Function from record numbers to the bands of these records, which `signature.band_of` makes of their
            signals.
        pairs_at_a_time: Number of pairs that are compared before other records are read; it bounds the memory, since
            the bands of at most twice as many records are held, about 120 kB each.

    Yields:
        Both numbers and their match for every pair that can be compared, near-duplicates or not, in order.
    """
    for start in range(0, len(found.first), pairs_at_a_time):
        first, second = found.first[start : start + pairs_at_a_time], found.second[start : start + pairs_at_a_time]
        ready = alignables(np.concatenate([first, second]), read_bands)
        for one, two in zip(first.tolist(), second.tolist(), strict=True):
            if (result := match(ready[one], ready[two])) is not None:
                yield one, two, result
