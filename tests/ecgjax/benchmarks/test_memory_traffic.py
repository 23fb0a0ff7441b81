"""FLOP and bytes of small functions, counted by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ecgjax import encoders
from ecgjax.benchmarks.memory_traffic import MOST_ARRAYS, Pass, traffic_of_trace
from ecgjax.encoders import cost
from ecgjax.encoders.operations import layers


def traffic(function, *args):
    return traffic_of_trace(jax.make_jaxpr(function)(*args).jaxpr)


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))


def test_a_convolution_and_a_matrix_product_with_a_relu_between():
    def two_layers(x, kernel, weight):
        return jax.nn.relu(conv(x, kernel)).reshape(4, 10 * 6) @ weight

    found = traffic(two_layers, shape(4, 10, 3), shape(5, 3, 6), shape(60, 7))
    x, kernel, hidden, weight, out = (4 * size for size in (4 * 10 * 3, 5 * 3 * 6, 4 * 10 * 6, 60 * 7, 4 * 7))
    assert sorted(found.passes) == sorted(
        [
            Pass(2 * 4 * 10 * 5 * 3 * 6, x + kernel + hidden),
            Pass(2 * 4 * 60 * 7, hidden + weight + out),
            Pass(0, 2 * hidden),
        ]
    )
    assert found.flops == 2 * (4 * 10 * 5 * 3 * 6 + 4 * 60 * 7)
    assert found.bytes == x + kernel + 4 * hidden + weight + out
    # Kernel, weight and input stay; beside them lie the convolution's result and that of the ReLU.
    assert found.peak_bytes == x + kernel + weight + 2 * hidden


def test_a_loop_s_inside_counts_in_every_round():
    def loop(x, weights):
        return jax.lax.scan(lambda x, weight: (jnp.tanh(x @ weight), None), x, weights)[0]

    found = traffic(loop, shape(8, 16), shape(5, 16, 16))
    x, weight = 4 * 8 * 16, 4 * 16 * 16
    assert sorted(found.passes) == [Pass(0, 2 * x, 5), Pass(2 * 8 * 16 * 16, 2 * x + weight, 5)]
    assert found.bytes == 5 * (4 * x + weight)
    assert found.flops == 2 * cost.macs_of(loop, shape(8, 16), shape(5, 16, 16))


def test_what_needs_no_product_is_one_pass_that_reads_everything_once():
    def elementwise(x, y):
        z = jnp.exp(x) * y + 1
        return z, z.sum(axis=0), (z * x).max(axis=0)

    found = traffic(elementwise, shape(32, 4), shape(32, 4))
    assert found.passes == (Pass(0, 4 * (3 * 32 * 4 + 2 * 4)),)


def test_a_sum_that_needs_a_sum_is_a_pass_of_its_own():
    def variance(x):
        return jnp.square(x - x.mean()).sum()

    found = traffic(variance, shape(32))
    assert found.bytes == 4 * (32 + 1) + 4 * (32 + 1 + 1)


def test_types_count_by_their_bytes_and_casts_are_fused():
    def cast(x, weight):
        return (x.astype(jnp.bfloat16) @ weight).astype(jnp.float32)

    found = traffic(cast, shape(8, 4), shape(4, 2, dtype=jnp.bfloat16))
    product = Pass(2 * 8 * 4 * 2, 2 * (8 * 4 + 4 * 2 + 8 * 2))
    assert sorted(found.passes) == sorted([Pass(0, 6 * 8 * 4), product, Pass(0, 6 * 8 * 2)])


def test_a_slice_and_a_transposition_are_read_where_they_lie():
    def sliced(x, weight):
        return x[:, :4].T @ weight

    found = traffic(sliced, shape(16, 64), shape(16, 2))
    assert found.passes == (Pass(2 * 16 * 4 * 2, 4 * (16 * 4 + 16 * 2 + 4 * 2)),)


def test_of_branches_the_one_that_moves_most_counts_and_loops_without_an_end_are_refused():
    def branches(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert traffic(branches, shape(4, 4)).flops == 2 * 2 * 4**3
    with pytest.raises(ValueError, match="while loop"):
        traffic(lambda x: jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x - 1, x), shape(4))


def test_a_long_sum_is_stored_on_its_way():
    def long_sum(x, weights):
        total, out = x, []
        for weight in weights:
            total = total + x @ weight
            out.append(total.sum(axis=0))
        return out

    count = 40
    found = traffic(long_sum, shape(64, 64), [shape(64, 64)] * count)
    array = 4 * 64 * 64
    # If nothing were stored, the n-th sum would read n products.
    assert found.bytes < (3 + MOST_ARRAYS + 3) * count * array


def test_a_unit_of_convolution_batch_norm_and_relu_moves_three_inputs_and_eleven_outputs():
    batch, time, channels = 32, 100, 8
    norm = encoders.split(layers.BatchNorm(channels, dtype=jnp.bfloat16))

    def unit(x, kernel):
        # The module is built inside, because the statistics that it updates must belong to this trace.
        module = encoders.merge(norm)
        return jax.nn.relu(module(conv(x, kernel), train=True))

    def stack(x, kernels):
        return functools.reduce(unit, kernels, x).astype(jnp.float32).sum()

    x, kernel = (shape(*sizes, dtype=jnp.bfloat16) for sizes in ((batch, time, channels), (3, channels, channels)))
    moved = [traffic(jax.grad(stack, (0, 1)), x, [kernel] * number).bytes for number in (3, 4)]
    array, small = 2 * batch * time * channels, 2 * 3 * channels * channels
    # Beside the activations a unit moves its kernel and some vectors of a channel or a row each.
    assert 14 * array < moved[1] - moved[0] < 14 * array + 8 * small + 40 * 4 * (channels + batch)


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("clocs_cnn", "physio_transformer:small", "resnet18:small", "vit_b")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(encoders.ENCODERS)
    ],
)
def test_flop_of_every_encoder_are_those_that_cost_counts(name):
    encoder = encoders.abstract(name)
    leads = encoders.ENCODERS[name][1].get("num_leads", 12)
    leads = 8 if name.startswith("temporal_net") else leads

    def forward(params, stats, ecg):
        return encoders.apply(encoder._replace(params=params, stats=stats), ecg, train=False)[0]

    found = traffic(forward, encoder.params, encoder.stats, shape(1, 2500, leads))
    assert found.flops == 2 * cost.macs(encoder, (2500, leads))
