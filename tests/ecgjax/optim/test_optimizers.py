"""Optimisers against NumPy, parameter groups, frozen parts and the moving average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ecgjax import encoders, optim
from ecgjax.encoders.freezing import freeze
from ecgjax.encoders.operations.layers import BatchNorm, row_dropout
from ecgjax.errors import ConfigError
from ecgjax.keys import split_rows
from ecgjax.optim.averaging import average
from ecgjax.optim.parameters import layer_factors, name_of, parameters
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.placement.parameter_layout import lay_out
from ecgjax.placement.settings import MeshSettings
from ecgjax.settings.sections import read, tree_of
from ecgjax.training import device_mesh
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.steps import init_state, train_step

RNG = np.random.default_rng(0)
SHAPES = {
    "encoder": {
        "stem_conv": {"kernel": (3, 2, 4)},
        "stem_norm": {"scale": (4,), "bias": (4,)},
        "blocks": {0: {"kernel": (4, 4)}, 1: {"kernel": (4, 4), "bias": (4,)}},
        "head": {"kernel": (4, 2)},
    },
    "objective": {"beta": ()},
}


def random_tree(shapes=SHAPES):
    shape = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s), jnp.float32), shapes, is_leaf=shape)


PARAMS = random_tree()
GRADS = [random_tree() for _ in range(3)]


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam raises a float to an integer power, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        yield


def settings_of(**leaves):
    return OptimizerSettings(**{"schedule": "constant", "learning_rate": 0.1, **leaves})


def create(params=PARAMS, *, num_steps=10, batch_size=64, **leaves):
    return optim.create(settings_of(**leaves), num_steps=num_steps, batch_size=batch_size, params=params)


def run(optimizer, params=PARAMS, grads=GRADS):
    @jax.jit
    def update(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(optimizer.init)(params)
    for gradient in grads:
        params, state = update(params, state, gradient)
    return params, state


def named(tree):
    return {name_of(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def by_hand(name, *, rate=0.1, decay=0.3, momentum=0.9, trust=1e-3, params=PARAMS, grads=GRADS, decayed="kernels"):
    """The papers' updates, one array after the other, in float64."""
    out = {}
    gradients = [named(g) for g in grads]
    for leaf, w in named(params).items():
        w, kernel = w.astype(np.float64), leaf.endswith("kernel")
        m = v = velocity = np.zeros_like(w)
        for t, g in enumerate((g[leaf].astype(np.float64) for g in gradients), start=1):
            wd = decay * w if kernel or decayed == "all" else 0.0
            if name in ("adam", "lars"):
                g = g + wd
            if name == "lars":
                ratio = trust * np.linalg.norm(w) / np.linalg.norm(g) if kernel else 1.0
                velocity = momentum * velocity + rate * ratio * g
                w = w - velocity
                continue
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            eps = 1e-6 if name == "lamb" else 1e-8
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
            if name != "adam":
                step = step + wd
            if name == "lamb" and kernel:
                step = step * np.linalg.norm(w) / np.linalg.norm(step)
            w = w - rate * step
        out[leaf] = w
    return out


@pytest.mark.parametrize("decayed", [None, "all"])
@pytest.mark.parametrize("name", list(optim.OPTIMIZERS))
def test_three_updates_equal_the_papers(name, decayed):
    params, _ = run(create(name=name, weight_decay=0.3, decayed=decayed))
    expected = by_hand(name, decayed=decayed or "kernels")
    for leaf, value in named(params).items():
        np.testing.assert_allclose(value, expected[leaf], rtol=2e-5, atol=2e-6, err_msg=leaf)
        assert np.abs(value - named(PARAMS)[leaf]).max() > 0


