"""The health metric of whole runs: it changes no bit of the training, and is the same on any devices."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.data.recordings import open_recordings
from ecgjax.encoders.from_config import abstract_split
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.frozen_encoder import load_encoder
from ecgjax.health.asked_records import asked_records
from ecgjax.health.neighbour_probe import NeighbourProbe
from ecgjax.health.neighbour_vote import vote
from ecgjax.health.watched_run import asked_of_run
from ecgjax.leakage import guard
from ecgjax.placement.parameter_layout import lay_out
from ecgjax.pretrain import pretrain
from ecgjax.pretrained.beginning import open_beginning
from ecgjax.settings.initialisation import InitSettings
from ecgjax.studies.finished_run import guarded
from ecgjax.training import device_mesh
from ecgjax.training.about import ABOUT_FILE
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.run_log.metrics_file import read_metrics
from ecgjax.training.steps import Weights
from tests.support.finished_runs import computed, final_state
from tests.support.fixtures import make_simulated_dataset
from tests.support.plain_networks import away_from_initialisation
from tests.support.written_runs import tiny

STEPS = 4
QUESTION = "age_years>55"
HEALTH = {"health__task": QUESTION, "health__neighbours": 5, "checkpoint__best_mode": "max"}


@pytest.fixture(scope="module", autouse=True)
def as_users_run_it():
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power.
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


def config(dataset, **leaves):
    of_all = {"duration__value": float(STEPS), "eval_every": 2, "checkpoint__every": 2, "checkpoint__keep": 9}
    folds = {"data__train_folds": (1, 2, 3, 4, 5, 6), "data__val_folds": (7, 8, 9)}
    made = tiny(dataset, **of_all, **folds, **leaves)
    made.optimizer.ema_decay = 0.5
    made.encoder.widths = (8,)  # one stage compiles faster
    made.augment.vcg.enabled = made.augment.time_mask.enabled = False
    return made


@pytest.fixture(scope="module")
def workdirs(dataset, tmp_path_factory):
    """Workdirs of a run without the metric, and of one whose best checkpoint is chosen by it."""
    folder = tmp_path_factory.mktemp("runs")
    one_device = functools.partial(device_mesh.make_mesh, devices=jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_mesh, "make_mesh", one_device)
        assert pretrain(config(dataset), folder / "without", progress=False)
        watched = config(dataset, checkpoint__best="eval/knn_auroc", **HEALTH)
        assert pretrain(watched, folder / "with", progress=False)
        # The metric is computed anew where a run goes on.
        shutil.copytree(folder / "with", folder / "resumed")
        shutil.rmtree(folder / "resumed" / "checkpoints" / str(STEPS))
        assert pretrain(watched, folder / "resumed", progress=False)
    return folder


def health_of(workdir):
    return {line["step"]: line["eval/knn_auroc"] for line in read_metrics(workdir) if "eval/knn_auroc" in line}


def test_training_is_the_same_bit_for_bit_with_and_without(workdirs):
    (step, without), (_, watched) = (final_state(workdirs / name) for name in ("without", "with"))
    assert step == STEPS
    for one, other in zip(jax.tree.leaves(without), jax.tree.leaves(watched), strict=True):
        np.testing.assert_array_equal(one, other)
    lines = [{n: v for n, v in line.items() if n != "eval/knn_auroc"} for line in computed(workdirs / "with")]
    assert json.dumps(lines) == json.dumps(computed(workdirs / "without"))


def test_the_metric_is_that_of_the_weights_that_evaluation_uses(workdirs):
    """Of the moving average, as `load_encoder` opens it, embedded one call at a time and without a mesh."""
    workdir = workdirs / "with"
    run = defaults.settings_of_run(workdir)
    recordings = open_recordings(run.data)
    asked = asked_records(run.health, recordings)
    found = health_of(workdir)
    assert sorted(found) == [0, 2, 4]
    embeddings = load_encoder(workdir, step=STEPS, layer="features").embed(recordings.store.read(asked.records))
    expected = vote(asked, embeddings, np.ones(len(embeddings), bool))
    # Embeddings differ by rounding, which may exchange two neighbours that are as near.
    assert found[STEPS] == pytest.approx(expected, abs=0.02)


def test_a_run_that_resumes_finds_the_same_values(workdirs):
    assert health_of(workdirs / "resumed") == health_of(workdirs / "with")


def test_the_best_checkpoint_is_chosen_by_it_and_the_run_says_so(workdirs):
    found = health_of(workdirs / "with")
    with Checkpoints(run_config.checkpoint_dir(workdirs / "with"), read_only=True) as checkpoints:
        saved = {step: checkpoints.metadata(step) for step in checkpoints.steps()}
    assert max(saved, key=lambda step: saved[step]["evaluation"]["eval/knn_auroc"]) == max(
        (step for step in found if step), key=found.get
    )
    said = json.loads((workdirs / "with" / ABOUT_FILE).read_text(encoding="utf-8"))["health"]
    assert (said["question"], said["chooses_best_checkpoint"]) == (QUESTION, True)
    assert said["labels_looked_at"]["validation"] > 0
    assert "health" not in json.loads((workdirs / "without" / ABOUT_FILE).read_text(encoding="utf-8"))


def test_evaluations_are_cautioned():
    assert guard.watched("", chooses=False) == ()
    (chosen,), (watched,) = (guard.watched(QUESTION, chooses=chooses, name="A") for chooses in (True, False))
    assert chosen.startswith("A was watched in pretraining by a metric that trains no weight")
    assert QUESTION in chosen
    assert "its best checkpoint was chosen by them" in chosen
    assert "its best checkpoint" not in watched


def test_an_evaluation_and_an_encoder_that_begins_with_it_say_that_labels_were_looked_at(workdirs):
    run, encoder = defaults.settings_of_run(workdirs / "with"), load_encoder(workdirs / "with")
    recordings = open_recordings(run.data)
    records = recordings.split.test
    _, found = guarded(run, recordings, overlaps="refuse", encoder=encoder, records=records, trained_folds={})
    assert guard.watched(QUESTION, chooses=True)[0] in found
    begun = open_beginning(InitSettings(source=str(workdirs / "with")))
    assert begun.seen.labels == (f"{QUESTION} (for the choice of a checkpoint)",)
    assert open_beginning(InitSettings(source=str(workdirs / "without"))).seen.labels == ()


@pytest.fixture(scope="module")
def on_one_device(dataset):
    return embedded(dataset, jax.devices()[:1])


@pytest.mark.parametrize("leaves", [{}, {"mesh__sharding": "fsdp"}, {"mesh__model": 2, "mesh__sharding": "tensor"}])
def test_embeddings_are_the_same_bits_on_any_devices(dataset, on_one_device, leaves):
    assert len(on_one_device[0]) % 32  # The last block is padded.
    for one, other in zip(on_one_device, embedded(dataset, None, **leaves), strict=True):
        np.testing.assert_array_equal(one, other)


def test_records_that_cannot_be_read_are_told_where_that_is_allowed(dataset, on_one_device):
    class Damaged:
        def __init__(self, store):
            self._store = store

        def read(self, records, *, valid):
            bad = records % 5 == 0
            valid[bad] = False
            return np.where(bad[:, None, None], np.int16(0), self._store.read(records))

    found, readable = embedded(dataset, None, damaged=Damaged)
    settings = defaults.settings_of(config(dataset, **HEALTH))
    records = asked_records(settings.health, open_recordings(settings.data)).records
    np.testing.assert_array_equal(readable, records % 5 != 0)
    np.testing.assert_array_equal(found[readable], on_one_device[0][readable])


def embedded(dataset, devices, *, damaged=None, **leaves):
    """Embeddings of the asked records, by weights that are laid out as a run's."""
    settings = defaults.settings_of(config(dataset, mesh__fsdp_min_mb=0.0, **HEALTH, **leaves))
    recordings, mesh = open_recordings(settings.data), device_mesh.make_mesh(model=settings.mesh.model, devices=devices)
    split = away_from_initialisation(abstract_split(settings.encoder))
    params = {"encoder": split.params}
    layout = lay_out(params, mesh, settings.mesh)
    assert bool(layout.divided) == (settings.mesh.sharding != "replicated")
    probe = NeighbourProbe(
        asked_records(settings.health, recordings),
        store=damaged(recordings.store) if damaged else recordings.store,
        graph=split.graph,
        num_leads=settings.encoder.num_leads,
        layer="features",
        mesh=mesh,
        allow_bad_shards=damaged is not None,
    )
    stats = jax.device_put({"encoder": split.stats}, device_mesh.replicated(mesh))
    return probe.embedded(Weights(jax.device_put(params, layout.shardings(params)), stats))


