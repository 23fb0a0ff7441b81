"""The flow of recordings from the archive to the models, and the commands that lead there."""

import types

import numpy as np

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask
from ecgjax.defaults import RunSettings
from ecgjax.pages.page import Table
from ecgjax.pages.provenance import Step, command_section
from ecgjax.pages.record_flow import flow_section
from ecgjax.pages.steps_before import build_steps, pretraining_step
from ecgjax.settings.sections import tree_of

CARD = {
    "name": "clinic", "num_records": 20, "num_patients": 10,
    "summary": {"records_in": 25, "quarantined": {"flat_lead": 3, "unreadable": 2}},
    "request": {"builder": "folder", "source": "/data/ecgs", "name": "clinic", "recipe": {"name": "plain"}},
}  # fmt: skip


def _recordings(*cards):
    split = types.SimpleNamespace(
        train=np.arange(8), val=np.arange(10, 13), test=np.arange(14, 18),
        excluded={"duplicate": 2, "group_in_val_or_test": 1, "group_in_test": 0, "other_fold": 2,
                  "seen_in_pretraining": 4},
    )  # fmt: skip
    datasets = [types.SimpleNamespace(card=card, directory=None) for card in cards or (CARD,)]
    return types.SimpleNamespace(datasets=datasets, split=split, index=types.SimpleNamespace(group=np.arange(20) // 2))


def _part(records, unlabelled):
    records = np.asarray(records)
    return LabelledRecords(records=records, labels=records % 2, patients=records // 2, unlabelled=unlabelled)


DATA = ProbeData(
    task=BinaryTask(label="lvef", rule="below", threshold=40.0), train=_part([0, 1], 2),
    val=_part([10, 11], 1), test=_part([14, 15, 16], 1), label_fraction=0.25, seed=0,
    train_available=_part(range(6), 2), excluded={},
)  # fmt: skip


def _tables(section):
    return [{row[0]: row[1:] for row in block.rows} for block in section.blocks if isinstance(block, Table)]


def test_every_step_has_its_recordings_and_patients():
    of_archive, of_question = _tables(flow_section(_recordings(), {"lvef<40": DATA}))
    assert list(of_archive.items()) == [
        ("recordings in the archive", ("25", "–")),
        ("quarantined: flat_lead", ("3", "–")),
        ("quarantined: unreadable", ("2", "–")),
        ("stored", ("20", "10")),
        ("left out: in folds that are not used", ("2", "–")),
        ("left out: copies of a recording that is kept", ("2", "–")),
        ("left out of training: patient or recording is in validation or test too", ("1", "–")),
        ("left out: seen in pretraining", ("4", "–")),
        ("training folds", ("8", "4")),
        ("validation folds", ("3", "2")),
        ("test folds", ("4", "2")),
    ]
    assert of_question["training, without a label"] == ("2", "–")
    assert of_question["training, with a label"] == ("6", "3")
    assert of_question["training, drawn (25 % of the patients)"] == ("2", "1")
    assert of_question["test, with a label"] == ("3", "2")


def test_what_is_cut_and_what_is_not_stored_for_other_reasons_is_told():
    summary = {"records_in": 30, "recordings_in": 12, "quarantined": {}}
    (table,) = _tables(flow_section(_recordings({**CARD, "summary": summary}), {}))
    assert table["recordings in the archive"] == ("12", "–")
    assert table["records cut from them"] == ("30", "–")
    assert table["quarantined"] == ("0", "–")
    assert table["not stored for other reasons"] == ("10", "–")


def test_several_data_sets_are_named_and_a_cross_validation_has_no_folds():
    recordings = _recordings(CARD, {**CARD, "name": "other"})
    recordings.split.val = recordings.split.test = np.arange(0)
    (table,) = _tables(flow_section(recordings, {}, folds=False))
    assert table["stored of clinic"] == table["stored of other"] == ("20", "10")
    assert table["tested in turn"] == ("8", "4")
    assert not [step for step in table if "folds" in step and "left out" not in step]


def test_a_page_is_made_again_from_raw_files_on():
    (build,) = build_steps(_recordings().datasets)
    assert build.command == "python -m data_pipelines.build --builder=folder --source=SOURCE --name=clinic --out=OUT"
    assert "raw files (SOURCE is the folder" in build.words
    section = command_section("python -m ecgjax.evaluate", before=[build, Step("Unknown.")], note="A note.")
    texts = [block.text for block in section.blocks]
    assert texts == [
        f"1. {build.words}", build.command, "2. Unknown.", "3. This page:", "python -m ecgjax.evaluate", "A note.",
    ]  # fmt: skip


def test_a_card_that_does_not_say_how_it_was_built_is_no_command():
    (build,) = build_steps([types.SimpleNamespace(card={"name": "old"}, directory=None)])
    assert build == Step("The data set old: its card does not say how it was built.")


def test_a_pretraining_is_told_by_what_differs_from_the_defaults():
    default, settings = tree_of(RunSettings()), tree_of(RunSettings(seed=7))
    step = pretraining_step(settings, recipe="simclr", default=default, title="the encoder", workdir="runs/a b")
    assert step.command == ("python -m ecgjax.pretrain --config=simclr '--workdir=runs/a b' --config.seed=7")
    exported = pretraining_step(
        settings, recipe="simclr", default=default, title="m", workdir="models/m", exported=True
    )
    assert "--workdir=WORKDIR" in exported.command
    assert "--config.data.dir=DATA" in exported.command
    assert "models/m" not in exported.command
    assert not pretraining_step(None, recipe="simclr", default=default, title="m", workdir="x").command
