"""Finds records that are copies of known ones: rescaled, resampled, filtered, shifted, cut, or with leads reordered.

There are three stages, each for fewer pairs than the one before: order-free signatures are compared by a matrix
product, then envelopes by their correlation, and then the signals themselves. These are compared in the order of leads
in which they agree best, by the measures of `near_duplicates.py`. The first two need only what the index keeps
(`order_free.py`), so that a million known records can be searched for copies of some thousands in about a minute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import scipy  # Its parts are imported where they are first asked for: that of signals takes a second.

from data_pipelines.duplicates.near_duplicates import Alignable, Match, alignables, candidates_among, match
from data_pipelines.duplicates.order_free import match_envelopes
from data_pipelines.duplicates.signature import BAND_RATE_HZ, level_leads
from data_pipelines.records import STORED_LEADS

#: Smallest cosine of order-free signatures of a candidate, and largest number of candidates that are compared for a
#: record.
CANDIDATE_COSINE = 0.90
MAX_CANDIDATES = 64

#: Smallest overlap, as a share of the longer record, of two records of which neither is a piece of the other.
WHOLE = 0.9

#: Smallest correlation of the envelopes of a copy, and of a piece; smallest cosine of a copy that is no piece. Of 939
#: real records distorted in 13 ways .4 % of the pieces and .1 % of the others have a smaller correlation, and 4 % of
#: the pieces a cosine below `CANDIDATE_COSINE`.
MIN_ENVELOPE = 0.93
MIN_ENVELOPE_OF_PIECE = 0.96
MIN_COSINE_OF_WHOLE = 0.94

#: Smallest cosine and correlation by which two whole records are copies without a look at their signals. Rescaled,
#: resampled and filtered copies reach it, moderately noisy ones too. Of 440,000 pairs of real records only copies do,
#: and of 2.9 million pairs of simulated ones none.
SURE = 0.985

#: Smallest agreement of copies with another order of leads: among so many orders, some fit recordings of other people.
MIN_AGREEMENT_REORDERED = 0.98

#: The order of leads is searched within so many samples of 10 ms about the lag at which the envelopes agree best.
_ABOUT = 3

#: Records whose leads correlate less than this on average, in the best order, are not aligned any further. It is what a
#: match needs (`near_duplicates.MIN_CORRELATION`), less what a lag of a few samples may cost.
_MIN_ALIKE = 0.7

#: Number of pairs of envelopes compared at a time, which takes 30 MB.
_PAIRS = 1024

_IN_ORDER = tuple(range(len(STORED_LEADS)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traces:
    """What the index keeps of records to find copies by: signatures and envelopes.

    Attributes:
        signature: Order-free signatures, `int8[n, 192]`.
        envelope: Envelopes, `int8[n, 256]`.
    """

    signature: np.ndarray
    envelope: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suspects:
    """Pairs of records that look like copies by their signatures and envelopes, which the index keeps.

    Attributes:
        query: Numbers of the records that may be copies, `int64[pairs]`, ascending.
        known: Numbers of the records that they may be copies of, `int64[pairs]`.
        lag_s: `f64[pairs]`, seconds by which the known record begins later than the query.
        sure: `bool[pairs]`, whether a pair counts as a copy without a look at its signals.
        crowded: Number of queries with so many candidates as close as whole copies that some were not looked at.
    """

    query: np.ndarray
    known: np.ndarray
    lag_s: np.ndarray
    sure: np.ndarray
    crowded: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copy:
    """A record that shows the same recording as a known one.

    Attributes:
        query: Number of the record.
        known: Number of the known record.
        order: Order of the known record's leads that matches the record's, as positions in `STORED_LEADS`.
        match: Alignment of the known record, in that order, with the record.
    """

    query: int
    known: int
    order: tuple[int, ...]
    match: Match

    @property
    def reordered(self) -> bool:
        """Whether the leads of the two are in different orders."""
        return self.order != _IN_ORDER


def find_suspects(queries: Traces, known: Traces) -> Suspects:
    """Finds the pairs whose signatures and envelopes agree as those of copies do.

    Args:
        queries: Traces of the records that may be copies.
        known: Traces of the records that they may be copies of.

    Returns:
        The pairs; their numbers are rows of `queries` and of `known`.
    """
    found = candidates_among(
        queries.signature, known.signature, min_cosine=CANDIDATE_COSINE, max_candidates=MAX_CANDIDATES
    )
    parts = [
        _likely(queries, known, found.first[start : start + _PAIRS], found.second[start : start + _PAIRS])
        for start in range(0, max(1, len(found.first)), _PAIRS)
    ]
    kept, lag_s, sure, cosine = (np.concatenate(column) for column in zip(*parts, strict=True))
    # If candidates were left out that are further apart than those looked at, only pieces can be among them.
    as_close = np.bincount(found.first[cosine >= MIN_COSINE_OF_WHOLE], minlength=1)
    return Suspects(
        query=found.first[kept],
        known=found.second[kept],
        lag_s=lag_s[kept],
        sure=sure[kept],
        crowded=int(np.count_nonzero(as_close >= MAX_CANDIDATES)),
    )


def _likely(queries: Traces, known: Traces, query: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compares the envelopes of pairs of records whose signatures are alike.

    Args:
        queries: Traces of the records that may be copies.
        known: Traces of the known records.
        query: Rows of `queries`, `int64[pairs]`.
        other: Rows of `known`, `int64[pairs]`.

    Returns:
        Four arrays, each `[pairs]`: whether a pair looks like a copy; the lag in seconds by which the known record
        begins later; whether the pair is surely a copy; and the cosine of the signatures.
    """
    aligned = match_envelopes(queries.envelope[query], known.envelope[other])
    one, two = queries.signature[query].astype(np.float32), known.signature[other].astype(np.float32)
    cosine = (one * two).sum(axis=1) / np.sqrt(np.square(one).sum(axis=1) * np.square(two).sum(axis=1))
    whole = (aligned.overlap >= WHOLE) & (cosine >= MIN_COSINE_OF_WHOLE) & (aligned.correlation >= MIN_ENVELOPE)
    kept = whole | ((aligned.overlap < WHOLE) & (aligned.correlation >= MIN_ENVELOPE_OF_PIECE))
    sure = whole & (np.minimum(cosine, aligned.correlation) >= SURE)
    return kept, aligned.lag_s, sure, cosine


