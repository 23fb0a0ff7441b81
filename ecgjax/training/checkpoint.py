"""Checkpoints: asynchronous, atomic, and checked leaf by leaf.

This is the only module that imports Orbax. A checkpoint holds named parts (parameters, statistics, optimiser state), so
that an encoder is loaded without the optimiser. Beside the parts it holds type, shape and digest of every leaf:
otherwise storage that flips a bit would restore silently.

A save that fails is told, and the run goes on: only a last one that fails is an error. A checkpoint that is damaged is
told and passed over for the one before it. A run that goes on to write sets it aside under another name, which leaves
its own checkpoint of that step a place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from data_pipelines.system.visible_text import visible
from ecgjax.errors import CheckpointError
from ecgjax.processes.joint_answers import any_process, of_first_process
from ecgjax.system.files import free_name
from ecgjax.system.machine_faults import cause_of, remedy_of, shortened
from ecgjax.system.terminal import warn
from ecgjax.training.best_checkpoint import Best, KeepBest
from ecgjax.training.checkpoint_faults import fault_of
from ecgjax.training.leaf_digests import describe, named_leaves
from ecgjax.training.orbax_noise import silence_orbax

PyTree = Any

#: Name of the evaluation's metrics in the metadata of a checkpoint.
EVALUATION = "evaluation"

_Preserve = ocp.training.preservation_policies
_SaveWhen = ocp.training.save_decision_policies

#: Ending of the name of a checkpoint that was set aside.
_ASIDE = "damaged"

#: Times that a reader looks again, where the run that it reads removes the checkpoint which it is about to take.
_LOOKS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """A checkpoint as it was restored.

    Attributes:
        step: Step of the checkpoint.
        parts: Trees by name of the part, of the templates' structure.
        metadata: What `save` stored beside the arrays.
    """

    step: int
    parts: dict[str, PyTree]
    metadata: dict[str, Any]


class _DamagedError(CheckpointError):
    """A checkpoint is damaged; the one before it may serve."""

    def __init__(self, cause: str, message: str):
        super().__init__(message)
        self.cause = cause


class Checkpoints:
    """The checkpoints of one run, as a context manager.

    Args:
        directory: Directory of this run's checkpoints, which is made where it is missing. Files of a save that
            was killed are removed.
        keep_last: Number of the latest checkpoints that are kept.
        keep_every: Number of steps whose multiples are kept for good; None for none.
        best: Measure of the one checkpoint that is kept as the best; None for none.
        made_anew: Function that is called where the directory was removed and is made anew, for what lies beside it.
        read_only: Whether nothing is made, renamed or removed, so that a run still writing there is not disturbed.

    Raises:
        CheckpointError: The directory cannot be used, or `read_only` is set and there is no such directory.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_last: int = 2,
        keep_every: int | None = None,
        best: Best | None = None,
        made_anew: Callable[[], None] = lambda: None,
        read_only: bool = False,
    ):
        self.directory = Path(directory).absolute()
        self._read_only = read_only
        self._best, self._made_anew = best, made_anew
        # Values of `best` by step, of those checkpoints that were evaluated.
        self._values: dict[int, float] = {}
        policies: list[Any] = [_Preserve.LatestN(keep_last)]
        if keep_every is not None:
            policies.append(_Preserve.EveryNSteps(keep_every))
        if best is not None:
            policies.append(KeepBest(self._best_of))
        self._policy = _Preserve.AnyPreservationPolicy(policies)
        if read_only and not self.directory.is_dir():
            raise CheckpointError(f"there are no checkpoints in {self.directory}: no such directory")
        silence_orbax()
        self._pending: tuple[int, Any] | None = None
        # Whether the list that Orbax keeps of the checkpoints may not be what is on the disk.
        self._stale = False
        try:
            self._orbax = self._open()
        except OSError as error:
            raise CheckpointError(f"{self._name()} cannot hold checkpoints: {_with_remedy(error)}") from error
        if best is not None:
            self._values = dict(self._stored_values(best))

    def _open(self) -> Any:
        if not self._read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
        with _quiet():
            return ocp.training.Checkpointer(
                self.directory,
                preservation_policy=self._policy,
                # The loop decides when to save; a policy of Orbax's own would leave steps out.
                save_decision_policy=_SaveWhen.FixedIntervalPolicy(1),
                step_name_format=_SoundSteps(),
                # A reader must not remove what the run that it looks at is writing.
                cleanup_tmp_directories=not self._read_only,
            )

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
            self._close()

    def _close(self) -> None:
        # What a save that failed left in Orbax is raised once more here, and has been told.
        with _quiet(), contextlib.suppress(Exception):
            self._orbax.close()

    def save(self, step: int, parts: Mapping[str, PyTree], *, metadata: Mapping[str, Any]) -> None:
        """Starts writing a checkpoint, which appears under its name only when it is complete.

        The call returns once the arrays are copied, so that the caller may donate them at once. A save that fails is
        told here at the next one, in one line, and as an error by `wait`.

        Args:
            step: Number of finished updates.
            parts: Trees of arrays by name.
            metadata: JSON values that are stored beside the arrays; under `EVALUATION` the metrics by which it may be
                the best.
        """
        if problem := self._finish():
            good = self._last_good()
            last = (
                "there is no checkpoint yet" if good is None else f"the last good checkpoint is that of step {good:,}"
            )
            warn(f"{problem}. Training goes on and saves again when that is due; {last}")
        parts = {name: tree for name, tree in parts.items() if jax.tree.leaves(tree)}  # Orbax refuses empty trees.
        leaves = {name: describe(tree) for name, tree in parts.items()}
        # On a CPU a host array may share the device's memory, which the caller's next step is about to overwrite.
        copies = jax.tree.map(jnp.copy, parts)
        jax.block_until_ready(copies)
        self._note(step, metadata)
        response: Any
        try:
            self._renew()
            with _quiet():
                response = self._orbax.save_checkpointables_async(
                    step, copies, custom_metadata={"metadata": dict(metadata), "leaves": leaves}
                )
        except Exception as error:
            response = error
        self._pending = (step, response)

    def wait(self) -> None:
        """Waits for the save under way, if there is one.

        Raises:
            CheckpointError: The save failed.
        """
        if problem := self._finish():
            good = self._last_good()
            begin = "begins anew, as there is no checkpoint" if good is None else f"goes on from step {good:,}"
            raise CheckpointError(f"{problem}. Then give the same command again: the run {begin}")

    def _finish(self) -> str:
        """Waits for the save under way, and returns in words why it failed; nothing where it did not.

        Every process comes to the same verdict.
        """
        if self._pending is None:
            return ""
        (step, response), self._pending = self._pending, None
        error = self._error_of(response)
        if error is not None and not fault_of(self._path(step)):
            # It is complete; what failed is the removal of earlier ones, which the next save does again.
            warn(f"earlier checkpoints of {self._name()} cannot be removed: {_with_remedy(error)}")
            error, self._stale = None, True
        if not any_process(error is not None):
            return ""
        self._stale = True
        self._values.pop(step, None)
        return f"saving {visible(str(self._path(step)))} failed: " + (
            _with_remedy(error) if error is not None else "another process could not write its part"
        )

    def _error_of(self, response: Any) -> Exception | None:
        if isinstance(response, Exception):
            return response
        try:
            with _quiet():
                saved = response is not None and response.result()
        except Exception as error:
            return error
        return None if saved else FileExistsError("there is a checkpoint of that step already")

    def _renew(self) -> None:
        """Opens the directory anew after a save that failed, or where it is gone."""
        if self._read_only:
            return
        gone = not self.directory.is_dir()
        if not any_process(self._stale or gone):
            return
        if gone and jax.process_index() == 0:
            warn(f"{self._name()} was removed while the run was going on, with all checkpoints in it; it is made anew")
        self._close()
        self._orbax, self._stale = self._open(), False
        if gone:
            self._made_anew()

    def _note(self, step: int, metadata: Mapping[str, Any]) -> None:
        evaluation = metadata.get(EVALUATION)
        if self._best is not None and evaluation and self._best.metric in evaluation:
            self._values[step] = self._best.value(evaluation)

    def improves(self, evaluation: Mapping[str, float]) -> bool:
        """Returns whether a state with these metrics is better than every checkpoint; False without a measure.

        Raises:
            ConfigError: The evaluation lacks the metric of the measure.
        """
        if self._best is None:
            return False
        value, best = self._best.value(evaluation), self.best()
        if math.isnan(value):
            return False
        return best is None or (value != best[1] and self._best.best_of((value, best[1])) == value)

    def best(self) -> tuple[int, float] | None:
        """Returns step and value of the best checkpoint, or None where none was evaluated or there is no measure."""
        step = self._best_of([checkpoint.step for checkpoint in self._orbax.checkpoints])
        return None if step is None else (step, self._values[step])

    def _best_of(self, steps: Sequence[int]) -> int | None:
        """Returns the best of some steps, the earlier of two that are equal; None where none was evaluated."""
        values = {
            step: self._values[step] for step in sorted(steps) if not math.isnan(self._values.get(step, math.nan))
        }
        if self._best is None or not values:
            return None
        best = self._best.best_of(values.values())
        return next(step for step, value in values.items() if value == best)

    def _stored_values(self, best: Best) -> Iterator[tuple[int, float]]:
        for checkpoint in self._orbax.checkpoints:
            with contextlib.suppress(CheckpointError):
                evaluation = self.metadata(checkpoint.step).get(EVALUATION) or {}
                if best.metric in evaluation:
                    yield checkpoint.step, best.value(evaluation)

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, ascending, damaged ones among them.

        It first waits for the save under way.

        Raises:
            CheckpointError: That save failed.
        """
        self.wait()
        self._renew()
        return _steps_in(self.directory)

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
            step: Step of the checkpoint; None for the latest that is good.

        Returns:
            The step, and the restored trees by name of the part, of the templates' structure.

        Raises:
            CheckpointError: There is no such checkpoint, it is another model's, or it is damaged; without a `step`, all
                are damaged.
        """
        if step is not None:
            finished = self.steps()
            if finished and step not in finished:
                found = ", ".join(map(str, finished))
                raise CheckpointError(f"{self.directory} has no checkpoint of step {step}; finished ones: {found}")
            if finished:
                return step, self._restored(templates, step).parts
        elif (latest := self.restore_latest(templates)) is not None:
            return latest.step, latest.parts
        raise CheckpointError(
            f"{self.directory} has no finished checkpoint; give the command that began the run once more, or name "
            "another run"
        )

    def restore_latest(
        self,
        templates: Mapping[str, PyTree],
        *,
        accept: Callable[[int, Mapping[str, Any]], Mapping[str, PyTree]] | None = None,
    ) -> Restored | None:
        """Restores the latest checkpoint that is good, and tells of later ones that are not.

        Where the checkpoints are not read-only, damaged ones and other things that bear the name of a step are renamed.
        The first process decides which is taken.

        Args:
            templates: Trees as for `restore`.
            accept: Function of a checkpoint's step and metadata that returns templates of parts which not every
                checkpoint has, and raises an error where the run must not go on from it.

        Returns:
            The checkpoint; None where there is none at all.

        Raises:
            CheckpointError: All are damaged, the latest is another model's, or a damaged one cannot be renamed.
        """
        for _ in range(_LOOKS):
            refused: list[tuple[int, str]] = []
            for step in self._latest_first():
                try:
                    restored = self._restored(templates, step, accept)
                except _DamagedError as error:
                    refused.append((step, error.cause))
                else:
                    self._pass_over(refused, taken=restored.step)
                    return restored
            if not refused:
                self._pass_over([], taken=0)
                return None
            # A run that is still writing may have removed what was about to be read, and has later ones then.
            if not self._read_only or all(self._path(step).is_dir() for step, _ in refused):
                break
            self._orbax.reload()
        told = "; ".join(f"step {step}: {cause}" for step, cause in refused)
        raise CheckpointError(
            f"no checkpoint in {self._name()} can be used ({told}); restore one from a copy, or move that folder away "
            "and give the command of the run again, which then starts anew"
        )

    def _latest_first(self) -> Iterator[int]:
        """Yields the finished steps that the first process sees, from the latest on."""
        steps = self.steps()
        for number in range(of_first_process(len(steps))):
            yield of_first_process(steps[-1 - number] if number < len(steps) else 0)

    def _pass_over(self, refused: Sequence[tuple[int, str]], *, taken: int) -> None:
        """Tells of checkpoints that are not taken, and sets them aside where this run writes.

        Args:
            refused: Steps, and what is wrong with their checkpoints.
            taken: Step of the checkpoint that is taken.
        """
        first, failed = jax.process_index() == 0, ""
        if self._read_only:
            for step, cause in refused if first else ():
                warn(f"checkpoint {visible(str(self._path(step)))} is damaged: {cause}; step {taken:,} is taken")
            return
        faults = {self._path(step): f"is damaged: {cause}" for step, cause in refused}
        faults |= dict.fromkeys(self._strays(), "is no checkpoint: it is no folder")
        begin = f"from step {taken:,}" if taken else "at step 0"
        for path, fault in faults.items() if first else ():
            aside = free_name(path, _ASIDE)
            try:
                path.rename(aside)
            except OSError as error:
                failed = f"{visible(str(path))} {fault}, and cannot be renamed: {_with_remedy(error)}"
                break
            warn(f"{visible(str(path))} {fault}; it is kept as {aside.name}, and the run begins {begin}")
        if any_process(bool(failed)):
            raise CheckpointError(failed or "the first process could not set a damaged checkpoint aside")
        if refused:
            self._orbax.reload()

    def _strays(self) -> list[Path]:
        """Returns what bears the name of a step and is no folder, so that no checkpoint could be written there."""
        return [path for path in sorted(self.directory.iterdir()) if path.name.isdecimal() and not path.is_dir()]

    def _restored(
        self,
        templates: Mapping[str, PyTree],
        step: int,
        accept: Callable[[int, Mapping[str, Any]], Mapping[str, PyTree]] | None = None,
    ) -> Restored:
        fault, custom = fault_of(self._path(step), parts=list(templates)), {}
        if not fault:
            try:
                custom = self._custom(step)
            except CheckpointError as error:
                fault = shortened(str(error))
        self._refuse_damaged(step, fault)
        if accept is not None:
            more = accept(step, custom["metadata"])
            templates = {**templates, **more}
            self._refuse_damaged(step, fault_of(self._path(step), parts=list(more)))
        stored = custom["leaves"]
        wanted = {part: jax.tree.map(_abstract, tree) for part, tree in templates.items()}
        for part, tree in wanted.items():
            self._check_structure(step, part, tree, stored.get(part, {}))
        parts = {}
        try:
            with _quiet():
                parts = self._orbax.load_checkpointables(step, {n: t for n, t in wanted.items() if jax.tree.leaves(t)})
        except Exception as error:
            if _is_shortage(error):
                raise
            fault = f"its arrays cannot be read: {_reading_error(error)}"
        self._refuse_damaged(step, fault)
        for part, tree in parts.items():
            digests = {name: leaf[2] for name, leaf in describe(tree).items()}
            bad = [f"{part}/{name}" for name, digest in digests.items() if digest != stored[part][name][2]]
            if bad:
                fault = f"{', '.join(bad[:5])} ({len(bad)} of {len(digests)} leaves of {part}) is not what was saved"
                self._refuse_damaged(step, fault)
        return Restored(step=step, parts={**wanted, **parts}, metadata=custom["metadata"])

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
        return {name: np.asarray(leaf) for name, leaf in named_leaves(parts[part])}

    def _refuse_damaged(self, step: int, fault: str) -> None:
        """Raises an error on every process where any has found a fault."""
        if not any_process(bool(fault)):
            return
        fault = fault or "another process cannot read it"
        others = ", ".join(str(other) for other in self.steps() if other != step)
        raise _DamagedError(
            fault,
            f"checkpoint {visible(str(self._path(step)))} is damaged: {fault}; "
            + (f"there are also those of step {others}" if others else "there is no other"),
        )

    def _custom(self, step: int) -> dict[str, Any]:
        path = visible(str(self._path(step)))
        try:
            with _quiet():
                custom = self._orbax.metadata(step).custom_metadata
        except Exception as error:
            if _is_shortage(error):
                raise
            fault = fault_of(self._path(step)) or cause_of(error)
            raise CheckpointError(f"checkpoint {path} cannot be read: {fault}") from error
        if not custom or "leaves" not in custom:
            fault = fault_of(self._path(step)) or "it has no digests of ecgjax"
            raise CheckpointError(f"checkpoint {path} cannot be read: {fault}")
        return custom

    def _check_structure(self, step: int, part: str, tree: PyTree, stored: Mapping[str, Any]) -> None:
        wanted = {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in named_leaves(tree)}
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

    def _name(self) -> str:
        return visible(str(self.directory))

    def _last_good(self) -> int | None:
        try:
            return max((step for step in _steps_in(self.directory) if not fault_of(self._path(step))), default=None)
        except OSError:
            return None


