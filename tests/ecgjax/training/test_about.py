"""What a run says of itself: in its checkpoints and its folder, begun, resumed and older."""

import functools
import json

import jax
import pytest

from ecgjax.config import run_config
from ecgjax.pretrain import pretrain
from ecgjax.training import about, device_mesh
from ecgjax.training.about import ABOUT_FILE, exposures, write_about
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from tests.support.fixtures import make_simulated_dataset
from tests.support.storage_faults import no_file_beyond
from tests.support.written_runs import tiny, write_run


def told(workdir):
    return json.loads((workdir / ABOUT_FILE).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4)


def config_of(dataset):
    return tiny(dataset.directory, duration__value=12.0, checkpoint__every=5, eval_every=0, checkpoint__keep=9)


@pytest.fixture(scope="module")
def written(dataset, tmp_path_factory):
    """The folder of a run in which nothing was trained."""
    return write_run(tmp_path_factory.mktemp("written") / "run", config_of(dataset), steps=(10, 12))


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    workdir, config = tmp_path_factory.mktemp("runs") / "run", config_of(dataset)
    one_device = functools.partial(device_mesh.make_mesh, devices=jax.devices()[:1])
    # Optimisers mix types, which the other tests forbid.
    with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_mesh, "make_mesh", one_device)
        assert pretrain(config, workdir, progress=False)
    return workdir


@pytest.mark.parametrize(
    ("made", "steps"), [("written", [10, 12]), pytest.param("run", [5, 10, 12], marks=pytest.mark.slow)]
)
def test_every_checkpoint_says_what_it_is(made, steps, request, dataset):
    run = request.getfixturevalue(made)
    with Checkpoints(run_config.checkpoint_dir(run), read_only=True) as checkpoints:
        metadata = {step: checkpoints.metadata(step) for step in checkpoints.steps()}
    assert sorted(metadata) == steps
    for step, each in metadata.items():
        said = each["about"]
        assert each["exposures"]["exposures"] == 8 * step
        assert each["exposures"]["epochs"] == 8 * step / said["data"][0]["records"]
        assert (said["signals"]["sampling_rate_hz"], said["signals"]["seconds"]) == (50, 4.0)
        assert len(said["signals"]["encoder_leads"]) == 12
        assert (said["signals"]["stored_leads"][2], said["signals"]["stored_unit"]) == ("V1", "uV")
        assert said["embedding"] == {"dimension": 8, "features": 8}
        assert said["data"][0]["fingerprint"] == dataset.fingerprint
        assert (said["data"][0]["recipe"]["name"], said["data"][0]["recipe"]["version"]) == ("simulated", 1)
        assert said["data"][0]["build_command"].startswith("python -m data_pipelines.build --builder=simulated")
        assert set(said["code"]) == {"git_revision", "git_dirty", "versions"}


@pytest.mark.slow
def test_the_folder_says_the_same_in_a_file(run):
    said = told(run)
    assert said["exposures_when_written"] == said["exposures_of_the_whole_run"]
    assert said["exposures_when_written"]["exposures"] == 96
    (code,) = said["code_from_step"]
    assert (code["step"], {*code["versions"]}) == (0, {"ecgjax", "jax", "flax", "numpy", "python"})


ABOUT = {"batch_size": 4, "examples_per_epoch": 10, "data": [], "code": {"git_revision": "a", "git_dirty": False}}


def write(workdir, revision, step):
    write_about(ABOUT | {"code": {"git_revision": revision, "git_dirty": False}}, workdir, step=step, num_steps=50)


def test_a_run_resumed_with_other_code_keeps_both(tmp_path):
    for revision, step in (("a", 0), ("a", 20), ("b", 20), ("b", 50)):
        write(tmp_path, revision, step)
    assert [(each["step"], each["git_revision"]) for each in told(tmp_path)["code_from_step"]] == [(0, "a"), (20, "b")]
    assert told(tmp_path)["exposures_when_written"]["epochs"] == 20


@pytest.mark.parametrize(
    "left",
    [None, "{", "[]", "", "\x00", '{"code_from_step": []}', '{"code_from_step": [1]}', '{"code_from_step": "ab"}'],
)
def test_of_a_run_begun_before_there_was_this_file_the_first_code_is_not_recorded(tmp_path, left):
    if left is not None:
        (tmp_path / ABOUT_FILE).write_text(left)
    write(tmp_path, "b", 30)
    revisions = [(each["step"], each["git_revision"]) for each in told(tmp_path)["code_from_step"]]
    assert revisions == [(0, about.NOT_RECORDED), (30, "b")]


def test_a_file_that_cannot_be_written_costs_no_run(tmp_path, capsys):
    (tmp_path / ABOUT_FILE).mkdir()
    write(tmp_path, "a", 0)
    assert f"{tmp_path / ABOUT_FILE} cannot be written (Is a directory); the checkpoints" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [ABOUT_FILE], "no temporary file is left"
    with no_file_beyond(10):
        write(tmp_path, "a", 0)
    assert list((tmp_path / ABOUT_FILE).iterdir()) == []


def test_exposures_count_records_and_epochs():
    assert exposures(ABOUT, 5) == {"steps": 5, "batch_size": 4, "exposures": 20, "epochs": 2.0}
