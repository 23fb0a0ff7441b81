import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgjax import encoders
from ecgjax.encoders.operations.layers import BatchNorm, row_dropout
from ecgjax.errors import ConfigError


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def run(encoder, ecg, *, train=False, keys=None, features=False):
    return jax.jit(
        lambda params, stats, ecg, keys: encoders.apply(
            encoders.Split(encoder.graph, params, stats), ecg, train=train, keys=keys, features=features
        )
    )(encoder.params, encoder.stats, ecg, keys)


def shapes(encoder, ecg, **options):
    """Shapes and types of what `encoders.apply` returns, without a computation."""

    def outputs(params, stats, ecg):
        return encoders.apply(encoders.Split(encoder.graph, params, stats), ecg, train=False, **options)

    return jax.eval_shape(outputs, encoder.params, encoder.stats, ecg)


def test_published_parameter_count():
    # Jeong et al. 2023: about 8.74 M parameters before the last layer. By hand: four convolutions of kernel 7 a stage,
    # the first from the width before; a 1×1 skip with its normalisation where widths differ; two numbers a channel
    # for each normalisation; and the stem.
    def stage(a, b):
        return 7 * a * b + 3 * 7 * b * b + (a * b + 2 * b if a != b else 0) + 8 * b

    expected = 15 * 12 * 64 + 2 * 64 + stage(64, 64) + stage(64, 128) + stage(128, 256) + stage(256, 512)
    params = encoders.abstract("resnet18").params
    assert count(params) - count(params["head"]) == expected == 8_737_408
    assert count(params["head"]) == 512 * 128 + 128


def test_no_bias_before_a_normalisation():
    params = encoders.abstract("resnet18:small").params
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    assert not [name for name in names if "conv" in name and "bias" in name]


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("num_leads", [8, 12])
@pytest.mark.parametrize("precision", encoders.PRECISIONS)
def test_forward_shapes_and_types(batch, num_leads, precision):
    encoder = encoders.abstract("resnet18:small", num_leads=num_leads, embedding_dim=32, precision=precision)
    ecg = jax.ShapeDtypeStruct((batch, 500, num_leads), jnp.float32)
    embedding, stats = shapes(encoder, ecg)
    assert embedding.shape == (batch, 32)
    assert shapes(encoder, ecg, features=True)[0].shape == (batch, 128)
    assert embedding.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves((encoder.params, encoder.stats, stats))} == {jnp.dtype("float32")}
    assert jax.tree.structure(stats) == jax.tree.structure(encoder.stats)


@pytest.mark.slow
def test_bf16_is_near_float32_in_training_even_at_a_large_offset():
    ecg = jax.random.normal(jax.random.key(0), (8, 500, 12), jnp.float32)
    make = {name: encoders.create("resnet18:small", seed=0, precision=name) for name in encoders.PRECISIONS}
    for offset in (0.0, 16.0):
        half, _ = run(make["bfloat16"], ecg + offset, train=True)
        # Float32 gets the offset taken off the same way: zero padding would otherwise see it at the edges.
        centred = ecg - jnp.median(ecg, axis=1, keepdims=True)
        full, _ = run(make["float32"], centred, train=True)
        error = jnp.linalg.norm(half - full) / jnp.linalg.norm(full)
        assert error < 0.05, f"offset {offset} mV: relative error {error}"


@pytest.mark.slow
def test_every_parameter_of_the_small_form_gets_a_gradient():
    encoder = encoders.create("resnet18:small", seed=0)
    ecg = jax.random.normal(jax.random.key(0), (4, 400, 12), jnp.float32)
    target = jax.random.normal(jax.random.key(1), (4, 128), jnp.float32)

    def loss(params):
        out, _ = encoders.apply(encoders.Split(encoder.graph, params, encoder.stats), ecg, train=True)
        return jnp.sum(out * target)

    for path, gradient in jax.tree_util.tree_flatten_with_path(jax.jit(jax.grad(loss))(encoder.params))[0]:
        assert float(jnp.abs(gradient).max()) > 0, jax.tree_util.keystr(path)


def test_train_moves_running_statistics_and_inference_does_not():
    encoder = encoders.create("resnet18", seed=0, widths=(4, 6), kernel=3)
    ecg = jax.random.normal(jax.random.key(0), (4, 400, 12), jnp.float32)
    _, after = run(encoder, ecg, train=True)
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(encoder.stats), strict=True))
    _, same = run(encoder, ecg)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(encoder.stats), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("valid", [None, [True, False, True, True, False, True]])
def test_batch_norm_is_flax_s_of_the_valid_rows(valid):
    # A mean near zero: E[x²] − E[x]², which both take for the variance, would lose digits, each its own.
    x = jnp.float32(0.1) + jax.random.normal(jax.random.key(0), (6, 40, 5), jnp.float32)
    rows = slice(None) if valid is None else np.flatnonzero(valid)

    @functools.partial(nnx.jit, static_argnames=("train", "use_running_average"))
    def gradient(module, x, **options):
        def value(module, x):
            out = module(x, **options)
            return jnp.sum(jnp.sin(out[rows] if len(out) == 6 else out))

        return nnx.grad(value, argnums=(0, 1))(module, x), nnx.state(module, nnx.BatchStat)

    ours, flax = BatchNorm(5, dtype=jnp.float32), nnx.BatchNorm(5, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0))
    for module in (ours, flax):
        module.scale[...], module.bias[...] = jnp.arange(1, 6, dtype=jnp.float32), jnp.arange(5, dtype=jnp.float32)
    mask = None if valid is None else jnp.asarray(valid)
    (found, found_x), stats = gradient(ours, x, train=True, valid=mask)
    with jax.numpy_rank_promotion("allow"):
        (expected, expected_x), expected_stats = gradient(flax, x[rows], use_running_average=False)
    for a, b in zip(jax.tree.leaves((found, stats)), jax.tree.leaves((expected, expected_stats)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found_x[rows], expected_x, rtol=1e-4, atol=1e-5)
    if valid is not None:
        np.testing.assert_array_equal(found_x[~np.asarray(valid)], 0)


def test_dropout_mask_of_a_row_depends_on_its_key_alone():
    keys = jax.random.split(jax.random.key(0), 6)
    x = jnp.ones((6, 300, 8), jnp.float32)
    whole = row_dropout(x, keys, 0.2)
    np.testing.assert_array_equal(whole[4:5], row_dropout(x[4:5], keys[4:5], 0.2))
    share = float((whole == 0).mean())
    assert abs(share - 0.2) < 4 * np.sqrt(0.2 * 0.8 / x.size)
    assert float(whole.max()) == pytest.approx(1 / 0.8, rel=1e-4)
    assert not np.array_equal(whole[0], whole[1])
    np.testing.assert_array_equal(row_dropout(x, None, 0.2), x)


def test_unknown_names_say_what_exists():
    with pytest.raises(
        ValueError, match=r"config.encoder.name='resnet19' is unknown; there are: .*resnet18, resnet18:small"
    ):
        encoders.create("resnet19", seed=0)
    with pytest.raises(ValueError, match=r"unknown settings \['width'\]; resnet18 takes: .*widths"):
        encoders.create("resnet18", seed=0, width=3)
    with pytest.raises(ValueError, match="precision='float16' is unknown"):
        encoders.create("resnet18", seed=0, precision="float16")


@pytest.mark.parametrize("name", ["resnet18", "xresnet1d50"])
def test_even_kernels_are_refused_where_skips_would_not_fit(name):
    with pytest.raises(ConfigError, match="a kernel of 4 samples cannot be padded alike on both sides"):
        encoders.abstract(name, kernel=4)