def test_decay_of_every_parameter_is_that_of_torch_adam():
    # Without any gradient, L2 in it makes Adam's first step the learning rate, towards 0; what is 0 stays.
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    params, _ = run(create(name="adam", weight_decay=0.1, decayed="all"), grads=[zero])
    kept, _ = run(create(name="adam", weight_decay=0.1, decayed="kernels"), grads=[zero])
    for leaf, before in named(PARAMS).items():
        np.testing.assert_allclose(named(params)[leaf], before - 0.1 * np.sign(before), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(named(kept)[leaf], named(params)[leaf] if leaf.endswith("kernel") else before)


def test_a_run_that_is_older_than_the_leaf_decays_kernels():
    older = tree_of(settings_of(name="adam", weight_decay=0.3))
    del older["decayed"]
    before, _ = run(optim.create(read(OptimizerSettings, older), num_steps=10, batch_size=64, params=PARAMS))
    now, _ = run(create(name="adam", weight_decay=0.3))
    for leaf, value in named(now).items():
        np.testing.assert_array_equal(named(before)[leaf], value)


def test_settings_reach_the_optimiser():
    params, _ = run(create(name="lars", weight_decay=0.0, momentum=0.5, trust_coefficient=0.02))
    expected = by_hand("lars", decay=0.0, momentum=0.5, trust=0.02)
    np.testing.assert_allclose(named(params)["encoder/head/kernel"], expected["encoder/head/kernel"], rtol=1e-5)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_stacked_layers_have_a_trust_ratio_each_and_what_is_zero_one_of_one(name):
    stacked = {"encoder": {"blocks": {"layers": {"kernel": (3, 4, 5), "bias": (3, 5)}}}}
    params, grads = random_tree(stacked), [random_tree(stacked) for _ in range(2)]
    kernel = params["encoder"]["blocks"]["layers"]["kernel"]
    params["encoder"]["blocks"]["layers"]["kernel"] = kernel.at[1].set(0) * jnp.asarray([1, 1, 50.0])[:, None, None]

    def unstacked(tree):
        of = tree["encoder"]["blocks"]["layers"]
        return {"encoder": {"blocks": {i: {key: value[i] for key, value in of.items()} for i in range(3)}}}

    options = {"name": name, "weight_decay": 0.1}
    together, _ = run(create(params, **options), params, grads)
    apart = unstacked(params)
    apart, _ = run(create(apart, **options), apart, [unstacked(g) for g in grads])
    for (leaf, a), b in zip(named(unstacked(together)).items(), named(apart).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=leaf)
    assert np.isfinite(together["encoder"]["blocks"]["layers"]["kernel"]).all()


def test_clipping_leaves_the_gradients_direction_and_comes_before_everything():
    norm = float(optax.tree.norm(GRADS[0]))
    clipped, _ = run(create(name="lars", weight_decay=0.0, clip_norm=norm / 4, momentum=0.0), grads=GRADS[:1])
    whole, _ = run(create(name="lars", weight_decay=0.0, momentum=0.0), grads=GRADS[:1])
    scale, beta = "encoder/stem_norm/scale", "objective/beta"
    for leaf in (scale, beta):  # without a trust ratio, which would undo it
        before = named(PARAMS)[leaf]
        np.testing.assert_allclose(
            4 * (named(clipped)[leaf] - before), named(whole)[leaf] - before, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("num_steps", [1, 2, 5, 100])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.95, 1.0])
def test_any_warm_up_gives_a_schedule(num_steps, fraction):
    shape = optim.schedule(settings_of(schedule="warmup_cosine", warmup_fraction=fraction), num_steps)
    shares = [float(shape(step)) for step in range(num_steps)]
    assert np.isfinite(shares).all()
    assert max(shares) <= 1 + 1e-6
    assert shares[0] == 0


