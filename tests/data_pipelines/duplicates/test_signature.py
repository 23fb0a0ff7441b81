"""Signatures: what they must survive, what they must not depend on, and that they tell people apart."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal

from data_pipelines.duplicates import signature as signature_module
from data_pipelines.duplicates.near_duplicates import CANDIDATE_COSINE
from data_pipelines.duplicates.signature import SIGNATURE_BYTES, band_of, signature
from data_pipelines.records import SIGNATURE_VERSION
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from data_pipelines.storage.store import open_store
from tests.support.fixtures import make_simulated_dataset
from tests.support.planted import DISTORTIONS, stored


def signature_of(signal, rate=250):
    return signature(signal, sampling_rate_hz=rate, valid_start=0, valid_samples=len(signal))


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.fixture(scope="module")
def cohort():
    """Forty simulated people, one record each."""
    return Cohort(CohortConfig(seed=11, num_patients=40, visits_per_patient=(1, 1))).simulate(0, 40).signal


def cosines_of_copies(cohort, name):
    distort, rate = DISTORTIONS[name]
    return np.array([cosine(signature_of(s), signature_of(stored(distort(s.astype(float))), rate)) for s in cohort])


@pytest.mark.parametrize("name", [name for name in DISTORTIONS if name != "middle 7 s"])
def test_copies_stay_candidates(cohort, name):
    found = cosines_of_copies(cohort, name)
    assert found.min() >= CANDIDATE_COSINE, np.sort(found)[:3]


def test_pieces_nearly_always_stay_candidates(cohort):
    # A piece may lack what made the record, such as its only ectopic beat.
    found = cosines_of_copies(cohort, "middle 7 s")
    assert np.mean(found >= CANDIDATE_COSINE) >= 0.95, np.sort(found)[:5]


def test_different_people_are_rarely_candidates(cohort):
    signatures = np.stack([signature_of(signal) for signal in cohort])
    pairs = [cosine(a, b) for i, a in enumerate(signatures) for b in signatures[:i]]
    # The simulator's people are more alike than real ones, of whose pairs 0.014 % are.
    assert np.mean(np.array(pairs) >= CANDIDATE_COSINE) <= 0.02


def test_only_what_was_recorded_counts(cohort):
    signal = cohort[0]
    padded = np.zeros_like(signal)
    padded[400:2300] = signal[:1900]
    surrounded = np.random.default_rng(0).integers(-3000, 3000, signal.shape).astype(np.int16)
    surrounded[400:2300] = signal[:1900]
    alone = signature_of(signal[:1900])
    for whole in (padded, surrounded):
        found = signature(whole, sampling_rate_hz=250, valid_start=400, valid_samples=1900)
        np.testing.assert_array_equal(found, alone)


def test_polarity_and_leads_count(cohort):
    turned, swapped = cohort.copy(), cohort.copy()
    turned[:, :, 0] *= -1  # Arm electrodes the wrong way round.
    swapped[:, :, [2, 7]] = cohort[:, :, [7, 2]]
    for changed in (turned, swapped):
        found = [cosine(signature_of(a), signature_of(b)) for a, b in zip(cohort, changed, strict=True)]
        assert max(found) < CANDIDATE_COSINE


def test_nothing_to_compare_gives_zeros():
    for signal in (np.zeros((2500, 8), np.int16), np.ones((140, 8), np.int16), np.full((2500, 8), 321, np.int16)):
        np.testing.assert_array_equal(signature_of(signal), np.zeros(SIGNATURE_BYTES, np.int8))


def test_one_dead_lead_is_borne(cohort):
    dead = cohort.copy()
    dead[:, :, 4] = 0
    assert signature_of(dead[0]).any()
    band = band_of(dead[0], sampling_rate_hz=250, valid_start=0, valid_samples=2500)
    assert not band[4].any()
    assert band[3].any()


def test_projection_is_the_one_stored_signatures_were_made_with():
    # A change of it needs a new SIGNATURE_VERSION.
    digest = hashlib.blake2b(np.packbits(signature_module._projection(1151) > 0).tobytes(), digest_size=8).hexdigest()
    assert (SIGNATURE_VERSION, digest) == (1, "c05cffa994a84faa")


def test_index_has_the_signatures_of_what_is_stored(tmp_path):
    dataset = make_simulated_dataset(tmp_path, num_patients=5)
    signals = open_store(dataset.directory).read(np.arange(dataset.index.num_records))
    np.testing.assert_array_equal(dataset.index.signature, np.stack([signature_of(s, 100) for s in signals]))


@pytest.mark.parametrize("rate", [100, 128, 250, 500])
def test_the_band_is_that_of_scipys_own_functions_bit_for_bit(cohort, rate):
    signal, start = stored(cohort[0].astype(float)), 37
    recorded = signal[start:].T.astype(np.float32)
    recorded -= np.median(recorded, axis=1, keepdims=True)
    ratio = Fraction(100, rate)
    common = scipy.signal.resample_poly(recorded, ratio.numerator, ratio.denominator, axis=1)
    sections = scipy.signal.butter(2, (3.0, 20.0), "bandpass", fs=100, output="sos")
    expected = scipy.signal.sosfiltfilt(sections, common, axis=1)[:, 30:-30].astype(np.float32)
    found = band_of(signal, sampling_rate_hz=rate, valid_start=start, valid_samples=len(signal) - start)
    np.testing.assert_array_equal(found, expected)
