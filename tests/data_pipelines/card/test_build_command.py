"""The command that built a data set, from its card: every flag that decided, and no path."""

import shlex

import pytest

from data_pipelines.card.build_command import build_command
from data_pipelines.signals.recipe import RECIPES


def card(recipe, **request):
    return {"request": {"recipe": recipe.to_json(), **request}}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            card(RECIPES["plain"], builder="ptbxl", source="/home/me/ptb", source_rate_hz=500),
            "--builder=ptbxl --source_rate_hz=500 --source=SOURCE --out=OUT",
        ),
        (
            card(
                RECIPES["monitor"].changed(sampling_rate_hz=500, seconds=5.0, cut="center"),
                builder="folder",
                source="/home/me/a place",
                labels="/home/me/labels.csv",
                labels_digest="abc",
                patient_field="Patient ID",
                formats=["wfdb", "dicom"],
                sex_coding=["1=male"],
                pieces=True,
                declared_rate_hz=None,
                missing_ids=[],
            ),
            "--builder=folder --recipe=monitor --target_rate_hz=500 --seconds=5 --cut=center --source=SOURCE "
            "--labels=LABELS '--patient_field=Patient ID' --formats=wfdb,dicom --sex_coding=1=male --pieces=true "
            "--out=OUT",
        ),
        ({"request": {"builder": "simulated", "seed": 0}}, "--builder=simulated --seed=0 --out=OUT"),
    ],
)
def test_a_command_has_what_decided_and_no_path(made, words):
    command = build_command(made)
    assert sorted(shlex.split(command)[3:]) == sorted(shlex.split(words))
    assert "/home" not in command


def test_measurements_beside_the_records_are_made_again_too(tmp_path):
    made = {"request": {"builder": "simulated"}}
    assert build_command(made, tmp_path).split()[3:] == ["--builder=simulated", "--out=OUT"]
    (tmp_path / "median_beat").mkdir()
    assert build_command(made, tmp_path).split()[3:] == ["--builder=simulated", "--median_beat", "--out=OUT"]
    (tmp_path / "physiology").mkdir()
    assert "--physiology --median_beat" in build_command(made, tmp_path)


@pytest.mark.parametrize("made", [{}, {"request": None}, {"request": {"seed": 0}}])
def test_of_a_card_that_does_not_tell_there_is_no_command(made):
    assert build_command(made) == ""
