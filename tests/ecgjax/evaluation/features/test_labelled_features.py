"""Features are made once for whoever asks for the same, and never taken for others."""

import types

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from ecgjax import encoders
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features import labelled_features as module
from ecgjax.evaluation.features.labelled_features import LabelledFeatures, NormRecords

SETTINGS = {"name": "clocs_cnn:small", "num_leads": 8}
SIGNALS = np.random.default_rng(0).integers(-500, 500, (40, 200, 8)).astype(np.int16)
RECORDS, RECALIBRATE_ON = np.arange(20), np.arange(20, 40)


def _recordings(signals=SIGNALS, *, train=RECALIBRATE_ON, datasets=("abc",), rate=100, columns=None):
    return types.SimpleNamespace(
        store=types.SimpleNamespace(read=signals.__getitem__),
        split=types.SimpleNamespace(train=train),
        fingerprints=datasets,
        format=types.SimpleNamespace(sampling_rate_hz=rate),
        index=types.SimpleNamespace(label=(columns or {}).__getitem__),
    )


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


def _embedded(
    folder, encoder=None, records=RECORDS, *, settings=SETTINGS, datasets=("abc",), train=RECALIBRATE_ON, seed=0
):
    recordings = _recordings(train=train, datasets=datasets)
    features = LabelledFeatures(recordings, records, folder=folder, seed=seed, progress=False)
    return features.embeddings(encoder or _encoder(), name="random-seed0", settings=settings)


def test_what_was_made_serves_again_and_is_what_the_encoder_gives(made, tmp_path):
    first = _embedded(tmp_path / "shared")
    again = _embedded(tmp_path / "shared")
    assert made == ["embeddings, random-seed0"]
    np.testing.assert_array_equal(first, again)
    recalibrated = frozen_encoder.recalibrate_batch_norm(
        _encoder(), SIGNALS.__getitem__, records=RECALIBRATE_ON, seed=0
    )
    np.testing.assert_allclose(first, recalibrated.embed(SIGNALS[RECORDS]), rtol=1e-6, atol=1e-6)


def test_features_in_memory_are_those_that_are_kept(made, tmp_path):
    features = LabelledFeatures(_recordings(), RECORDS, progress=False)
    first = features.embeddings(_encoder(), name="a", settings=SETTINGS)
    assert made == ["embeddings, a"]
    np.testing.assert_array_equal(first, _embedded(tmp_path))
    other = features.embeddings(_encoder(seed=1), name="b", settings=SETTINGS)
    assert (other != first).any()


def test_batch_norm_may_be_recalibrated_on_other_recordings(made):
    others = np.random.default_rng(1).integers(-900, 900, (16, 200, 8)).astype(np.int16)
    norm = NormRecords(others.__getitem__, np.arange(16))
    features = LabelledFeatures(_recordings(), RECORDS, norm=norm, progress=False)
    expected = frozen_encoder.recalibrate_batch_norm(_encoder(), others.__getitem__, records=np.arange(16), seed=0)
    found = features.embeddings(_encoder(), name="a", settings=SETTINGS)
    np.testing.assert_allclose(found, expected.embed(SIGNALS[RECORDS]), rtol=1e-6, atol=1e-6)
    assert (found != _embedded(None)).any()


def test_an_encoder_without_batch_norm_stays_as_it_is():
    encoder = _encoder()
    without = frozen_encoder.Encoder(encoder.split._replace(stats={}), num_leads=8)
    features = LabelledFeatures(_recordings(), RECORDS)
    assert features.recalibrated(without) is without


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": _encoder(seed=1)},
        {"encoder": _encoder(layer="embedding")},
        {"records": RECORDS[::-1]},
        {"settings": {**SETTINGS, "dropout": 0.3}},
        {"datasets": ("abd",)},
        {"train": RECALIBRATE_ON[1:]},
        {"seed": 1},
    ],
    ids=["weights", "layer", "records", "settings", "data", "recalibration", "seed"],
)
def test_whatever_decides_the_embeddings_makes_others(made, tmp_path, changes):
    _embedded(tmp_path)
    _embedded(tmp_path, **changes)
    assert len(made) == len(list(tmp_path.iterdir())) == 2


