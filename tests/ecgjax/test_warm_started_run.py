"""Runs that begin with another encoder's weights, and runs that go on beyond their length, from end to end."""

import contextlib
import functools
import json
import shutil

import jax
import numpy as np
import pytest

from ecgjax import defaults
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.frozen_encoder import Encoder, load_encoder
from ecgjax.export.model_folder import export_run
from ecgjax.pretrain import pretrain
from ecgjax.pretrained.beginning import INIT_FILE, open_beginning
from ecgjax.pretrained.source import open_source
from ecgjax.training import device_mesh
from ecgjax.training.about import ABOUT_FILE
from ecgjax.training.run import prepare_run
from ecgjax.training.run_length import EXTENSIONS_FILE
from ecgjax.training.run_log.metrics_file import read_metrics
from tests.support.finished_runs import final_state
from tests.support.fixtures import make_simulated_dataset
from tests.support.stopping import stop_at
from tests.support.written_runs import tiny, write_run

HEAD = ["encoder/head/bias", "encoder/head/kernel"]
SIGNALS = np.random.default_rng(0).integers(-900, 900, (3, 200, 8)).astype(np.int16)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return [
        make_simulated_dataset(folder, num_patients=40, rate=50, seconds=4, seed=seed, name=f"cohort{seed}").directory
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module", autouse=True)
def one_device():
    alone = functools.partial(device_mesh.make_mesh, devices=jax.devices()[:1])
    # Optimisers mix types, which the other tests forbid.
    with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_mesh, "make_mesh", alone)
        yield


def train(config, workdir, **more):
    return pretrain(config, workdir, progress=False, **more)


@contextlib.contextmanager
def stopped_at(step, *, start=0):
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step, start=start)
        yield


def said(workdir, name=ABOUT_FILE):
    return json.loads((workdir / name).read_text(encoding="utf-8"))


def assert_equal_states(one, other):
    (step, found), (expected_step, expected) = final_state(one), final_state(other)
    assert step == expected_step
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture(scope="module")
def source(datasets, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "first", tiny(datasets[0]))


def warm(dataset, source):
    """Returns the config of a short run that begins with an encoder of another size of embedding."""
    short = {"duration__value": 4.0, "checkpoint__every": 2, "eval_every": 0, "optimizer__ema_decay": 0.9}
    other_head = {"encoder__embedding_dim": 5, "init__fresh": ("^encoder/head/",)}
    return tiny(dataset, init__source=str(source), **short, **other_head)


