"""xresnet1d of the PTB-XL benchmark."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgjax import encoders
from ecgjax.encoders.operations import layers
from ecgjax.encoders.xresnet import Bottleneck, _average_pairs
from tests.support.random_arrays import count, random_encoder, random_module

TINY = {"num_blocks": (1, 2), "width": 4, "stem_widths": (4, 4, 8), "embedding_dim": 4, "num_leads": 3}
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "later_blocks", "expected"),
    [("xresnet1d50", 15, 886_400), pytest.param("xresnet1d101", 32, 1_804_672, marks=pytest.mark.slow)],
)
def test_parameter_count_of_the_benchmark_s_form(name, later_blocks, expected):
    # By hand from the benchmark's code: widths 32, 32, 64 in the stem, then 64 inside and 256 between all blocks.
    stem = 5 * (12 * 32 + 32 * 32 + 32 * 64) + 2 * (32 + 32 + 64)
    inner = 5 * 64 * 64 + 64 * 256 + 2 * (64 + 64 + 256)
    first = 64 * 64 + inner + 64 * 256 + 2 * 256
    params = encoders.abstract(name).params
    head = count(params["head"]) + count(params["head_norm"])
    assert count(params) - head == stem + first + later_blocks * (256 * 64 + inner) == expected
    assert head == 2 * 512 + 512 * 128 + 128


def test_a_new_block_is_its_skip_which_averages_pairs():
    make = functools.partial(Bottleneck, 16, 4, kernel=5, stride=2, dtype=jnp.float32)
    block = random_module(lambda: make(rngs=nnx.Rngs(0)))
    at_start = jax.jit(lambda: make(rngs=nnx.Rngs(0)).expand.norm.scale[...])()
    x = RNG.normal(size=(2, 9, 16)).astype(np.float32)
    averages = np.stack([*(x[:, i : i + 2].mean(1) for i in range(0, 8, 2)), x[:, 8]], axis=1)
    run = jax.jit(
        lambda params, x: encoders.merge(block._replace(params=params))(x, train=False, valid=None),
    )
    other = run(block.params, x)
    block.params["expand"]["norm"] = {"scale": at_start, "bias": jnp.zeros(16, jnp.float32)}
    found = run(block.params, x)
    np.testing.assert_allclose(found, np.maximum(averages, 0), atol=1e-6)
    assert np.abs(other - found).max() > 0.1


def test_every_parameter_gets_a_gradient_once_blocks_are_more_than_their_skips():
    encoder = random_encoder("xresnet1d50", **TINY)
    ecg = jnp.asarray(RNG.normal(size=(4, 100, 3)), jnp.float32)
    target = jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32)

    @jax.jit
    def gradient(params):
        def loss(params):
            return jnp.sum(encoders.apply(encoder._replace(params=params), ecg, train=True)[0] * target)

        return jax.tree.map(lambda leaf: jnp.abs(leaf).max(), jax.grad(loss)(params))

    sizes = gradient(encoder.params)
    for path, size in jax.tree_util.tree_flatten_with_path(sizes)[0]:
        assert size > 0, jax.tree_util.keystr(path)
    block = encoder.params["blocks"][0]
    block["expand"]["norm"]["scale"] = jnp.zeros(16, jnp.float32)
    at_start = gradient(encoder.params)["blocks"][0]
    assert at_start["expand"]["norm"]["scale"] > 0
    assert at_start["wide"]["conv"]["kernel"] == 0


def test_features_are_maximum_and_mean_and_dropout_stands_after_them():
    encoder = random_encoder("xresnet1d50", **TINY)
    ecg = RNG.normal(size=(2, 100, 3)).astype(np.float32)

    @jax.jit
    def run(params, ecg, keys):
        module = encoders.merge(encoder._replace(params=params))
        x = layers.cast_ecg(ecg, jnp.float32)
        for conv in module.stem:
            x = conv(x, train=False, valid=None)
        x = nnx.max_pool(x, window_shape=(3,), strides=(2,), padding=((1, 1),))
        for block in module.blocks:
            x = block(x, train=False, valid=None)
        features = [module.features(ecg, train=False, keys=k) for k in (None, keys)]
        return x, *features, module(ecg, train=False), module(ecg, train=False, keys=keys)

    keys = jax.random.split(jax.random.key(0), 2)
    last, features, same, embedding, dropped = jax.device_get(run(encoder.params, ecg, keys))
    # 100 samples: 50 after the stem, 25 after the pool, 13 after the second stage's first block.
    assert last.shape == (2, 13, 16)
    np.testing.assert_allclose(features, np.concatenate([last.max(1), last.mean(1)], axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(features, same)
    assert not np.array_equal(embedding, dropped)


def test_an_even_number_of_samples_is_halved():
    x = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    np.testing.assert_array_equal(jax.jit(_average_pairs)(x), [[[1, 2], [5, 6]]])
