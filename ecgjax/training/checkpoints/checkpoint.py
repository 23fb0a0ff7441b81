"""Checkpoints: asynchronous, atomic, and checked leaf by leaf.

A checkpoint holds named parts (parameters, statistics, optimiser state), so that an encoder is loaded without the
optimiser. Beside the parts it holds type, shape and digest of every leaf: otherwise storage that flips a bit would
restore silently.

A save that fails is told, and the run goes on: only a last one that fails is an error. A checkpoint that is damaged is
told and passed over for the one before it. A run that goes on to write sets it aside under another name, which leaves
its own checkpoint of that step a place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.system.visible_text import visible
from ecgjax.errors import CheckpointError
from ecgjax.processes.joint_answers import any_process, of_first_process
from ecgjax.system.files import free_name
from ecgjax.system.terminal import warn
from ecgjax.training.checkpoints.best_checkpoint import Best, BestStep
from ecgjax.training.checkpoints.checkpoint_faults import fault_of
from ecgjax.training.checkpoints.checkpoint_folder import CheckpointFolder, PyTree, with_remedy
from ecgjax.training.checkpoints.checkpoint_reading import (
    Accept,
    DamagedError,
    Restored,
    by_name,
    restored,
    template_of,
)
from ecgjax.training.checkpoints.leaf_digests import describe

#: Name of the evaluation's metrics in the metadata of a checkpoint.
EVALUATION = "evaluation"

#: Ending of the name of a checkpoint that was set aside.
_ASIDE = "damaged"

#: Times that a reader looks again, where the run that it reads removes the checkpoint which it is about to take.
_LOOKS = 5


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
        self._made_anew = made_anew
        self._best = BestStep(best)
        best_of = None if best is None else self._best.of
        self._folder = CheckpointFolder(
            directory, keep_last=keep_last, keep_every=keep_every, best_of=best_of, read_only=read_only
        )
        self.directory = self._folder.directory
        self._pending: tuple[int, Any] | None = None
        # Whether the list that Orbax keeps of the checkpoints may not be what is on the disk.
        self._stale = False
        for step in self._folder.listed() if best is not None else ():
            with contextlib.suppress(CheckpointError):
                self._best.note(step, self.metadata(step).get(EVALUATION))

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
            self._folder.close()

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
            good = self._folder.last_good()
            last = (
                "there is no checkpoint yet" if good is None else f"the last good checkpoint is that of step {good:,}"
            )
            warn(f"{problem}. Training goes on and saves again when that is due; {last}")
        parts = {name: tree for name, tree in parts.items() if jax.tree.leaves(tree)}  # Orbax refuses empty trees.
        leaves = {name: describe(tree) for name, tree in parts.items()}
        # On a CPU a host array may share the device's memory, which the caller's next step is about to overwrite.
        copies = jax.tree.map(jnp.copy, parts)
        jax.block_until_ready(copies)
        self._best.note(step, metadata.get(EVALUATION))
        response: Any
        try:
            self._renew()
            response = self._folder.save(step, copies, {"metadata": dict(metadata), "leaves": leaves})
        except Exception as error:
            response = error
        self._pending = (step, response)

    def wait(self) -> None:
        """Waits for the save under way, if there is one.

        Raises:
            CheckpointError: The save failed.
        """
        if problem := self._finish():
            good = self._folder.last_good()
            begin = "begins anew, as there is no checkpoint" if good is None else f"goes on from step {good:,}"
            raise CheckpointError(f"{problem}. Then give the same command again: the run {begin}")

    def _finish(self) -> str:
        """Waits for the save under way, and returns in words why it failed; nothing where it did not.

        Every process comes to the same verdict.
        """
        if self._pending is None:
            return ""
        (step, response), self._pending = self._pending, None
        error = self._folder.error_of(response)
        if error is not None and not fault_of(self._folder.path(step)):
            # It is complete; what failed is the removal of earlier ones, which the next save does again.
            warn(f"earlier checkpoints of {self._folder.name} cannot be removed: {with_remedy(error)}")
            error, self._stale = None, True
        if not any_process(error is not None):
            return ""
        self._stale = True
        self._best.forget(step)
        return f"saving {visible(str(self._folder.path(step)))} failed: " + (
            with_remedy(error) if error is not None else "another process could not write its part"
        )

    def _renew(self) -> None:
        """Opens the directory anew after a save that failed, or where it is gone."""
        if self._folder.read_only:
            return
        gone = not self.directory.is_dir()
        if not any_process(self._stale or gone):
            return
        if gone and jax.process_index() == 0:
            warn(
                f"{self._folder.name} was removed while the run was going on, with all checkpoints in it; it is made "
                "anew"
            )
        self._folder.reopen()
        self._stale = False
        if gone:
            self._made_anew()

    def improves(self, evaluation: Mapping[str, float]) -> bool:
        """Returns whether a state with these metrics is better than every checkpoint; False without a measure.

        Raises:
            ConfigError: The evaluation lacks the metric of the measure.
        """
        return self._best.is_beaten_by(evaluation, self._folder.listed())

    def best(self) -> tuple[int, float] | None:
        """Returns step and value of the best checkpoint, or None where none was evaluated or there is no measure."""
        return self._best.with_value(self._folder.listed())

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, ascending, damaged ones among them.

        It first waits for the save under way.

        Raises:
            CheckpointError: That save failed.
        """
        self.wait()
        self._renew()
        return self._folder.steps()

    def latest_step(self) -> int | None:
        """Returns the step of the latest finished checkpoint, or None where there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns the `metadata` that `save` stored with the checkpoint of a step.

        Raises:
            CheckpointError: The checkpoint cannot be read, or ecgjax did not write it.
        """
        return self._folder.custom(step)["metadata"]

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
                return step, restored(self._folder, templates, step).parts
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
        accept: Accept | None = None,
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
                    taken = restored(self._folder, templates, step, accept)
                except DamagedError as error:
                    refused.append((step, error.cause))
                else:
                    self._pass_over(refused, taken=taken.step)
                    return taken
            if not refused:
                self._pass_over([], taken=0)
                return None
            # A run that is still writing may have removed what was about to be read, and has later ones then.
            if not self._folder.read_only or all(self._folder.path(step).is_dir() for step, _ in refused):
                break
            self._folder.reload()
        told = "; ".join(f"step {step}: {cause}" for step, cause in refused)
        raise CheckpointError(
            f"no checkpoint in {self._folder.name} can be used ({told}); restore one from a copy, or move that folder "
            "away and give the command of the run again, which then starts anew"
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
        if self._folder.read_only:
            for step, cause in refused if first else ():
                warn(f"checkpoint {visible(str(self._folder.path(step)))} is damaged: {cause}; step {taken:,} is taken")
            return
        faults = {self._folder.path(step): f"is damaged: {cause}" for step, cause in refused}
        faults |= dict.fromkeys(self._folder.strays(), "is no checkpoint: it is no folder")
        begin = f"from step {taken:,}" if taken else "at step 0"
        for path, fault in faults.items() if first else ():
            aside = free_name(path, _ASIDE)
            try:
                path.rename(aside)
            except OSError as error:
                failed = f"{visible(str(path))} {fault}, and cannot be renamed: {with_remedy(error)}"
                break
            warn(f"{visible(str(path))} {fault}; it is kept as {aside.name}, and the run begins {begin}")
        if any_process(bool(failed)):
            raise CheckpointError(failed or "the first process could not set a damaged checkpoint aside")
        if refused:
            self._folder.reload()

    def arrays(self, part: str, *, step: int) -> dict[str, np.ndarray]:
        """Returns the arrays of a part by their names, whatever they are; none where there is no such part.

        Args:
            part: Name of the part.
            step: Step of the checkpoint.

        Raises:
            CheckpointError: There is no such checkpoint, or it is damaged.
        """
        template = template_of(self._folder, part, step)
        if not template:  # Orbax reads every part where it is asked for none.
            return {}
        _, parts = self.restore({part: template}, step=step)
        return by_name(parts[part])


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
