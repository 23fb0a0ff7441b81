"""The head of an exported model as one more model of an evaluation: its own answers, calibration and threshold."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import special

from ecgjax import encoders
from ecgjax import evaluate as entry
from ecgjax.data.labels import probe_data
from ecgjax.data.recordings import open_recordings
from ecgjax.data.settings import DataSettings
from ecgjax.data.tasks import parse_task
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.export.model_folder import write_answering_model
from ecgjax.export.trained_run import open_trained_run
from ecgjax.pages import write
from ecgjax.pages.images import Image
from ecgjax.pretrained.source import open_source, settings_of_source
from ecgjax.studies import exported_head
from ecgjax.studies.one_task.calibrated import calibrated
from ecgjax.studies.report import neighbour_section
from tests.support.answering_heads import trained_head
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run

FOLDS = {"train_folds": (1, 2, 3, 4), "val_folds": (5, 6, 7), "test_folds": (8, 9, 10)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    own = make_simulated_dataset(tmp_path_factory.mktemp("own"), num_patients=40, rate=100, seconds=4)
    run = write_run(tmp_path_factory.mktemp("runs") / "run", tiny(own.directory), steps=(6,))
    return open_trained_run(run, statistics="running")


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("judged"), num_patients=150, rate=100, seconds=4, seed=5)


@pytest.fixture(scope="module")
def recordings(judged):
    return open_recordings(DataSettings(dir=str(judged.directory), **FOLDS))


def written(folder, trained, kind, **changes):
    head = trained_head(kind, "linear", dim=encoders.merge(trained.encoder.split).feature_dim)
    about = dataclasses.replace(head.about, **changes)
    return write_answering_model(folder, run=trained, head=head.split, about=about, formats=())


def asked(question, recordings):
    return probe_data(recordings.index, recordings.split, task=parse_task(question), label_fraction=1.0, seed=0)


def test_a_head_keeps_its_calibration_and_its_threshold(trained, recordings, tmp_path):
    source = open_source(written(tmp_path / "model", trained, "binary"))
    data = asked("lvef<40", recordings)
    assert exported_head.head_of(source, data) is source.model.head
    answers = exported_head.head_answers(source.model, data, read=recordings.store.read, progress=False)
    expected = source.model.predict_prepared(recordings.store.read(data.test.records))
    np.testing.assert_allclose(special.expit(answers.outputs), expected, rtol=0, atol=1e-6)
    used = calibrated(answers, data)
    np.testing.assert_allclose(used.probabilities, expected, rtol=0, atol=1e-6)
    assert used.threshold == 0.31
    without = dataclasses.replace(answers, thresholds=np.array([np.nan]))
    assert np.isfinite(calibrated(without, data).threshold)


def test_a_head_answers_its_own_question_alone(trained, recordings, tmp_path):
    source = open_source(written(tmp_path / "model", trained, "binary"))
    for question in ("lvef<35", "potassium>5", "age_years"):
        assert exported_head.head_of(source, asked(question, recordings)) is None
    without = dataclasses.replace(source, model=None)
    assert exported_head.head_of(without, asked("lvef<40", recordings)) is None


def test_a_head_of_another_unit_is_refused(trained, recordings, tmp_path):
    source = open_source(written(tmp_path / "model", trained, "quantity", unit="months"))
    data = asked("age_years", recordings)
    head = exported_head.head_of(source, data)
    with pytest.raises(ConfigError, match="age_years is in years in simulated and in months in the exported head"):
        exported_head.check_unit(head, data, recordings)
    exported_head.check_unit(dataclasses.replace(head, unit="years"), data, recordings)
    answers = exported_head.head_answers(source.model, data, read=recordings.store.read, progress=False)
    expected = source.model.predict_prepared(recordings.store.read(data.val.records))
    np.testing.assert_allclose(answers.val_outputs, expected, rtol=1e-6)
    assert answers.thresholds is None


def test_an_evaluation_has_the_head_as_one_more_model(trained, recordings, judged, tmp_path, monkeypatch, capsys):
    blank = Image(data=b"", kind="png", width=1, height=1)
    monkeypatch.setattr(write, "image_of", lambda picture: blank)
    monkeypatch.setattr(neighbour_section, "draw_ecg", lambda signal, **settings: Figure())
    monkeypatch.setattr(entry, "BESIDE", ("random",))
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 2)
    labelled = {"name": "simulated", "fingerprint": judged.fingerprint, "records": 9, "patients": 8,
                "simulated": True, "licence": "not stated", "citation": "", "build_command": ""}  # fmt: skip
    model = written(tmp_path / "model", trained, "binary", data=(labelled,))
    settings = settings_of_source(model)
    settings = dataclasses.replace(
        settings,
        data=dataclasses.replace(settings.data, dir=str(judged.directory), **FOLDS),
        probe=dataclasses.replace(settings.probe, task="lvef<40", bootstrap=100, shuffles=2, groups=()),
    )
    found = entry.evaluate(settings, model, out=tmp_path / "out")
    assert "trained with labels of simulated itself" in capsys.readouterr().out
    told = json.loads((found.report.html.parent / "results.json").read_text(encoding="utf-8"))
    assert told["models"]["exported_head"]["title"] == "exported head, as it is"
    assert told["facts"]["thresholds"]["exported_head"] == 0.31
    assert "exported head, as it is" in found.report.markdown.read_text(encoding="utf-8")
