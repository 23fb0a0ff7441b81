"""Embeddings are made once for whoever asks for the same, and never taken for others."""

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from ecgjax import encoders
from ecgjax.evaluation.features import cache as module
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.cache import kept_embeddings

SETTINGS = {"name": "clocs_cnn:small", "num_leads": 8}
SIGNALS = np.random.default_rng(0).integers(-500, 500, (40, 200, 8)).astype(np.int16)
RECORDS, RECALIBRATE_ON = np.arange(20), np.arange(20, 40)


@pytest.fixture
def made(monkeypatch):
    """Names of the embeddings that were made."""
    names = []

    def recorded(*args, title, **kwargs):
        names.append(title)
        return map_records(*args, title=title, **kwargs)

    map_records = module.map_records
    monkeypatch.setattr(module, "map_records", recorded)
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    return names


def _encoder(*, seed=0, layer="features"):
    split = encoders.create("clocs_cnn:small", seed=seed, num_leads=8, embedding_dim=4)
    return frozen_encoder.Encoder(split, num_leads=8, layer=layer, batch_size=16)


def _kept(folder, encoder=None, records=RECORDS, **changes):
    given = {
        "name": "random-seed0", "settings": SETTINGS, "read": SIGNALS.__getitem__, "datasets": ("abc",),
        "recalibrate_on": RECALIBRATE_ON, "seed": 0, "progress": False,
    }  # fmt: skip
    return kept_embeddings(folder, encoder or _encoder(), records, **{**given, **changes})


def test_what_was_made_serves_again_and_is_what_the_encoder_gives(made, tmp_path):
    first = _kept(tmp_path / "shared")
    again = _kept(tmp_path / "shared")
    assert made == ["embeddings, random-seed0"]
    np.testing.assert_array_equal(first, again)
    recalibrated = frozen_encoder.recalibrate_batch_norm(
        _encoder(), SIGNALS.__getitem__, records=RECALIBRATE_ON, seed=0
    )
    np.testing.assert_allclose(first, recalibrated.embed(SIGNALS[RECORDS]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": _encoder(seed=1)},
        {"encoder": _encoder(layer="embedding")},
        {"records": RECORDS[::-1]},
        {"settings": {**SETTINGS, "dropout": 0.3}},
        {"datasets": ("abd",)},
        {"recalibrate_on": RECALIBRATE_ON[1:]},
        {"seed": 1},
    ],
    ids=["weights", "layer", "records", "settings", "data", "recalibration", "seed"],
)
def test_whatever_decides_the_embeddings_makes_others(made, tmp_path, changes):
    _kept(tmp_path)
    _kept(tmp_path, **changes)
    assert len(made) == len(list(tmp_path.iterdir())) == 2


def test_measurements_are_made_in_parts_and_kept(monkeypatch, tmp_path):
    rate, signals = 100, np.stack([_beats(number) for number in range(5)])
    monkeypatch.setattr(module, "_MEASURED_AT_ONCE", 2)
    asked = {"read": signals.__getitem__, "datasets": ("abc",), "sampling_rate_hz": rate, "progress": False}
    values, beats = module.kept_measurements(tmp_path, np.array([4, 0, 2]), **asked)
    whole = median_beat.measure(signals[[4, 0, 2]], sampling_rate_hz=rate, processes=1, progress=False)
    assert np.isfinite(whole.values[:, median_beat.NAMES.index("rr")]).all()
    np.testing.assert_array_equal(values, whole.values)
    np.testing.assert_array_equal(beats, whole.median_beats.reshape(3, -1))
    monkeypatch.setattr(module.median_beat, "measure", None)
    again, _ = module.kept_measurements(tmp_path, np.array([4, 0, 2]), **asked)
    np.testing.assert_array_equal(again, values)
    monkeypatch.setattr(module.median_beat, "VERSION", 0)
    with pytest.raises(TypeError, match="not callable"):
        module.kept_measurements(tmp_path, np.array([4, 0, 2]), **asked)


def _beats(number):
    """Narrow spikes, one every .8 s or so."""
    time = np.arange(1000) / 100
    period = 0.8 + 0.02 * number
    spikes = np.exp(-(((time % period) - period / 2) ** 2) / (2 * 0.02**2))
    return (1000 * spikes[:, None] * np.linspace(0.5, 1, 8)).astype(np.int16)


def test_an_interrupted_save_leaves_nothing(made, monkeypatch, tmp_path):
    def interrupted(file, embeddings):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.np, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _kept(tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(_kept(tmp_path)) == len(RECORDS)


def test_a_damaged_file_is_named(made, tmp_path):
    _kept(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=rf"{path.name}: these features are damaged .* remove the file to make them"):
        _kept(tmp_path)
    np.save(path, np.zeros((3, 4), np.float32))
    with pytest.raises(DataError, match="damaged: 3 of 20 records; remove the file"):
        _kept(tmp_path)
