"""Runs that train no model: what they train on, what they say of themselves, and who refuses them."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.storage.store import open_store
from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.errors import ConfigError, DivergedError
from ecgjax.evaluation.features.frozen_encoder import load_encoder
from ecgjax.export.trained_run import open_trained_run
from ecgjax.pretrain import pretrain
from ecgjax.pretrained.source import open_source
from ecgjax.training.debugging.debug_batches import NoiseStore, batches_of, store_of
from ecgjax.training.debugging.debug_settings import DebugSettings
from ecgjax.training.debugging.nan_checks import checked, telling
from ecgjax.training.run import prepare_run
from ecgjax.training.run_log.metrics_file import read_metrics
from ecgjax.training.steps import TrainState
from tests.support.fixtures import make_simulated_dataset
from tests.support.sharded_steps import config_of, take_steps
from tests.support.written_runs import tiny, write_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


def test_noise_depends_on_the_record_alone_and_reads_nothing(dataset, monkeypatch):
    real = open_store(dataset)
    store = store_of(real, DebugSettings(fake_data=True))
    monkeypatch.setattr(type(real), "read", None)
    valid = np.zeros(3, bool)
    first = store.read(np.array([4, 1, 4]), valid=valid)
    assert first.shape == (3, *real.shape)
    assert first.dtype == np.int16
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(store.read(np.array([1])), first[1:2])
    assert valid.all()
    assert 190 < first.std() < 210
    assert isinstance(store, NoiseStore)
    assert store_of(real, DebugSettings(nan_checks=True)) is real


@pytest.mark.parametrize("leaf", ["fake_data", "reuse_batch"])
def test_the_first_batch_is_taken_again_and_no_more_are_read(leaf):
    read = []

    def stream():
        for number in range(5):
            read.append(number)
            yield number

    again = batches_of(stream(), DebugSettings(**{leaf: True}))
    assert [next(again) for _ in range(4)] == [0, 0, 0, 0]
    assert read == [0]
    assert list(batches_of(stream(), DebugSettings())) == list(range(5))


@pytest.mark.slow
def test_a_run_on_noise_reads_no_signal_and_says_what_it_is(dataset, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    monkeypatch.setattr("data_pipelines.storage.array_record_store.ArrayRecordStore.read", None)
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power
        assert pretrain(tiny(dataset, duration__value=2, debug__fake_data=True), workdir, progress=False)
    assert "trains on noise (config.debug.fake_data=True): it is NO MODEL" in capsys.readouterr().out
    assert json.loads((workdir / "about.json").read_text())["debug"] == "config.debug.fake_data=True"
    lines = [line for line in read_metrics(workdir) if "train/loss" in line]
    told = [(line["step"], line["debug/fake_data"], line["train/unread_rows"]) for line in lines]
    assert told == [(1, 1, 0), (2, 1, 0)]


@pytest.mark.parametrize(("leaf", "words"), [("fake_data", "on noise"), ("reuse_batch", "on one batch")])
def test_such_a_run_is_taken_for_no_model(dataset, tmp_path, leaf, words):
    config = tiny(dataset, **{f"debug__{leaf}": True})
    workdir = write_run(tmp_path / "run", config)
    told = rf"was trained {words} \(config.debug.{leaf}=True\): it is no model"
    for take in (load_encoder, open_source, lambda place: open_trained_run(place, statistics="running")):
        with pytest.raises(ConfigError, match=told):
            take(workdir)
    settings = defaults.settings_of(config).debug
    assert f"trains {words}" in settings.caution
    assert settings.marks == {f"debug/{leaf}": 1.0}


def test_a_run_cannot_become_a_model_by_being_resumed(dataset, tmp_path):
    newer = {name: leaf.default for name, leaf in defaults.leaves().items()}
    workdir = write_run(tmp_path / "run", tiny(dataset, debug__reuse_batch=True))
    other = tiny(dataset, resume__allow="debug")
    with pytest.raises(ConfigError, match=r"started with config.debug.reuse_batch=True, which cannot be changed"):
        run_config.check_resume(other, workdir, defaults=newer)
    plain = write_run(tmp_path / "plain", tiny(dataset))
    with pytest.raises(ConfigError, match=r"debug.fake_data=False, which cannot be changed"):
        run_config.check_resume(tiny(dataset, debug__fake_data=True), plain, defaults=newer)
    run_config.check_resume(tiny(dataset, debug__nan_checks=True), plain, defaults=newer)
    assert defaults.settings_of(tiny(dataset)).debug.caution == ""


def step(state, batch):
    inner = jnp.log(batch)
    return state._replace(step=state.step + 1), {"loss": inner.sum()}


def test_the_operation_that_gives_nan_is_named_with_its_step():
    state = TrainState(jnp.int32(6), {}, {}, ())
    compiled = telling(jax.jit(checked(step)).lower(state, jnp.ones(3)).compile())
    after, metrics = compiled(state, jnp.ones(3))
    assert int(after.step) == 7
    assert float(metrics["loss"]) == 0
    with pytest.raises(DivergedError, match="step 8: nan generated by primitive: log"):
        compiled(after, -jnp.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["replicated", "fsdp"])
def test_checks_on_eight_devices_change_no_loss_and_name_the_step(dataset, sharding):
    leaves = {"mesh__sharding": sharding, "optimizer__learning_rate": 1e38, "optimizer__schedule": "constant"}
    (expected,), held, _ = take_steps(config_of("one stage", dataset, **leaves), 1)
    assert (held < 0.3) == (sharding == "fsdp")
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power
        run = prepare_run(defaults.settings_of(config_of("one stage", dataset, debug__nan_checks=True, **leaves)))
        stream = run.batches(run.sampler, start_step=0)
        assert run.mesh.size == 8
        state, metrics = run.step(run.state, next(stream))
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
        with pytest.raises(DivergedError, match=r"step [2-6]: nan generated by primitive: .* in ecgjax/.*\.py:\d+"):
            functools.reduce(lambda state, batch: run.step(state, batch)[0], itertools.islice(stream, 5), state)
        stream.close()
