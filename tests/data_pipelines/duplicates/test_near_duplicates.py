"""Candidate search against all pairs, and the comparison of signals on planted copies and on different people."""

import numpy as np
import pytest

from data_pipelines.duplicates import near_duplicates
from data_pipelines.duplicates.near_duplicates import Alignable, candidates, match, verify
from data_pipelines.duplicates.signature import band_of
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from tests.support.planted import DISTORTIONS, noisy, stored

#: What a copy's gain and lag must come out as, where not 1 and 0 s.
GAINS = {"a fifth": 0.2, "4.88-fold": 4.88, "all": 0.3}
LAGS = {"later": 1.0, "middle 7 s": 1.5, "all": 0.5}


def random_signatures(seed, count=150):
    """Clusters of signatures, of every closeness, some of them equal and some zero."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((count // 5, 192))
    noise = generator.uniform(0, 0.6, (count, 1)) * generator.standard_normal((count, 192))
    found = np.rint(25 * (centres[generator.integers(0, len(centres), count)] + noise))
    found[3], found[7] = found[4], 0
    return np.clip(found, -127, 127).astype(np.int8)


def cosines(signatures):
    wide = signatures.astype(np.float64)
    length = np.linalg.norm(wide, axis=1)
    length[length == 0] = np.inf
    return wide @ wide.T / np.outer(length, length)


def pairs_of(found):
    return list(zip(found.first.tolist(), found.second.tolist(), strict=True))


@pytest.mark.parametrize("block", [7, 64, 4096])
def test_candidates_are_all_pairs_above_the_cosine(monkeypatch, block):
    monkeypatch.setattr(near_duplicates, "_BLOCK", block)
    signatures = random_signatures(block)
    similar = cosines(signatures)
    expected = [(i, j) for i in range(len(similar)) for j in range(i + 1, len(similar)) if similar[i, j] >= 0.92]
    found = candidates(signatures, max_candidates=len(signatures))
    assert len(expected) > 50
    assert pairs_of(found) == expected
    assert found.crowded == 0


def test_candidates_do_not_depend_on_order():
    signatures = random_signatures(1)
    order = np.random.default_rng(2).permutation(len(signatures))
    found = {frozenset(order[[i, j]].tolist()) for i, j in pairs_of(candidates(signatures[order], max_candidates=150))}
    assert found == {frozenset(pair) for pair in pairs_of(candidates(signatures, max_candidates=150))}


def test_a_crowd_keeps_the_closest(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_BLOCK", 16)
    signatures = random_signatures(3)
    similar = cosines(signatures)
    np.fill_diagonal(similar, -1)
    found = set(pairs_of(candidates(signatures, max_candidates=2)))
    crowded = 0
    for i, row in enumerate(similar):
        above = np.flatnonzero(row >= 0.92)
        crowded += len(above) > 2
        closest = above[np.argsort(-row[above], kind="stable")[:2]]
        assert {(min(i, j), max(i, j)) for j in closest.tolist()} <= found
    assert candidates(signatures, max_candidates=2).crowded == crowded > 10
    assert len(found) <= 2 * len(signatures)


def test_nothing_has_no_candidates():
    assert pairs_of(candidates(np.zeros((5, 192), np.int8))) == []
    assert pairs_of(candidates(np.zeros((0, 192), np.int8))) == []


@pytest.fixture(scope="module")
def cohort():
    """Thirty simulated people, two records each."""
    return Cohort(CohortConfig(seed=5, num_patients=30, visits_per_patient=(2, 2))).simulate(0, 60).signal


def alignable(signal, rate=250):
    return Alignable(band_of(signal, sampling_rate_hz=rate, valid_start=0, valid_samples=len(signal)))


@pytest.mark.parametrize("name", DISTORTIONS)
def test_copies_are_found_with_their_lag_and_gain(cohort, name):
    distort, rate = DISTORTIONS[name]
    for signal in cohort[::2]:
        found = match(alignable(signal), alignable(stored(distort(signal.astype(float))), rate))
        assert found.is_near_duplicate, found
        assert found.lag_s == pytest.approx(LAGS.get(name, 0), abs=0.003)
        # Noise in the band adds to a small lead.
        assert found.gain == pytest.approx(GAINS.get(name, 1), rel=0.1)


def test_match_is_the_same_either_way_round(cohort):
    one, two = alignable(cohort[0]), alignable(stored(2.0 * noisy(cohort[0].astype(float), 20, seed=0)[100:]))
    forth, back = match(one, two), match(two, one)
    assert forth.lag_s == pytest.approx(0.4, abs=0.003)
    assert back.lag_s == pytest.approx(-forth.lag_s, abs=1e-6)
    assert back.gain == pytest.approx(1 / forth.gain, rel=1e-3)
    assert forth.turned().lag_s == -forth.lag_s
    assert forth.turned().gain == pytest.approx(back.gain, rel=1e-3)
    assert back.agreement == pytest.approx(forth.agreement, abs=2e-3)


def test_different_records_are_not_found(cohort):
    ready = [alignable(signal) for signal in cohort]
    found = [match(a, b) for i, a in enumerate(ready) for b in ready[:i]]
    assert len(found) == 60 * 59 // 2
    assert not any(each.is_near_duplicate for each in found)
    # Two visits of one patient are alike, and not copies.
    visits = [match(ready[i], ready[i + 1]).agreement for i in range(0, 60, 2)]
    assert np.median(visits) > np.median([each.agreement for each in found])


def test_a_copy_with_another_sign_is_none(cohort):
    assert not match(alignable(cohort[0]), alignable(-cohort[0])).is_near_duplicate


def test_short_or_silent_overlaps_are_not_judged(cohort):
    assert match(alignable(cohort[0]), alignable(cohort[0][:1100])) is None
    assert match(alignable(cohort[0]), alignable(np.zeros_like(cohort[0]))) is None


def test_verify_compares_every_candidate_in_order(cohort):
    signals = [*cohort[:6], stored(noisy(cohort[2].astype(float), 30, seed=1)), cohort[4][250:]]
    every = candidates(np.ones((len(signals), 192), np.int8))

    def read_bands(numbers):
        return [alignable(signals[number]).band for number in numbers]

    found = list(verify(every, read_bands, pairs_at_a_time=5))
    assert [(one, two) for one, two, _ in found] == pairs_of(every)
    assert [(one, two) for one, two, result in found if result.is_near_duplicate] == [(2, 6), (4, 7)]
