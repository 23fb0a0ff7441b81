"""Measured ceilings of a run's devices: a matrix product and a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

#: Side of the square matrices and number of values of the copied array, by backend: large enough to occupy a device and
#: to exceed its caches.
_SIDE = {"cpu": 2048}
_SIDE_ELSEWHERE = 8192
_COPIED = {"cpu": 2**25}
_COPIED_ELSEWHERE = 2**29


class Timed(NamedTuple):
    """A program that is ready to run, with the amount of its work.

    Attributes:
        run: Function that runs the program and waits for it.
        amount: Number of FLOP or bytes of one run.
    """

    run: Callable[[], None]
    amount: float


def matrix_product(dtype: jnp.dtype) -> Timed:
    """Returns a square matrix product on every device; its amount is the FLOP of all devices together."""
    side = _SIDE.get(jax.default_backend(), _SIDE_ELSEWHERE)
    values = _on_all_devices((side, side), dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a), out_shardings=values.sharding)
    return Timed(lambda: jax.block_until_ready(product(values)), 2.0 * len(values) * side**3)


def copy() -> Timed:
    """Returns a copy of a large array on every device; its amount is the bytes that all devices read and write."""
    count = _COPIED.get(jax.default_backend(), _COPIED_ELSEWHERE)
    values = _on_all_devices((count,), jnp.dtype(jnp.float32))
    move = jax.jit(jnp.copy, out_shardings=values.sharding)
    return Timed(lambda: jax.block_until_ready(move(values)), 2.0 * values.nbytes)


def _on_all_devices(shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Returns random values of `shape` on each device, `[device, *shape]`."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    draw = jax.jit(
        lambda: jax.random.normal(jax.random.key(0), (jax.device_count(), *shape), dtype), out_shardings=sharding
    )
    return draw()
