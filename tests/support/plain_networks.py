"""Networks whose fast pieces are replaced by plain ones, as references for gradients; and inputs like ECGs.

Every piece of `ecgjax.encoders` that is written otherwise than one would at first, for speed or for digits, has its
plain form here: what flax has, or the textbook's two passes.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax import encoders, leads
from ecgjax.encoders import physio_transformer, transformer
from ecgjax.encoders.operations import attention, convolutions, gradient_sums, layers, pooling


@contextlib.contextmanager
def plain():
    """Makes every program traced meanwhile a plain one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooling, "_max_pool", _max_pool)
        patch.setattr(layers, "_normalise", _normalise)
        patch.setattr(convolutions.DoublingConv, "__call__", _transposed)
        patch.setattr(physio_transformer, "grouped_conv", functools.partial(convolutions.grouped_conv, apart=False))
        patch.setattr(attention, "attend", _attention)
        patch.setattr(gradient_sums, "block_of", lambda *_, **__: None)
        for module in (gradient_sums, layers):
            patch.setattr(module, "takes_cpu_forms", lambda dtype: False)
        patch.setattr(transformer, "_MOST_ONE_BY_ONE", 0)
        for module in (layers, transformer):
            patch.setattr(module, "gelu", functools.partial(jax.nn.gelu, approximate=False))
        yield


def _max_pool(x, window, stride, padding):
    return nnx.max_pool(x, window_shape=(window,), strides=(stride,), padding=(padding,))


def _normalise(x, weight, scale, bias, mean, var, epsilon):
    """The mean, then the mean square of what differs from it; the gradient is JAX's."""
    some, share = weight.any(), weight[:, None, None] / jnp.maximum(weight.sum() * x.shape[1], 1.0)
    x = x.astype(jnp.float32)
    mean = jnp.where(some, (share * x).sum((0, 1)), mean)
    var = jnp.where(some, (share * (x - mean[None, None]) ** 2).sum((0, 1)), var)
    y = (x - mean[None, None]) / jnp.sqrt(var + epsilon)[None, None]
    return y * scale[None, None] + bias[None, None], mean, var


def _transposed(self, x):
    kernel = self.kernel[...].astype(self.dtype)
    return jax.lax.conv_transpose(x.astype(self.dtype), kernel, (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))


def _attention(query, key, value):
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision="highest") / np.sqrt(query.shape[-1])
    weight = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    return jnp.einsum("bhqk,bkhd->bqhd", weight / weight.sum(-1, keepdims=True), value, precision="highest")


@functools.cache
def simulated_ecg(batch, num_leads, *, rate_hz=100, seconds=10.0, seed=0):
    """Simulated recordings as an encoder sees them: `f32[batch, time, lead]`, mV."""
    config = CohortConfig(seed=seed, num_patients=batch, sampling_rate_hz=rate_hz, seconds=seconds)
    signal = Cohort(config).simulate(0, batch).signal
    return np.asarray(leads.prepare(jnp.asarray(signal), num_leads=num_leads))


def away_from_initialisation(encoder):
    """The encoder with random arrays, where at its first ones a zero may keep the gradient from what lies before it.

    Filled in by NumPy, which does not compile the initialisation of every shape; nor does `device_put` compile a copy
    of each, as `jnp.asarray` does.
    """
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        values = rng.normal(size=leaf.shape).astype(np.float32)
        if leaf.ndim > 1:
            return jax.device_put(values / np.sqrt(np.float32(np.prod(leaf.shape[:-1]))))
        return jax.device_put(np.float32(path[-1].key in ("scale", "var")) + np.float32(0.02) * abs(values))

    return encoder._replace(
        params=jax.tree_util.tree_map_with_path(fill, encoder.params),
        stats=jax.tree_util.tree_map_with_path(fill, encoder.stats),
    )


def training_gradient(name, **settings):
    """Returns the encoder and `(params, ecg) → gradient`, jitted, in training mode with dropout.

    The loss is a weighted sum of the embeddings, of which some are turned around, and of the signals again where the
    encoder has a decoder.
    """
    if name.startswith("physio_transformer"):
        settings["decoder"] = True
    encoder = away_from_initialisation(encoders.abstract(name, **settings))
    decodes = settings.get("decoder", False)

    def loss(params, ecg):
        batch = encoder._replace(params=params)
        keys = jax.random.split(jax.random.key(1), ecg.shape[0])
        run = encoders.reconstruct if decodes else encoders.apply
        out, _ = run(batch, ecg, train=True, keys=keys)
        return sum(jnp.mean(_target(x.shape) * x.astype(jnp.float32)) for x in jax.tree.leaves(out))

    return encoder, jax.jit(jax.grad(loss))


def _target(shape):
    return jnp.asarray(np.random.default_rng(2).normal(size=shape), jnp.float32)
