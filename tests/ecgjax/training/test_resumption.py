"""Resumption on other devices, and with what may differ: named, allowed, and recorded."""

import json
import shutil

import jax
import numpy as np
import pytest

from data_pipelines.packing.packed_copy import pack
from data_pipelines.prepared.dataset import open_dataset
from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.data.recordings import open_recordings
from ecgjax.data.samplers import SampledSide
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.pretrain import pretrain
from ecgjax.training import device_mesh, run_fingerprint
from ecgjax.training.about import ABOUT_FILE, exposures
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.resumption import PARTS, changed_parts, changes, refuse_changes
from ecgjax.training.run import prepare_run, restore_latest
from tests.support import tiny_config
from tests.support.fixtures import make_simulated_dataset


@pytest.fixture(autouse=True)
def as_runs_promote():
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power
        yield


NOW = {
    "fingerprint": "new",
    "digests": {part: f"new {part}" for part in PARTS},
    "records": "r",
    "own_records": "r",
    "datasets": ["new"],
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


def config_of(dataset, **leaves):
    config = tiny_config.get_config()
    config.data.dir = str(dataset)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in leaves.items()})
    return config


def before(*differing, **fields):
    digests = {part: (f"old {part}" if part in differing else digest) for part, digest in NOW["digests"].items()}
    return {**NOW, "fingerprint": "old", "digests": digests, "datasets": ["old"], **fields}


def refused(old, allow):
    try:
        refuse_changes(old, NOW, allow=allow, directory="checkpoints", data="data/new")
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("differing", "enough", "not_enough"),
    [
        (["data"], ["data", "data.train_folds", "seed, data"], ["", "seed", "batch_size", "dat"]),
        (["sampling"], ["sampling", "batch_size", "data", "seed"], ["", "columns", "encoder"]),
        (["columns"], ["columns", "data", "seed"], ["", "batch_size"]),
        (["data", "columns", "sampling"], ["data"], ["", "batch_size,seed"]),
        (["pipeline"], [], ["", "data,batch_size,seed,columns,sampling"]),
    ],
)
def test_what_differs_is_refused_by_name_unless_it_is_allowed(differing, enough, not_enough):
    assert changed_parts(before(*differing), NOW) == differing
    for allow in enough:
        assert refused(before(*differing), allow) == ""
    for allow in not_enough:
        message = refused(before(*differing), allow)
        assert "another data set, split or sampling than data/new" in message
        assert PARTS[differing[0]] in message
        assert ("--config.resume.allow" in message) == (differing != ["pipeline"])


def test_checkpoints_from_before_the_parts_had_digests_need_the_data_allowed():
    old = {"fingerprint": "old", "records": "r"}
    assert refused({**old, "fingerprint": "new"}, "") == ""
    assert refused({"fingerprint": "new"}, "") == "", "from before records were listed"
    assert "version of the pipeline" in refused(old, "batch_size")
    assert refused(old, "data") == ""


def test_other_records_of_the_same_data_are_other_data():
    assert changed_parts({**NOW, "own_records": "others"}, NOW) == ["data"]
    assert "data sets or patients" in refused({**NOW, "own_records": "others"}, "")


def test_changes_are_told_once_and_from_the_step_that_they_are_in_force():
    change = {"step": 20, "name": "seed", "was": 0, "is": 1}
    leaves = {"batch_size": (8, 4)}
    told = changes(before("data", about={"changes": [change]}), NOW, told={"changes": [change]}, leaves=leaves, step=30)
    assert told == [
        change,
        {"step": 30, "name": "batch_size", "was": 8, "is": 4},
        {"step": 30, "name": "data sets", "was": ["old"], "is": ["new"]},
    ]
    # Steps 11 to 20 were lost with a damaged checkpoint: what was changed at 20 holds from 10 on.
    assert changes(before(), NOW, told={"changes": [change]}, leaves={}, step=10) == [{**change, "step": 10}]
    for damaged in ([], {}, "no", [1], [{"step": 1}], [{**change, "step": "1"}], None):
        assert changes(before(), NOW, told={"changes": damaged}, leaves={}, step=9) == []


def test_records_seen_are_counted_by_the_batch_size_of_their_time():
    about = {
        "batch_size": 2,
        "examples_per_epoch": 10,
        "changes": [
            {"step": 10, "name": "batch_size", "was": 8, "is": 4},
            {"step": 15, "name": "seed", "was": 0, "is": 4},
            {"step": 20, "name": "batch_size", "was": 4, "is": 2},
        ],
    }
    by_hand = np.cumsum([0] + [8] * 10 + [4] * 10 + [2] * 10)
    assert [exposures(about, step)["exposures"] for step in range(31)] == by_hand.tolist()


