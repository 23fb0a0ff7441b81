"""Transformer layers against NumPy, and the encoder with a convolutional stem and a decoder."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.special import erf

from ecgjax import encoders
from ecgjax.encoders import transformer
from ecgjax.encoders.operations.attention import _is_fused, attend
from ecgjax.encoders.physio_transformer import ConvPositions, ConvStem
from ecgjax.encoders.transformer import Blocks, pad_to_multiple
from ecgjax.errors import ConfigError
from tests.support.random_arrays import count, random_encoder, random_module

VIT = {"patch": 8, "dim": 32, "depth": 3, "num_heads": 2, "num_leads": 3}
RNG = np.random.default_rng(0)
DIM, HEADS, HIDDEN, DEPTH = 8, 2, 12, 3
TINY = {
    "stem_width": 8,
    "dim": 16,
    "depth": 2,
    "num_heads": 2,
    "hidden_dim": 32,
    "position_kernel": 6,
    "position_groups": 2,
    "decoder_widths": (8, 8, 8, 8),
    "embedding_dim": 4,
}


def make_blocks(*, norm_first, dropout=0.0, remat=False):
    return random_module(
        lambda: Blocks(
            DEPTH,
            dim=DIM,
            num_heads=HEADS,
            hidden_dim=HIDDEN,
            norm_first=norm_first,
            use_bias=not norm_first,
            residual_std=0.02,
            dropout=dropout,
            remat=remat,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )
    )


def call(module, *args):
    """Runs a module that `random_module` made."""
    return jax.device_get(
        jax.jit(lambda params, *args: encoders.merge(module._replace(params=params))(*args))(module.params, *args)
    )


def numpy_norm(params, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * params["scale"] + params.get("bias", 0)


def numpy_linear(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def numpy_attention(params, x):
    query, key, value = np.split(numpy_linear(params["qkv"], x), 3, axis=-1)
    query, value = query + params.get("query_bias", 0), value + params.get("value_bias", 0)
    heads = []
    for q, k, v in zip(*(np.split(part, HEADS, axis=-1) for part in (query, key, value)), strict=True):
        weight = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(DIM // HEADS))
        heads.append(weight / weight.sum(-1, keepdims=True) @ v)
    return numpy_linear(params["out"], np.concatenate(heads, axis=-1))


def numpy_mlp(params, x):
    x = numpy_linear(params["mlp_in"], x)
    return numpy_linear(params["mlp_out"], x * (1 + erf(x / np.sqrt(2))) / 2)


def numpy_block(params, x, *, norm_first):
    if norm_first:
        x = x + numpy_attention(params["attention"], numpy_norm(params["attention_norm"], x))
        return x + numpy_mlp(params, numpy_norm(params["mlp_norm"], x))
    x = numpy_norm(params["attention_norm"], x + numpy_attention(params["attention"], x))
    return numpy_norm(params["mlp_norm"], x + numpy_mlp(params, x))


@pytest.mark.parametrize("norm_first", [True, False])
def test_layers_are_those_of_the_paper_one_after_the_other(norm_first):
    blocks = make_blocks(norm_first=norm_first)
    x = RNG.normal(size=(2, 5, DIM))
    expected = x
    for i in range(DEPTH):
        layer = jax.tree.map(lambda p: np.asarray(p[i], np.float64), blocks.params["layers"])  # noqa: B023
        expected = numpy_block(layer, expected, norm_first=norm_first)
    assert np.abs(expected - x).mean() > 0.1
    np.testing.assert_allclose(call(blocks, x.astype(np.float32), None), expected, rtol=1e-3, atol=1e-4)


def test_layers_begin_differently_and_as_stated():
    encoder = jax.jit(lambda: encoders.create("vit_s", seed=0, **VIT)._replace(graph=None))()
    layers = encoder.params["blocks"]["layers"]
    for kernel, deviation in ((layers["mlp_in"]["kernel"], 0.02), (layers["mlp_out"]["kernel"], 0.02 / np.sqrt(2 * 3))):
        assert kernel.shape[0] == 3
        assert len(np.unique(kernel)) > 0.99 * kernel.size
        assert float(np.std(kernel)) == pytest.approx(deviation, rel=0.1)


def test_layers_computed_again_give_the_same_gradient_and_drop_by_the_row_s_key_alone():
    # The same tokens in every row, so that rows differ by what is dropped alone.
    x = np.repeat(RNG.normal(size=(1, 5, DIM)).astype(np.float32), 4, axis=0)
    keys = jax.random.split(jax.random.key(0), 4)

    def gradient(remat):
        blocks = make_blocks(norm_first=True, dropout=0.5, remat=remat)

        def loss(params, x, keys):
            out = encoders.merge(blocks._replace(params=params))(x, keys)
            return jnp.sum(jnp.sin(out)), out

        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (_, out), gradient = jax.device_get(run(blocks.params, x, keys))
        return run, blocks.params, out, gradient

    run, params, together, kept = gradient(remat=False)
    *_, again = gradient(remat=True)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(kept), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert len(np.unique(together[:, 0, 0])) == 4
    moved = np.roll(np.arange(4), 1)
    np.testing.assert_allclose(run(params, x, keys[moved])[0][1], together[moved], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "capability", "dtype", "head_dim", "expected"),
    [
        ("NVIDIA H200", "9.0", jnp.bfloat16, 64, "cudnn"),
        ("NVIDIA H200", "9.0", jnp.float32, 64, "xla"),
        ("NVIDIA H200", "9.0", jnp.bfloat16, 20, "xla"),
        ("NVIDIA T4", "7.5", jnp.bfloat16, 64, "xla"),
        ("AMD Instinct MI300X", "gfx942", jnp.bfloat16, 64, "xla"),
    ],
)
def test_attention_is_fused_where_the_device_has_it(kind, capability, dtype, head_dim, expected):
    device = types.SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=capability)
    assert _is_fused(device, jnp.dtype(dtype), head_dim) == (expected == "cudnn")
    assert not _is_fused(jax.local_devices()[0], jnp.dtype(dtype), head_dim)


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 2e-6), ("bfloat16", 2e-2)])
def test_attention_and_its_gradients_are_those_of_jax(dtype, rounding):
    rng = np.random.default_rng(1)
    query, key, value, given = (jnp.asarray(rng.normal(size=(2, 7, 3, 8)), dtype) for _ in range(4))

    def value_and_gradients(attention):
        @jax.jit
        def program(*arrays):
            y, gradient = jax.vjp(attention, *arrays)
            return y, *gradient(given)

        with jax.numpy_dtype_promotion("standard"):  # JAX's own code mixes types.
            return program(query, key, value)

    for ours, theirs in zip(
        value_and_gradients(attend), value_and_gradients(jax.nn.dot_product_attention), strict=True
    ):
        assert ours.dtype == theirs.dtype == dtype
        ours, theirs = (np.asarray(x, np.float32) for x in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=rounding * np.abs(theirs).max())


@pytest.mark.parametrize("remat", [pytest.param(False, marks=pytest.mark.slow), True])
def test_layers_one_by_one_are_the_loop_over_them(remat, monkeypatch):
    module = make_blocks(norm_first=False, dropout=0.2, remat=remat)
    x = jnp.asarray(RNG.normal(size=(2, 5, DIM)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2)

    def gradients():
        def loss(params, x):
            return jnp.sin(encoders.merge(module._replace(params=params))(x, keys)).sum()

        program = jax.jit(jax.value_and_grad(loss, (0, 1)))
        loops = str(jax.make_jaxpr(program)(module.params, x)).count("scan[")
        return loops, jax.device_get(program(module.params, x))

    none, one_by_one = gradients()
    monkeypatch.setattr(transformer, "_MOST_ONE_BY_ONE", DEPTH - 1)
    some, looped = gradients()
    assert none == 0 < some
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one_by_one, looped)


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ConfigError, match=r"config.encoder.dim=16 does not divide into config.encoder.num_heads=3"):
        encoders.abstract("physio_transformer", **TINY | {"num_heads": 3})
    with pytest.raises(ConfigError, match=r"config.encoder.dim=16 does not divide into config.encoder.position_groups"):
        encoders.abstract("physio_transformer", **TINY | {"position_groups": 3})


def test_stem_is_convolutions_of_kernel_and_stride_two():
    stem = random_module(lambda: ConvStem(3, 4, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    x = RNG.normal(size=(2, 32, 3))
    y = x
    for i in range(4):
        kernel = np.asarray(stem.params["convs"][i]["kernel"], np.float64).reshape(2, -1, 4)
        y = y[:, ::2] @ kernel[0] + y[:, 1::2] @ kernel[1]
        if i == 0:
            y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
            y = y * np.asarray(stem.params["norm"]["scale"]) + np.asarray(stem.params["norm"]["bias"])
        y = y * (1 + erf(y / np.sqrt(2))) / 2
    assert y.shape == (2, 2, 4)
    np.testing.assert_allclose(call(stem, x.astype(np.float32)), y, rtol=1e-3, atol=1e-5)


def test_positions_are_a_weighted_sum_over_a_group_s_neighbours():
    tokens, kernel, dim, groups = 5, 4, 6, 2
    positions = random_module(
        lambda: ConvPositions(dim, kernel=kernel, groups=groups, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), positions.params)
    x = RNG.normal(size=(1, tokens, dim))
    direction = params["direction"]
    # The weights at each place of the kernel have the length that is learnt.
    weight = direction * (params["length"] / np.sqrt((direction**2).sum((1, 2))))[:, None, None]
    expected = np.tile(params["bias"], (tokens, 1))
    for token in range(tokens):
        for place in range(kernel):
            source = token + place - kernel // 2
            for channel in range(dim) if 0 <= source < tokens else ():
                first = channel // (dim // groups) * (dim // groups)
                expected[token, channel] += x[0, source, first : first + dim // groups] @ weight[place, :, channel]
    expected = expected * (1 + erf(expected / np.sqrt(2))) / 2
    np.testing.assert_allclose(call(positions, x.astype(np.float32))[0], expected, rtol=1e-4, atol=1e-5)


def test_padding_repeats_the_last_sample():
    ecg = jnp.arange(10, dtype=jnp.float32).reshape(1, 5, 2)
    np.testing.assert_array_equal(pad_to_multiple(ecg, 4)[0, :, 0], [0, 2, 4, 6, 8, 8, 8, 8])
    np.testing.assert_array_equal(pad_to_multiple(ecg, 5), ecg)


def test_parameter_count_of_the_published_form():
    # By hand. fairseq-signals has 768 more a layer: biases of the keys, which have no gradient.
    stem = 2 * 12 * 256 + 3 * 2 * 256 * 256 + 2 * 256 + 2 * 256
    projection = 256 * 768 + 768
    positions = 128 * 48 * 768 + 128 + 768 + 2 * 768
    attention = 4 * 768 * 768 + 3 * 768
    layer = attention + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    params = encoders.abstract("physio_transformer").params
    assert count(params) - count(params["head"]) == stem + projection + positions + 12 * layer == 90_364_032
    with_decoder = encoders.abstract("physio_transformer", decoder=True).params
    convs = 4 * (768 * 256 + 256 * 128 + 2 * 128 * 128) + 3 * 128 * 12
    assert count(with_decoder) - count(params) == convs + 256 + 3 * 128 + 12
    assert "decoder" not in params


@pytest.mark.parametrize("time", [64, 75, 90])
def test_reconstruction_has_the_length_that_went_in(time):
    encoder = encoders.abstract("physio_transformer", decoder=True, num_leads=3, **TINY)
    ecg = jax.ShapeDtypeStruct((2, time, 3), jnp.float32)

    def run(params, ecg):
        return encoders.merge(encoder._replace(params=params)).reconstruct(ecg, train=False)

    embedding, signal = jax.eval_shape(run, encoder.params, ecg)
    assert (embedding.shape, signal.shape) == ((2, 4), ecg.shape)
    assert embedding.dtype == signal.dtype == jnp.float32


def test_reconstruction_shares_the_tokens_with_the_embedding():
    encoder = random_encoder("physio_transformer", decoder=True, num_leads=3, **TINY)
    ecg = RNG.normal(size=(2, 40, 3)).astype(np.float32)

    @jax.jit
    def run(params, ecg, keys):
        module = encoders.merge(encoder._replace(params=params))
        return module.reconstruct(ecg, train=True, keys=keys)[0], module(ecg, train=True, keys=keys)

    embedding, expected = run(encoder.params, ecg, jax.random.split(jax.random.key(0), 2))
    np.testing.assert_array_equal(embedding, expected)


def test_reconstruction_without_a_decoder_is_refused():
    module = encoders.merge(encoders.abstract("physio_transformer", num_leads=3, **TINY))
    with pytest.raises(ConfigError, match=r"config.encoder.decoder is False"):
        module.reconstruct(np.zeros((1, 64, 3), np.float32), train=False)
    with pytest.raises(ConfigError, match=r"decoder_widths=\(8, 8\) must be 4"):
        encoders.abstract("physio_transformer", decoder=True, **TINY | {"decoder_widths": (8, 8)})


@pytest.mark.slow
def test_reconstruction_is_learnt_and_every_parameter_takes_part():
    encoder = random_encoder("physio_transformer", decoder=True, num_leads=2, **TINY)
    phase, lead = np.linspace(0, 6, 4)[:, None, None], np.arange(2)
    ecg = np.sin(2 * np.pi / 30 * np.arange(90)[None, :, None] + phase + lead).astype(np.float32)
    target = RNG.normal(size=(4, 4)).astype(np.float32)

    def loss(params):
        embedding, signal = encoders.merge(encoder._replace(params=params)).reconstruct(ecg, train=True)
        error = jnp.mean((signal - ecg) ** 2)
        return error + jnp.mean((embedding - target) ** 2), error

    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        gradient, error = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, error, gradient

    params, state, errors = encoder.params, optimizer.init(encoder.params), []
    with jax.numpy_dtype_promotion("standard"):  # of optax's step counter
        for _ in range(60):
            params, state, error, gradient = step(params, state)
            errors.append(float(error))
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)
    assert errors[-1] < 0.2 * errors[0]


def test_features_know_no_gain_as_the_published_stem_has_it():
    encoder = random_encoder("physio_transformer", num_leads=2, **TINY)
    ecg = RNG.normal(size=(2, 64, 2)).astype(np.float32)
    ecg[1] = 3 * ecg[0] + 5
    run = jax.jit(lambda params: encoders.apply(encoder._replace(params=params), ecg, train=False, features=True)[0])
    plain, louder = run(encoder.params)
    np.testing.assert_allclose(louder, plain, rtol=0, atol=1e-3 * float(np.abs(plain).max()))
