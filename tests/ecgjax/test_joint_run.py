"""A run on two data sets with weights, end to end: shares, resumption, and evaluation on one of them."""

import dataclasses
import functools
import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from data_pipelines.streaming.orders import smallest_block
from ecgjax import defaults, evaluate, pretrain
from ecgjax.config import run_config
from ecgjax.data.groups import group_columns
from ecgjax.data.recordings import open_recordings
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.frozen_encoder import load_encoder
from ecgjax.evaluation.models import boosted
from ecgjax.evaluation.models.answers import Answers
from ecgjax.leakage.trained_on import RECORDS_FILE
from ecgjax.studies import finished_run, models
from ecgjax.training import device_mesh
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.run import prepare_run
from tests.support import tiny_config
from tests.support.finished_runs import final_state
from tests.support.fixtures import make_simulated_dataset

STEPS = 16


@pytest.fixture(scope="module", autouse=True)
def as_users_run_it(tmp_path_factory):
    """Optimisers mix types, which the other tests forbid; one device and one compilation for all runs save time."""
    cache = str(tmp_path_factory.mktemp("compiled"))
    settings = {"jax_compilation_cache_dir": cache, "jax_persistent_cache_min_compile_time_secs": 0.5}
    before = {name: getattr(jax.config, name) for name in settings}
    one_device = functools.partial(device_mesh.make_mesh, devices=jax.devices()[:1])
    with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_mesh, "make_mesh", one_device)
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return [
        make_simulated_dataset(folder, num_patients=60, rate=50, seconds=4, seed=seed, name=f"cohort{seed}")
        for seed in (0, 1)
    ]


def joint_config(datasets):
    config = tiny_config.get_config()
    config.data.dir = ", ".join(str(dataset.directory) for dataset in datasets)
    config.data.weights = (0.75, 0.25)
    config.data.train_folds, config.data.val_folds, config.data.test_folds = (1, 2, 3, 4, 5, 6), (7, 8), (9, 10)
    config.duration.value = float(STEPS)
    config.eval_every = 0
    config.checkpoint.every, config.checkpoint.keep = 4, 10
    probe = {"task": "age_years>55", "bootstrap": 100, "shuffles": 2}
    config.probe.update(probe)
    return config


@pytest.fixture(scope="module")
def runs(datasets, tmp_path_factory):
    """Workdirs of an uninterrupted run, and of one that went on from the same run's first half."""
    folder = tmp_path_factory.mktemp("runs")
    whole, resumed = folder / "whole", folder / "resumed"
    config = joint_config(datasets)
    assert pretrain.pretrain(config, whole, progress=False)
    shutil.copytree(whole, resumed)
    for checkpoint in run_config.checkpoint_dir(resumed).iterdir():
        if checkpoint.name.isdigit() and int(checkpoint.name) > STEPS // 2:
            shutil.rmtree(checkpoint)
    assert last_step(resumed) == STEPS // 2
    assert pretrain.pretrain(config, resumed, progress=False)
    return whole, resumed


def last_step(workdir):
    with Checkpoints(run_config.checkpoint_dir(workdir), read_only=True) as checkpoints:
        return checkpoints.latest_step()


def test_gone_on_with_equals_uninterrupted(runs):
    (step, whole), (_, resumed) = map(final_state, runs)
    assert step == STEPS
    leaves, others = jax.tree.leaves(whole), jax.tree.leaves(resumed)
    assert len(leaves) == len(others) > 10
    for leaf, other in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other))


def test_batches_hold_each_data_sets_share_of_its_training_records(datasets):
    run = prepare_run(defaults.settings_of(joint_config(datasets)))
    ends = np.cumsum([dataset.index.num_records for dataset in datasets])
    fold = np.concatenate([dataset.index.fold for dataset in datasets])
    assert smallest_block((0.75, 0.25), multiple_of=8) == 8, "every batch is a block"
    stream = run.batches(run.sampler)
    drawn = []
    for batch in itertools.islice(stream, 12):
        records = np.asarray(batch["record"])
        assert (records < ends[0]).sum() == 6
        np.testing.assert_array_equal(np.asarray(batch["signal"]), run.recordings.store.read(records))
        np.testing.assert_array_equal(np.asarray(batch["patient"]), run.recordings.index.group[records])
        assert (fold[records] <= 6).all()
        drawn += records.tolist()
    stream.close()
    train = run.recordings.split.train
    first, second = run.recordings.by_dataset(train)
    of_dataset = group_columns(("dataset",), run.recordings, train)["dataset"].tolist()
    assert of_dataset == ["simulated (1)"] * len(first) + ["simulated (2)"] * len(second)
    # 24 draws of the second cohort: less than an epoch of it, so that none comes twice.
    assert len(second) > 24
    assert len({record for record in drawn if record >= ends[0]}) == 24


def data_of(settings, *datasets, **changes):
    directories = ",".join(str(dataset.directory) for dataset in datasets)
    return dataclasses.replace(settings.data, dir=directories, **changes)