def verify_suspects(
    suspects: Suspects,
    *,
    read_queries: Callable[[np.ndarray], list[np.ndarray]],
    read_known: Callable[[np.ndarray], list[np.ndarray]],
    pairs_at_a_time: int = 1024,
) -> Iterator[Copy]:
    """Compares the signals of suspects, and yields those that are copies.

    Args:
        suspects: Pairs of records to compare.
        read_queries: Function from numbers as in `suspects.query` to the bands of these records, which
            `signature.band_of` makes of their signals.
        read_known: Function from numbers as in `suspects.known` to the bands of these records.
        pairs_at_a_time: Number of pairs that are compared before others are read; it bounds the memory, since the bands
            of at most so many queries and so many known records are held, about 120 kB each.

    Yields:
        Every pair that shows one recording, in the order of `suspects`.
    """
    for start in range(0, len(suspects.query), pairs_at_a_time):
        pairs = slice(start, start + pairs_at_a_time)
        queries = alignables(suspects.query[pairs], read_queries)
        known = alignables(suspects.known[pairs], read_known)
        for query, other, lag_s in zip(
            suspects.query[pairs].tolist(), suspects.known[pairs].tolist(), suspects.lag_s[pairs].tolist(), strict=True
        ):
            if (copy := _compared(queries[query], known[other], query=query, known=other, lag_s=lag_s)) is not None:
                yield copy


def _compared(first: Alignable, second: Alignable, *, query: int, known: int, lag_s: float) -> Copy | None:
    order, alike = lead_order(first, second, lag=round(lag_s * BAND_RATE_HZ))
    if alike < _MIN_ALIKE:
        return None
    for each in dict.fromkeys((_IN_ORDER, order)):
        found = match(first, second if each == _IN_ORDER else Alignable(second.band[list(each)]))
        if found is None or not found.is_near_duplicate:
            continue
        if each == _IN_ORDER or found.agreement >= MIN_AGREEMENT_REORDERED:
            return Copy(query=query, known=known, order=each, match=found)
    return None


def lead_order(first: Alignable, second: Alignable, *, lag: int) -> tuple[tuple[int, ...], float]:
    """Returns the order of the second record's leads in which it is most like the first, and the likeness.

    Args:
        first: One record.
        second: Another record.
        lag: Approximate number of samples of 10 ms by which the second begins later.

    Returns:
        The order, as the position of a lead of the second record for each position of the first's; and the mean
        correlation of the leads that are not flat in both.
    """
    best, order, moving = -np.inf, _IN_ORDER, min(first.leads.any(axis=1).sum(), second.leads.any(axis=1).sum())
    for shift in range(lag - _ABOUT, lag + _ABOUT + 1):
        begin, end = max(shift, 0), min(first.num_samples, second.num_samples + shift)
        if end <= begin:
            continue
        one, two = level_leads(first.leads[:, begin:end]), level_leads(second.leads[:, begin - shift : end - shift])
        alike = one @ two.T / (end - begin)
        # The small bonus keeps two leads in place where they are equally good, as silent ones are.
        rows, columns = scipy.optimize.linear_sum_assignment(alike + 1e-6 * np.eye(len(alike)), maximize=True)
        if (total := float(alike[rows, columns].sum())) > best:
            best, order = total, tuple(columns.tolist())
    return order, best / max(int(moving), 1)
