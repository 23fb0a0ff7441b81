"""Batch norm of encoders: whose recordings set its statistics."""

import dataclasses

import numpy as np
import pytest

from ecgjax.data.recordings import open_recordings
from ecgjax.data.settings import DataSettings
from ecgjax.data.tasks import parse_task
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.studies.compared_models import compared_models


def test_no_record_of_the_data_set_has_a_say_in_how_another_is_embedded(runs, recordings, monkeypatch):
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    records, task = recordings.split.train, parse_task("female")
    whole, half = (
        [
            (model.title, model.models().values(model.name, task, 0))
            for model in compared_models(runs[:1], recordings, part, layer="features", progress=False)
            if model.name not in ("boosted", "supervised")
        ]
        for part in (records, records[:20])
    )
    assert len(whole) == 5
    for (title, all_of_them), (_, some) in zip(whole, half, strict=True):
        np.testing.assert_allclose(some, all_of_them[:20], rtol=1e-5, atol=1e-5, err_msg=title)


@pytest.fixture
def recalibrated_on(monkeypatch):
    """Every read function and record numbers that batch norm was recalibrated on."""
    seen, recalibrate = [], frozen_encoder.recalibrate_batch_norm

    def noted(encoder, read, *, records, **further):
        seen.append((read, records))
        return recalibrate(encoder, read, records=records, **further)

    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    monkeypatch.setattr(frozen_encoder, "recalibrate_batch_norm", noted)
    return seen


def _recalibrations(models, seen):
    """Returns what each model of an encoder is recalibrated on, by its title, where its head begins at a probe."""
    found = {}
    for model in models:
        if model.encoder:
            model.models().features._recalibrated = []  # Of encoders that models share, each is looked at by itself.
            if model.name == "supervised":
                model.models()._start("random", 0, recalibrated=True)
            else:
                model.models().values(model.name, parse_task("female"), 0)
            (found[model.title],) = seen
            seen.clear()
    return found


def test_batch_norm_of_a_run_and_of_its_twins_is_set_by_the_run_s_own_recordings(runs, recordings, recalibrated_on):
    one, two = runs
    # Of its own store, and of other records.
    other = open_recordings(two.settings.data)
    split = dataclasses.replace(other.split, train=other.split.train[1::2])
    two = dataclasses.replace(two, recordings=dataclasses.replace(other, split=split))
    models = compared_models([one, two], recordings, recordings.split.train, layer="features", progress=False)
    found = _recalibrations(models, recalibrated_on)
    run_of = dict.fromkeys(("random resnet18", "labels only resnet18", "one"), one)
    run_of |= dict.fromkeys(("random resnet18 #2", "labels only resnet18 #2", "two"), two)
    assert found.keys() == run_of.keys()
    for title, (read_signals, records) in found.items():
        run = run_of[title]
        assert read_signals.__self__ is run.recordings.store, title
        np.testing.assert_array_equal(records, run.recordings.split.train, err_msg=title)
        np.testing.assert_array_equal(read_signals(records[:3]), run.recordings.store.read(records[:3]))
        assert not np.array_equal(read_signals(records[:3]), recordings.store.read(records[:3]))


def test_batch_norm_of_an_encoder_without_a_run_is_set_by_the_tested_records(runs, recordings, recalibrated_on):
    alone, records = runs[0].settings, recordings.split.train[1:]
    models = compared_models([], recordings, records, layer="features", alone=alone, progress=False)
    found = _recalibrations(models, recalibrated_on)
    assert found.keys() == {"random resnet18", "labels only resnet18"}
    for read_signals, numbers in found.values():
        np.testing.assert_array_equal(numbers, records)
        np.testing.assert_array_equal(read_signals(numbers), recordings.store.read(records))


def test_batch_norm_is_set_by_real_recordings_where_there_are_any(runs, stored_dataset):
    simulated = stored_dataset[0]
    data = DataSettings(dir=f"{simulated.directory},{runs[0].recordings.datasets[0].directory}")
    recordings = open_recordings(data)
    # What a test makes is marked as simulated, however it is made.
    real = dataclasses.replace(recordings.datasets[1], simulated=False)
    recordings = dataclasses.replace(recordings, datasets=(recordings.datasets[0], real))
    both = dataclasses.replace(runs[0], recordings=recordings)
    assert [made for _, _, made in both.pretrained_on] == [True, False]
    assert len(both.norm.records) == both.pretrained_on[1][1]
    assert both.norm.records.min() >= simulated.index.num_records
    alone = dataclasses.replace(both, recordings=open_recordings(DataSettings(dir=str(simulated.directory))))
    np.testing.assert_array_equal(alone.norm.records, alone.recordings.split.train)
