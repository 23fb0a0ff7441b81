"""Losses, relations and miners as a config puts them together, and what they learn."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.keys import step_key
from ecgjax.objectives.losses.nt_xent import nt_xent
from ecgjax.objectives.miners.miners import MINERS
from ecgjax.objectives.objective import MIN_TEMPERATURE, OBJECTIVES, Objective
from ecgjax.objectives.pairs.relations import RELATIONS, Rows, similar_physiology
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.settings.sections import read

# Recordings of four views: two parts of the time in two leads. Patients have two recordings.
N, VIEWS = 32, 4
RNG = np.random.default_rng(0)
EMBEDDINGS = jnp.asarray(RNG.normal(size=(N, 8)), jnp.float32)
NUMBER = np.arange(N, dtype=np.int32)
RECORD = NUMBER // VIEWS
ROWS = Rows(
    row=jnp.asarray(NUMBER),
    record=jnp.asarray(RECORD),
    patient=jnp.asarray(RECORD // 2),
    view=jnp.asarray(NUMBER % VIEWS),
    valid=jnp.asarray(NUMBER != 5),
    segment=jnp.asarray(NUMBER % 2),
    lead=jnp.asarray(NUMBER // 2 % 2),
    label=jnp.asarray(RECORD % 3, jnp.float32),
    cluster=jnp.asarray(RECORD % 3),
    sex=jnp.asarray(RECORD // 2 % 2),
    age=jnp.asarray(50 + RECORD, jnp.float32),
    physiology=jnp.asarray(np.repeat(RNG.normal(size=(N // VIEWS, 4)), VIEWS, axis=0), jnp.float32),
    nearest=jnp.asarray((NUMBER + VIEWS) % N),
    neighbours=jnp.asarray(np.stack([RECORD + 2, RECORD + 3], axis=1) % (N // VIEWS)),
)


SECTIONS = {"objective": ObjectiveSettings, "relation": RelationSettings, "miner": MinerSettings}


def make_method(**leaves):
    """Settings of loss, relation and miner, as a config with these leaves gives them."""
    trees = {"objective": {"name": "nt_xent"}, "relation": {"name": "same_record"}, "miner": {}}
    for path, value in leaves.items():
        section, _, leaf = path.partition("__")
        trees[section][leaf] = value
    return [read(SECTIONS[name], tree, path=f"config.{name}") for name, tree in trees.items()]


def evaluate(method, params=None, *, jit=False):
    objective = Objective(*method, tiling=Tiling(), num_views=VIEWS)
    params = objective.init() if params is None else params
    key = step_key(0, jnp.int32(3), stream="mining")
    # As one program it is compiled in a fraction of the time that its operations take one by one.
    run = jax.jit(objective.__call__) if jit else objective
    return run(params, EMBEDDINGS, ROWS, key=key, step=jnp.int32(3))


MINED = ("triplet", "margin", "angular")
COMBINATIONS = [
    *((name, "same_record", None) for name in OBJECTIVES if name not in (*MINED, "clip")),
    *(("nt_xent", name, None) for name in RELATIONS),
    *(("triplet", "nearest_signal" if name == "signal_distance" else "same_label", name) for name in MINERS),
    *((name, "same_patient", "semi_hard") for name in ("margin",)),
    ("angular", "same_patient", None),
]


def method_of(loss, relation, miner):
    """The settings of one combination, with those that it cannot do without."""
    leaves = {"objective__name": loss, "relation__name": None if loss == "vicreg" else relation, "miner__name": miner}
    if miner and "distance" in inspect.signature(MINERS[miner]).parameters:
        leaves["miner__distance"] = "euclidean_on_sphere"
    leaves["miner__ceiling"] = 0.9 if miner == "hardest" else None
    if miner == "scheduled":
        leaves |= {"miner__first_hardness": 0.0, "miner__last_hardness": 10.0, "miner__over_steps": 100}
    return make_method(**leaves)


@pytest.mark.parametrize(("loss", "relation", "miner"), COMBINATIONS)
def test_every_loss_relation_and_miner_goes_by_its_name(loss, relation, miner):
    out = evaluate(method_of(loss, relation, miner), jit=True)
    assert np.isfinite(out.loss)
    assert out.loss != 0
    assert all(np.isfinite(value) for value in out.stats.values())


def test_settings_reach_the_loss_and_the_relation():
    method = make_method(
        objective__temperature=0.3,
        objective__positives="inside",
        relation__name="similar_physiology",
        relation__min_cosine=0.6,
    )
    expected = nt_xent(
        EMBEDDINGS,
        ROWS,
        relation=lambda a, k: similar_physiology(a, k, min_cosine=0.6),
        temperature=0.3,
        positives="inside",
        tiling=Tiling(),
    )
    assert evaluate(method).loss == expected.loss


def test_a_learnt_temperature_starts_where_it_is_set_and_stays_above_its_least():
    method = make_method(objective__temperature=0.2, objective__learn=("temperature",))
    assert evaluate(method).loss == evaluate(make_method(objective__temperature=0.2)).loss
    objective = Objective(*method, tiling=Tiling(), num_views=VIEWS)
    assert list(objective.init()) == ["temperature"]
    low = {"temperature": jnp.log(jnp.float32(MIN_TEMPERATURE / 50))}
    assert evaluate(method, low).stats["temperature"] == jnp.float32(MIN_TEMPERATURE)
    gradient = jax.grad(lambda params: evaluate(method, params).loss)(objective.init())["temperature"]
    step = 1e-2
    at = float(objective.init()["temperature"])
    around = [evaluate(method, {"temperature": jnp.float32(at + d)}).loss for d in (-step, step)]
    np.testing.assert_allclose(gradient, (around[1] - around[0]) / (2 * step), rtol=2e-3)


def test_a_temperature_below_its_least_gets_the_gradient_that_leads_back_up():
    objective = Objective(*make_method(objective__learn=("temperature",)), tiling=Tiling(), num_views=VIEWS)
    low = {"temperature": jnp.log(jnp.float32(MIN_TEMPERATURE / 2))}

    def gradient(sign):
        key = step_key(0, jnp.int32(3), stream="mining")

        def loss(params):
            return sign * objective(params, EMBEDDINGS, ROWS, key=key, step=jnp.int32(3)).loss

        return jax.grad(loss)(low)["temperature"]

    assert gradient(1.0) < 0, "random embeddings cost less at a higher temperature"
    assert gradient(-1.0) == 0


def test_each_class_may_learn_a_boundary_of_its_own():
    method = make_method(
        objective__name="margin",
        objective__learn=("beta",),
        objective__beta_classes=3,
        relation__name="same_label",
        miner__name="npair",
    )
    objective = Objective(*method, tiling=Tiling(), num_views=VIEWS)
    start = objective.init()["beta"]
    np.testing.assert_array_equal(start, np.full(3, 1.2, np.float32))
    gradient = jax.jit(jax.grad(lambda params: evaluate(method, params).loss))({"beta": start})["beta"]
    assert (gradient != 0).all()
    assert len(set(gradient.tolist())) > 1
    assert evaluate(method, {"beta": start}, jit=True).stats["beta"] == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ({"objective__name": "nt_xnet"}, "config.objective.name='nt_xnet' is unknown; there are: nt_xent"),
        ({"relation__name": None}, "config.relation.name=None is unknown; there are: same_record"),
        (
            {"miner__name": "semi_hard", "miner__margin": 0.1},
            "takes no miner; set config.miner to None: name='semi_hard', margin=0.1 "
            "(--config.miner.name=None --config.miner.margin=None)",
        ),
        (
            {"objective__margin": 0.2},
            "config.objective.margin=0.2 is no setting of 'nt_xent', which takes: temp",
        ),
        ({"relation__min_cosine": 0.2}, "config.relation.min_cosine=0.2 is no setting of 'same_record'"),
        ({"objective__reducer": "median"}, "config.objective.reducer='median' is unknown; there are: mean"),
        ({"objective__learn": ("beta",)}, "names beta; 'nt_xent' can learn: temperature"),
        (
            {"objective__name": "triplet", "miner__name": "semi_hard"},
            "config.miner.name='semi_hard' needs config.miner.distance",
        ),
        (
            {
                "objective__name": "triplet",
                "miner__name": "scheduled",
                "miner__distance": "euclidean",
                "miner__first_hardness": 1.0,
            },
            "needs config.miner.first_hardness and last_hardness, 0 or more, and over_steps",
        ),
        (
            {"miner__first_hardness": 1.0},
            "takes no miner; set config.miner to None: first_hardness=1.0 (--config.miner.first_hardness=None)",
        ),
        ({"objective__name": "triplet"}, "config.miner.name=None is unknown; there are: random"),
        (
            {"objective__name": "triplet", "miner__name": "signal_distance"},
            "config.miner.name='signal_distance' needs config.relation.name='nearest_signal', not 'same_record'",
        ),
        (
            {"objective__temperature": 0.001, "objective__learn": ("temperature",)},
            "config.objective.temperature=0.001 is below 0.01, the lowest that is learnt",
        ),
        ({"objective__beta_classes": 3}, "config.objective.learn must name 'beta'"),
        (
            {
                "objective__name": "triplet",
                "objective__form": "soft",
                "objective__margin": 0.2,
                "miner__name": "random",
            },
            "margin=0.2 is of the hinge; with form='soft' set it to None",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(leaves, message):
    with pytest.raises(ConfigError) as refused:
        evaluate(make_method(**leaves))
    assert message in str(refused.value)


def test_a_margin_may_be_a_share_of_the_median_distance_in_the_first_batch():
    leaves = {"objective__name": "triplet", "relation__name": "same_label", "miner__name": "npair"}
    shared = Objective(*make_method(**leaves, objective__margin_share=0.2), tiling=Tiling(), num_views=VIEWS)
    after = jax.jit(shared.stats_after)
    first = after(shared.init_stats(), EMBEDDINGS, ROWS, step=jnp.int32(0))
    z = np.asarray(EMBEDDINGS, np.float64)[np.asarray(ROWS.valid)]
    apart = ((z[:, None] - z[None]) ** 2).sum(-1)[np.triu_indices(len(z), 1)]
    np.testing.assert_allclose(first["median_distance"], np.median(apart), rtol=1e-5)
    later = after(first, 5 * EMBEDDINGS, ROWS, step=jnp.int32(7))
    assert later["median_distance"] == first["median_distance"]
    nothing = ROWS._replace(valid=jnp.zeros(N, bool))
    assert after(shared.init_stats(), EMBEDDINGS, nothing, step=jnp.int32(0))["median_distance"] == 0
    settings = {"key": step_key(0, jnp.int32(3), stream="mining"), "step": jnp.int32(3)}
    out = jax.jit(shared.__call__)({}, EMBEDDINGS, ROWS, stats=later, **settings)
    fixed = make_method(**leaves, objective__margin=0.2 * float(np.median(apart)))
    np.testing.assert_allclose(out.loss, evaluate(fixed, jit=True).loss, rtol=1e-5)
    np.testing.assert_allclose(out.stats["margin"], 0.2 * np.median(apart), rtol=1e-5)


@pytest.mark.parametrize(
    ("leaves", "words"),
    [
        ({"objective__name": "nt_xent"}, "is of the hinge of config.objective.name='triplet'"),
        ({"objective__name": "triplet", "objective__form": "soft"}, "is of the hinge of"),
        ({"objective__name": "triplet", "objective__margin": 0.3}, "margin=0.3 both say how wide the hinge is"),
    ],
)
def test_a_share_of_distances_is_no_margin_of_other_losses_or_beside_one(leaves, words):
    with pytest.raises(ConfigError, match=words):
        Objective(*make_method(**leaves, objective__margin_share=0.2), tiling=Tiling(), num_views=VIEWS)
