import dataclasses
import io
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from configs import simclr
from data_pipelines.errors import DataError
from ecgjax import encoders
from ecgjax.config import run_config
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask
from ecgjax.defaults import settings_of
from ecgjax.encoders.from_config import create_split
from ecgjax.errors import CheckpointError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.features.frozen_encoder import Encoder, load_encoder, random_encoder, recalibrate_batch_norm
from ecgjax.evaluation.models.answers import examples_of
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.models.linear import fit_linear
from ecgjax.finetuning import trainer
from ecgjax.finetuning.trainer import FineTuning
from ecgjax.leads import twelve_leads
from ecgjax.settings.probe import FineTuneSettings
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from tests.support import tiny_config
from tests.support.terminals import Terminal

RNG = np.random.default_rng(0)
TINY = {"widths": (4, 8), "kernel": 3, "dropout": 0.0, "embedding_dim": 6}


def tiny(layer="features", batch_size=8):
    split = encoders.create("resnet18", seed=0, num_leads=12, **TINY)
    return Encoder(split, num_leads=12, layer=layer, batch_size=batch_size)


def signals(n, time=200):
    return RNG.normal(0, 500, (n, time, 8)).astype(np.int16)


@pytest.mark.parametrize(("layer", "dim"), [("features", 8), ("embedding", 6)])
def test_embedding_does_not_depend_on_how_many_are_asked_for(layer, dim):
    encoder, x = tiny(layer), signals(19)
    whole = encoder.embed(x)
    assert whole.shape == (19, dim)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(
        np.concatenate([encoder.embed(x[:5]), encoder.embed(x[5:])]), whole, rtol=1e-5, atol=1e-6
    )


def test_embeddings_of_single_leads_become_the_mean_over_leads():
    split = encoders.create("resnet18", seed=0, num_leads=8, lead_wise=True, **TINY)
    encoder, x = Encoder(split, num_leads=8, layer="embedding", batch_size=8), signals(5)
    of_leads = encoders.apply(split, jnp.asarray(x, jnp.float32) * 1e-3, train=False)[0]
    assert of_leads.shape == (5, 8, 6)
    np.testing.assert_allclose(encoder.embed(x), np.mean(of_leads, axis=1), rtol=1e-5, atol=1e-6)


def test_unknown_layer_is_refused():
    with pytest.raises(ValueError, match=r"config\.probe\.layer='last' is unknown; there are: features, embedding"):
        tiny("last")


def test_recalibration_gives_the_statistics_of_the_recordings(monkeypatch):
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 64)
    encoder, x = tiny(batch_size=32), signals(32)
    records = np.arange(32)
    recalibrated = recalibrate_batch_norm(encoder, lambda numbers: x[numbers], records=records)
    # With every batch holding all records, the first layer's statistics are those of its output over all of them.
    stem = encoder.split.params["stem_conv"]["kernel"]
    ecg = jnp.asarray(x, jnp.float32) * 1e-3
    y = jax.lax.conv_general_dilated(twelve_leads(ecg), stem, (2,), [(7, 7)], dimension_numbers=("NWC", "WIO", "NWC"))
    found = recalibrated.split.stats["stem_norm"]
    np.testing.assert_allclose(found["mean"], y.mean((0, 1)), rtol=0.01, atol=2e-3 * float(y.std()))
    np.testing.assert_allclose(found["var"], y.var((0, 1)), rtol=0.01)
    # And inference then agrees with normalising by the batch itself.
    by_batch, _ = jax.jit(lambda ecg: encoders.apply(encoder.split, ecg, train=True, features=True))(twelve_leads(ecg))
    np.testing.assert_allclose(recalibrated.embed(x), by_batch, rtol=0.05, atol=0.02)
    assert np.abs(encoder.embed(x) - by_batch).max() > 0.1, "before, the statistics were other ones"


def test_a_recalibration_shows_a_bar_on_a_terminal_alone(monkeypatch):
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 3)
    encoder, x = tiny(batch_size=32), signals(32)
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        recalibrate_batch_norm(encoder, x.__getitem__, records=np.arange(32), progress=True)
        # Three batches may be over before the bar is drawn a second time.
        assert bool(re.search(r"batch norm: .* [0-3]/3 ", stream.getvalue())) == shown


def make_config():
    config = simclr.get_config("small")
    config.encoder.embedding_dim = 16
    return config


