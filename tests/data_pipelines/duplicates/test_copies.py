"""Copies of known records among others, by index and by signals."""

import numpy as np
import pytest

from data_pipelines.duplicates.copies import Traces, find_suspects, lead_order, verify_suspects
from data_pipelines.duplicates.near_duplicates import Alignable, candidates, candidates_among
from data_pipelines.duplicates.order_free import envelope, order_free_signature
from data_pipelines.duplicates.signature import band_of, correlations
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from tests.data_pipelines.duplicates.test_near_duplicates import cosines, random_signatures
from tests.support.planted import noisy, resampled, stored

ORDER = (3, 5, 1, 0, 7, 2, 6, 4)


@pytest.fixture(scope="module")
def known():
    """Bands of two records each of twenty simulated people."""
    signals = Cohort(CohortConfig(seed=5, num_patients=20, visits_per_patient=(2, 2))).simulate(0, 40).signal
    return signals, [band(signal) for signal in signals]


def band(signal, rate=250):
    return band_of(signal, sampling_rate_hz=rate, valid_start=0, valid_samples=len(signal))


def traces(bands):
    signatures = np.stack([order_free_signature(correlations(each)) for each in bands])
    return Traces(signature=signatures, envelope=np.stack([envelope(each) for each in bands]))


def copies_of(queries, known):
    suspects = find_suspects(traces(queries), traces(known))
    return list(
        verify_suspects(
            suspects,
            read_queries=lambda numbers: [queries[number] for number in numbers],
            read_known=lambda numbers: [known[number] for number in numbers],
            pairs_at_a_time=3,
        )
    )


def planted(signals):
    """Copies, and what they are of, their order, gain and lag."""
    floats = signals.astype(float)
    return [
        (band(signals[4]), 4, None, 1, 0),
        (band(stored(0.3 * floats[7])), 7, None, 0.3, 0),
        (band(stored(resampled(floats[11], source_rate=250, rate=400)), 400), 11, None, 1, 0),
        (band(signals[12][250:]), 12, None, 1, 1.0),
        (band(signals[20][:, ORDER]), 20, ORDER, 1, 0),
        (band(stored(2.5 * noisy(floats[25], 20, seed=1)[200:, ORDER])), 25, ORDER, 2.5, 0.8),
    ]


def test_planted_copies_are_found_and_nothing_else(known):
    signals, bands = known
    strangers = Cohort(CohortConfig(seed=6, num_patients=20, visits_per_patient=(1, 1))).simulate(0, 20).signal
    copies = planted(signals)
    queries = [*[each[0] for each in copies], *map(band, strangers)]
    found = copies_of(queries, bands)
    assert [copy.query for copy in found] == list(range(len(copies)))
    for copy, (_, number, order, gain, lag) in zip(found, copies, strict=True):
        assert copy.known == number
        assert copy.reordered == (order is not None)
        # The order in which the known record's leads stand in the copy.
        assert copy.order == (order or tuple(range(8)))
        assert 1 / copy.match.gain == pytest.approx(gain, rel=0.1)
        assert -copy.match.lag_s == pytest.approx(lag, abs=0.003)


def test_records_of_one_person_are_no_copies(known):
    _, bands = known
    found = copies_of(bands[::2], bands)
    assert [(copy.query, copy.known) for copy in found] == [(number, 2 * number) for number in range(20)]


def test_queries_are_crowded_by_what_is_as_close_as_copies(known, monkeypatch):
    signals, bands = known
    monkeypatch.setattr("data_pipelines.duplicates.copies.MAX_CANDIDATES", 3)
    near = [band(stored(noisy(signals[0].astype(float), 5, seed=seed))) for seed in range(4)]
    assert find_suspects(traces([bands[0], bands[6]]), traces([*near, *bands[2:]])).crowded == 1
    assert find_suspects(traces([bands[0], bands[6]]), traces([*near[:2], *bands[10:]])).crowded == 0


def test_lead_order_finds_any_permutation(known):
    signals, bands = known
    generator = np.random.default_rng(2)
    for signal, whole in zip(signals[:10], bands[:10], strict=True):
        order = generator.permutation(8)
        copy = Alignable(band(stored(noisy(signal.astype(float), 10, seed=3))[125:, order]))
        found, alike = lead_order(copy, Alignable(whole), lag=-49)
        assert found == tuple(order.tolist())
        assert alike > 0.95


def test_silent_leads_keep_their_places(known):
    signals, _ = known
    dead = signals[0].copy()
    dead[:, [2, 6]] = 0
    found, alike = lead_order(Alignable(band(dead)), Alignable(band(dead)), lag=0)
    assert found == tuple(range(8))
    assert alike == pytest.approx(1)


@pytest.mark.parametrize("block", [7, 4096])
def test_candidates_among_others_are_all_above_the_cosine(monkeypatch, block):
    monkeypatch.setattr("data_pipelines.duplicates.near_duplicates._BLOCK", block)
    signatures = random_signatures(9)
    queries = np.concatenate([signatures[::3], np.zeros((2, 192), np.int8)])
    similar = cosines(np.concatenate([queries, signatures]))[: len(queries), len(queries) :]
    found = candidates_among(queries, signatures, min_cosine=0.9, max_candidates=len(signatures))
    np.testing.assert_array_equal(np.stack([found.first, found.second], axis=1), np.argwhere(similar >= 0.9))
    assert found.crowded == 0
    few = candidates_among(queries, signatures, min_cosine=0.9, max_candidates=2)
    assert few.crowded == int((np.sum(similar >= 0.9, axis=1) > 2).sum()) > 0
    assert max(np.bincount(few.first)) == 2


def test_nothing_has_no_candidates():
    nothing = np.zeros((0, 192), np.int8)
    for queries, signatures in ((nothing, random_signatures(1)), (random_signatures(1), nothing)):
        assert not len(candidates_among(queries, signatures, min_cosine=0.9, max_candidates=3).first)
    assert not len(candidates(nothing).first)
