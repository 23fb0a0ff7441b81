"""Metric learning beside a task: the term against brute force, batches without triplets, the training with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecgjax import encoders
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask
from ecgjax.errors import ConfigError
from ecgjax.evaluation.models.kinds import KINDS
from ecgjax.finetuning import metric_term
from ecgjax.finetuning.metric_term import MetricTerm
from ecgjax.finetuning.trainer import FineTuning
from ecgjax.keys import row_keys
from ecgjax.leads import prepare
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.settings.probe import FineTuneSettings, MetricSettings
from ecgjax.settings.sections import read
from ecgjax.training.steps import init_state, train_step
from tests.support.objective_cases import assert_gradient, brute_triplet

NUM = 24
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(NUM, 6))
PATIENT = np.arange(NUM) // 2
ANSWERS = {"binary": RNG.integers(0, 2, NUM).astype(float), "quantity": np.round(RNG.normal(14, 5, NUM), 1)}
MARGIN = 1.5
ENCODER = encoders.create("clocs_cnn:small", seed=0, num_leads=8, embedding_dim=4)


def _metric(**changes):
    return MetricSettings(**{"weight": 1.0, "margin": MARGIN, **changes})


def _batch(label, *, patient=PATIENT, record=None):
    return {
        "row": jnp.arange(len(label), dtype=jnp.int32),
        "record": jnp.asarray(np.arange(len(label)) if record is None else record, jnp.int32),
        "patient": jnp.asarray(patient, jnp.int32),
        "label": jnp.asarray(label, jnp.float32)[:, None],
        "seed": jnp.uint32(5),
    }


@pytest.fixture(scope="module")
def terms():
    """Kind → `(features, batch, step) → (loss, statistics, mined triplets, gradient)`, compiled once."""

    def of(kind):
        term, mined = MetricTerm(_metric(), kind=KINDS[kind]), []

        def spy(*args, miner=term._miner, **settings):
            mined.append(miner(*args, **settings))
            return mined[-1]

        term._miner = spy

        def loss(features, batch, step):
            out = term(features, batch, step)
            return out.loss, (out.stats, mined.pop())

        def run(features, batch, step):
            (value, (stats, triplets)), gradient = jax.value_and_grad(loss, has_aux=True)(features, batch, step)
            return value, stats, triplets, gradient

        return jax.jit(run)

    return {kind: of(kind) for kind in ANSWERS}


def _run(terms, kind, batch, step=0):
    return jax.tree.map(np.asarray, terms[kind](jnp.asarray(FEATURES, jnp.float32), batch, jnp.int32(step)))


@pytest.mark.parametrize("kind", ANSWERS)
def test_value_and_gradient_equal_brute_force(terms, kind):
    label = ANSWERS[kind]
    for step in range(3):
        value, stats, mined, gradient = _run(terms, kind, _batch(label), step)
        expected, active = brute_triplet(FEATURES, mined, form="hinge", width=MARGIN)
        assert value == pytest.approx(expected, rel=2e-5)
        assert stats["active_frac"] == pytest.approx(active, abs=1e-6)
        assert_gradient(gradient, lambda z: brute_triplet(z, mined, form="hinge", width=MARGIN)[0], FEATURES)  # noqa: B023
        assert mined.found.all()
        for i, (positive, negative) in enumerate(zip(mined.positive[:, 0], mined.negative[:, 0], strict=True)):
            assert PATIENT[negative] != PATIENT[i]
            apart = np.abs(np.float32(label) - np.float32(label[i]))
            if kind == "binary":
                assert positive != i
                assert (apart[positive], apart[negative]) == (0, 1)
            else:
                strangers = np.flatnonzero(PATIENT[i] != PATIENT)
                assert apart[positive] == apart[strangers].min()
                assert apart[negative] == apart[strangers].max()


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("batch", ["one patient", "one label"])
def test_batches_without_triplets_cost_nothing(terms, kind, batch):
    patient = np.zeros(NUM) if batch == "one patient" else PATIENT
    label = np.ones(NUM) if batch == "one label" else ANSWERS[kind]
    value, stats, mined, gradient = _run(terms, kind, _batch(label, patient=patient))
    assert value == 0
    assert not mined.found.any()
    assert all(np.isfinite(each) for each in stats.values())
    np.testing.assert_array_equal(gradient, 0)


def test_a_record_drawn_twice_is_neither_its_own_positive_nor_its_negative(terms):
    # As in balanced batches of few positives: a single positive record, and no other of its answer.
    label, record = np.r_[1.0, 1.0, np.zeros(NUM - 2)], np.r_[0, 0, np.arange(2, NUM)]
    value, stats, mined, gradient = _run(terms, "binary", _batch(label, patient=record, record=record))
    assert not mined.found[:2].any()
    assert mined.found[2:].all()
    assert stats["anchors_without_positive"] == 2
    assert value == pytest.approx(brute_triplet(FEATURES, mined, form="hinge", width=MARGIN)[0], rel=2e-5)
    assert_gradient(gradient, lambda z: brute_triplet(z, mined, form="hinge", width=MARGIN)[0], FEATURES)
    # With a third of its answer, both find that one.
    label[2] = 1.0
    _, stats, mined, _ = _run(terms, "binary", _batch(label, patient=record, record=record))
    assert mined.positive[:2, 0].tolist() == [2, 2]
    assert (mined.negative[:2, 0] > 2).all()
    assert stats["anchors_without_positive"] == 0


def _settings(*, metric, **changes):
    return FineTuneSettings(steps=2, batch_size=8, eval_every=2, metric=MetricSettings(**metric), **changes)


def _training(settings, kind="binary"):
    return FineTuning(settings, optimizer=OptimizerSettings(), encoder=ENCODER, num_leads=8, kind=KINDS[kind])


def test_training_adds_the_term_also_to_balanced_batches():
    training, seen = _training(_settings(metric={"weight": 0.5}, balance=True)), []
    step = training._step

    def spied(state, batch):
        seen.append((batch, step(state, batch)))
        return seen[-1][1]

    training._step = spied
    x, y = RNG.normal(0, 200, (40, 200, 8)).astype(np.int16), np.arange(40) % 8 == 0
    train = LabelledRecords(
        records=np.arange(24)[::-1], labels=y[23::-1].astype(int), patients=np.arange(24) // 3 + 2**40, unlabelled=0
    )
    val = LabelledRecords(
        records=np.arange(24, 40), labels=y[24:].astype(int), patients=np.arange(24, 40), unlabelled=0
    )
    data = ProbeData(
        task=BinaryTask(label="af", rule="present"), train=train, val=val, test=val, label_fraction=1.0, seed=0,
        train_available=train, excluded={},
    )  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power
        network = training.train(ENCODER, data, read=x.__getitem__, seed=0, progress=False)
    assert np.isfinite(network.scores(x[:5])).all()
    for batch, (_, metrics) in seen:
        assert batch["label"].sum() == 4
        np.testing.assert_array_equal(batch["patient"], batch["record"] // 3)
        np.testing.assert_array_equal(batch["label"][:, 0], y[23::-1][batch["record"]])
        assert metrics["metric"] > 0
        assert metrics["found_frac"] == 1
        assert float(metrics["loss"]) == pytest.approx(
            float(metrics["task"]) + 0.5 * float(metrics["metric"]), rel=1e-6
        )


def test_without_a_weight_the_program_is_that_of_the_task_alone(monkeypatch):
    """The same program to the letter, hence the same numbers to the bit, and no columns but the task's."""
    monkeypatch.setattr(metric_term, "triplet", None)  # would be an error if it were called
    training = _training(_settings(metric={"margin": 3.0, "miner": "soft_hard"}))
    assert training._metric is None
    head = training._head(seed=0)

    def task_alone(params, stats, batch, step, *, train):
        keys = {
            name: row_keys(batch["seed"], step, batch["row"], stream=stream)
            for name, stream in (("encoder", "dropout"), ("head", "task"))
        }
        encoder = ENCODER._replace(params=params["encoder"], stats=stats["encoder"])
        ecg = prepare(batch["signal"], num_leads=8)
        features, of_encoder = encoders.apply(encoder, ecg, train=train, keys=keys["encoder"], features=True)
        trained = encoders.merge(head._replace(params=params["head"], stats=stats["head"]))
        outputs, label = trained(features, train=train, keys=keys["head"]), batch["label"]
        weight = jnp.where(label > 0.5, batch["positive_weight"][None, :], jnp.float32(1))
        value = jnp.mean(weight * optax.sigmoid_binary_cross_entropy(outputs, label))
        return value, ({"encoder": of_encoder, "head": encoders.stats_of(trained)}, {"loss": value})

    batch = {
        "signal": np.zeros((8, 200, 8), np.int16),
        "label": np.zeros((8, 1), np.float32),
        "row": np.arange(8, dtype=np.int32),
        "seed": np.uint32(0),
        "positive_weight": np.ones(1, np.float32),
    }
    params = {"encoder": ENCODER.params, "head": head.params}
    state = init_state(params, {"encoder": ENCODER.stats, "head": head.stats}, training._optimizer)
    plain = jax.jit(train_step(task_alone, training._optimizer), donate_argnums=0)
    with jax.numpy_dtype_promotion("standard"):
        assert training._step.lower(state, batch).as_text() == plain.lower(state, batch).as_text()


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("binary", {"miner": "hardest"}, "metric.miner='hardest' is unknown .* there are: npair, semi_hard, s"),
        ("quantity", {"miner": "npair"}, "metric.miner='npair' is unknown to this kind of question.*label_distance"),
        ("binary", {"distance": "dtw"}, "metric.distance='dtw' is unknown"),
        ("multilabel", {}, "for a yes or no and for a quantity: no relation says which records"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, changes, message):
    with pytest.raises(ConfigError, match=message):
        metric_term.metric_term(_metric(**changes), kind=KINDS[kind])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": 0.0}, "metric.margin=0.0 is not possible; it must be above 0"),
        ({"weight": -1.0}, "metric.weight=-1.0 is not possible; it must be 0 or more"),
    ],
)
def test_numbers_out_of_their_bounds_are_refused_where_they_are_read(changes, message):
    with pytest.raises(ConfigError, match=message):
        read(MetricSettings, changes, path="config.probe.finetune.metric")


def test_a_term_that_could_change_nothing_is_refused():
    with pytest.raises(ConfigError, match="all of whose parameters are frozen"):
        _training(_settings(metric={"weight": 1.0}, frozen=("^encoder/",)))


@pytest.mark.parametrize("miner", ["semi_hard", "soft_hard"])
def test_other_published_miners_find_triplets(miner):
    term = functools.partial(MetricTerm(_metric(miner=miner), kind=KINDS["binary"]), step=jnp.int32(0))
    out = jax.jit(term)(jnp.asarray(FEATURES, jnp.float32), _batch(ANSWERS["binary"]))
    assert out.loss > 0
    assert out.counts.all()
