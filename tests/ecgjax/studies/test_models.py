"""Models of a study: which are shared between questions and seeds, and what a head begins at."""

import dataclasses
import types
import weakref

import jax
import numpy as np
import pytest

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask
from ecgjax.defaults import settings_of
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.models import kinds
from ecgjax.evaluation.models.answers import examples_of
from ecgjax.evaluation.models.linear import fit_linear
from ecgjax.studies import models as module
from ecgjax.studies.models import StudyModels
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
