"""Data sets, encoders and studies of small cross-validations."""

import dataclasses
import functools

import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from ecgjax import cross_validate as entry
from ecgjax.data.recordings import open_recordings
from ecgjax.defaults import settings_of
from ecgjax.encoders.from_config import create_split
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.models import boosted
from ecgjax.leakage.trained_on import pretraining_records
from ecgjax.studies.cross_validation import Study
from ecgjax.studies.model_names import PLAIN
from ecgjax.studies.pretrained_runs import PretrainedRun
from tests.data_pipelines.test_link import build
from tests.ecgjax.studies.cross_validation.small_study import RATE_HZ, method, people
from tests.support import tiny_config


@pytest.fixture(scope="module")
def trained_on_set(tmp_path_factory):
    return build(tmp_path_factory.mktemp("pretraining"), "clinic", people(1, 20, prefix="a"), rate=RATE_HZ)


@pytest.fixture(scope="module")
def tested_set(tmp_path_factory):
    return build(tmp_path_factory.mktemp("test"), "hospital", people(2, 24, prefix="b"), rate=RATE_HZ)


@pytest.fixture(scope="module")
def leaking_set(tmp_path_factory):
    """The same with a record that was trained on, under another's name."""
    (leak, *_) = people(1, 20, prefix="a")
    records = [*people(2, 24, prefix="b"), dataclasses.replace(leak, record_id="leak", patient_id="somebody")]
    return build(tmp_path_factory.mktemp("leaking"), "hospital", records, rate=RATE_HZ)


@pytest.fixture(scope="module")
def runs(trained_on_set):
    """Two encoders of one kind, pretrained for no step at all."""
    config = tiny_config.get_config()
    config.encoder.widths = (4,)
    config.data.dir = str(trained_on_set.directory)
    config.probe.supervised.update({"steps": 2, "batch_size": 4, "eval_every": 1})
    settings = settings_of(config)
    recordings = open_recordings(settings.data)
    listed = pretraining_records(recordings, recordings.split.train, run="f00d")
    return [
        PretrainedRun(
            title=title,
            settings=settings,
            encoder=frozen_encoder.Encoder(
                create_split(settings.encoder, seed=seed),
                num_leads=settings.encoder.num_leads,
                step=5,
                trained_on=lambda: listed,
            ),
            recordings=recordings,
        )
        for title, seed in (("one", 7), ("two", 8))
    ]


@pytest.fixture(scope="module")
def recordings(tested_set):
    return entry.open_whole(str(tested_set.directory), links="")


@pytest.fixture
def begin(runs, recordings, monkeypatch, tmp_path):
    """Begins a study of few trees, or goes on with it."""
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    monkeypatch.setattr(boosted, "_TREES", 3)
    # Trees would not grow on so few records.
    trees = functools.partial(HistGradientBoostingClassifier, min_samples_leaf=2)
    monkeypatch.setattr(boosted, "HistGradientBoostingClassifier", trees)

    def begin(tasks=("female",), *, of=runs, folder=tmp_path / "cv", baselines=PLAIN, alone=None, **changed):
        return Study(
            of, recordings, tasks=tasks, method=method(**changed), folder=folder, baselines=baselines, alone=alone,
            progress=False,
        )  # fmt: skip

    return begin