def test_without_evaluations_it_is_refused(dataset):
    settings = defaults.settings_of(tiny(dataset, eval_every=0, **HEALTH))
    with pytest.raises(ConfigError, match=r"config\.health\.task='age_years>55' .* config\.eval_every=0"):
        asked_of_run(settings, open_recordings(settings.data))


def test_the_worst_is_not_kept_as_the_best(dataset):
    leaves = HEALTH | {"checkpoint__best": "eval/knn_auroc", "checkpoint__best_mode": "min"}
    settings = defaults.settings_of(config(dataset, **leaves))
    with pytest.raises(ConfigError, match=r"config\.checkpoint\.best_mode='min' .* give max"):
        asked_of_run(settings, open_recordings(settings.data))


@pytest.mark.parametrize(("task", "best"), [("", "eval/knn_auroc"), ("age_years", "eval/knn_auroc")])
def test_a_best_checkpoint_by_a_metric_that_is_not_computed_is_refused(dataset, task, best):
    leaves = HEALTH | {"health__task": task, "checkpoint__best": best}
    settings = defaults.settings_of(config(dataset, **leaves))
    with pytest.raises(ConfigError, match=rf"config\.checkpoint\.best='{best}' .*config\.health\.task"):
        asked_of_run(settings, open_recordings(settings.data))
