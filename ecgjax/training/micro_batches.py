"""Encoding of a batch in parts, each of which is computed again in the backward pass to save memory.

The loss sees the embeddings of the whole batch and its gradient is exact, unlike that of gradient accumulation, in
which a part has no negatives but its own rows. Only one part's activations exist at a time.

References:
    Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (GradCache), RepL4NLP 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ecgjax.encoders.operations.loop_convolutions import within_loop
from ecgjax.errors import ConfigError, check_known

Carry = TypeVar("Carry")
Tree = Any


def check_parts(parts: int, *, batch_size: int, mesh: Mesh, has_batch_norm: bool, batch_norm: str) -> None:
    """Raises an error where a batch cannot be encoded in parts, or where parts would change batch statistics unasked.

    Args:
        parts: Number of parts, `config.micro_batch.parts`.
        batch_size: Number of recordings of the global batch.
        mesh: Mesh of the run.
        has_batch_norm: Whether the encoder normalises by statistics of the batch.
        batch_norm: Treatment of batch norm, `config.micro_batch.batch_norm`: `"refuse"` or `"per_part"`.

    Raises:
        ConfigError: The parts do not divide the rows of every device, `batch_norm` is unknown, or batch norm would
            normalise by part while `batch_norm` is `"refuse"`.
    """
    check_known(batch_norm, ("refuse", "per_part"), setting="config.micro_batch.batch_norm")
    if parts == 1:
        return
    devices = mesh.shape["data"]
    if batch_size % (devices * parts):
        raise ConfigError(
            f"config.batch_size={batch_size} does not divide into config.micro_batch.parts={parts} on each of "
            f"{devices} devices"
        )
    if has_batch_norm and batch_norm == "refuse":
        raise ConfigError(
            f"config.micro_batch.parts={parts}: this encoder has batch norm, whose statistics would be those of a part "
            "and not of the batch. Set config.micro_batch.batch_norm to 'per_part' if that is what you want, or take "
            "an encoder without batch norm"
        )


def map_parts(
    function: Callable[[Carry, Tree], tuple[Carry, Tree]], carry: Carry, rows: Tree, *, parts: int, mesh: Mesh | None
) -> tuple[Carry, Tree]:
    """Maps rows part by part, and computes each part again when its gradient is wanted.

    A part has the same number of rows of every device, so that no row has to move between devices.

    Args:
        function: Function `(carry, rows of a part) → (carry, tree of [rows of a part · k, …])`, with the k results of
            each row next to each other.
        carry: Value that is handed on from part to part, such as running statistics.
        rows: Tree of `[batch, …]`, sharded along `data`.
        parts: Number of parts that the rows of every device divide into.
        mesh: Mesh of the run; needed for more than one part.

    Raises:
        ValueError: There are several parts and no mesh.

    Returns:
        The last carry, and the tree of `[batch · k, …]` in the order of the rows.
    """
    if parts == 1:
        return function(carry, rows)
    if mesh is None:
        raise ValueError(f"{parts} parts need the mesh that their rows lie on")
    devices = mesh.shape["data"]
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))

    def cut(x: Array) -> Array:
        # Every device cuts its own rows, so that no row travels to another device.
        by_device = x.reshape(devices, parts, -1, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(by_device.reshape(parts, -1, *x.shape[1:]), sharding)

    # Nothing is kept for the backward pass: anything kept of a part would be kept of all parts.
    body = jax.checkpoint(function, policy=jax.checkpoint_policies.nothing_saveable)
    with within_loop():
        carry, out = jax.lax.scan(body, carry, jax.tree.map(cut, rows))

    def join(x: Array) -> Array:
        by_device = x.reshape(parts, devices, -1, *x.shape[2:]).swapaxes(0, 1)
        joined = by_device.reshape(-1, *x.shape[2:])
        return jax.lax.with_sharding_constraint(joined, NamedSharding(mesh, PartitionSpec("data")))

    return carry, jax.tree.map(join, out)