@pytest.fixture(scope="module")
def uninterrupted(datasets, source, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "second"
    assert train(warm(datasets[1], source), workdir)
    return workdir


@pytest.mark.slow
def test_features_at_step_0_are_the_sources_bit_for_bit_and_so_is_the_average(datasets, source):
    settings = defaults.settings_of(warm(datasets[1], source))
    run = prepare_run(settings, source=open_beginning(settings.init).weights)
    assert run.split.params["head"]["kernel"].shape == (8, 5)
    expected = open_source(source).encoder.embed(SIGNALS)
    state = run.state
    for weights in (state, state.evaluated):
        split = run.split._replace(params=weights.params["encoder"], stats=weights.stats["encoder"])
        np.testing.assert_array_equal(Encoder(split, num_leads=12).embed(SIGNALS), expected)
    assert state.ema is not None
    jax.tree.map(np.testing.assert_array_equal, state.ema.params, state.params)
    assert int(state.step) == 0


@pytest.mark.slow
def test_a_run_stopped_and_resumed_without_its_source_equals_one_that_was_not(
    datasets, source, uninterrupted, tmp_path
):
    moved = tmp_path / "first"
    shutil.copytree(source, moved)
    config, workdir = warm(datasets[1], moved), tmp_path / "second"
    with stopped_at(2):
        assert not train(config, workdir)
    init = (workdir / INIT_FILE).read_bytes()
    shutil.rmtree(moved)
    assert train(config, workdir)
    assert_equal_states(workdir, uninterrupted)
    assert (workdir / INIT_FILE).read_bytes() == init
    assert load_encoder(workdir).trained_on().digest == load_encoder(uninterrupted).trained_on().digest
    assert said(workdir)["begun_from"] == said(uninterrupted)["begun_from"]
    with pytest.raises(ConfigError, match=r"init\.source was "):
        train(warm(datasets[1], source), workdir)


# Lists of what earlier trainings saw are tested in `leakage/test_earlier_trainings.py`, and what a run takes over from
# its source in `pretrained/test_beginning.py`.
@pytest.mark.slow
def test_a_run_has_seen_what_its_source_saw_and_says_so(source, uninterrupted, tmp_path):
    first, second = (load_encoder(each).trained_on() for each in (source, uninterrupted))
    contents = [{row.tobytes() for row in each.content} for each in (first, second)]
    assert contents[0] < contents[1]
    assert second.num_earlier == 1
    assert said(uninterrupted)["begun_from"]["name"] == "first"
    found = said(uninterrupted, INIT_FILE)
    assert (found["source"], found["step"], found["fresh"]) == (str(source), 12, HEAD)
    assert found["weights_digest"] == open_source(source).weights_digest
    assert {"encoder/blocks/0/conv1/kernel", "encoder/blocks/0/norm1/mean"} < set(found["taken"])
    out = export_run(uninterrupted, tmp_path / "model", with_signatures=True, statistics="running", formats=())
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"- Began with the weights of the encoder first (step 12, digest {found['weights_digest']})." in card
    assert ", by first |" in card
    assert str(source) not in (out / "config.json").read_text(encoding="utf-8")
    third = open_beginning(defaults.settings_of(warm("none", out)).init)
    assert (third.said["name"], third.said["begun_from"]["name"]) == ("model", "first")
    assert third.seen.digest == second.digest


def constant(dataset, steps, **leaves):
    held = {"optimizer__schedule": "constant", "checkpoint__every": 100, "eval_every": 0}
    return tiny(dataset, duration__value=float(steps), **held | leaves)


@pytest.mark.slow
def test_a_run_extended_before_its_end_and_after_it_equals_a_longer_run(datasets, tmp_path):
    longer, workdir = tmp_path / "longer", tmp_path / "short"
    config = constant(datasets[0], 4)
    assert train(constant(datasets[0], 9), longer)
    with stopped_at(2):
        assert not train(config, workdir)
    assert train(config, workdir, extend=2)
    assert said(workdir)["exposures_of_the_whole_run"]["steps"] == final_state(workdir)[0] == 6
    with stopped_at(7, start=6):
        assert not train(config, workdir, extend=5)
    assert train(config, workdir), "the workdir keeps how long the run is"
    assert train(config, workdir, extend=5), "the same command asks for the same end"
    assert_equal_states(workdir, longer)
    for name in ("exposures_when_written", "exposures_of_the_whole_run"):
        assert said(workdir)[name] == said(longer)[name]
    assert [each["given_at_step"] for each in said(workdir)["extensions"]] == [2, 6]
    losses = [[(line["step"], line["train/loss"]) for line in read_metrics(each)] for each in (workdir, longer)]
    assert losses[0] == losses[1]
    with pytest.raises(ConfigError, match="for 2 more give --extend=7"):
        train(config, workdir, extend=2)
    # An extension that is forgotten must not make the run shorter than it is.
    (workdir / EXTENSIONS_FILE).unlink()
    with pytest.raises(ConfigError, match="trained with other extensions"):
        train(config, workdir)


@pytest.mark.slow
def test_a_refused_extension_leaves_the_workdir_as_it_was(datasets, tmp_path):
    config = tiny(datasets[0], duration__value=2.0, eval_every=0)
    assert train(config, tmp_path / "cosine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "cosine").iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match="has come to 0 at step 2"):
        train(config, tmp_path / "cosine", extend=2)
    assert {path.name: path.read_bytes() for path in (tmp_path / "cosine").iterdir() if path.is_file()} == before
    again = tiny(datasets[0], duration__value=2.0, eval_every=0, init__schedule="rewarm")
    assert train(again, tmp_path / "cosine", extend=2)
    assert final_state(tmp_path / "cosine")[0] == 4