def test_load_encoder_gives_back_what_was_trained(tmp_path):
    config = tiny_config.get_config()
    x = signals(4)
    trained = random_encoder(settings_of(config).encoder, layer="features", seed=7)
    with pytest.raises(run_config.ConfigError, match="is not the folder of a pretraining run"):
        load_encoder(str(tmp_path))
    run_config.write_resolved(config, tmp_path)
    with pytest.raises(CheckpointError, match="no such directory"):
        load_encoder(str(tmp_path))
    other = random_encoder(settings_of(config).encoder, layer="features", seed=8).split
    parts = {
        "params_encoder": trained.split.params,
        "stats_encoder": trained.split.stats,
        "ema_params_encoder": other.params,
        "ema_stats_encoder": other.stats,
        "opt_state": {"count": jnp.int32(3)},
    }
    with Checkpoints(run_config.checkpoint_dir(tmp_path)) as checkpoints:
        checkpoints.save(12, parts, metadata={"datasets": ["f00d", "cafe"]})
    loaded = load_encoder(str(tmp_path))
    assert loaded.step == 12
    assert (loaded.layer, load_encoder(tmp_path, layer="embedding").layer) == ("features", "embedding")
    assert loaded.pretrained_on == ("f00d", "cafe")
    np.testing.assert_array_equal(loaded.embed(x), trained.embed(x))
    config.optimizer.ema_decay = 0.999
    run_config.write_resolved(config, tmp_path)
    averaged = load_encoder(tmp_path).split
    jax.tree.map(np.testing.assert_array_equal, (averaged.params, averaged.stats), (other.params, other.stats))


def _data(labels, *, train, val, test=()):
    parts = {
        name: LabelledRecords(records=np.array(rows, int), labels=labels[rows], patients=np.array(rows), unlabelled=0)
        for name, rows in {"train": train, "val": val, "test": np.array(test, int)}.items()
    }
    task = BinaryTask(label="lvef", rule="below", threshold=40.0)
    return ProbeData(task=task, **parts, label_fraction=1.0, seed=0, train_available=parts["train"], excluded={})


def _train_from_scratch(settings, training, data, *, read, seed=0):
    """Trains an encoder from random initialisation, with a head that may begin at a probe of its features."""
    network = Encoder(create_split(settings.encoder, seed=seed), num_leads=settings.encoder.num_leads)
    fine_tuning = FineTuning(
        training, optimizer=settings.optimizer, encoder=network.split, num_leads=network.num_leads,
        kind=kind_of(data.task), classes=data.classes,
    )  # fmt: skip
    probe = None
    if fine_tuning.begins_at_probe:
        network = recalibrate_batch_norm(network, read, records=data.train.records, seed=seed)
        features = SplitFeatures(
            **{name: network.embed(read(getattr(data, name).records)) for name in ("train", "val", "test")}
        )
        probe = fit_linear(examples_of(features, data))
    # Optax's Adam raises a float to an integer power, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        return fine_tuning.train(network.split, data, read=read, seed=seed, probe=probe, progress=False), probe


@pytest.mark.slow
def test_training_with_labels_learns_and_selects_on_validation(monkeypatch):
    # Positives carry a slow wave in V5: easy, so that a tiny network gets it in a few steps.
    n = 160
    labels = RNG.integers(0, 2, n)
    x = RNG.normal(0, 100, (n, 200, 8))
    x[labels == 1, :, 6] += 400 * np.sin(np.linspace(0, 12 * np.pi, 200))
    x = x.astype(np.int16)
    settings = settings_of(make_config())
    training = FineTuneSettings(steps=24, batch_size=32, eval_every=8, learning_rate=3e-3)
    order = RNG.permutation(n)  # record numbers need not be sorted
    test = order[120:]
    data = _data(labels, train=order[:80], val=order[80:120], test=test)
    network, _ = _train_from_scratch(settings, training, data, read=x.__getitem__)
    scores = network.scores(x[test])
    assert scores.shape == (40,)
    assert roc_auc_score(labels[test], scores) > 0.9

    # And where the head begins at a probe, of what the random encoder tells: seen before the first step.
    training = dataclasses.replace(training, head_start="probe", steps=1)
    monkeypatch.setattr(trainer, "train_step", lambda *args, **kwargs: lambda state, batch: (state, {}))
    network, probe = _train_from_scratch(settings, training, data, read=x.__getitem__)
    random = Encoder(create_split(settings.encoder, seed=0), num_leads=settings.encoder.num_leads)
    random = recalibrate_batch_norm(random, x.__getitem__, records=order[:80], seed=0)
    assert network.step == 0
    np.testing.assert_allclose(network.scores(x[test]), probe.predict(random.embed(x[test])), rtol=1e-4, atol=1e-4)


def test_nothing_is_selected_on_validation_of_one_class():
    settings = settings_of(tiny_config.get_config())
    labels = np.r_[np.ones(8, int), np.zeros(8, int)]
    data = _data(labels, train=np.arange(8), val=np.arange(8, 16))
    with pytest.raises(DataError, match="none of 8 records is positive there"):
        _train_from_scratch(
            settings, settings.probe.supervised, data, read=lambda numbers: np.zeros((len(numbers), 200, 8), np.int16)
        )
