"""What every encoder of the registry must do; a new one is covered once it has a name there, and in `TINY`."""

import functools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgjax import encoders
from ecgjax.encoders.cost import macs
from tests.support.plain_networks import away_from_initialisation

PUBLISHED = sorted(name for name in encoders.ENCODERS if ":" not in name)
SMALL = [f"{name}:small" for name in PUBLISHED]

#: The smallest form of every architecture, in which it is run and differentiated.
TINY = {
    "resnet18": {"widths": (4, 6), "kernel": 3},
    "temporal_net": {"widths": (4, 6)},
    "temporal_net_dual": {"widths": (4, 6), "kernels": (3,)},
    "clocs_cnn": {"input_samples": 400},
    "pclr_resnet": {"widths": (4, 6), "kernel": 8, "input_samples": 128},
    "physio_transformer": {
        "stem_width": 16,
        "dim": 16,
        "depth": 2,
        "num_heads": 2,
        "hidden_dim": 32,
        "position_kernel": 8,
        "position_groups": 2,
    },
    "lead_resnet": {"widths": (4, 6), "num_blocks": (1, 1)},
    "vit_s": {"dim": 16, "depth": 2, "num_heads": 2},
    "xresnet1d50": {"num_blocks": (1, 1), "width": 8, "stem_widths": (4, 4, 8)},
}
SAMPLES, LEADS, DIM = 192, 12, 8


