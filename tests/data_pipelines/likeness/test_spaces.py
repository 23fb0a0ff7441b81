"""Records in the spaces in which they are compared, and their principal components."""

import itertools

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.likeness.components import Components
from data_pipelines.likeness.spaces import SPACES, Recorded, vector_of
from data_pipelines.physiology.median_beat import measure
from data_pipelines.records import SignalFormat
from data_pipelines.storage.store import open_store
from tests.support.fixtures import make_simulated_dataset


@pytest.mark.parametrize("rate", [100, 250, 128])
def test_a_signal_is_averaged_to_25_hz_about_the_mean_of_its_leads(rate):
    form = SignalFormat(sampling_rate_hz=rate, num_samples=4 * rate)
    signal = np.random.default_rng(rate).integers(-30_000, 30_000, (4 * rate, 8)).astype(np.int16)
    vector = vector_of(SPACES["signal"], Recorded(signal, rate, 2 * rate), form)
    assert vector.shape == (100, 8)
    edges = [number * rate // 25 for number in range(101)]
    means = np.array([signal[a:b].astype(np.float64).mean(0) / 1000 for a, b in itertools.pairwise(edges)])
    known = np.array([a >= rate and b <= 3 * rate for a, b in itertools.pairwise(edges)])
    np.testing.assert_array_equal(np.isnan(vector).all(axis=1), ~known)
    np.testing.assert_allclose(vector[known], means[known] - means[known].mean(0), atol=1e-5)


def test_records_without_deflection_or_beats_have_no_place():
    form = SignalFormat(sampling_rate_hz=100, num_samples=1000)
    flat = np.full((1000, 8), 300, np.int16)
    for space in SPACES.values():
        assert np.isnan(vector_of(space, Recorded(flat, 0, 1000), form)).all()
    assert np.isnan(
        vector_of(SPACES["signal"], Recorded(flat + np.arange(1000)[:, None].astype(np.int16), 3, 2), form)
    ).all()


def test_a_median_beat_is_that_of_the_measurements(tmp_path):
    dataset = make_simulated_dataset(tmp_path, num_patients=2)
    signals = open_store(dataset.directory).read(np.arange(2))
    beats = measure(signals, sampling_rate_hz=100, processes=1, progress=False).median_beats
    for signal, beat in zip(signals, beats, strict=True):
        vector = vector_of(SPACES["median_beat"], Recorded(signal, 0, 1000), dataset.format)
        np.testing.assert_allclose(vector, beat - beat.mean(0), atol=1e-6)


def test_components_are_those_of_the_scaled_records_of_all_blocks():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(60, 5, 3)) @ np.diag([1, 20, 0.01])
    vectors[:, :, 2] += vectors[:, :, 0]
    vectors = vectors.astype(np.float32)
    vectors[7, 3:] = np.nan  # nothing recorded there
    components = Components.fit(lambda: np.split(vectors, [11, 40]), num_components=4)
    scale = np.sqrt(np.nanmean(vectors.astype(np.float64) ** 2, axis=(0, 1)))
    flat = np.nan_to_num(vectors / scale).reshape(60, -1)
    centred = flat - flat.mean(0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(components.explained, values[:4] ** 2 / (values**2).sum(), rtol=1e-9)
    np.testing.assert_allclose(np.abs((components.axes * axes[:4]).sum(1)), 1, atol=1e-9)
    # Distances are what matters, and have no sign.
    found, expected = components.transform(vectors), centred @ axes[:4].T
    apart = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (found, expected)]
    np.testing.assert_allclose(*apart, atol=1e-5)


def test_too_few_or_equal_records_have_no_components():
    with pytest.raises(DataError, match="1 training records have a place"):
        Components.fit(lambda: [np.ones((1, 4, 2), np.float32)])
    with pytest.raises(DataError, match="all alike"):
        Components.fit(lambda: [np.ones((5, 4, 2), np.float32)])
    assert len(Components.fit(lambda: [np.eye(6, dtype=np.float32)[:3, :, None]]).axes) == 3
