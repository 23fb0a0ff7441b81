"""Training with labels: what stays frozen, what is undone at prediction, and which step is returned."""

import io
import re
import sys

import jax
import numpy as np
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from data_pipelines.errors import DataError
from ecgjax import encoders
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask, QuantityTask
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.models.fitted import Examples, FittedModel
from ecgjax.evaluation.models.kinds import KINDS, Binary
from ecgjax.evaluation.models.linear import fit_linear
from ecgjax.finetuning import trainer
from ecgjax.finetuning.trainer import FineTuning
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.settings.probe import FineTuneSettings
from ecgjax.settings.sections import read
from tests.support.terminals import Terminal

RNG = np.random.default_rng(0)
TINY = {"widths": (6,), "kernel": 3, "dropout": 0.3, "embedding_dim": 6}
ENCODER = encoders.create("resnet18", seed=0, num_leads=8, **TINY)
NUM = 96
CLASSES = ("0", "1")
TASKS = {
    "binary": BinaryTask(label="af", rule="present"),
    "multilabel": MultiLabelTask(task="findings"),
    "quantity": QuantityTask(label="pressure"),
}


def _task(kind):
    """Slow waves in two leads, as high as the quantity, in positives alone."""
    hidden = RNG.uniform(0, 1, (NUM, 2))
    labels = (hidden > 0.6).astype(np.int64)
    height = hidden[:, 0] if kind == "quantity" else labels.astype(float)
    wave = 900 * np.sin(np.linspace(0, 12 * np.pi, 100))
    x = RNG.normal(0, 60, (NUM, 100, 8))
    if kind == "quantity":
        x[:, :, 6] += height[:, None] * wave
        return x.astype(np.int16), 50 + 20 * height
    x[:, :, 6:] += labels[:, None] * wave[None, :, None]
    return x.astype(np.int16), labels[:, 0] if kind == "binary" else labels


def _settings(**changes):
    return FineTuneSettings(**{"steps": 20, "batch_size": 16, "eval_every": 10, "learning_rate": 5e-3, **changes})


def _training(kind, *, encoder=ENCODER, **changes):
    return FineTuning(
        _settings(**changes), optimizer=OptimizerSettings(), encoder=encoder, num_leads=8, kind=KINDS[kind],
        classes=CLASSES if kind == "multilabel" else (),
    )  # fmt: skip


def _data(y):
    """Labels of any kind, as the trainer looks at no more of a question than its labels and classes."""
    parts = {
        name: LabelledRecords(records=rows, labels=y[rows], patients=rows // 2, unlabelled=0)
        for name, rows in {"train": np.arange(48), "val": np.arange(48, 72), "test": np.arange(72, NUM)}.items()
    }
    kind = "multilabel" if y.ndim == 2 else "binary" if y.dtype == np.int64 else "quantity"
    return ProbeData(
        task=TASKS[kind], **parts, label_fraction=1.0, seed=0, train_available=parts["train"], excluded={},
        classes=CLASSES if kind == "multilabel" else (),
    )  # fmt: skip


def _train(kind, data=None, **changes):
    x, y = data or _task(kind)
    training = _training(kind, **changes)
    return training, _run(training, x, y)


def _run(training, x, y, *, encoder=ENCODER, seed=0, **given):
    given = {"progress": False, **given}
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power
        return training.train(encoder, _data(y), read=x.__getitem__, seed=seed, **given)


@pytest.mark.parametrize("kind", ["multilabel", "quantity"])
def test_learns_every_kind_and_selects_on_validation(kind):
    x, y = _task(kind)
    _, network = _train(kind, (x, y), head="mlp" if kind == "quantity" else "linear", steps=60, head_dropout=0.0)
    predicted = network.scores(x[72:])
    assert predicted.shape == y[72:].shape
    metric = r2_score if kind == "quantity" else roc_auc_score
    assert metric(y[72:], predicted) > (0.4 if kind == "quantity" else 0.9)
    assert network.val_metric == pytest.approx(metric(y[48:72], network.scores(x[48:72])), abs=1e-9)


def test_one_compilation_serves_many_runs_and_leaves_the_encoder():
    x, y = _task("binary")
    before = jax.tree.map(np.array, ENCODER.params)
    training, first = _train("binary", (x, y))
    again, other = _run(training, x, y), _run(training, x, y, seed=1)
    np.testing.assert_array_equal(again.scores(x), first.scores(x))
    assert (other.scores(x) != first.scores(x)).any()
    assert training._step._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, before, ENCODER.params)