def test_a_packed_copy_that_was_shuffled_meanwhile_is_told_where_batches_depend_on_it(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")

    def metadata(shuffle):
        leaves = {"sampling__shuffle": shuffle, "sampling__block": 8, "sampling__window": 2}
        settings = defaults.settings_of(config_of(copy, **leaves))
        recordings = open_recordings(settings.data)
        side = SampledSide(settings.sampling, recordings, recordings.split.train)
        parts = recordings, {}, side.sampler(batch_size=16, seed=0)
        return {
            **NOW,
            "fingerprint": run_fingerprint.run_fingerprint(*parts, seed=0),
            "digests": run_fingerprint.part_digests(*parts),
        }

    before = {shuffle: metadata(shuffle) for shuffle in ("full", "blocks")}
    pack(open_dataset(copy), seed=1)
    assert changed_parts(before["full"], metadata("full")) == []
    now = metadata("blocks")
    assert changed_parts(before["blocks"], now) == ["sampling", "stored"]
    message = (
        r"\(split, .*; order in which the packed copy holds the recordings .*\); resume on .*, add sampling to --con"
    )
    with pytest.raises(ConfigError, match=message):
        refuse_changes(before["blocks"], now, allow="", directory="checkpoints", data="copy")
    assert refuse_changes(before["blocks"], now, allow="sampling", directory="checkpoints", data="copy") is None
    # A checkpoint from before there were shuffled copies was trained on records that lay by number.
    older = {part: digest for part, digest in before["blocks"]["digests"].items() if part != "stored"}
    assert changed_parts({**before["blocks"], "fingerprint": "other", "digests": older}, before["blocks"]) == []


def test_names_that_are_allowed_must_exist():
    leaves = {"resume.allow": "", "batch_size": 1, "data.dir": "x", "data.store": "y"}
    assert run_config.allowed_changes({**leaves, "resume.allow": " data, batch_size,"}) == ("data", "batch_size")
    for name in ("batchsize", "dat", "data.", "data.dirs", "batch_size.x"):
        with pytest.raises(ConfigError, match=f"config.resume.allow='{name}' is no leaf or section"):
            run_config.allowed_changes({**leaves, "resume.allow": f"data,{name}"})


def train_some(dataset, folder, shape, steps):
    """Trains some steps on a mesh, from the checkpoint in the folder where there is one.

    Returns the records and losses of the steps, and saves a checkpoint after them.
    """
    data, model = shape
    mesh = device_mesh.make_mesh(model=model, devices=jax.devices()[: data * model])
    run = prepare_run(defaults.settings_of(config_of(dataset, optimizer__ema_decay=0.9)), mesh=mesh)
    metadata = {"fingerprint": run.fingerprint, "digests": dict(run.digests), "records": "r", "own_records": "r"}
    with Checkpoints(folder) as checkpoints:
        state, _ = restore_latest(run, checkpoints, metadata)
        assert len(state.step.sharding.device_set) == data * model
        stream, seen, losses = run.batches(run.sampler, start_step=int(state.step)), [], []
        for _ in range(steps):
            batch = next(stream)
            seen.append(np.asarray(batch["record"]))
            state, metrics = run.step(state, batch)
            losses.append(float(metrics["loss"]))
        stream.close()
        checkpoints.save(int(state.step), state.parts(), metadata=metadata)
    return seen, losses


def assert_elastic(dataset, tmp_path, shapes, steps=2):
    parts = [train_some(dataset, tmp_path / "elastic", shape, steps) for shape in shapes]
    seen, losses = train_some(dataset, tmp_path / "whole", (1, 1), steps * len(shapes))
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in parts]), seen)
    # Devices sum in another order: some roundings of 6e-8, which a few steps make larger.
    np.testing.assert_allclose(np.concatenate([values for _, values in parts]), losses, rtol=2e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_more_devices(dataset, tmp_path):
    assert_elastic(dataset, tmp_path, [(1, 1), (4, 2)])


@pytest.mark.slow
def test_a_run_goes_on_with_any_number_of_devices_and_any_mesh(dataset, tmp_path):
    assert_elastic(dataset, tmp_path, [(1, 1), (2, 1), (8, 1), (4, 2), (1, 2), (1, 1)])


@pytest.mark.slow
def test_a_run_whose_data_are_changed_deliberately_lists_the_records_of_both(dataset, tmp_path):
    other = make_simulated_dataset(tmp_path / "other", num_patients=40, rate=50, seconds=4, seed=1).directory
    first = {"duration__value": 10.0, "checkpoint__every": 10}
    workdir = tmp_path / "run"
    assert pretrain(config_of(dataset, **first), workdir, progress=False)
    with pytest.raises(ConfigError, match=r"\(data sets or patients; .*add data,sampling to --config.resume.allow"):
        pretrain(config_of(other, **first), workdir, progress=False)
    before = json.loads((workdir / ABOUT_FILE).read_text())
    longer = {**first, "duration__value": 20.0, "batch_size": 16, "resume__allow": "data,batch_size,duration"}
    assert pretrain(config_of(other, **longer), workdir, progress=False)
    about = json.loads((workdir / ABOUT_FILE).read_text())
    assert [(change["step"], change["name"]) for change in about["changes"]] == [
        (10, "batch_size"),
        (10, "duration.value"),
        (10, "data sets"),
    ]
    assert about["exposures_of_the_whole_run"]["exposures"] == 10 * 8 + 10 * 16
    assert "changes" not in before
    with Checkpoints(run_config.checkpoint_dir(workdir), read_only=True) as checkpoints:
        assert checkpoints.metadata(20)["about"]["changes"] == about["changes"]
    from ecgjax.evaluation.features.frozen_encoder import load_encoder

    listed = load_encoder(workdir).trained_on()
    assert {source.fingerprint for source in listed.sources} == {
        each["fingerprint"] for each in (*before["data"], *about["data"])
    }
    # The same command again changes nothing more.
    assert pretrain(config_of(other, **longer), workdir, progress=False)
    assert json.loads((workdir / ABOUT_FILE).read_text())["changes"] == about["changes"]
    # Going on is not possible without the list, which nothing else has.
    (workdir / "pretraining_records.npz").unlink()
    with pytest.raises(CheckpointError, match="it also lists what the run drew before its data were changed"):
        pretrain(config_of(other, **longer), workdir, progress=False)
