"""No program compares computed floating-point numbers for equality, whoever wrote the comparison."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ecgjax import encoders
from ecgjax.keys import step_key
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.training import assembly
from tests.ecgjax.encoders.test_all import DIM, LEADS, TINY, draw
from tests.ecgjax.objectives.test_objective import COMBINATIONS, EMBEDDINGS, ROWS, VIEWS, make_method, method_of
from tests.project.test_configs import load, model_and_batch, shapes_alone
from tests.support.float_comparisons import float_comparisons

X = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.sin(x).max(1).sum(),
        lambda x: jnp.maximum(jnp.sin(x), jnp.cos(x)).sum(),
        lambda x: jax.lax.scan(lambda c, row: (jnp.maximum(c, jnp.sin(row).sum()), None), 0.0, x)[0],
        lambda x: jax.checkpoint(lambda x: jnp.sin(x).min(1).sum())(x),
        lambda x: jnp.where(jnp.sin(x) == jnp.floor(jnp.sin(x)), x, 0.0).sum(),
        lambda x: jnp.where(jnp.sin(x) >= jax.lax.stop_gradient(jnp.sin(x)).max(1, keepdims=True), x, 0.0).sum(),
    ],
    ids=[
        "maximum of an array",
        "maximum of two",
        "in a loop",
        "computed again",
        "whether whole",
        "at least the maximum",
    ],
)
def test_jax_s_own_gradients_of_maxima_are_found(function):
    assert float_comparisons(jax.grad(function), X)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.nn.relu(jnp.sin(x)).sum(),
        lambda x: jax.nn.logsumexp(jnp.sin(x), axis=1).sum(),
        lambda x: jnp.where(x[:, :1] == x[:, 1:2], jnp.sin(x), x).sum(),
        lambda x: jnp.where(x == jnp.floor(x), jnp.sin(x), x).sum(),
        lambda x: jnp.nan_to_num(jnp.sin(x)).sum(),
    ],
    ids=[
        "of the sign",
        "a maximum without gradient",
        "of numbers given",
        "whether given numbers are whole",
        "whether it is a number",
    ],
)
def test_other_comparisons_are_not(function):
    assert not float_comparisons(jax.grad(function), X)


@pytest.mark.parametrize("name", TINY)
def test_gradients_of_encoders_compare_none(name):
    settings = TINY[name] | ({"decoder": True} if name == "physio_transformer" else {})
    encoder = encoders.abstract(name, num_leads=LEADS, embedding_dim=DIM, dropout=0.2, **settings)
    run = encoders.reconstruct if "decoder" in settings else encoders.apply

    def loss(params, ecg, keys):
        out, _ = run(encoder._replace(params=params), ecg, train=True, keys=keys, valid=jnp.ones(4, bool))
        return sum(x.sum() for x in jax.tree.leaves(out))

    # Statistics are of the trace's closure and so must be arrays.
    encoder = encoder._replace(stats=jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), encoder.stats))
    assert not float_comparisons(jax.grad(loss), encoder.params, *draw(4))


@pytest.mark.parametrize(("loss", "relation", "miner"), COMBINATIONS)
def test_objectives_and_their_gradients_compare_none(loss, relation, miner):
    objective = Objective(*method_of(loss, relation, miner), tiling=Tiling(chunk=16), num_views=VIEWS)

    def value(params, embeddings):
        out = objective(params, embeddings, ROWS, key=step_key(0, jnp.int32(3), stream="mining"), step=jnp.int32(3))
        return out.loss, out.stats

    assert not float_comparisons(jax.value_and_grad(value, argnums=(0, 1), has_aux=True), objective.init(), EMBEDDINGS)


def test_hard_negatives_without_a_prior_compare_none():
    method = make_method(objective__name="hcl", objective__positive_prior=0.0)
    objective = Objective(*method, tiling=Tiling(chunk=16), num_views=VIEWS)

    def loss(embeddings):
        return objective({}, embeddings, ROWS, key=step_key(0, jnp.int32(3), stream="mining"), step=jnp.int32(3)).loss

    assert not float_comparisons(jax.grad(loss), EMBEDDINGS)


# That steps of all configs compare none is tested in `tests/project/test_shared_buffers.py`, which traces them anyway.
@pytest.mark.slow
def test_a_step_with_every_augmentation_compares_none(monkeypatch):
    monkeypatch.setattr(assembly, "create_split", shapes_alone)
    config = load("simclr", "", "small")
    for name, settings in config.augment.items():
        # Partners of recordings are chosen on the host, by labels that this batch lacks; there is one crop at a time.
        settings.enabled = name not in ("geodesic", "resized_crop", "stretched_crop")
    model, batch = model_and_batch(config)
    step = jax.value_and_grad(functools.partial(model.loss, train=True), has_aux=True)
    assert not float_comparisons(step, model.params, model.stats, batch, jax.ShapeDtypeStruct((), jnp.int32))
