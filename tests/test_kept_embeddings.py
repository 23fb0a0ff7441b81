"""Embeddings are made once for whoever asks for the same, and never taken for others."""

import numpy as np
import pytest

from data_pipelines.errors import DataError
from ecgjax import encoders, inference
from ecgjax.evaluation import kept_embeddings as module
from ecgjax.evaluation.kept_embeddings import kept_embeddings

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
    monkeypatch.setattr(inference, "RECALIBRATION_BATCHES", 1)
    return names


def _encoder(*, seed=0, layer="features"):
    split = encoders.create("clocs_cnn:small", seed=seed, num_leads=8, embedding_dim=4)
    return inference.Encoder(split, num_leads=8, layer=layer, batch_size=16)


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
    recalibrated = inference.recalibrate_batch_norm(_encoder(), SIGNALS.__getitem__, records=RECALIBRATE_ON, seed=0)
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
    with pytest.raises(DataError, match=rf"{path.name}: these embeddings are damaged .* remove the file to make them"):
        _kept(tmp_path)
    np.save(path, np.zeros((3, 4), np.float32))
    with pytest.raises(DataError, match="damaged: 3 of 20 records; remove the file"):
        _kept(tmp_path)
