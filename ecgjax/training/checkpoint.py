"""Checkpoints: asynchronous, atomic, and checked leaf by leaf.

This is the only module that imports Orbax. A checkpoint holds named parts (parameters, statistics, optimiser state), so
that an encoder is loaded without the optimiser. Beside the parts it holds type, shape and digest of every leaf:
otherwise storage that flips a bit would restore silently.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
from jax import Array

from ecgjax.errors import CheckpointError

PyTree = Any

_Preserve = ocp.training.preservation_policies
_SaveWhen = ocp.training.save_decision_policies


class Checkpoints:
    """The checkpoints of one run, as a context manager.

    Args:
        directory: Directory of this run's checkpoints, which is made where it is missing. Files of a save that
            was killed are removed.
        keep_last: Number of the latest checkpoints that are kept.
        keep_every: Number of steps whose multiples are kept for good; None for none.
        read_only: Whether nothing is made or removed, so that a run still writing there is not disturbed.

    Raises:
        CheckpointError: `read_only` is set and there is no such directory.
    """

    def __init__(
        self, directory: str | Path, *, keep_last: int = 2, keep_every: int | None = None, read_only: bool = False
    ):
        self.directory = Path(directory).absolute()
        if not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
        elif not self.directory.is_dir():
            raise CheckpointError(f"there are no checkpoints in {self.directory}: no such directory")
        policies = [_Preserve.LatestN(keep_last)]
        if keep_every is not None:
            policies.append(_Preserve.EveryNSteps(keep_every))
        with _quiet():
            self._orbax = ocp.training.Checkpointer(
                self.directory,
                preservation_policy=_Preserve.AnyPreservationPolicy(policies),
                # The loop decides when to save; a policy of Orbax's own would leave steps out.
                save_decision_policy=_SaveWhen.FixedIntervalPolicy(1),
                # A reader must not remove what the run that it looks at is writing.
                cleanup_tmp_directories=not read_only,
            )
        self._pending: tuple[int, Any] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After an error the save in progress may fail too, and its error would hide the first one.
            if kind is None:
                self.wait()
        finally:
            self._orbax.close()

    def save(self, step: int, parts: Mapping[str, PyTree], *, metadata: Mapping[str, Any]) -> None:
        """Starts writing a checkpoint, which appears under its name only when it is complete.

        The call returns once the arrays are copied, so that the caller may donate them at once.

        Args:
            step: Number of finished updates.
            parts: Trees of arrays by name.
            metadata: JSON values that are stored beside the arrays.

        Raises:
            CheckpointError: The save before this one failed.
        """
        # An earlier save that failed has to be told of before another one begins.
        self.wait()
        parts = {name: tree for name, tree in parts.items() if jax.tree.leaves(tree)}  # Orbax refuses empty trees.
        leaves = {name: _describe(tree) for name, tree in parts.items()}
        # On a CPU a host array may share the device's memory, which the caller's next step is about to overwrite.
        copies = jax.tree.map(jnp.copy, parts)
        jax.block_until_ready(copies)
        try:
            response = self._orbax.save_checkpointables_async(
                step, copies, custom_metadata={"metadata": dict(metadata), "leaves": leaves}
            )
        except Exception as error:
            raise self._save_error(step, error) from error
        self._pending = (step, response)

    def wait(self) -> None:
        """Waits for the save under way, if there is one.

        Raises:
            CheckpointError: The save failed.
        """
        if self._pending is None:
            return
        (step, response), self._pending = self._pending, None
        try:
            saved = response is not None and response.result()
        except Exception as error:
            raise self._save_error(step, error) from error
        if not saved:
            raise self._save_error(step, "it already exists")

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, ascending.

        It first waits for the save under way, which Orbax already lists.
        """
        self.wait()
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def latest_step(self) -> int | None:
        """Returns the step of the latest finished checkpoint, or None where there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns the `metadata` that `save` stored with the checkpoint of a step.

        Raises:
            CheckpointError: The checkpoint cannot be read, or ecgjax did not write it.
        """
        return self._custom(step)["metadata"]

    def restore(self, templates: Mapping[str, PyTree], *, step: int | None = None) -> tuple[int, dict[str, PyTree]]:
        """Restores parts of a checkpoint onto the templates' shardings, and checks every leaf against its digest.

        Args:
            templates: Trees of arrays, or of `jax.ShapeDtypeStruct` with shardings, by name of the part; parts not
                named stay unread.
            step: Step of the checkpoint; None for the latest.

        Returns:
            The step, and the restored trees by name of the part, of the templates' structure.

        Raises:
            CheckpointError: There is no such checkpoint, it is another model's, or it is damaged.
        """
        step = self.latest_step() if step is None else step
        finished = self.steps()
        if not finished:
            raise CheckpointError(
                f"{self.directory} has no finished checkpoint; give the command that began the run once more, or name "
                "another run"
            )
        if step not in finished:
            found = ", ".join(map(str, finished))
            raise CheckpointError(f"{self.directory} has no checkpoint of step {step}; finished ones: {found}")
        stored = self._custom(step)["leaves"]
        wanted = {part: jax.tree.map(_abstract, tree) for part, tree in templates.items()}
        for part, tree in wanted.items():
            self._check_structure(step, part, tree, stored.get(part, {}))
        with self._reading(step):
            parts = self._orbax.load_checkpointables(step, {n: t for n, t in wanted.items() if jax.tree.leaves(t)})
        for part, tree in parts.items():
            digests = {name: leaf[2] for name, leaf in _describe(tree).items()}
            bad = [f"{part}/{name}" for name, digest in digests.items() if digest != stored[part][name][2]]
            if bad:
                raise CheckpointError(
                    f"checkpoint {self._path(step)} is damaged: {', '.join(bad[:5])} "
                    f"({len(bad)} of {len(digests)} leaves) is not what was saved; {self._remedy(step)}"
                )
        return step, {**wanted, **parts}

    def arrays(self, part: str, *, step: int) -> dict[str, np.ndarray]:
        """Returns the arrays of a part by their names, whatever they are; none where there is no such part.

        Args:
            part: Name of the part.
            step: Step of the checkpoint.

        Raises:
            CheckpointError: There is no such checkpoint, or it is damaged.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        stored = self._custom(step)["leaves"].get(part, {})
        if not stored:  # Orbax reads every part where it is asked for none.
            return {}
        template: dict[str, Any] = {}
        for name, (dtype, shape, _) in stored.items():
            *above, last = name.split("/")
            inner = functools.reduce(lambda tree, key: tree.setdefault(key, {}), above, template)
            inner[last] = jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=here)
        _, parts = self.restore({part: template}, step=step)
        return {name: np.asarray(leaf) for name, leaf in _named_leaves(parts[part])}

    def _custom(self, step: int) -> dict[str, Any]:
        with self._reading(step):
            custom = self._orbax.metadata(step).custom_metadata
        if not custom or "leaves" not in custom:
            raise CheckpointError(f"{self._path(step)} was not written by ecgjax: it has no digests")
        return custom

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            with _quiet():
                yield
        except Exception as error:
            raise CheckpointError(
                f"checkpoint {self._path(step)} cannot be read ({error}); {self._remedy(step)}"
            ) from error

    def _check_structure(self, step: int, part: str, tree: PyTree, stored: Mapping[str, Any]) -> None:
        wanted = {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in _named_leaves(tree)}
        found = {name: leaf[:2] for name, leaf in stored.items()}
        if wanted != found:
            names = [n for n in {**wanted, **found} if wanted.get(n) != found.get(n)]
            shown = "; ".join(f"{part}/{n}: stored {found.get(n)}, wanted {wanted.get(n)}" for n in names[:5])
            raise CheckpointError(
                f"checkpoint {self._path(step)} belongs to another model: {shown} ({len(names)} leaves differ). "
                "Use the config it was trained with, or another --workdir"
            )

    def _path(self, step: int) -> Path:
        return self.directory / str(step)

    def _remedy(self, step: int) -> str:
        earlier = [s for s in self.steps() if s < step]
        if earlier:
            return f"remove that folder and run the same command again: it resumes from step {earlier[-1]}"
        return "there is no earlier one: remove that folder and run the same command again to start afresh"

    def _save_error(self, step: int, cause: object) -> CheckpointError:
        return CheckpointError(f"saving {self._path(step)} failed ({cause}); earlier checkpoints are untouched")


class Saved(NamedTuple):
    """A finished checkpoint.

    Attributes:
        step: Number of finished updates.
        metadata: Metadata that `Checkpoints.save` stored with it.
    """

    step: int
    metadata: Mapping[str, Any]


def latest_saved(directory: str | Path) -> Saved | None:
    """Returns the latest finished checkpoint of a directory, or None where there is none; nothing is made or removed.

    Raises:
        CheckpointError: It cannot be read, or ecgjax did not write it.
    """
    if not Path(directory).is_dir():
        return None
    with Checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.latest_step()
        return None if step is None else Saved(step, checkpoints.metadata(step))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the log of Orbax, since errors of ours report its failures in one line."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _describe(tree: PyTree) -> dict[str, list[Any]]:
    """Returns [dtype, shape, digest] of each leaf by name."""
    named = _named_leaves(tree)
    digests = jax.device_get(_digests([leaf for _, leaf in named]))
    return {
        # The bytes' order is fixed, so that a digest is the same text on every machine.
        name: [str(leaf.dtype), list(leaf.shape), np.asarray(digest).astype(">u4").tobytes().hex()]
        for (name, leaf), digest in zip(named, digests, strict=True)
    }


@jax.jit
def _digests(leaves: list[Array]) -> list[Array]:
    return [jnp.stack([_digest(leaf, salt) for salt in (0x9E3779B9, 0x85EBCA6B)]) for leaf in leaves]


def _digest(leaf: Array, salt: int) -> Array:
    """Returns a checksum, `u32[]`, that any change of a single element changes, and that no sharding changes.

    It is Σ bits · m(position) modulo 2³² with odd m. Integer sums are exact in any order, so that devices and processes
    agree without gathering the leaf. A changed bit b moves the sum by ±2^b · m, which is never 0.
    """
    if leaf.dtype == jnp.bool_:
        bits = leaf.astype(jnp.uint32)
    else:
        unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    strides = np.cumprod([1, *leaf.shape[:0:-1]])[::-1]
    position = functools.reduce(
        jnp.add,
        [
            # Positions count modulo 2³², which the largest arrays exceed: what matters is that multipliers are odd.
            jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(int(stride) % 2**32)
            for axis, stride in enumerate(strides[: leaf.ndim])  # A scalar has no axis, and still one stride.
        ],
        jnp.uint32(0),
    )
    mixed = (position + jnp.uint32(1)) * jnp.uint32(salt)
    mixed = (mixed ^ (mixed >> jnp.uint32(15))) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(bits * (mixed | jnp.uint32(1)), dtype=jnp.uint32)
