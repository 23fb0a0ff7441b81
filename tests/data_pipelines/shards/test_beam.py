"""Builds with Apache Beam: the same shards as without; what is said where it is not installed."""

import dataclasses
import importlib.util
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from data_pipelines import build as build_command
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset, staging_directory
from data_pipelines.shards import plan
from data_pipelines.shards.beam import BeamWorkers, local_options
from data_pipelines.shards.build_state import BuildState
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.shards.making import LocalProcesses
from tests.support.kill_builds import NUM_ITEMS, NUM_SHARDS, MadeUpSource, content
from tests.support.user_errors import told

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="Apache Beam is not installed (pip install 'ecgjax[beam]')"
)
# Beam's own: it warns of what it does itself.
beams_own_warnings = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def six_shards(monkeypatch):
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 4224 * NUM_ITEMS // NUM_SHARDS)


def build(out, make_shards, source=None, progress=None):
    options = {"progress": progress} if progress else {}
    build_dataset(lambda: source or MadeUpSource(0), out, request={}, make_shards=make_shards, **options)
    return open_dataset(out)


@needs_beam
@beams_own_warnings
@pytest.mark.parametrize("num_workers", [1, 2])
def test_beam_writes_the_same_shards(tmp_path, num_workers):
    workers = BeamWorkers(runner="DirectRunner", options=local_options("DirectRunner", num_workers=num_workers))
    told = []

    class Bar:
        def __init__(self, *arguments):
            pass

        def __enter__(self):
            return told.append

        def __exit__(self, *error):
            return None

    beam = build(tmp_path / "beam", workers, progress=Bar)
    local = build(tmp_path / "local", LocalProcesses(1))
    assert len(beam.shards) == NUM_SHARDS
    assert beam.card["shard_lengths"] == local.card["shard_lengths"]
    for one, other in zip(beam.shards, local.shards, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert content(tmp_path / "beam") == content(tmp_path / "local")
    assert sorted(told) == [NUM_ITEMS // NUM_SHARDS] * NUM_SHARDS
    assert "tensorflow" not in sys.modules
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beam", "local"]


@needs_beam
@beams_own_warnings
def test_faults_are_told_as_without_beam_and_what_is_finished_stays(tmp_path):
    source = MadeUpSource(0)
    number = next(number for number, item in enumerate(source.items) if hasattr(item, "signal"))
    source.items[number] = dataclasses.replace(source.items[number], record_id="")
    with pytest.raises(DataError, match=r"^record '': record and patient need an id \(a fault of its source's reader"):
        build(tmp_path / "out", BeamWorkers(runner="DirectRunner"), source)
    parts = BuildState(staging_directory(tmp_path / "out")).parts
    assert len(list(parts.iterdir())) == NUM_SHARDS - 1


@needs_beam
@beams_own_warnings
def test_a_runner_that_beam_does_not_know(tmp_path):
    with pytest.raises(DataError, match="--beam=NoRunner: the pipeline failed: Unexpected pipeline runner: NoRunner"):
        build(tmp_path / "out", BeamWorkers(runner="NoRunner"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=x", "--beam=DirectRunner"], r"--beam needs Apache Beam; install it with pip install 'ecgjax\[beam\]'"),
        (["--out=x", "--beam_options=a=1"], "error: --beam_options means nothing without --beam=RUNNER"),
        (
            ["--out=gs://bucket/x", "--beam=DirectRunner"],
            "error: --out=gs://bucket/x: workers of Beam share a directory",
        ),
    ],
)
def test_flags_that_do_not_fit(tmp_path, monkeypatch, arguments, message, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # As where it is not installed.
    monkeypatch.chdir(tmp_path)
    with flagsaver.flagsaver():
        flags.FLAGS(["build", "--builder=simulated", *arguments])
        with told(capsys, message):
            build_command.main(["build"])
    assert not list(tmp_path.iterdir())


def test_only_beams_direct_runner_is_told_of_the_processes_here():
    assert local_options("DirectRunner", num_workers=3) == (
        "--direct_num_workers=3",
        "--direct_running_mode=multi_processing",
    )
    assert local_options("DataflowRunner", num_workers=3) == ()