@pytest.mark.slow
def test_the_checkpoint_knows_every_data_set_so_that_evaluation_on_one_is_honest(datasets, runs, monkeypatch):
    answers = models.StudyModels.answers

    def quick(self, name, data, *, seed):
        if name != "supervised":
            return answers(self, name, data, seed=seed)
        sides = (np.random.default_rng(0).normal(size=len(part.records)) for part in (data.test, data.val))
        return Answers(**dict(zip(("outputs", "val_outputs"), sides, strict=True)), val_metric=0.5)

    monkeypatch.setattr(models.StudyModels, "answers", quick)
    monkeypatch.setattr(boosted, "_TREES", 5)
    monkeypatch.setattr(frozen_encoder, "recalibrate_batch_norm", lambda encoder, read, **arguments: encoder)
    encoder = load_encoder(runs[0])
    assert encoder.pretrained_on == tuple(dataset.fingerprint for dataset in datasets)
    settings = defaults.settings_of_run(runs[0])
    settings = dataclasses.replace(settings, data=data_of(settings, datasets[1]))
    evaluation = evaluate.evaluate(settings, runs[0], progress=False)
    told = json.loads((evaluation.report.html.parent / "results.json").read_text(encoding="utf-8"))["provenance"]
    assert told["fingerprint"] == datasets[1].fingerprint
    assert told["cautions"] == []
    assert set(datasets[1].index.fold[evaluation.task.data.test.records].tolist()) <= {9, 10}


OTHER_FOLDS = {"train_folds": (1, 2, 3, 4), "test_folds": (5, 9, 10)}


def _guarded(own, encoder, *datasets, overlaps):
    """Recordings of data sets on other folds, before and after the firewall, and its cautions."""
    opened = open_recordings(data_of(own, *datasets, **OTHER_FOLDS))
    return opened, *finished_run.guarded(
        own,
        opened,
        overlaps=overlaps,
        encoder=encoder,
        records=np.concatenate([opened.split.val, opened.split.test]),
        trained_folds=dict.fromkeys(encoder.pretrained_on, own.data.train_folds),
    )


def test_folds_that_were_pretrained_on_are_told_for_one_of_the_data_sets_too(datasets, runs, tmp_path):
    own = defaults.settings_of_run(runs[0])
    encoder = load_encoder(runs[0])

    def guarded(*datasets, overlaps="mark"):
        return _guarded(own, encoder, *datasets, overlaps=overlaps)

    opened, _, (seen,) = guarded(datasets[1])
    of_fold_5 = int(np.sum(opened.index.fold[opened.split.test] == 5))
    assert of_fold_5 > 0
    assert f"{of_fold_5:,} equal recordings" in seen
    with pytest.raises(ConfigError, match=f"^{of_fold_5} of the .* validation and test records overlap"):
        guarded(datasets[1], overlaps="refuse")
    _, dropped, _ = guarded(datasets[1], overlaps="drop")
    assert set(datasets[1].index.fold[dropped.split.test].tolist()) == {9, 10}
    strange = make_simulated_dataset(tmp_path, num_patients=60, rate=50, seconds=4, seed=2)
    assert guarded(strange, overlaps="refuse")[2] == ()
    assert guarded(datasets[1], strange)[2][0].startswith(f"{of_fold_5:,} of the ")


def test_what_only_fingerprints_tell_of_older_checkpoints(datasets, runs, tmp_path):
    own = defaults.settings_of_run(runs[0])
    encoder = dataclasses.replace(load_encoder(runs[0]), trained_on=None)

    def guarded(*datasets, overlaps="mark"):
        return _guarded(own, encoder, *datasets, overlaps=overlaps)

    opened, kept, (seen, unlisted) = guarded(datasets[1])
    of_fold_5 = np.flatnonzero(opened.index.fold[opened.split.test] == 5)
    looked_at = len(opened.split.test) + len(opened.split.val)
    assert seen == (
        f"{len(of_fold_5):,} of the {looked_at:,} validation and test records were pretrained on by the encoder: they "
        f"are of {datasets[1].card['name']} itself (the fingerprint is the same), in fold 5, which it was trained on."
    )
    assert unlisted == finished_run.NOT_LISTED
    assert kept is opened
    with pytest.raises(ConfigError, match=r"give --config\.probe\.overlaps=drop to leave these out"):
        guarded(datasets[1], overlaps="refuse")
    _, dropped, (left_out, _) = guarded(datasets[1], overlaps="drop")
    assert left_out.endswith("which it was trained on: they are left out.")
    np.testing.assert_array_equal(dropped.split.test, np.delete(opened.split.test, of_fold_5))
    strange = make_simulated_dataset(tmp_path, num_patients=60, rate=50, seconds=4, seed=2)
    unknown = "whether it has seen patients or signals of these is not known."
    for overlaps in ("refuse", "drop", "mark"):
        _, all_kept, cautions = guarded(strange, overlaps=overlaps)
        assert cautions == (f"The encoder was pretrained on other data: {unknown}", finished_run.NOT_LISTED)
        assert all_kept.split.test.size
    _, _, (other, of_own, _) = guarded(datasets[0], strange)
    assert other == f"The encoder was pretrained on other data than simulated: {unknown}"
    assert "in fold 5, which it was trained on" in of_own


def test_a_missing_list_is_an_error_unless_it_is_to_be_marked(datasets, runs, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    (copy / RECORDS_FILE).unlink()
    own = defaults.settings_of_run(copy)
    assert own.probe.overlaps == "refuse"
    opened = open_recordings(own.data)
    arguments = {"encoder": load_encoder(copy), "records": opened.split.test}
    with pytest.raises(CheckpointError, match="lists what the encoder was pretrained on, is missing"):
        finished_run.guarded(own, opened, overlaps="refuse", trained_folds={}, **arguments)
    _, (said,) = finished_run.guarded(own, opened, overlaps="mark", trained_folds={}, **arguments)
    assert said.startswith("Whether validation and test records were pretrained on is not known: ")


def test_a_run_does_not_go_on_with_other_data_sets(datasets, runs):
    for directories in ([datasets[0]], datasets[::-1]):
        config = joint_config(directories)
        config.data.weights = (0.75, 0.25) if len(directories) == 2 else ()
        with pytest.raises(ConfigError, match=r"data\.weights was|trained on another data set, split or sampling"):
            pretrain.pretrain(config, runs[0], progress=False)
