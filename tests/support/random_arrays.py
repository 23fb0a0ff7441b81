"""Arrays for the shapes of a module, without running (and compiling) its initialisation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from ecgjax import encoders


def count(tree) -> int:
    """Number of elements of all arrays, or shapes, of a tree."""
    return sum(x.size for x in jax.tree.leaves(tree))


def random_encoder(name: str, **settings) -> encoders.Split:
    """An encoder away from zero biases and unit scales, which would hide what they do; statistics as at the start."""
    return _filled(encoders.abstract(name, **settings))


def random_module(create: Callable[[], nnx.Module]) -> encoders.Split:
    """The same of any module."""
    return _filled(encoders.split(nnx.eval_shape(create)))


def _filled(encoder: encoders.Split) -> encoders.Split:
    rng = np.random.default_rng(0)

    # Not `jnp.asarray`, which compiles a program for every shape.
    def draw(x: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put(rng.normal(0, 0.4, x.shape).astype(x.dtype))

    def start(path, x: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put(np.full(x.shape, path[-1].key == "var", x.dtype))

    return encoder._replace(
        params=jax.tree.map(draw, encoder.params), stats=jax.tree_util.tree_map_with_path(start, encoder.stats)
    )
