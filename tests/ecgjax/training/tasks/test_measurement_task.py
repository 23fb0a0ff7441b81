"""Measured waves as targets of a step: which rows count, and that devices and parts change nothing."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipelines.physiology.store import measure_dataset
from ecgjax import encoders
from ecgjax.augmentations.views import AUGMENTATIONS, CROPS, MASKS, NOISE, Views
from ecgjax.data.measured_waves import measured_waves
from ecgjax.errors import ConfigError
from ecgjax.leads import prepare
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.pretrain import pretrain
from ecgjax.training import device_mesh
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.embedding_rows import Layout
from ecgjax.training.steps import pretraining_loss
from ecgjax.training.tasks.measurement_task import MeasurementTask
from ecgjax.training.tasks.task_choice import CHANGED, check_task, describe_targets, describe_untrained
from ecgjax.training.tasks.task_settings import TaskSettings
from tests.support import tiny_config
from tests.support.finished_runs import computed
from tests.support.fixtures import make_simulated_dataset

BATCH = 16
NAMES = ("rr_mean", "pr_mean", "st_mean")
RNG = np.random.default_rng(0)
MEASURED = (RNG.normal(size=(BATCH, 3)) * [100, 20, 0.1] + [800, 160, 0]).astype(np.float32)
MEASURED[2:7, 0] = np.nan
MEASURED[9] = np.nan
MEASURED[1, 2] = 40
WAVES = measured_waves(NAMES, MEASURED, np.arange(BATCH))
UNREAD = (4, 11)
HOST_BATCH = {
    "signal": RNG.normal(0, 500, (BATCH, 40, 8)).astype(np.int16),
    **{name: np.arange(BATCH, dtype=np.int32) for name in ("row", "record", "patient")},
    "valid_start": np.zeros(BATCH, np.int32),
    "valid_samples": np.full(BATCH, 40, np.int32),
    "measured": MEASURED,
}
# Only the second view is masked.
AUGMENT = {"time_mask": {"ratio": 0.5, "views": (1,)}}


class Means(nnx.Module):
    """An encoder whose features are two numbers of each lead, and whose embedding is a linear layer of them."""

    def __init__(self, rngs):
        self.head = nnx.Linear(24, 4, rngs=rngs)

    def with_features(self, ecg, *, train, keys=None, valid=None):
        del train, keys, valid
        features = jnp.concatenate([ecg[:, ::3].mean(1), jnp.abs(ecg).mean(1)], axis=1)
        return self.head(features), features


def means():
    with jax.numpy_rank_promotion("allow"):
        graph, params = nnx.split(Means(nnx.Rngs(0)))
    return encoders.Split(graph, nnx.to_pure_dict(params), {})


ENCODER = means()


def make_task(**leaves):
    settings = {"name": "measurements", "reads": "features", "hidden": 6, "dropout": 0.0, "delta": 0.7, **leaves}
    return MeasurementTask(TaskSettings(**settings), dim=24, waves=WAVES, seed=0)


def evaluated(task, *, devices=1, parts=1, train=True):
    """Value, metrics and gradient of a loss with a task."""
    mesh = device_mesh.make_mesh(devices=jax.devices()[:devices])
    objective = Objective(
        ObjectiveSettings(name="nt_xent", arguments={"temperature": 0.5}), RelationSettings(name="same_record"),
        MinerSettings(), tiling=Tiling(mesh=mesh), num_views=2,
    )  # fmt: skip
    views = Views(AUGMENT, rate_hz=100)
    loss = pretraining_loss(ENCODER.graph, views, objective, layout=Layout(), task=task, mesh=mesh, parts=parts)
    params = {"encoder": ENCODER.params, "objective": {}, "task": task.head.params}
    params, stats = jax.device_put((params, {"encoder": {}, "task": task.head.stats}), device_mesh.replicated(mesh))
    run = jax.jit(functools.partial(jax.value_and_grad(loss, has_aux=True), train=train))
    rows = device_mesh.local_rows(device_mesh.batch_sharding(mesh), BATCH)
    valid = device_mesh.put_votes(~np.isin(rows, UNREAD), mesh=mesh, rows=rows, batch_size=BATCH)
    local = {name: values[rows] for name, values in HOST_BATCH.items()}
    batch = device_mesh.put_batch(local, sharding=device_mesh.batch_sharding(mesh), rows=rows, batch_size=BATCH)
    batch |= {"valid": valid, "seed": jnp.uint32(0)}
    with jax.numpy_rank_promotion("allow"):  # of flax's linear layer
        (value, (stats, metrics)), gradient = jax.device_get(run(params, stats, batch, jnp.int32(3)))
    return value, metrics, gradient, stats


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize(("devices", "parts"), [(1, 4), (8, 2)])
def test_devices_and_parts_change_neither_loss_nor_gradient(devices, parts):
    value, metrics, gradient, stats = evaluated(make_task(), devices=devices, parts=parts)
    expected_value, expected, expected_gradient, expected_stats = once()
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(value, metrics["objective"] + metrics["task"], rtol=1e-6)
    assert metrics["task"] > 0.1
    for name in ("task", "task_explained", "task_explained_rate", "task_explained_amplitudes", "task_explained_worst"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(flat(stats), flat(expected_stats), rtol=1e-5, atol=1e-6)
    scale = np.abs(flat(expected_gradient["task"])).max()
    assert scale > 1e-3
    np.testing.assert_allclose(flat(gradient), flat(expected_gradient), rtol=0, atol=1e-5 * scale)
    assert np.isfinite(flat(gradient)).all()


@functools.cache
def once():
    return evaluated(make_task())


def test_only_the_views_that_carry_the_task_count_in_loss_and_telemetry():
    task = make_task(views=(0,))
    _, metrics, _, _ = evaluated(task, train=False)
    # The first view is the recording as it is stored, and running statistics are those of initialisation.
    ecg = np.asarray(prepare(jnp.asarray(HOST_BATCH["signal"])), np.float64)
    features = np.concatenate([ecg[:, ::3].mean(1), np.abs(ecg).mean(1)], axis=1)
    head = encoders.merge(task.head)
    with jax.numpy_rank_promotion("allow"):
        predicted = np.asarray(head(jnp.asarray(features, jnp.float32), train=False), np.float64)
    error = np.abs(predicted - MEASURED) / WAVES.scale
    at_median = np.abs(WAVES.location - MEASURED) / WAVES.scale
    error[list(UNREAD)] = at_median[list(UNREAD)] = np.nan
    lost, by_median = (np.where(x <= 0.7, x**2 / 2, 0.7 * (x - 0.35)) for x in (error, at_median))
    np.testing.assert_allclose(metrics["task"], np.nanmean(lost), rtol=1e-5)
    shares = 1 - np.nansum(lost, axis=0) / np.nansum(by_median, axis=0)
    for column, name in enumerate(NAMES):
        np.testing.assert_allclose(metrics[f"task_explained/{name}"], shares[column], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["task_explained_worst"], shares.min(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["task_explained_rate"], shares[0], rtol=1e-3, atol=1e-5)
    whole = 1 - np.nansum(lost) / np.nansum(by_median)
    np.testing.assert_allclose(metrics["task_explained"], whole, rtol=1e-3, atol=1e-5)
    _, every, _, _ = evaluated(make_task(), train=False)
    assert abs(every["task"] - metrics["task"]) > 1e-4, "the masked view predicts something else"


def test_a_head_of_its_own_leaves_the_projection_to_the_objective():
    _, _, gradient, _ = once()
    _, _, weightless, _ = evaluated(make_task(weight=0.0))
    np.testing.assert_allclose(
        flat(gradient["encoder"]["head"]), flat(weightless["encoder"]["head"]), rtol=1e-5, atol=1e-7
    )
    assert np.abs(flat(gradient["encoder"]["head"])).max() > 1e-4
    assert np.abs(flat(weightless["task"])).max() == 0


def test_every_augmentation_says_which_waves_it_changes_unless_it_hides_a_part_or_adds_noise():
    leave_right = {*CROPS, *MASKS, *NOISE} - {"resized_crop", "stretched_crop", "lowpass"}
    assert CHANGED.keys() == AUGMENTATIONS.keys() - leave_right


def test_views_that_show_other_waves_than_their_targets_are_told():
    augment = {"vcg": {"enabled": True, "views": ()}, "time_warp": {"enabled": False}, "time_mask": {"enabled": True}}
    lines = describe_targets(make_task(views=(0,)), augment)
    assert lines[0] == "3 measurements of every recording are predicted"
    assert [line.partition(" of views")[0] for line in lines[1:]] == ["config.augment.vcg changes amplitudes"]
    assert describe_targets(make_task(views=(0,)), {"vcg": {"enabled": True, "views": (1,)}}) == lines[:1]
    assert describe_targets(None, augment) == []
    told = describe_targets(make_task(), {name: {"enabled": True} for name in ("stretched_crop", "lowpass")})
    assert [line.partition(" of views")[0] for line in told[1:]] == [
        "config.augment.stretched_crop changes rate, intervals",
        "config.augment.lowpass changes amplitudes",
    ]


def test_an_embedding_that_nothing_trains_is_told():
    reads_features = TaskSettings(name="measurements", reads="features")
    (line,) = describe_untrained(reads_features, objective_weight=0.0)
    assert line.startswith("nothing trains the embedding: config.objective.weight=0")
    assert not describe_untrained(reads_features, objective_weight=1.0)
    assert not describe_untrained(TaskSettings(name="measurements", reads="embedding"), objective_weight=0.0)
    assert not describe_untrained(TaskSettings(), objective_weight=0.0)


def test_a_task_that_does_not_fit_views_or_encoder_is_refused():
    check_task(TaskSettings(name="measurements", views=(1,), reads="features"), num_views=2, decoder=False)
    with pytest.raises(
        ConfigError, match=r"task\.views=\(0, 2\) names view 2, and config\.views\.num=2 gives views 0 to 1"
    ):
        check_task(TaskSettings(name="binary", views=(0, 2)), num_views=2, decoder=False)
    with pytest.raises(ConfigError, match=r"reads='features' is not possible with config\.encoder\.decoder=True"):
        check_task(TaskSettings(name="binary", reads="features"), num_views=2, decoder=True)


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_and_its_checkpoint_knows_the_targets(tmp_path):
    dataset = make_simulated_dataset(tmp_path, num_patients=40, rate=100, seconds=6)
    measure_dataset(dataset.directory, num_workers=1)
    config = tiny_config.get_config()
    config.data.dir = str(dataset.directory)
    config.task.name, config.task.reads, config.objective.weight = "measurements", "features", 0.0
    config.duration.value, config.checkpoint.every, config.checkpoint.keep, config.eval_every = 6.0, 2, 4, 3
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert pretrain(config, tmp_path / "whole", progress=False)
        shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
        for step in (4, 6):
            shutil.rmtree(tmp_path / "stopped" / "checkpoints" / str(step))
        assert pretrain(config, tmp_path / "stopped", progress=False)
    whole = computed(tmp_path / "whole")
    assert whole == computed(tmp_path / "stopped")
    last = whole[-1]
    assert {"eval/task_explained/pr_mean", "eval/task_explained_worst"} <= {*last}
    assert "train/task_explained_intervals" in {name for line in whole for name in line}
    about = json.loads((tmp_path / "whole" / "about.json").read_text())
    with Checkpoints(tmp_path / "stopped" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.metadata(6)["about"]["measurements"] == about["measurements"]
    assert {"name", "group", "median", "scale", "records"} == about["measurements"][0].keys()
