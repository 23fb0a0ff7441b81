"""Models of a study: which are shared between questions and seeds, and what a head begins at."""

import dataclasses
import types
import weakref

import jax
import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask
from ecgjax.defaults import settings_of
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.features.measurements import measured_preprocessor
from ecgjax.evaluation.models import kinds
from ecgjax.evaluation.models.answers import examples_of
from ecgjax.evaluation.models.linear import fit_linear
from ecgjax.settings.probe import AttentionSettings, ProbeSettings
from ecgjax.studies import models as module
from ecgjax.studies.models import StudyModels
from ecgjax.studies.random_grid import grid_of
from ecgjax.studies.readouts import check_readouts, models_of
from tests.support import tiny_config

RNG = np.random.default_rng(0)
NUM = 48
SIGNALS = RNG.integers(-500, 500, (NUM, 200, 8)).astype(np.int16)
TRAIN, VAL, TEST = np.split(RNG.permutation(NUM), [24, 36])
YES_OR_NO = BinaryTask(label="lvef", rule="below", threshold=40.0)
CLASSES = ("af", "lvh", "stemi")


def _data(task, labels, classes=()):
    train, val, test = (
        LabelledRecords(records=records, labels=labels[records], patients=records, unlabelled=0)
        for records in (TRAIN, VAL, TEST)
    )
    return ProbeData(
        task=task, train=train, val=val, test=test, label_fraction=1.0, seed=0, train_available=train, excluded={},
        classes=classes,
    )  # fmt: skip


BINARY = _data(YES_OR_NO, np.arange(NUM) % 2)


