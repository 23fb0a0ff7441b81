"""Order-free signatures and envelopes: what they must survive, what they must not depend on, what they tell apart."""

import hashlib

import numpy as np
import pytest

from data_pipelines.duplicates import signature as signature_module
from data_pipelines.duplicates.copies import CANDIDATE_COSINE, MIN_ENVELOPE
from data_pipelines.duplicates.order_free import envelope, match_envelopes, order_free_signature
from data_pipelines.duplicates.signature import band_of, correlations
from data_pipelines.records import ENVELOPE_SAMPLES, NO_SAMPLE, ORDER_FREE_VERSION
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from data_pipelines.storage.store import open_store
from tests.support.fixtures import make_simulated_dataset
from tests.support.planted import DISTORTIONS, stored

#: By how much the copies begin later, s.
LAGS = {"later": 1.0, "middle 7 s": 1.5, "all": 0.5}


@pytest.fixture(scope="module")
def cohort():
    """Thirty simulated people, one record each."""
    return Cohort(CohortConfig(seed=11, num_patients=30, visits_per_patient=(1, 1))).simulate(0, 30).signal


def traces(signal, rate=250):
    band = band_of(signal, sampling_rate_hz=rate, valid_start=0, valid_samples=len(signal))
    return order_free_signature(correlations(band)), envelope(band)


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_the_order_of_leads_does_not_count(cohort):
    generator = np.random.default_rng(0)
    for signal in cohort:
        (one, size), (other, other_size) = traces(signal), traces(signal[:, generator.permutation(8)])
        assert cosine(one, other) > 0.9999
        # Sums over leads in another order round otherwise.
        np.testing.assert_allclose(size.astype(int), other_size.astype(int), atol=1)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_copies_with_another_order_stay_suspects(cohort, name):
    distort, rate = DISTORTIONS[name]
    generator = np.random.default_rng(1)
    cosines, correlated, lags = [], [], []
    for signal in cohort:
        (one, size) = traces(signal)
        other, other_size = traces(stored(distort(signal.astype(float)))[:, generator.permutation(8)], rate)
        found = match_envelopes(size[None], other_size[None])
        cosines.append(cosine(one, other))
        correlated.append(found.correlation[0])
        lags.append(found.lag_s[0])
    # A piece may lack what made the record, such as its only ectopic beat.
    assert np.mean(np.array(cosines) >= CANDIDATE_COSINE) >= (0.8 if name == "middle 7 s" else 1)
    assert min(correlated) >= MIN_ENVELOPE
    np.testing.assert_allclose(lags, LAGS.get(name, 0), atol=0.02)


def test_different_people_are_rarely_suspects(cohort):
    signatures, envelopes = (np.stack(each) for each in zip(*map(traces, cohort), strict=True))
    correlated = np.stack(
        [match_envelopes(np.broadcast_to(each, envelopes.shape), envelopes).correlation for each in envelopes]
    )
    alike = np.array([[cosine(a, b) for b in signatures] for a in signatures])
    pairs = np.triu_indices(len(cohort), 1)
    assert np.mean((alike[pairs] >= CANDIDATE_COSINE) & (correlated[pairs] >= MIN_ENVELOPE)) <= 0.02


def test_envelopes_match_the_same_either_way_round(cohort):
    envelopes = np.stack([traces(signal)[1] for signal in [cohort[0], cohort[0][375:2125], cohort[1]]])
    forth = match_envelopes(envelopes[[0, 0]], envelopes[1:])
    back = match_envelopes(envelopes[1:2], envelopes[:1])
    assert forth.overlap[0] == back.overlap[0] == pytest.approx(6.4 / 9.4, abs=0.01)
    assert back.lag_s[0] == pytest.approx(-forth.lag_s[0], abs=1e-3)
    assert back.correlation[0] == pytest.approx(forth.correlation[0], abs=1e-6)
    assert forth.correlation[0] > 0.97 > forth.correlation[1]


def test_the_correlation_is_pearsons_over_the_overlap():
    generator = np.random.default_rng(3)
    whole = generator.integers(-100, 100, 256)
    one, other = whole.astype(np.int8), np.full(256, NO_SAMPLE, np.int8)
    piece = np.clip(whole[30:180] * 0.6 + generator.normal(0, 20, 150) + 15, -127, 127).astype(np.int8)
    other[:150] = piece
    found = match_envelopes(one[None], other[None])
    assert found.lag_s[0] == pytest.approx(30 / 25, abs=0.011)
    expected = np.corrcoef(whole[30:180], piece)[0, 1]
    # A value between the samples may be the highest.
    assert expected <= found.correlation[0] <= expected + 0.02


def test_an_overlap_too_short_is_no_match():
    generator = np.random.default_rng(4)
    one = generator.integers(-100, 100, 256).astype(np.int8)
    short = np.full(256, NO_SAMPLE, np.int8)
    short[:90] = one[:90]  # 3.6 s
    still = np.zeros(256, np.int8)
    found = match_envelopes(np.stack([one, one]), np.stack([short, still]))
    np.testing.assert_array_equal(found.correlation, 0)
    np.testing.assert_array_equal(found.overlap, 0)


def test_nothing_to_compare_gives_nothing():
    for signal in (np.zeros((2500, 8), np.int16), np.ones((140, 8), np.int16), np.full((2500, 8), 321, np.int16)):
        found, size = traces(signal)
        assert not found.any()
        assert (size == NO_SAMPLE).all()


def test_long_recordings_keep_the_beginning(cohort):
    long = np.concatenate([cohort[0], cohort[1]])
    _, size = traces(long)
    assert (size != NO_SAMPLE).all()
    assert match_envelopes(size[None], traces(cohort[0])[1][None]).correlation[0] > 0.97
    assert len(size) == ENVELOPE_SAMPLES


def test_the_signs_are_those_that_stored_signatures_were_made_with():
    # A change of them needs a new ORDER_FREE_VERSION.
    signs = signature_module._projection(1179, b"ecgjax order-free signature") > 0
    digest = hashlib.blake2b(np.packbits(signs).tobytes(), digest_size=8).hexdigest()
    assert (ORDER_FREE_VERSION, digest) == (1, "9bb269e0c2866d07")


def test_the_index_has_what_is_stored(tmp_path):
    dataset = make_simulated_dataset(tmp_path, num_patients=5)
    signals = open_store(dataset.directory).read(np.arange(dataset.index.num_records))
    found, sizes = (np.stack(each) for each in zip(*(traces(signal, 100) for signal in signals), strict=True))
    np.testing.assert_array_equal(dataset.index.order_free_signature, found)
    np.testing.assert_array_equal(dataset.index.envelope, sizes)