def test_measurements_are_made_in_parts_and_kept(monkeypatch, tmp_path):
    signals = np.stack([_beats(number) for number in range(5)])
    signals[3] = 0  # without a beat
    monkeypatch.setattr(module, "_MEASURED_AT_ONCE", 2)
    records = np.array([4, 3, 0, 2])

    def asked(folder):
        return LabelledFeatures(_recordings(signals), records, folder=folder, progress=False)

    kept, in_memory = asked(tmp_path), asked(None)
    whole = median_beat.measure(signals[records], sampling_rate_hz=100, processes=1, progress=False)
    rr = whole.values[:, median_beat.NAMES.index("rr")]
    np.testing.assert_array_equal(np.isfinite(rr), records != 3)
    for features in (kept, in_memory):
        np.testing.assert_array_equal(features.intervals, whole.values)
        np.testing.assert_array_equal(features.median_beats, np.c_[whole.median_beats.reshape(4, -1), rr])
        assert dict(features.failures) == dict(whole.failures) != {}
    monkeypatch.setattr(module.median_beat, "measure", None)
    again = asked(tmp_path)
    np.testing.assert_array_equal(again.intervals, whole.values)
    assert again.failures == {}, "nothing was measured"
    monkeypatch.setattr(module.median_beat, "VERSION", 0)
    with pytest.raises(TypeError, match="not callable"):
        _ = asked(tmp_path).intervals


def _beats(number):
    """Narrow spikes, one every .8 s or so."""
    time = np.arange(1000) / 100
    period = 0.8 + 0.02 * number
    spikes = np.exp(-(((time % period) - period / 2) ** 2) / (2 * 0.02**2))
    return (1000 * spikes[:, None] * np.linspace(0.5, 1, 8)).astype(np.int16)


def test_each_side_has_the_features_of_its_records():
    records = np.array([31, 4, 7, 22, 9])
    features, values = LabelledFeatures(_recordings(), records), np.arange(10.0).reshape(5, 2)
    parts = {
        name: LabelledRecords(
            records=records[rows], labels=np.zeros(len(rows)), patients=np.zeros(len(rows), int), unlabelled=0
        )
        for name, rows in {"train": [3, 0], "val": [2], "test": [4, 1, 0]}.items()
    }
    task = BinaryTask(label="lvef", rule="below", threshold=40.0)
    data = ProbeData(task=task, **parts, label_fraction=1.0, seed=0, train_available=parts["train"], excluded={})
    found = features.of(values, data)
    np.testing.assert_array_equal(found.train, values[[3, 0]])
    np.testing.assert_array_equal(found.val, values[[2]])
    np.testing.assert_array_equal(found.test, values[[4, 1, 0]])


@pytest.mark.parametrize("side", ["train", "val", "test"])
@pytest.mark.parametrize("stranger", [8, 32, 1000], ids=["among", "next", "beyond"])
def test_records_without_features_are_refused(side, stranger):
    """Row -1 would be the last record's."""
    records = np.array([31, 4, 7, 22, 9])
    features = LabelledFeatures(_recordings(), records)
    parts = {
        name: LabelledRecords(
            records=np.array([4, stranger, 7] if name == side else [22, 9]), labels=np.zeros(3 if name == side else 2),
            patients=np.zeros(3 if name == side else 2, int), unlabelled=0,
        )
        for name in ("train", "val", "test")
    }  # fmt: skip
    task = BinaryTask(label="lvef", rule="below", threshold=40.0)
    data = ProbeData(task=task, **parts, label_fraction=1.0, seed=0, train_available=parts["train"], excluded={})
    with pytest.raises(ValueError, match=r"^1 records are not among those that the features are of"):
        features.of(np.arange(10.0).reshape(5, 2), data)


def test_an_interrupted_save_leaves_nothing(made, monkeypatch, tmp_path):
    def interrupted(file, embeddings):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.np, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _embedded(tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(_embedded(tmp_path)) == len(RECORDS)


def test_a_damaged_file_is_named(made, tmp_path):
    _embedded(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=rf"{path.name}: these features are damaged .* remove the file to make them"):
        _embedded(tmp_path)
    np.save(path, np.zeros((3, 4), np.float32))
    with pytest.raises(DataError, match="damaged: 3 of 20 records; remove the file"):
        _embedded(tmp_path)