def test_a_bar_on_a_terminal_begins_before_the_compilation_and_counts_the_steps(monkeypatch):
    x, y = _task("binary")
    training, shown = _training("binary"), Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with_bar = _run(training, x, y, progress=True, title="labels only")
    told = shown.getvalue()
    assert re.search(r"labels only:\s+0%.* 0/20 .*compiling", told)
    assert re.search(r"20/20 .*best [01]\.\d{3}", told)
    monkeypatch.setattr(sys, "stderr", quiet := io.StringIO())
    np.testing.assert_array_equal(_run(training, x, y, progress=True).scores(x), with_bar.scores(x))
    assert not quiet.getvalue(), "where there is no terminal"


def test_a_frozen_encoder_is_that_of_inference_to_the_bit():
    x, y = _task("binary")
    _, network = _train("binary", (x, y), frozen=("^encoder/",), head_learning_rate=0.05)
    jax.tree.map(np.testing.assert_array_equal, network.state.params["encoder"], ENCODER.params)
    jax.tree.map(np.testing.assert_array_equal, network.state.stats["encoder"], ENCODER.stats)
    assert np.abs(network.state.params["head"]["kernel"]).max() > 0.05


def test_learning_rates_of_backbone_and_head_are_their_own():
    _, network = _train("binary", learning_rate=1e-5, head_learning_rate=1e-2, steps=5, eval_every=5)
    params = network.state.params
    stem = params["encoder"]["stem_conv"]["kernel"] - ENCODER.params["stem_conv"]["kernel"]
    assert 0 < np.abs(stem).max() < 1e-4
    assert np.abs(params["head"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize("changes", [{"positive_weight": "balanced"}, {"balance": True}])
def test_what_balance_adds_to_the_log_odds_is_taken_off_again(changes):
    # Nothing to learn but the prevalence: probabilities must be that of the training records, not one half.
    x = np.zeros((NUM, 100, 8), np.int16)
    y = np.tile([1, 0, 0, 0, 0, 0, 0, 0], NUM // 8)
    settings = {"frozen": ("^encoder/",), "learning_rate": 0.02, "steps": 150, "select": "loss", **changes}
    _, network = _train("binary", (x, y), **settings)
    np.testing.assert_allclose(1 / (1 + np.exp(-network.scores(x))), 1 / 8, atol=0.03)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("binary", {}), ("binary", {"balance": True}), ("multilabel", {"positive_weight": "balanced"}), ("quantity", {})],
)
def test_a_head_that_begins_at_a_probe_answers_as_the_probe(kind, changes):
    x, y = _task(kind)
    features = frozen_encoder.Encoder(ENCODER, num_leads=8).embed(x)
    probe = fit_linear(
        Examples(
            kind=KINDS[kind], train=features[:48], targets=y[:48], val=features[48:72], val_targets=y[48:72],
            classes=CLASSES if kind == "multilabel" else (),
        )
    )  # fmt: skip
    training = _training(kind, head_start="probe", steps=10, **changes)
    training._step = lambda state, batch: (state, {})
    network = _run(training, x, y, probe=probe)
    assert network.step == 0, "of looks that are equal the first is kept"
    expected = probe.predict(features[72:])
    assert expected.std() > 0
    np.testing.assert_allclose(network.scores(x[72:]), expected, rtol=1e-4, atol=1e-4)


def test_from_a_probe_training_goes_on():
    x, y = _task("quantity")
    probe = FittedModel(predict=lambda features: np.full(len(features), y.mean()), val_metric=0.0, selected="")
    network = _run(_training("quantity", head_start="probe", steps=60, learning_rate=0.02), x, y, probe=probe)
    assert network.step > 0
    assert network.val_metric > 0.4


def test_a_training_that_diverged_is_no_result_though_it_began_at_a_probe():
    x, y = _task("binary")
    probe = FittedModel(predict=lambda features: features[:, 0], val_metric=0.5, selected="")
    training = _training("binary", head_start="probe", steps=10, eval_every=5)
    training._step = lambda state, batch: (state._replace(params=jax.tree.map(lambda p: p * np.nan, state.params)), {})
    with pytest.raises(DataError, match="training with labels diverged") as caught:
        _run(training, x, y, probe=probe)
    assert caught.value.reason == "no_model"


def test_a_probe_is_given_where_the_head_begins_at_it_and_nowhere_else():
    with pytest.raises(ValueError, match="head_start='probe': a probe is given where the head begins at it"):
        _run(_training("binary", head_start="probe"), *_task("binary"))
    with pytest.raises(ValueError, match="head_start='zeros'"):
        _run(_training("binary"), *_task("binary"), probe=FittedModel(predict=len, val_metric=0.5, selected=""))


def test_training_ends_when_validation_no_longer_improves(monkeypatch):
    looks = iter([0.6, 0.7, 0.65, 0.7, 0.9, 0.9])
    monkeypatch.setattr(Binary, "value", lambda *args, **kwargs: next(looks))
    training = _training("binary", steps=60, eval_every=10, patience=2)
    training._step = lambda state, batch: (state, {})  # which step is chosen does not depend on what is learned
    network = _run(training, *_task("binary"))
    assert (network.step, network.val_metric) == (20, 0.7)
    assert next(looks) == 0.9

    looks = iter([0.6, 0.5, 0.55, 0.9])
    training = _training("binary", steps=60, eval_every=10, patience=2, head_start="probe")
    training._step = lambda state, batch: (state, {})
    probe = FittedModel(predict=lambda features: features[:, 0], val_metric=0.5, selected="")
    network = _run(training, *_task("binary"), probe=probe)
    assert (network.step, network.val_metric) == (0, 0.6)
    assert next(looks) == 0.9


def test_a_look_sees_as_many_validation_records_as_it_is_given(monkeypatch):
    seen = []
    monkeypatch.setattr(Binary, "value", lambda kind, labels, *args, **kwargs: seen.append(labels) or 0.5)
    training = _training("binary", steps=20, eval_every=10, eval_records=9)
    training._step = lambda state, batch: (state, {})
    x, y = _task("binary")
    network = _run(training, x, y)
    assert [len(labels) for labels in seen] == [9, 9]
    np.testing.assert_array_equal(*seen)
    assert network.selected == "step 10, best AUROC on 9 of 24 validation records"
    # A single positive of 24 is always among those that are looked at.
    rare = np.where(np.arange(len(y)) == 50, 1, 0)
    for seed in range(5):
        records, labels = training._looked_at(np.arange(24), rare[48:72], seed=seed)
        assert 2 in records
        assert (labels.sum(), len(labels)) == (1, 10)
    with pytest.raises(DataError, match=r"none of 9 records is positive there; .* more eval_records") as caught:
        _run(training, x, np.zeros_like(y))
    assert caught.value.reason == "no_model"


def test_features_count_whatever_the_encoders_head_is():
    encoder = encoders.create("clocs_cnn:small", seed=0, num_leads=8, embedding_dim=4)
    training = _training("binary", encoder=encoder)
    head = training._head(seed=0)
    params = {"encoder": encoder.params, "head": head.params}
    stats = {"encoder": encoder.stats, "head": head.stats}
    out = jax.eval_shape(training._outputs, params, stats, jax.ShapeDtypeStruct((3, 200, 8), np.int16))
    assert out.shape == (3, 1)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("binary", {"head": "deep"}, "head='deep' is unknown; there are: linear, mlp"),
        ("binary", {"select": "test"}, "select='test' is unknown; there are: metric, loss"),
        ("binary", {"head_start": "chance"}, "head_start='chance' is unknown; there are: zeros, probe"),
        ("binary", {"head_start": "probe", "head": "mlp"}, "head_start='probe' is for head='linear', not for 'mlp'"),
        ("multilabel", {"balance": True}, "balance=True is for questions with the answer yes or no"),
        ("binary", {"balance": True, "positive_weight": "balanced"}, "both make up for rare positives"),
        ("quantity", {"positive_weight": "balanced"}, "values have no positives"),
        ("binary", {"frozen": ("backbone",)}, "'backbone' is found in no parameter"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, changes, message):
    with pytest.raises(ConfigError, match=message):
        _train(kind, **changes)


def test_a_look_at_fewer_than_no_records_is_refused_where_it_is_read():
    message = r"config\.probe\.finetune\.eval_records=-1 is not possible; it must be 0 or more"
    with pytest.raises(ConfigError, match=message):
        read(FineTuneSettings, {"eval_records": -1}, path="config.probe.finetune")


def test_a_look_that_gives_no_numbers_is_no_better_one(monkeypatch):
    x, y = _task("binary")
    _, whole = _train("binary", (x, y), steps=2, eval_every=1)
    calls = iter(range(100))
    predict = trainer.predict
    spoilt = lambda *given: predict(*given) * (np.nan if next(calls) else 1.0)  # noqa: E731
    monkeypatch.setattr(trainer, "predict", spoilt)
    _, network = _train("binary", (x, y), steps=2, eval_every=1)
    assert network.step == 1
    assert np.isfinite(network.val_metric)
    assert whole.step in (1, 2)
    with pytest.raises(DataError, match="diverged: no look at validation gave a number; lower learning_rate"):
        _train("binary", (x, y), steps=2, eval_every=1)


def test_labels_that_nothing_can_be_learned_from_are_refused():
    x, y = _task("binary")
    with pytest.raises(DataError, match="no step can be selected on validation: none of 24 records is positive"):
        _train("binary", (x, np.r_[y[:48], np.zeros(48, int)]))
    with pytest.raises(DataError, match="balanced batches need training records of both labels"):
        _train("binary", (x, np.r_[np.zeros(48, int), y[48:]]), balance=True)
