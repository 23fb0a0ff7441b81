"""Reads parts of a checkpoint, and compares every leaf with the type, shape and digest that were stored with it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from data_pipelines.system.visible_text import visible
from ecgjax.errors import CheckpointError
from ecgjax.processes.joint_answers import any_process
from ecgjax.system.machine_faults import shortened
from ecgjax.training.checkpoints.checkpoint_faults import fault_of
from ecgjax.training.checkpoints.checkpoint_folder import CheckpointFolder, PyTree, is_shortage, reading_error
from ecgjax.training.checkpoints.leaf_digests import describe, named_leaves

#: Function of a checkpoint's step and metadata that returns templates of parts which not every checkpoint has.
Accept = Callable[[int, Mapping[str, Any]], Mapping[str, PyTree]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """A checkpoint as it was restored.

    Attributes:
        step: Step of the checkpoint.
        parts: Trees by name of the part, of the templates' structure.
        metadata: What `Checkpoints.save` stored beside the arrays.
    """

    step: int
    parts: dict[str, PyTree]
    metadata: dict[str, Any]


class DamagedError(CheckpointError):
    """A checkpoint is damaged; the one before it may serve.

    Attributes:
        cause: Fault of the checkpoint, in words.
    """

    def __init__(self, cause: str, message: str):
        super().__init__(message)
        self.cause = cause


def restored(
    folder: CheckpointFolder, templates: Mapping[str, PyTree], step: int, accept: Accept | None = None
) -> Restored:
    """Restores parts of a checkpoint onto the templates' shardings; every process comes to the same verdict.

    Args:
        folder: Folder of the checkpoints.
        templates: Trees of arrays, or of `jax.ShapeDtypeStruct` with shardings, by name of the part.
        step: Step of the checkpoint.
        accept: Function that adds templates by what the checkpoint holds, or raises an error; None for none.

    Raises:
        DamagedError: The checkpoint is damaged.
        CheckpointError: The checkpoint is another model's.
    """
    refuse = functools.partial(_refuse_damaged, folder, step)
    fault, custom = fault_of(folder.path(step), parts=list(templates)), {}
    if not fault:
        try:
            custom = folder.custom(step)
        except CheckpointError as error:
            fault = shortened(str(error))
    refuse(fault)
    if accept is not None:
        more = accept(step, custom["metadata"])
        templates = {**templates, **more}
        refuse(fault_of(folder.path(step), parts=list(more)))
    stored = custom["leaves"]
    wanted = {part: jax.tree.map(_abstract, tree) for part, tree in templates.items()}
    for part, tree in wanted.items():
        _check_structure(folder, step, part, tree, stored.get(part, {}))
    parts = {}
    try:
        parts = folder.load(step, {name: tree for name, tree in wanted.items() if jax.tree.leaves(tree)})
    except Exception as error:
        if is_shortage(error):
            raise
        fault = f"its arrays cannot be read: {reading_error(error)}"
    refuse(fault)
    refuse(_changed_leaves(parts, stored))
    return Restored(step=step, parts={**wanted, **parts}, metadata=custom["metadata"])


def template_of(folder: CheckpointFolder, part: str, step: int) -> dict[str, Any]:
    """Returns the template of a part as it was stored, for one device; empty where there is no such part.

    Args:
        folder: Folder of the checkpoints.
        part: Name of the part.
        step: Step of the checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be read.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    template: dict[str, Any] = {}
    for name, (dtype, shape, _) in folder.custom(step)["leaves"].get(part, {}).items():
        *above, last = name.split("/")
        inner = functools.reduce(lambda tree, key: tree.setdefault(key, {}), above, template)
        inner[last] = jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=here)
    return template


def by_name(tree: PyTree) -> dict[str, np.ndarray]:
    """Returns the arrays of a tree by their names."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree)}


def _changed_leaves(parts: Mapping[str, PyTree], stored: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns which leaves of the first part that was changed differ from their digests; nothing where none does."""
    for part, tree in parts.items():
        digests = {name: leaf[2] for name, leaf in describe(tree).items()}
        bad = [f"{part}/{name}" for name, digest in digests.items() if digest != stored[part][name][2]]
        if bad:
            return f"{', '.join(bad[:5])} ({len(bad)} of {len(digests)} leaves of {part}) is not what was saved"
    return ""


def _refuse_damaged(folder: CheckpointFolder, step: int, fault: str) -> None:
    """Raises an error on every process where any has found a fault."""
    if not any_process(bool(fault)):
        return
    fault = fault or "another process cannot read it"
    others = ", ".join(str(other) for other in folder.steps() if other != step)
    raise DamagedError(
        fault,
        f"checkpoint {visible(str(folder.path(step)))} is damaged: {fault}; "
        + (f"there are also those of step {others}" if others else "there is no other"),
    )


def _check_structure(folder: CheckpointFolder, step: int, part: str, tree: PyTree, stored: Mapping[str, Any]) -> None:
    wanted = {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in named_leaves(tree)}
    found = {name: leaf[:2] for name, leaf in stored.items()}
    if wanted != found:
        names = [n for n in {**wanted, **found} if wanted.get(n) != found.get(n)]
        shown = "; ".join(f"{part}/{n}: stored {found.get(n)}, wanted {wanted.get(n)}" for n in names[:5])
        raise CheckpointError(
            f"checkpoint {folder.path(step)} belongs to another model: {shown} ({len(names)} leaves differ). "
            "Use the config it was trained with, or another --workdir"
        )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