def test_schedules_values():
    def values(name, **leaves):
        shape = optim.schedule(settings_of(schedule=name, warmup_fraction=0.2, **leaves), 100)
        return [float(shape(step)) for step in (0, 10, 20, 60, 100)]

    cosine = 0.1 + 0.9 * 0.5  # half way down
    np.testing.assert_allclose(values("warmup_cosine", final_fraction=0.1), [0, 0.5, 1, cosine, 0.1], atol=1e-6)
    np.testing.assert_allclose(values("warmup_constant"), [0, 0.5, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(values("constant"), [0, 0.5, 1, 1, 1], atol=1e-6)


def test_without_a_fraction_constant_is_constant_and_the_others_warm_up():
    def values(name, fraction):
        shape = optim.schedule(settings_of(schedule=name, warmup_fraction=fraction), 100)
        return [float(shape(step)) for step in (0, 5, 10)]

    assert OptimizerSettings().warmup_fraction is None
    assert values("constant", None) == values("constant", 0.0) == [1, 1, 1]
    for name in ("warmup_cosine", "warmup_constant"):
        np.testing.assert_allclose(values(name, None), [0, 0.5, 1], atol=1e-6)


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_learning_rate_scales_with_the_batch(scaling, factor):
    rates = optim.peak_rates(settings_of(scaling=scaling), parameters(PARAMS), batch_size=1024)
    np.testing.assert_allclose(list(rates.values()), 0.1 * factor)


def test_rates_fall_with_depth_and_own_rates_stay():
    leaves = {"layer_decay": 0.5, "rates": (("objective/", 5e-4), ("stem_conv", 0.25)), "scaling": "linear"}
    rates = optim.peak_rates(settings_of(**leaves), parameters(PARAMS), batch_size=512)
    assert {name: pytest.approx(rate) for name, rate in rates.items()} == {
        "encoder/blocks/0/kernel": 0.05,
        "encoder/blocks/1/bias": 0.1,
        "encoder/blocks/1/kernel": 0.1,
        "encoder/head/kernel": 0.2,
        "encoder/stem_conv/kernel": 0.25,
        "encoder/stem_norm/bias": 0.025,
        "encoder/stem_norm/scale": 0.025,
        "objective/beta": 5e-4,
    }
    updates = {}
    for name, options in (("own", leaves), ("plain", {"learning_rate": 1.0})):
        params, _ = run(create(name="adamw", weight_decay=0.2, batch_size=512, **options), grads=GRADS[:1])
        updates[name] = {leaf: value - named(PARAMS)[leaf] for leaf, value in named(params).items()}
    for leaf, rate in rates.items():
        np.testing.assert_allclose(updates["own"][leaf], rate * updates["plain"][leaf], rtol=1e-4, atol=1e-7)


def test_stacked_layers_have_a_factor_each():
    shapes = {"encoder": {"patches": {"kernel": (2, 2)}, "blocks": {"layers": {"mlp": {"kernel": (3, 2, 2)}}}}}
    params = random_tree(shapes)
    factors = layer_factors(parameters(params), 0.5)
    assert factors["encoder/patches/kernel"] == 0.5**4
    np.testing.assert_array_equal(factors["encoder/blocks/layers/mlp/kernel"].ravel(), [0.125, 0.25, 0.5])
    zero = jax.tree.map(jnp.zeros_like, params)
    decayed, _ = run(create(params, weight_decay=1.0, learning_rate=1.0, layer_decay=0.5), params, [zero])
    kernel = params["encoder"]["blocks"]["layers"]["mlp"]["kernel"]
    left = 1 - jnp.asarray([0.125, 0.25, 0.5])[:, None, None]
    np.testing.assert_allclose(decayed["encoder"]["blocks"]["layers"]["mlp"]["kernel"], left * kernel, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in encoders.ENCODERS if name.endswith(":small")])
def test_every_encoder_has_an_order_of_depth(name):
    known = parameters({"encoder": encoders.abstract(name).params})
    depths = {p.depth + i for p in known.values() if p.depth is not None for i in range(max(p.stacked, 1))}
    blocks = max(depths)
    assert blocks >= (1 if name == "lead_resnet:small" else 3), "that one has a single block"
    assert depths in (set(range(blocks + 1)), set(range(1, blocks + 1))), "no block is left out"
    last = {leaf for leaf, p in known.items() if p.depth is None}
    assert any("head" in leaf for leaf in last)
    weights = {leaf: int(np.prod(p.shape)) for leaf, p in known.items() if "head" not in leaf}
    assert sum(weights[leaf] for leaf in last & set(weights)) < 0.5 * sum(weights.values()), "most lie in blocks"
    kernels = {leaf for leaf in known if leaf.endswith("kernel")}
    assert kernels <= {leaf for leaf, p in known.items() if p.kernel}
    assert not any(p.kernel for leaf, p in known.items() if leaf.endswith(("bias", "scale")))


FROZEN = ("^encoder/stem_", "blocks/0")
STILL = {"encoder/stem_conv/kernel", "encoder/stem_norm/scale", "encoder/stem_norm/bias", "encoder/blocks/0/kernel"}


@pytest.mark.parametrize("name", list(optim.OPTIMIZERS))
def test_frozen_parameters_stay_and_have_no_state(name):
    params, state = run(create(name=name, frozen=FROZEN, weight_decay=0.3, layer_decay=0.9))
    before = named(PARAMS)
    for leaf, value in named(params).items():
        assert (value == before[leaf]).all() == (leaf in STILL), leaf
    kept = [leaf for leaf in named(state) if any(leaf.endswith(still) for still in STILL)]
    assert not kept
    assert any(leaf.endswith("encoder/head/kernel") for leaf in named(state))


def test_frozen_gradients_do_not_count_in_the_norm():
    huge = jax.tree_util.tree_map_with_path(lambda p, g: g * 1e6 if name_of(p) in STILL else g, GRADS[0])
    found = [
        named(run(create(name="lars", frozen=FROZEN, clip_norm=1.0, weight_decay=0.0), grads=[g])[0])
        for g in (GRADS[0], huge)
    ]
    for leaf, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][leaf])


