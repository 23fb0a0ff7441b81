"""A finished data set whose source has changed since says so; so does an interrupted build that goes on."""

import os
import shutil

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from data_pipelines import build as build_command
from data_pipelines.builders.folder import FolderSource
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import read_card, staging_directory
from data_pipelines.shards.build_state import BuildState
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.shards.source_listing import LISTING_FILE, changes_since, list_source, open_listing
from data_pipelines.signals.recipe import RECIPES
from tests.support.fixtures import twelve_lead_mv, write_wfdb

RECIPE = RECIPES["plain"].changed(sampling_rate_hz=100, seconds=2.0, min_seconds=2.0)


def write(folder, name, *, seed=0):
    write_wfdb(folder, name, twelve_lead_mv(seed=seed, seconds=2.0, rate=100), rate=100)


def build(folder, out, **changes):
    def source():
        return FolderSource(folder, labels=None, patient_field=None, name="mine", recipe=RECIPE)

    return build_dataset(source, out, request={"builder": "folder"}, source_folder=folder, **changes)


@pytest.fixture
def built(tmp_path):
    """A folder of two recordings, and the data set built of it."""
    for seed, name in enumerate(("a", "b")):
        write(tmp_path / "in" / "ward", name, seed=seed)
    return tmp_path / "in", build(tmp_path / "in", tmp_path / "out") and tmp_path / "out"


def test_an_unchanged_source_is_nothing_to_do(built):
    folder, out = built
    before = read_card(out)
    assert build(folder, out) == before
    assert before["source_files"]["count"] == 4
    # What is no recording and no table tells nothing.
    (folder / "notes.pdf").write_text("x")
    (folder / "ward" / "._a.hea").write_text("x")
    (folder / "README").write_text("x")
    assert build(folder, out) == before


def test_added_removed_and_changed_files_are_counted(built):
    folder, out = built
    write(folder, "c", seed=2)
    (folder / "ward" / "b.dat").unlink()
    header = folder / "ward" / "a.hea"
    header.write_text(header.read_text() + "# Age: 40\n")
    message = (
        r"files of .*/in have changed .*: 2 new \(c\.dat, c\.hea\), 1 gone, 1 changed \(ward/a\.hea\); .*--overwrite"
    )
    with pytest.raises(DataError, match=message):
        build(folder, out)
    write(folder / "ward", "b", seed=1)
    assert build(folder, out, overwrite=True)["num_records"] == 3
    assert build(folder, out)["num_records"] == 3


def test_samples_changed_in_place_are_noticed(built):
    folder, out = built
    path = folder / "ward" / "a.dat"
    samples = bytearray(path.read_bytes())
    samples[0] ^= 1
    path.write_bytes(samples)
    with pytest.raises(DataError, match=r": 1 changed \(ward/a\.dat\);"):
        build(folder, out)


def test_a_copied_source_has_other_times_and_is_the_same(built):
    folder, out = built
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    assert build(folder, out)["num_records"] == 2


def test_a_source_that_is_not_there_is_not_compared(built, capsys, tmp_path):
    folder, _ = built
    out = tmp_path / "by_command"
    arguments = [
        "build",
        "--builder=folder",
        f"--source={folder}",
        f"--out={out}",
        "--num_workers=1",
        "--min_seconds=2",
    ]
    with flagsaver.flagsaver():
        flags.FLAGS(arguments)
        build_command.main(["build"])
        build_command.main(["build"])
        assert "finished already, nothing to do (--overwrite builds it again)\n" in capsys.readouterr().out
        (out / LISTING_FILE).unlink()
        build_command.main(["build"])
        assert "it was built before files of the source were listed" in capsys.readouterr().out
        shutil.rmtree(folder)
        build_command.main(["build"])
        assert f"--source={folder} is not there, so whether it has changed is not known" in capsys.readouterr().out


def test_an_interrupted_build_reads_changed_files_anew(built, tmp_path, monkeypatch):
    folder, _ = built
    out = tmp_path / "interrupted"

    def stop(state, place):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BuildState, "publish", stop)
        with pytest.raises(KeyboardInterrupt):
            build(folder, out)
    assert staging_directory(out).exists()
    write(folder / "ward", "a", seed=7)  # Another recording of the same name and size.
    card = build(folder, out)
    assert any("while this build was interrupted" in note for note in card["summary"]["notes"])
    with_a = build(folder, tmp_path / "fresh")
    assert card["fingerprint"] == with_a["fingerprint"]
    assert not any("interrupted" in note for note in with_a["summary"]["notes"])


def test_an_output_below_the_source_is_no_part_of_it(tmp_path):
    write(tmp_path, "a")
    out = tmp_path / "prepared"
    np.save(tmp_path / "x.npy", np.zeros(3))
    listed = list_source(tmp_path, leave_out=[out])
    (out / "index").mkdir(parents=True)
    np.save(out / "index" / "fold.npy", np.zeros(3))
    assert list_source(tmp_path, leave_out=[out]).digest == listed.digest
    assert list_source(tmp_path).digest != listed.digest


def test_a_kept_listing_knows_no_names(tmp_path):
    write(tmp_path / "in", "a")
    listed = list_source(tmp_path / "in")
    listed.write(tmp_path / LISTING_FILE)
    kept = open_listing(tmp_path / LISTING_FILE)
    assert b"a.hea" not in (tmp_path / LISTING_FILE).read_bytes()
    assert not changes_since(kept, listed)
    (tmp_path / LISTING_FILE).write_bytes(b"no array")
    assert open_listing(tmp_path / LISTING_FILE) is None
