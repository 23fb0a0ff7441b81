"""Whether max-pooling and batch norm pass their gradients on in a network, without a reference: a line of JSON.

    python -m tests.support.pooled_gradients --devices=2

Convolution, batch norm, ReLU and max-pooling are compiled as one program, in which a constant is added to every channel
just before the pooling, and another just before the normalisation. Whichever sample of a window is the greatest, the
window's gradient reaches the first: its gradient is the sum of those of all windows. The second is taken off again with
the mean: its gradient is 0.

Which numbers XLA computes twice depends on all of the program. So the pooling stands behind a textbook normalisation
too, where a rule that looks for the sample that equals the maximum (`compared_max_pool`) fails: without such a control
nobody would know that these programs can show the fault.
"""

import argparse
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.pooling import max_pool
from ecgjax.training import device_mesh
from tests.support.plain_networks import simulated_ecg

#: Window, stride and padding of the encoders' poolings: ResNet, TemporalNet, CLOCS, PCLR.
POOLINGS = ((3, 2, (1, 1)), (4, 4, "VALID"), (2, 2, "VALID"), (4, 4, "SAME"))
CHANNELS = 16


def normalised(x, scale, bias):
    """Our batch norm in training mode."""
    norm = layers.BatchNorm(CHANNELS, dtype=jnp.dtype("float32"))
    norm.scale[...], norm.bias[...] = scale, bias
    return norm(x, train=True)


def textbook_normalised(x, scale, bias):
    """Batch norm by E[x²] − E[x]², with JAX's own gradient."""
    mean = x.mean((0, 1))
    var = jnp.maximum((x * x).mean((0, 1)) - mean * mean, 0.0)
    return (x - mean[None, None]) * (scale * jax.lax.rsqrt(var + 1e-5))[None, None] + bias[None, None]


NORMS = {"ours": normalised, "textbook": textbook_normalised}


def compared_max_pool(x, *, window, stride, padding):
    """Max-pooling by a faulty rule: its gradient goes to the sample of the window that equals the maximum."""
    if isinstance(padding, str):
        (padding,) = jax.lax.padtype_to_pads((x.shape[1],), (window,), (stride,), padding)
    return _compared(x, window, stride, tuple(padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _compared(x, window, stride, padding):
    return nnx.max_pool(x, window_shape=(window,), strides=(stride,), padding=(padding,))


def _compared_forward(x, window, stride, padding):
    y = _compared(x, window, stride, padding)
    return y, (x, y)


def _compared_backward(window, stride, padding, residuals, g):
    x, y = residuals
    padded = jnp.pad(x, ((0, 0), padding, (0, 0)), constant_values=-jnp.inf)
    dx, given = jnp.zeros_like(padded), jnp.zeros(y.shape, bool)
    for k in range(window):
        place = slice(k, k + (y.shape[1] - 1) * stride + 1, stride)
        greatest = (padded[:, place] == y) & ~given
        given |= greatest
        dx = dx.at[:, place].add(jnp.where(greatest, g, 0.0))
    return (dx[:, padding[0] : padding[0] + x.shape[1]],)


_compared.defvjp(_compared_forward, _compared_backward)


def worst_error(pool, *, seeds, norm="ours", devices=1, batch=16, function=max_pool):
    """Returns the greatest error of either constant's gradient over seeds and channels, as a share of the upstream one.

    Args:
        pool: One of `POOLINGS`.
        seeds: Number of initialisations and upstream gradients.
        norm: A key of `NORMS`.
        devices: Devices that the recordings are divided over.
        batch: Recordings of 10 s at 100 Hz.
        function: The pooling.
    """
    window, stride, padding = pool
    mesh = device_mesh.make_mesh(devices=jax.devices()[:devices])
    ecg = jax.device_put(simulated_ecg(batch, 12), device_mesh.batch_sharding(mesh))

    def stem(arrays, ecg):
        kernel, scale, bias, before_norm, before_pool = arrays
        x = jax.lax.conv_general_dilated(ecg, kernel, (2,), [(7, 7)], dimension_numbers=("NWC", "WIO", "NWC"))
        x = jax.nn.relu(NORMS[norm](x + before_norm[None, None], scale, bias)) + before_pool[None, None]
        return function(x, window=window, stride=stride, padding=padding)

    # Of the parameters too, as in training: which values are computed again depends on all that is asked for.
    gradient = jax.jit(jax.grad(lambda arrays, ecg, upstream: jnp.sum(upstream * stem(arrays, ecg))))
    worst = 0.0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        one, zero = jnp.ones(CHANNELS, jnp.float32), jnp.zeros(CHANNELS, jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(15, 12, CHANNELS)) / np.sqrt(180), jnp.float32)
        arrays = (kernel, one, zero, zero, zero)
        upstream = rng.normal(size=jax.eval_shape(stem, arrays, ecg).shape).astype(np.float32)
        *_, before_norm, before_pool = (np.asarray(g, np.float64) for g in gradient(arrays, ecg, upstream))
        expected, scale = upstream.sum((0, 1), dtype=np.float64), np.abs(upstream).sum((0, 1), dtype=np.float64)
        worst = max(
            worst, float((np.abs(before_pool - expected) / scale).max()), float((np.abs(before_norm) / scale).max())
        )
    return worst


def main():
    """Prints the errors of all poolings behind both normalisations, and that of the faulty rule as `control`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    common = {"devices": arguments.devices}
    errors = {
        f"{pool}, {norm}": worst_error(pool, norm=norm, seeds=arguments.seeds, **common)
        for pool in POOLINGS
        for norm in NORMS
    }
    control = max(
        worst_error(pool, norm="textbook", seeds=1, function=compared_max_pool, **common) for pool in POOLINGS[:2]
    )
    print(json.dumps({"errors": errors, "control": control}))


if __name__ == "__main__":
    main()