def test_state_takes_the_shardings_of_its_parameters():
    mesh = device_mesh.make_mesh()
    params = random_tree({"encoder": {"stem_conv": {"kernel": (3, 2, 8)}, "head": {"kernel": (8, 2)}}})
    for frozen in ((), ("head",)):
        optimizer = create(params, frozen=frozen)
        state = init_state(params, {}, optimizer, ema=True)
        found = lay_out(params, mesh, MeshSettings(rules=("stem_conv/kernel$=,,data",))).shardings(state)
        cut = [leaf for leaf, s in named_shardings(found).items() if s.spec != jax.sharding.PartitionSpec()]
        # The parameter, its moving average and Adam's two moments.
        assert len(cut) == 4
        assert all(leaf.endswith("stem_conv/kernel") for leaf in cut)
        placed = jax.device_put(state, found)
        assert placed.ema.params["encoder"]["stem_conv"]["kernel"].sharding.shard_shape((3, 2, 8)) == (3, 2, 1)


def named_shardings(tree):
    return {name_of(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ({"name": "sgd"}, r"config\.optimizer\.name='sgd' is unknown; there are: adamw, adam, lars, lamb"),
        ({"schedule": "step"}, r"config\.optimizer\.schedule='step' is unknown"),
        ({"decayed": "biases"}, r"config\.optimizer\.decayed='biases' is unknown; there are: kernels, all"),
        ({"scaling": "log"}, r"config\.optimizer\.scaling='log' is unknown; there are: none, linear, sqrt"),
        (
            {"name": "lars", "b1": 0.9},
            r"config\.optimizer\.b1=0\.9 is no setting of 'lars', which takes: momentum",
        ),
        (
            {"frozen": ("stem", "tail")},
            r"config\.optimizer\.frozen: 'tail' is found in no parameter; .*encoder/head",
        ),
        ({"frozen": ("[",)}, r"config\.optimizer\.frozen: '\[' is no regular expression"),
        ({"frozen": ("",)}, r"config\.optimizer\.frozen=\('',\) freezes every parameter"),
        ({"rates": ("beta", 5e-4)}, r"config\.optimizer\.rates=\('beta', 0\.0005\) must be pairs of a pattern and a"),
        ({"rates": (("temperature", 1.0),)}, r"config\.optimizer\.rates: 'temperature' is found in no parameter"),
    ],
)
def test_what_does_not_fit_is_refused(leaves, message):
    with pytest.raises(ConfigError, match=message):
        create(**leaves)


def test_depth_without_blocks_is_refused():
    params = random_tree({"encoder": {"dense": {"kernel": (2, 2)}}})
    with pytest.raises(ConfigError, match=r"layer_decay=0\.5 needs an encoder that names its blocks: none of e"):
        create(params, layer_decay=0.5)


def test_average_is_the_mean_at_first_and_then_forgets():
    values = RNG.normal(size=(30, 4)).astype(np.float32)
    mean, expected = {"w": jnp.zeros(4)}, np.zeros(4)
    for step, value in enumerate(values):
        mean = average(mean, {"w": jnp.asarray(value)}, decay=0.9, step=jnp.int32(step))
        share = max(0.1, 1 / (step + 1))
        expected = (1 - share) * expected + share * value
        if step == 4:
            np.testing.assert_allclose(mean["w"], values[:5].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean["w"], expected, rtol=1e-5, atol=1e-6)
    still = average({"w": values}, {"w": values}, decay=0.999, step=jnp.int32(7))
    np.testing.assert_array_equal(still["w"], values)


def toy_loss(params, stats, batch, step, *, train):
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    value = jnp.mean((flat - batch) ** 2)
    return value, ({"encoder": {"mean": 0.9 * stats["encoder"]["mean"] + 0.1 * batch}}, {"loss": value})


