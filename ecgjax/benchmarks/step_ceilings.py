"""What the devices of a run can do at most, measured: a matrix product and a copy; and how things are timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

#: Timed repetitions; the median is reported, after one that is thrown away.
REPEATS = 5

#: Side of the square matrices, and values of the array that is copied: enough to be busy, and beyond the caches.
_SIDE = {"cpu": 2048}
_SIDE_ELSEWHERE = 8192
_COPIED = {"cpu": 2**25}
_COPIED_ELSEWHERE = 2**29


#: A process rests when it uses less than this share of one processor for so long; it is waited for at most this long.
_REST_SHARE, _REST_S, _REST_AT_MOST_S = 0.1, 0.02, 5.0


class Timed(NamedTuple):
    """A program that is ready to run and what it does.

    Attributes:
        run: runs it and waits for it.
        amount: FLOP or bytes.
    """

    run: Callable[[], None]
    amount: float


def take_turns(programs: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of programs that take turns, so that a slow moment of the machine meets all of them.

    Each begins when the process rests: a stream that reads ahead after its turn would count as the next one's time.
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
    """Waits until this process's threads use next to no processor time, and no longer than a few seconds."""
    deadline = time.perf_counter() + _REST_AT_MOST_S
    while time.perf_counter() < deadline:
        used = time.process_time()
        time.sleep(_REST_S)
        if time.process_time() - used < _REST_SHARE * _REST_S:
            return


def matrix_product(dtype: jnp.dtype) -> Timed:
    """A square matrix product on every device; its amount is the FLOP of all together."""
    side = _SIDE.get(jax.default_backend(), _SIDE_ELSEWHERE)
    values = _on_all_devices((side, side), dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a), out_shardings=values.sharding)
    return Timed(lambda: jax.block_until_ready(product(values)), 2.0 * len(values) * side**3)


def copy() -> Timed:
    """A large array moved on every device; its amount is the bytes read and written by all together."""
    count = _COPIED.get(jax.default_backend(), _COPIED_ELSEWHERE)
    values = _on_all_devices((count,), jnp.dtype(jnp.float32))
    move = jax.jit(jnp.copy, out_shardings=values.sharding)
    return Timed(lambda: jax.block_until_ready(move(values)), 2.0 * values.nbytes)


def _on_all_devices(shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Random values of `shape` on each device, `[device, *shape]`."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    draw = jax.jit(
        lambda: jax.random.normal(jax.random.key(0), (jax.device_count(), *shape), dtype), out_shardings=sharding
    )
    return draw()
