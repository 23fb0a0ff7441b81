"""Measured ceilings of a run's devices, a matrix product and a copy, and the way in which programs are timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

#: Number of timed repetitions; their median is reported, without a first one that is discarded.
REPEATS = 5

#: Side of the square matrices and number of values of the copied array, by backend: large enough to occupy a device and
#: to exceed its caches.
_SIDE = {"cpu": 2048}
_SIDE_ELSEWHERE = 8192
_COPIED = {"cpu": 2**25}
_COPIED_ELSEWHERE = 2**29


#: A process is at rest when it uses less than `_REST_SHARE` of one processor during `_REST_S` seconds; programs wait
#: for this at most `_REST_AT_MOST_S` seconds.
_REST_SHARE, _REST_S, _REST_AT_MOST_S = 0.1, 0.02, 5.0


class Timed(NamedTuple):
    """A program that is ready to run, with the amount of its work.

    Attributes:
        run: Function that runs the program and waits for it.
        amount: Number of FLOP or bytes of one run.
    """

    run: Callable[[], None]
    amount: float


def take_turns(programs: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Returns the median seconds of programs, which take turns so that a slow moment of the machine affects all of
    them.

    Each begins when the process is at rest: otherwise a stream that reads ahead after its turn would slow the next one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(REPEATS + 1):
        for name, program in programs.items():
            wait_for_rest()
            start = time.perf_counter()
            program()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def wait_for_rest() -> None:
    """Waits until this process's threads use almost no processor time, but no longer than a few seconds."""
    deadline = time.perf_counter() + _REST_AT_MOST_S
    while time.perf_counter() < deadline:
        used = time.process_time()
        time.sleep(_REST_S)
        if time.process_time() - used < _REST_SHARE * _REST_S:
            return


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