def test_a_stopped_run_goes_on_bit_for_bit_with_its_average(tmp_path):
    params = random_tree({"encoder": {"stem_conv": {"kernel": (2, 3)}, "blocks": {1: {"kernel": (2, 3)}}}})
    optimizer = create(params, name="lamb", schedule="warmup_cosine", frozen=FROZEN[:1], layer_decay=0.8)
    frozen = optim.frozen_parameters(settings_of(frozen=FROZEN[:1]), params)
    assert frozen == {"encoder/stem_conv/kernel"}
    step = jax.jit(train_step(toy_loss, optimizer, frozen=frozen, ema_decay=0.6))

    def first():
        return init_state(params, {"encoder": {"mean": jnp.zeros(())}}, optimizer, ema=True)

    def go(state, start, stop):
        after = []
        for now in range(start, stop):
            state, metrics = step(state, jnp.float32(now))
            after.append(state)
        assert metrics["grad_norm"] > 0
        return state, after

    whole, after = go(first(), 0, 6)
    half, _ = go(first(), 0, 3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, half.parts(), metadata={})
        _, parts = checkpoints.restore(first().parts())
    resumed, _ = go(first().with_parts(parts), 3, 6)
    assert jax.tree.structure(resumed) == jax.tree.structure(whole)
    for (leaf, a), b in zip(named(resumed).items(), named(whole).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=leaf)

    kernel = lambda state: np.asarray(state.params["encoder"]["blocks"][1]["kernel"], np.float64)  # noqa: E731
    expected = kernel(after[0])
    for t, state in enumerate(after[1:], start=1):
        share = max(0.4, 1 / (t + 1))
        expected = (1 - share) * expected + share * kernel(state)
    np.testing.assert_allclose(whole.ema.params["encoder"]["blocks"][1]["kernel"], expected, rtol=1e-5)
    assert whole.evaluated is whole.ema
    assert 0 < whole.ema.stats["encoder"]["mean"] != whole.stats["encoder"]["mean"]
    for weights in (whole.params, whole.ema.params):
        np.testing.assert_array_equal(*(tree["encoder"]["stem_conv"]["kernel"] for tree in (weights, params)))


class TwoParts(nnx.Module):
    """What freezing has to find in an encoder: normalisations, and dropout of a block and of the whole."""

    def __init__(self):
        self.stem_norm = BatchNorm(8, dtype=jnp.float32)
        self.block = Dropping()
        self.dropout = 0.5

    def __call__(self, ecg, *, train, keys, valid):
        block_keys, own = (None, None) if keys is None else split_rows(keys, 2).T
        x = self.block(self.stem_norm(ecg, train=train, valid=valid), train=train, keys=block_keys)
        return row_dropout(x, own, self.dropout)


class Dropping(nnx.Module):
    def __init__(self):
        self.norm = BatchNorm(8, dtype=jnp.float32)
        self.dropout = 0.5

    def __call__(self, x, *, train, keys):
        return row_dropout(self.norm(x, train=train), keys, self.dropout)


def test_frozen_layers_compute_as_at_inference():
    encoder = encoders.split(TwoParts())
    ecg = jnp.asarray(RNG.normal(3, 2, (2, 100, 8)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    names = parameters({"encoder": encoder.params})
    assert len(names) == 4

    def train(frozen):
        return encoders.apply(freeze(encoder, frozen), ecg, train=True, keys=keys)

    still, stats = train(names)
    inference, _ = encoders.apply(encoder, ecg, train=False)
    np.testing.assert_array_equal(still, inference)
    jax.tree.map(np.testing.assert_array_equal, stats, encoder.stats)

    out, stats = train({"encoder/stem_norm/scale", "encoder/stem_norm/bias"})
    jax.tree.map(np.testing.assert_array_equal, stats["stem_norm"], encoder.stats["stem_norm"])
    assert np.abs(stats["block"]["norm"]["mean"]).max() > 0.1
    assert 0.7 < (np.asarray(out) == 0).mean() < 0.8, "what is above is trained, and drops"

    out, stats = train({"encoder/block/norm/scale", "encoder/block/norm/bias"})
    jax.tree.map(np.testing.assert_array_equal, stats["block"], encoder.stats["block"])
    assert np.abs(stats["stem_norm"]["mean"]).max() > 0.1
    assert 0.45 < (np.asarray(out) == 0).mean() < 0.55, "the frozen block drops nothing, the whole does"

    # A normalisation of which a part is trained is not frozen.
    _, stats = train({"encoder/stem_norm/scale"})
    assert np.abs(stats["stem_norm"]["mean"]).max() > 0.1
