"""Encoders against what was published of them: TemporalNet, the CNN of CLOCS, the ResNet of PCLR."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.encoders.cost import macs, macs_of
from ecgjax.encoders.operations import layers
from tests.support.random_arrays import random_encoder

TINY = {"widths": (2, 3), "embedding_dim": 5, "dropout": 0.0}


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@functools.partial(jax.jit, static_argnames=("graph", "features"))
def _embed(graph, params, stats, ecg, features):
    return encoders.apply(encoders.Split(graph, params, stats), ecg, train=False, features=features)[0]


def embed(encoder, ecg, *, features=False):
    return _embed(*encoder, ecg, features)


def noise(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


# TemporalNet, one branch: what its four blocks multiply with at every sample, and two numbers a channel of each
# normalisation. A block's first convolution keeps its input's width; where it widens there is a 1×1 skip.
BLOCKS = ((32, 64), (64, 128), (128, 256), (256, 256))


def branch_weights(kernel):
    return sum(kernel * a * a + kernel * a * b + (a * b if a != b else 0) for a, b in BLOCKS)


BRANCH_NORMS = sum(2 * a + 2 * b + (2 * b if a != b else 0) for a, b in BLOCKS)
MERGE_WEIGHTS = 3 * 512 * 512


def test_temporal_net_has_its_2_84_million_parameters():
    params = encoders.abstract("temporal_net").params["encoder"]
    stem = 7 * 1 * 32 + 2 * 32
    expected = stem + branch_weights(3) + branch_weights(7) + 2 * BRANCH_NORMS + MERGE_WEIGHTS + 2 * 512
    assert count(params) - count(params["head"]) == expected == 2_836_128
    assert round(expected / 1e6, 2) == 2.84
    assert count(params["head"]) == 512 * 256 + 256 + 256 * 128 + 128


def test_temporal_net_costs_14_gmac_for_eight_leads():
    a_lead = 2500 * 7 * 32 + 625 * (branch_weights(3) + branch_weights(7) + MERGE_WEIGHTS)
    head = 512 * 256 + 256 * 128
    assert macs(encoders.abstract("temporal_net"), (2500, 8)) == 8 * (a_lead + head)
    assert round(8 * a_lead / 1e9) == 14


def test_dual_stream_is_two_temporal_nets():
    one, two = encoders.abstract("temporal_net"), encoders.abstract("temporal_net_dual")
    assert count(two.params) == 2 * count(one.params)
    # A lead goes through one of them, and a stream has one embedding.
    heads = (8 - 2) * (512 * 256 + 256 * 128)
    assert macs(two, (2500, 8)) == macs(one, (2500, 8)) - heads


def test_clocs_cnn_takes_ten_places_of_32_channels():
    one = encoders.abstract("clocs_cnn").params["encoder"]
    assert count(one["head"]) == 10 * 32 * 128 + 128
    convs = 7 * (1 * 4 + 4 * 16 + 16 * 32)
    norms = 2 * (4 + 16 + 32)
    assert count(one) - count(one["head"]) == convs + norms
    # With all leads at once only the first convolution is another.
    at_once = encoders.abstract("clocs_cnn", lead_wise=False)
    assert count(at_once.params) - count(one) == 7 * 4 * (12 - 1)
    assert encoders.merge(at_once).lead_groups == 1


def test_pclr_resnet_parameter_count():
    # By hand from the authors' build_model.py: two convolutions of kernel 16 a unit, the first from the width before; a
    # 1×1 skip without normalisation; two numbers a channel for each of two normalisations.
    def unit(a, b):
        return 16 * a * b + 16 * b * b + a * b + 4 * b

    widths = (64, 128, 196, 256, 320)
    stem = 16 * 12 * 64 + 2 * 64
    expected = stem + sum(unit(a, b) for a, b in itertools.pairwise(widths))
    params = encoders.abstract("pclr_resnet").params
    heads = count(params["hidden"]) + count(params["head"])
    assert count(params) - heads == expected == 6_391_184
    assert heads == 2 * (320 * 320 + 320)


def test_pclr_resnet_comes_down_to_sixteen_samples():
    encoder = encoders.abstract("pclr_resnet")

    def units(params, stats, x):
        skip, out = x, []
        for unit in encoders.merge(encoder._replace(params=params, stats=stats)).units:
            x, skip = unit(x, skip, train=False, keys=(None, None), valid=None)
            out.append((x, skip))
        return out

    after_stem = jax.ShapeDtypeStruct((1, 4096, 64), jnp.float32)
    out = jax.eval_shape(units, encoder.params, encoder.stats, after_stem)
    assert [x.shape[1:] for x, _ in out] == [skip.shape[1:] for _, skip in out]
    assert [x.shape[1:] for x, _ in out] == [(1024, 128), (256, 196), (64, 256), (16, 320)]


@pytest.mark.parametrize("samples", [1, 2, 50, 64, 97])
def test_linear_resampling_is_numpy_s(samples):
    ecg = np.random.default_rng(0).normal(size=(2, samples, 3)).astype(np.float32)
    expected = np.empty((2, 64, 3))
    for row in range(2):
        for lead in range(3):
            expected[row, :, lead] = np.interp(np.linspace(0, 1, 64), np.linspace(0, 1, samples), ecg[row, :, lead])
    np.testing.assert_allclose(layers.resample_linear(jnp.asarray(ecg), 64), expected, atol=1e-5)


def test_recordings_are_resampled_where_the_encoder_has_a_length():
    ecg = noise(2, 100, 8)
    at_length = layers.resample_linear(ecg, 160)
    for name in ("pclr_resnet", "clocs_cnn"):
        encoder = random_encoder(name, num_leads=8, input_samples=160, **TINY)
        np.testing.assert_allclose(embed(encoder, ecg), embed(encoder, at_length), rtol=1e-4, atol=1e-5)
    free = random_encoder("pclr_resnet", num_leads=8, input_samples=0, **TINY)
    assert np.abs(embed(free, ecg) - embed(free, at_length)).max() > 1e-2


@pytest.mark.parametrize("name", ["temporal_net", "clocs_cnn", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_lead_wise_is_the_network_on_one_lead_after_the_other(name):
    settings = {"input_samples": 160} if name == "clocs_cnn" else {}
    encoder = random_encoder(name, num_leads=8, lead_wise=True, **TINY, **settings)
    one = encoders.split(encoders.merge(encoder).encoder)
    ecg = noise(2, 160, 8)
    leads = [ecg[:, :, lead : lead + 1] for lead in range(8)]
    expected = np.stack([embed(one, lead) for lead in leads], axis=1)
    np.testing.assert_allclose(embed(encoder, ecg), expected, rtol=1e-4, atol=1e-5)
    features = np.mean([embed(one, lead, features=True) for lead in leads], axis=0)
    np.testing.assert_allclose(embed(encoder, ecg, features=True), features, rtol=1e-4, atol=1e-5)


def test_lead_wise_repeats_validity_and_splits_keys_lead_by_lead():
    encoder = random_encoder("temporal_net", num_leads=8, **TINY | {"dropout": 0.5})
    lead = noise(2, 160, 1)
    same = jnp.broadcast_to(lead, (2, 160, 8))
    keys = jax.random.split(jax.random.key(0), 2)
    train = jax.jit(functools.partial(encoders.apply, encoder, train=True))
    z, stats = train(same, keys=keys, valid=jnp.asarray([True, False]))
    assert len(np.unique(np.asarray(z[0]).round(6), axis=0)) == 8, "each lead has a dropout of its own"
    stem = layers.BatchNorm(2, dtype=jnp.float32)
    stem(encoders.merge(encoder).encoder.stem_conv(lead[:1]), train=True)
    np.testing.assert_allclose(stats["encoder"]["stem_norm"]["mean"], stem.mean[...], rtol=1e-4, atol=1e-6)


def test_dual_stream_looks_at_its_leads_alone_and_averages_them():
    eight = random_encoder("temporal_net_dual", num_leads=8, **TINY)
    twelve = random_encoder("temporal_net_dual", num_leads=12, **TINY)
    # I, II, III, aVR, aVL, aVF, V1–V6.
    ecg = noise(2, 160, 12)
    stored = ecg[:, :, np.array([0, 1, 6, 7, 8, 9, 10, 11])]
    z = np.asarray(embed(twelve, ecg))
    assert z.shape == (2, 2, 5)
    np.testing.assert_allclose(embed(eight, stored), z, rtol=1e-5, atol=1e-6)
    for lead, name in enumerate(["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]):
        moved = np.abs(np.asarray(embed(twelve, ecg.at[:, :, lead].multiply(3.0))) - z).max(axis=(0, 2)) > 1e-6
        assert moved.tolist() == [name in ("I", "II", "V5", "V6"), name in ("V1", "V2", "V3", "V4")], name
    streams = [encoders.split(stream) for stream in encoders.merge(eight).streams]
    parts = (stored[:, :, np.array([0, 1, 6, 7])], stored[:, :, 2:6])
    features = [embed(stream, part, features=True) for stream, part in zip(streams, parts, strict=True)]
    np.testing.assert_allclose(embed(eight, stored, features=True), np.mean(features, axis=0), rtol=1e-4, atol=1e-6)
    # The head has no nonlinearity, so that the embedding of the mean is the mean of the leads' embeddings.
    for i, (stream, part) in enumerate(zip(streams, parts, strict=True)):
        np.testing.assert_allclose(np.mean(embed(stream, part), axis=1), z[:, i], rtol=1e-4, atol=1e-5)


def test_settings_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match="made of 8 or 12 leads, not of 3"):
        encoders.abstract("temporal_net_dual", num_leads=3)
    with pytest.raises(ValueError, match="made of 8 or 12 leads, not of 1"):
        encoders.abstract("temporal_net_dual", lead_wise=True)
    with pytest.raises(ValueError, match="input_samples=100: too few for 3 convolutions"):
        encoders.abstract("clocs_cnn", input_samples=100)


def test_cost_is_counted_by_hand():
    f32 = jnp.float32
    x, grouped = jax.ShapeDtypeStruct((2, 50, 6), f32), jax.ShapeDtypeStruct((5, 2, 9), f32)

    def conv(x, kernel, **options):
        return jax.lax.conv_general_dilated(
            x, kernel, padding="SAME", dimension_numbers=("NWC", "WIO", "NWC"), **{"window_strides": (1,), **options}
        )

    assert (
        macs_of(lambda x, k: conv(x, k, window_strides=(2,), feature_group_count=3), x, grouped) == 2 * 25 * 9 * 5 * 2
    )
    whole = jax.ShapeDtypeStruct((2, 6, 9), f32)
    assert macs_of(lambda x, k: jax.lax.conv_transpose(x, k, (2,), "VALID"), x, whole) == 2 * 100 * 9 * 6
    a, b = jax.ShapeDtypeStruct((4, 5, 6), f32), jax.ShapeDtypeStruct((4, 6, 7), f32)
    assert macs_of(jnp.matmul, a, b) == 4 * 5 * 6 * 7

    def looped(a, b):
        body = jax.checkpoint(lambda carry, _: (jnp.matmul(carry, b[0][:, :6]), None))
        return jax.lax.scan(body, a[0], length=3)[0]

    assert macs_of(jax.jit(looped), a, b) == 3 * 5 * 6 * 6

    def endless(a):
        return jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: jnp.matmul(x, x), a)

    with pytest.raises(ValueError, match="while loop"):
        macs_of(endless, jax.ShapeDtypeStruct((3, 3), f32))