def covered_by(*fast, names=TINY):
    """Parameters of a test that repeats one way through the code: the fast tests have some of them, the slow all."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@cache
def create(name, precision="float32"):
    """The tiny form away from its initialisation."""
    return away_from_initialisation(
        encoders.abstract(name, precision=precision, num_leads=LEADS, embedding_dim=DIM, dropout=0.2, **TINY[name])
    )


def draw(batch):
    """ECG and keys of `batch` rows; the first rows are the same whatever their number."""
    ecg = np.random.default_rng(0).normal(size=(7, SAMPLES, LEADS)).astype(np.float32)
    return jnp.asarray(ecg[:batch]), jax.random.split(jax.random.key(1), 7)[:batch]


@cache
def forward(name, precision="float32"):
    """Jitted `(ecg, keys) → embedding` with running statistics."""
    encoder = create(name, precision)
    return jax.jit(lambda ecg, keys: encoders.apply(encoder, ecg, train=False, keys=keys)[0])


@cache
def gradient(name):
    """Jitted `(ecg, keys, valid) → (gradient, (embedding, stats))`, in training mode."""
    encoder = create(name)

    def loss(params, ecg, keys, valid):
        z, stats = encoders.apply(encoder._replace(params=params), ecg, train=True, keys=keys, valid=valid)
        target = jax.random.normal(jax.random.key(2), z.shape, jnp.float32)
        weight = valid.astype(jnp.float32).reshape(-1, *(1,) * (z.ndim - 1))
        return jnp.sum(weight * target * z), (z, stats)

    step = jax.jit(jax.grad(loss, has_aux=True))
    return functools.partial(step, encoder.params)


def test_every_encoder_has_a_small_form_and_every_architecture_a_tiny_one():
    assert sorted(encoders.ENCODERS) == sorted([*PUBLISHED, *SMALL])
    assert {encoders.ENCODERS[name][0] for name in TINY} == {cls for cls, _ in encoders.ENCODERS.values()}


# The dual stream takes its leads by their places among eight or twelve; the others have wider kernels and no more.
@pytest.mark.parametrize(
    ("name", "num_leads"),
    [
        *((name, 12) for name in TINY),
        *(
            pytest.param(name, 8, marks=() if name in ("resnet18", "temporal_net_dual") else pytest.mark.slow)
            for name in TINY
        ),
    ],
)
def test_shapes_and_types(name, num_leads):
    settings = {"num_leads": num_leads, "embedding_dim": DIM, **TINY[name]}
    encoder = encoders.abstract(name, precision="bfloat16", **settings)
    module = encoders.merge(encoder)
    ecg = jax.ShapeDtypeStruct((3, SAMPLES + 1, num_leads), jnp.float32)

    def outputs(params, stats, ecg):
        split = encoders.Split(encoder.graph, params, stats)
        features, _ = encoders.apply(split, ecg, train=False, features=True)
        return *encoders.apply(split, ecg, train=True), features

    z, stats, features = jax.eval_shape(outputs, encoder.params, encoder.stats, ecg)
    groups = () if module.lead_groups == 1 else (module.lead_groups,)
    assert (z.shape, z.dtype) == ((3, *groups, DIM), jnp.float32)
    assert (features.shape, features.dtype) == ((3, module.feature_dim), jnp.float32)
    assert {x.dtype for x in jax.tree.leaves((encoder.params, stats))} == {jnp.dtype("float32")}
    assert jax.tree.map(lambda x: x.shape, stats) == jax.tree.map(lambda x: x.shape, encoder.stats)
    if encoder.stats:
        convs = [part for _, part in nnx.iter_modules(module) if isinstance(part, nnx.Conv)]
        assert convs
        assert all(conv.bias is None for conv in convs), "a convolution before a batch norm has no use for a bias"


@pytest.mark.parametrize("name", SMALL)
def test_small_forms_take_at_most_a_tenth_of_a_gmac(name):
    cost = macs(encoders.abstract(name, num_leads=12), (2500, 12))
    assert 0 < cost <= 100e6, f"{cost / 1e6:.0f} MMAC"


@pytest.mark.parametrize(
    "name",
    covered_by("temporal_net", "xresnet1d50", names=("resnet18", "temporal_net", "temporal_net_dual", "xresnet1d50")),
)
def test_embeddings_and_features_of_one_pass_are_those_of_two(name):
    encoder, (ecg, keys) = create(name), draw(3)

    @jax.jit
    def both(ecg, keys):
        options = {"train": False, "keys": keys}
        (z, features), _ = encoders.apply_with_features(encoder, ecg, **options)
        return z, features, encoders.apply(encoder, ecg, **options, features=True)[0]

    z, features, alone = both(ecg, keys)
    np.testing.assert_allclose(z, forward(name)(ecg, keys), rtol=1e-4, atol=1e-5 * np.abs(z).max())
    np.testing.assert_allclose(features, alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("name", TINY)
def test_a_row_is_the_same_in_any_batch_with_its_dropout(name):
    ecg, keys = draw(7)
    whole = np.asarray(forward(name)(ecg, keys))
    np.testing.assert_allclose(forward(name)(*draw(1)), whole[:1], rtol=1e-4, atol=1e-5 * np.abs(whole).max())
    other = np.asarray(forward(name)(ecg, keys.at[0].set(keys[1])))
    assert np.abs(other[0] - whole[0]).max() > 1e-3 * np.abs(whole).max()
    np.testing.assert_array_equal(other[1:], whole[1:])


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_gets_a_gradient(name):
    grads, _ = gradient(name)(*draw(4), jnp.ones(4, bool))
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", TINY)
def test_rows_without_a_recording_change_nothing_for_the_others(name):
    ecg, keys = draw(4)
    valid = jnp.asarray([True, True, False, True])
    results = []
    for silent in (ecg, ecg.at[2].multiply(100.0)):
        grads, (z, stats) = gradient(name)(silent, keys, valid)
        results.append((grads, z[np.asarray(valid)], stats))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_is_near_float32_even_at_a_large_offset(name):
    ecg, keys = draw(7)
    # Float32 gets the offset taken off the same way: zero padding would otherwise see it at the edges.
    full = forward(name)(ecg - jnp.median(ecg, axis=1, keepdims=True), keys)
    half = forward(name, "bfloat16")(ecg + 16.0, keys)
    a, b = (np.asarray(z, np.float64).reshape(7, -1) for z in (half, full))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.99, cosine
