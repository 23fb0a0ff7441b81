"""Names of data sets built from folders: one for each source, and what those without are told."""

import re
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from data_pipelines import build as build_command
from data_pipelines.metadata.source_names import NO_NAME, name_of_source
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset, read_card
from ecgjax.leakage.trained_on import patient_keys
from tests.support.fixtures import twelve_lead_mv, write_wfdb


@pytest.mark.parametrize(
    ("folder", "start"),
    [
        ("/data/ecgs", "ecgs_"),
        ("/data/Station 3 (Süd)", "station_3_sud_"),
        ("/data/2019-05", "ecgs_2019_05_"),
        ("/data/心電図", "ecgs_"),
        ("/", "ecgs_"),
        (f"/data/{'x' * 200}", "x" * 40 + "_"),
    ],
)
def test_a_name_is_the_folders_own(folder, start):
    name = name_of_source(Path(folder))
    assert name.startswith(start)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)


def test_two_folders_never_have_one_name_and_one_always_the_same(tmp_path):
    (tmp_path / "a" / "ecgs").mkdir(parents=True)
    (tmp_path / "b" / "ecgs").mkdir(parents=True)
    one, other = name_of_source(tmp_path / "a" / "ecgs"), name_of_source(tmp_path / "b" / "ecgs")
    assert one != other
    assert one == name_of_source(tmp_path / "b" / ".." / "a" / "ecgs")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "ecgs")
    assert one == name_of_source(tmp_path / "link")


def run(source, out, *arguments):
    with flagsaver.flagsaver():
        flags.FLAGS(["build", "--builder=folder", f"--source={source}", f"--out={out}", "--num_workers=1", *arguments])
        build_command.main(["build"])
    return open_dataset(out)


def keys(dataset):
    return patient_keys(dataset, range(dataset.index.num_records)).tolist()


def test_patients_of_a_folder_are_known_again_in_its_next_build(tmp_path, capsys):
    source = tmp_path / "ward"
    write_wfdb(source, "x", twelve_lead_mv(seed=1))
    first = run(source, tmp_path / "first")
    assert first.card["name"] == name_of_source(source)
    assert f"no --name was given: the set is named {name_of_source(source)}" in " ".join(
        capsys.readouterr().out.split()
    )
    write_wfdb(source, "y", twelve_lead_mv(seed=2))
    again = run(source, tmp_path / "again")
    assert again.fingerprint != first.fingerprint
    assert keys(again)[0] == keys(first)[0]
    write_wfdb(tmp_path / "other" / "ward", "x", twelve_lead_mv(seed=3))
    assert keys(run(tmp_path / "other" / "ward", tmp_path / "third")) != keys(first)
    assert "no --name was given" in " ".join(capsys.readouterr().out.split())
    named = run(source, tmp_path / "named", "--name=mine")
    assert named.card["name"] == "mine"
    assert "no --name was given" not in capsys.readouterr().out


def test_a_set_without_a_name_is_read_and_its_owner_told(tmp_path, capsys):
    source, out = tmp_path / "ward", tmp_path / "out"
    write_wfdb(source, "x", twelve_lead_mv())
    run(source, out, f"--name={NO_NAME}")
    told = " ".join(capsys.readouterr().out.split())
    assert "has no name of its own ('folder'): its patients are known again in no other data set" in told
    card = (out / CARD_FILE).read_text()
    # The command that built it before --name had another default.
    assert run(source, out).card["name"] == NO_NAME
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("finished already")
    assert "build it again with --name=NAME --overwrite" in said
    assert (out / CARD_FILE).read_text() == card
    run(source, out, "--overwrite")
    assert read_card(out)["name"] == name_of_source(source)