def _several(number):
    labels = (np.arange(NUM)[:, None] // np.arange(1, number + 1) % 2).astype(np.int64)
    return _data(MultiLabelTask(task=f"of {number}"), labels, CLASSES[:number])


class Training:
    """Stands for a training: it notes where it begins, and answers nothing but zeros."""

    def __init__(self, settings, *, optimizer, encoder, num_leads, kind, classes):
        self.begins_at_probe, self.encoder_is_frozen = settings.head_start == "probe", False
        self.classes, self.starts, self.probes = classes, [], []

    def train(self, encoder, data, *, read, seed, probe, progress, title):
        self.starts.append(encoder)
        self.probes.append(probe)
        shape = (len(self.classes),) if self.classes else ()
        return types.SimpleNamespace(
            scores=lambda signals: np.zeros((len(signals), *shape)), val_metric=0.5, selected="step 1"
        )


@pytest.fixture
def make(monkeypatch):
    """Makes the models of a study of the smallest encoder."""
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    for kind in (kinds.Binary, kinds.MultiLabel):
        monkeypatch.setattr(kind, "strengths", (0.1,))

    def make(*, head_start="zeros", layer="features"):
        config = tiny_config.get_config()
        config.encoder.widths = (4,)
        config.probe.layer = layer
        for training in (config.probe.supervised, config.probe.finetune):
            training.head_start = head_start
        settings = settings_of(config)
        recordings = types.SimpleNamespace(
            store=types.SimpleNamespace(read=SIGNALS.__getitem__), split=types.SimpleNamespace(train=TRAIN)
        )
        features = LabelledFeatures(recordings, np.arange(NUM), progress=False)
        pretrained = frozen_encoder.random_encoder(settings.encoder, layer=layer, seed=7)
        return StudyModels(features, settings=settings, pretrained=pretrained, progress=False)

    return make


def test_questions_share_a_training_where_their_heads_are_alike(make):
    models = make()
    two, three = _several(2), _several(3)
    of_two, of_three = (models.training("random", data) for data in (two, three))
    assert of_two is not of_three
    other = dataclasses.replace(two, task=MultiLabelTask(task="other"))
    assert models.training("random", other) is of_two
    assert models.training("random", BINARY) not in (of_two, of_three)
    assert models.training("pretrained", two) is not of_two


def test_questions_with_other_numbers_of_classes_are_answered_by_the_same_models(make, monkeypatch):
    monkeypatch.setattr(module, "FineTuning", Training)
    models = make()
    for data in (_several(3), _several(2), BINARY, _several(3)):
        for name in ("supervised", "finetuned"):
            found = models.answers(name, data, seed=0)
            assert found.outputs.shape == data.test.labels.shape
            assert found.val_outputs.shape == data.val.labels.shape


def _stats(split):
    return np.concatenate([np.ravel(each) for each in jax.tree.leaves(split.stats)])


def _weights(split):
    return np.concatenate([np.ravel(each) for each in jax.tree.leaves(split.params)])


def test_a_random_encoder_whose_head_begins_at_a_probe_is_that_of_the_seed(make, monkeypatch):
    monkeypatch.setattr(module, "FineTuning", Training)
    models = make(head_start="probe")
    for name, initialisation in (("supervised", "random"), ("finetuned", "pretrained")):
        for seed in (0, 1, 0):
            models.answers(name, BINARY, seed=seed)
        first, second, again = models.training(initialisation, BINARY).starts
        assert again is first, "statistics are computed once"
        for seed, start in enumerate((first, second)):
            seed = seed if initialisation == "random" else 7
            encoder = frozen_encoder.random_encoder(models._settings.encoder, layer="features", seed=seed)
            expected = models.features.recalibrated(encoder).split
            np.testing.assert_array_equal(_weights(start), _weights(expected))
            np.testing.assert_array_equal(_stats(start), _stats(expected))
            assert not np.array_equal(_stats(start), _stats(encoder.split))
        assert (second is first) == (initialisation == "pretrained"), "a pretrained encoder is the same for every seed"
        assert np.array_equal(_weights(first), _weights(second)) == (initialisation == "pretrained")


@pytest.mark.parametrize("layer", ["features", "embedding"])
def test_a_head_begins_at_a_probe_of_what_it_sees_whatever_layer_is_probed(make, monkeypatch, layer):
    monkeypatch.setattr(module, "FineTuning", Training)
    models = make(head_start="probe", layer=layer)
    for name, initialisation, seed in (("supervised", "random", 1), ("finetuned", "pretrained", 7)):
        models.answers(name, BINARY, seed=seed)
        encoder = frozen_encoder.random_encoder(models._settings.encoder, layer="features", seed=seed)
        values = models.features.recalibrated(encoder).embed(SIGNALS)
        assert values.shape[1] == 4 != models.embeddings(initialisation, seed, layer="embedding").shape[1]
        seen = models.features.of(values, BINARY)
        expected = fit_linear(examples_of(seen, BINARY)).predict(seen.test)
        (probe,) = models.training(initialisation, BINARY).probes
        np.testing.assert_allclose(probe.predict(seen.test), expected, rtol=1e-4, atol=1e-5)
        assert expected.std() > 0
        # The probe of the study is of the layer that is asked for.
        assert models.values(initialisation, YES_OR_NO, seed).shape[1] == (4 if layer == "features" else 8)


def test_released_embeddings_are_freed_and_computed_again_alike(make):
    models = make()
    embeddings = models.embeddings("random", 1)
    kept, content = weakref.ref(embeddings), embeddings.copy()
    assert models.embeddings("random", 1) is embeddings
    del embeddings
    assert kept() is not None
    models.release()
    assert kept() is None
    np.testing.assert_array_equal(models.embeddings("random", 1), content)
    assert not np.array_equal(models.embeddings("random", 2), content)


READOUTS = ("mean", "mean_deviation", "attention", "fusion", "finetuned")
GRID = ("resnet18:small seed=3 widths=(4,) kernel=3", "resnet18:small seed=4 widths=(6,) kernel=3")


@pytest.fixture
def with_readouts(make, monkeypatch):
    """Makes models with all readouts, on measurements that are made up."""
    found = np.random.default_rng(3).normal(size=(NUM, 95 * 8 + len(median_beat.NAMES)))
    monkeypatch.setattr(LabelledFeatures, "_measured", found)

    def with_readouts(**probe):
        models = make()
        models._settings = dataclasses.replace(
            models._settings, probe=dataclasses.replace(models._settings.probe, **{"grid": GRID, **probe})
        )
        recordings = models.features.recordings
        recordings.format = types.SimpleNamespace(num_samples=200)
        recordings.index = types.SimpleNamespace(
            valid_start=np.zeros(NUM, int), valid_samples=np.full(NUM, 200), patient_id=np.arange(NUM).astype(str)
        )
        return models

    return with_readouts


def test_a_fusion_is_one_linear_model_of_three_blocks_each_standardised(with_readouts):
    models = with_readouts()
    embedding = models.embeddings("pretrained", 0)
    measured, fused = (models.values(name, YES_OR_NO, 0) for name in ("measured", "pretrained_fusion"))
    np.testing.assert_array_equal(fused[:, : measured.shape[1]], measured)
    np.testing.assert_array_equal(fused[:, measured.shape[1] :], embedding)
    for values, more in ((measured, 0), (fused, embedding.shape[1])):
        made = measured_preprocessor(train_records=len(TRAIN), embedding=more > 0).fit(values[TRAIN].astype(np.float64))
        scaled = made.transform(values[TRAIN].astype(np.float64))
        # Intervals, then components of the median beat (fewer than training records) and RR, then the embedding.
        assert scaled.shape == (len(TRAIN), len(median_beat.NAMES) + (len(TRAIN) - 1) + 1 + more)
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
        spread = scaled.std(axis=0)
        np.testing.assert_allclose(spread[spread > 1e-3], 1, rtol=1e-6)
        if more:
            own = embedding[TRAIN].astype(np.float64)
            np.testing.assert_allclose(scaled[:, -more:], (own - own.mean(axis=0)) / own.std(axis=0), atol=1e-6)
    test = models.answers("pretrained_fusion", BINARY, seed=0).outputs
    assert not np.array_equal(test, models.answers("measured", BINARY, seed=0).outputs)


def test_the_best_of_a_grid_is_that_on_validation_and_nothing_else_chooses_it(with_readouts):
    models = with_readouts()
    found = models.answers("random_grid", BINARY, seed=1)
    values = {
        title: fit_linear(examples_of(models.features.of(own, BINARY), BINARY)) for title, own in models.grid(1).items()
    }
    assert list(values) == ["resnet18 at its own seed 1", *GRID]
    best = max(values, key=lambda title: values[title].val_metric)
    assert found.val_metric == values[best].val_metric
    assert found.selected == f"{best}, best of 3; {values[best].selected}"
    np.testing.assert_array_equal(
        found.outputs, values[best].predict(models.features.of(models.grid(1)[best], BINARY).test)
    )
    # Reversed test labels change nothing; reversed validation labels choose another, or the same for another value.
    reversed_ = dataclasses.replace(BINARY, test=dataclasses.replace(BINARY.test, labels=1 - BINARY.test.labels))
    again = models.answers("random_grid", reversed_, seed=1)
    assert again.selected == found.selected
    np.testing.assert_array_equal(again.outputs, found.outputs)
    other = dataclasses.replace(BINARY, val=dataclasses.replace(BINARY.val, labels=1 - BINARY.val.labels))
    assert models.answers("random_grid", other, seed=1).val_metric != found.val_metric


def _names():
    probe = ProbeSettings(readouts=READOUTS, grid=GRID)
    return [name for name in models_of(probe) if name != "finetuned"]


@pytest.mark.parametrize("select", [pytest.param("validation", marks=pytest.mark.slow), "validation_part", "labelled"])
def test_test_labels_never_count_and_validation_labels_only_where_they_choose(with_readouts, select, monkeypatch):
    attention = AttentionSettings(queries=1, steps=4, eval_every=2, weight_decays=(0.0,), batch_size=8)
    models = with_readouts(select=select, attention=attention)
    parts = {"test": BINARY.test.labels, "val": BINARY.val.labels}
    others = {
        side: dataclasses.replace(BINARY, **{side: dataclasses.replace(getattr(BINARY, side), labels=1 - labels)})
        for side, labels in parts.items()
    }
    with jax.numpy_dtype_promotion("standard"):
        for name in _names():
            found = models.answers(name, BINARY, seed=0)
            assert np.isfinite(found.outputs).all()
            instead = {"validation_part": "a part of the validation patients", "labelled": "labelled training patients"}
            assert instead.get(select, "") in found.selected
            assert found.val_outputs.shape == BINARY.val.labels.shape, "all of validation is predicted for calibration"
            for side in ("test", *(["val"] if select == "labelled" else [])):
                again = models.answers(name, others[side], seed=0)
                np.testing.assert_array_equal(again.outputs, found.outputs, err_msg=f"{name}, {side}")
                assert again.selected == found.selected


def test_labels_of_one_class_are_said_by_every_readout(with_readouts):
    models = with_readouts()
    none = dataclasses.replace(BINARY, train=dataclasses.replace(BINARY.train, labels=np.zeros(len(TRAIN), int)))
    for name in _names():
        with pytest.raises(DataError, match="no model can be fitted: none of 24 records is positive") as caught:
            models.answers(name, none, seed=0)
        assert caught.value.reason == kinds.NO_MODEL


def test_the_best_of_several_learning_rates_is_that_on_validation(with_readouts, monkeypatch):
    class OfRate(Training):
        def __init__(self, settings, **arguments):
            super().__init__(settings, **arguments)
            self.rate = settings.learning_rate

        def train(self, *args, **arguments):
            found = super().train(*args, **arguments)
            found.value = -abs(self.rate - 5e-4)
            found.scores = lambda signals: np.full(len(signals), self.rate)
            return found

    monkeypatch.setattr(module, "FineTuning", OfRate)
    models = with_readouts(rate_factors=(0.1, 0.5, 2.0))
    found = models.answers("supervised", BINARY, seed=0)
    assert found.selected == "step 1, learning rate × 0.5 of 3"
    np.testing.assert_allclose(found.outputs, 5e-4)


def test_tokens_beyond_the_limit_are_computed_anew_and_are_the_same(with_readouts, tmp_path):
    models = with_readouts()
    recordings, settings = models.features.recordings, {"name": "resnet18"}
    recordings.fingerprints = ("abc",)
    encoder = models._encoder("pretrained", 0)
    tables = {}
    for limit in (1.0, 0.0):
        features = LabelledFeatures(recordings, np.arange(NUM), folder=tmp_path / str(limit), progress=False)
        tables[limit] = features.tokens(encoder, name="pretrained", settings=settings, cache_gb=limit)
    assert [path.name[:17] for path in (tmp_path / "1.0").iterdir()] == ["pretrained-tokens"]
    assert not (tmp_path / "0.0").exists()
    rows = np.array([5, 0, 7, 7])
    kept, anew = (tables[limit].read(rows) for limit in (1.0, 0.0))
    assert kept.dtype == anew.dtype == np.float16
    np.testing.assert_allclose(kept.astype(np.float32), anew.astype(np.float32), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("resnet19", r"'resnet19' is no encoder: config.encoder.name='resnet19' is unknown"),
        ("resnet18 depth", r"'depth' is no setting; write NAME LEAF=VALUE"),
        ("resnet18 width=", "is no encoder"),
        ("resnet18 seed=1.5", r"seed=1.5 is not possible"),
        ("resnet18 pool=7", r"there is no setting config\.encoder\.pool"),
        ("resnet18 depth=2", "unknown settings"),
        ("", "is no encoder"),
    ],
)
def test_an_entry_of_the_grid_that_is_no_encoder_is_said(entry, said):
    with pytest.raises(ConfigError, match=f"config.probe.grid: .*{said}"):
        grid_of([entry], EncoderSettings(name="resnet18"))


def test_entries_of_the_grid_take_what_all_encoders_share_from_the_study():
    (one,) = grid_of(["vit_s:small depth=2 seed=7"], EncoderSettings(name="resnet18", num_leads=8, embedding_dim=5))
    assert (one.settings.name, one.settings.num_leads, one.settings.embedding_dim, one.seed) == ("vit_s:small", 8, 5, 7)
    assert one.settings.arguments == {"depth": 2}
    with pytest.raises(ConfigError, match="is given twice"):
        grid_of(["resnet18", "resnet18 seed=0"], EncoderSettings(name="resnet18"))


def test_means_of_leads_need_tokens_of_leads():
    probe = ProbeSettings(readouts=("lead_mean",))
    with pytest.raises(ConfigError, match=r"config\.probe\.readouts: lead_mean needs tokens of single leads"):
        check_readouts(probe, EncoderSettings(name="resnet18:small"), num_samples=500)
    check_readouts(probe, EncoderSettings(name="resnet18:small", lead_wise=True), num_samples=500)
