"""Whether max-pooling and batch norm pass their gradients on in a network, without a reference: a line of JSON.

    python -m tests.pooled_gradients --devices=2

Convolution, batch norm, ReLU and max-pooling are compiled as one program, in which a constant is added to every channel
just before the pooling, and another just before the normalisation. Whichever sample of a window is the greatest, the
window's gradient reaches the first: its gradient is the sum of those of all windows. The second is taken off again with
the mean: its gradient is 0.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ecgjax import parallel
from ecgjax.encoders import layers, pooling
from tests.plain_networks import simulated_ecg

#: Window, stride and padding of the encoders' poolings: ResNet, TemporalNet, CLOCS, PCLR.
POOLINGS = ((3, 2, (1, 1)), (4, 4, "VALID"), (2, 2, "VALID"), (4, 4, "SAME"))


class _Stem(nnx.Module):
    def __init__(self, pool, *, rngs):
        self.conv = layers.conv(12, 16, kernel=15, stride=2, dtype=jnp.dtype("float32"), rngs=rngs)
        self.norm = layers.BatchNorm(16, dtype=jnp.dtype("float32"))
        self._window, self._stride, self._padding = pool

    def __call__(self, x, pooled, normalised):
        x = jax.nn.relu(self.norm(self.conv(x) + normalised[None, None], train=True)) + pooled[None, None]
        return pooling.max_pool(x, window=self._window, stride=self._stride, padding=self._padding)


def worst_error(pool, *, seeds, devices=1, batch=16):
    """Returns the greatest error of either constant's gradient over seeds and channels, as a share of the upstream one.

    Args:
        pool: One of `POOLINGS`.
        seeds: Number of initialisations and upstream gradients.
        devices: Devices that the recordings are divided over.
        batch: Recordings of 10 s at 100 Hz.
    """
    mesh = parallel.make_mesh(devices=jax.devices()[:devices])
    ecg = jax.device_put(simulated_ecg(batch, 12), parallel.batch_sharding(mesh))
    graph, _, _ = nnx.split(_Stem(pool, rngs=nnx.Rngs(0)), nnx.Param, ...)

    def loss(arrays, ecg, upstream):
        constants, params, rest = arrays
        return jnp.sum(upstream * nnx.merge(graph, params, rest)(ecg, *constants))

    # Of the parameters too, as in training: which values are computed again depends on all that is asked for.
    gradient = jax.jit(jax.grad(loss))
    zeros = (jnp.zeros(16, jnp.float32),) * 2
    shape = jax.eval_shape(lambda x: _Stem(pool, rngs=nnx.Rngs(0))(x, *zeros), ecg).shape
    worst = 0.0
    for seed in range(seeds):
        _, params, rest = nnx.split(_Stem(pool, rngs=nnx.Rngs(seed)), nnx.Param, ...)
        upstream = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        of_constants, _, _ = gradient((zeros, params, rest), ecg, upstream)
        pooled, normalised = (np.asarray(g, np.float64) for g in of_constants)
        expected, scale = upstream.sum((0, 1), dtype=np.float64), np.abs(upstream).sum((0, 1), dtype=np.float64)
        worst = max(worst, float((np.abs(pooled - expected) / scale).max()), float((np.abs(normalised) / scale).max()))
    return worst


def main():
    """Prints the errors of all poolings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    errors = {str(pool): worst_error(pool, seeds=arguments.seeds, devices=arguments.devices) for pool in POOLINGS}
    print(json.dumps(errors))


if __name__ == "__main__":
    main()