class _SoundSteps(ocp.path.step.NameFormat[Any]):
    """Orbax's names of checkpoints, which are their steps, without those whose metadata would end its listing."""

    def __init__(self) -> None:
        self._names = ocp.path.step.standard_name_format()

    def build_name(self, step: int) -> str:
        """Returns the name of a step's folder."""
        return self._names.build_name(step)

    def find_all(self, base_path: Any) -> Iterator[Any]:
        """Yields Orbax's descriptions of the checkpoints in a folder."""
        folder = Path(base_path)
        for step in _steps_in(folder) if folder.is_dir() else ():
            if not fault_of(folder / str(step)):
                yield self.find_step(base_path, step)

    def find_step(self, base_path: Any, step: int) -> Any:
        """Returns Orbax's description of the checkpoint of a step."""
        return self._names.find_step(base_path, step)


def _steps_in(directory: Path) -> list[int]:
    names = [path.name for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()]
    return sorted(int(name) for name in names if name == str(int(name)))  # 0040 would be written as 40.


def _reading_error(error: BaseException) -> str:
    """Returns what the innermost reader said, in whose place Orbax names only the readers that it tried."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return shortened(str(error).split(" [tensorstore_spec")[0].rpartition("driver: ")[2] or type(error).__name__)


def _with_remedy(error: Exception) -> str:
    """Returns cause and remedy of an error in one clause."""
    remedy = remedy_of(error)
    return cause_of(error) + (f"; {remedy}" if remedy else "")


def _is_shortage(error: Exception) -> bool:
    """Returns whether memory was short, which says nothing of the checkpoint."""
    # A disk that is full is named alike, but with the system's own number.
    text = str(error)
    return isinstance(error, MemoryError) or ("RESOURCE_EXHAUSTED" in text and "os_error_code" not in text)


class Saved(NamedTuple):
    """A finished checkpoint.

    Attributes:
        step: Number of finished updates.
        metadata: Metadata that `Checkpoints.save` stored with it.
    """

    step: int
    metadata: Mapping[str, Any]


def latest_saved(directory: str | Path) -> Saved | None:
    """Returns the latest finished checkpoint of a directory whose metadata is sound, or None where there is none.

    Nothing is made, renamed or removed.

    Args:
        directory: Directory of checkpoints.
    """
    if not Path(directory).is_dir():
        return None
    with Checkpoints(directory, read_only=True) as checkpoints:
        for step in reversed(checkpoints.steps()):
            # Whether none is sound is told where the state is restored.
            with contextlib.suppress(CheckpointError):
                return Saved(step, checkpoints.metadata(step))
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the warnings that Python gives where Orbax fails, since errors of ours report it in one line."""
    try:
        with warnings.catch_warnings():
            # A read that failed leaves others behind that nobody waited for, of which Python warns when they are freed.
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    except BaseException:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            gc.collect()
        raise


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
