"""The folder of a run's checkpoints as Orbax sees it; the only module that imports Orbax."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint.experimental.v1 as ocp

from data_pipelines.system.visible_text import visible
from ecgjax.errors import CheckpointError
from ecgjax.system.machine_faults import cause_of, remedy_of, shortened
from ecgjax.training.checkpoints.best_checkpoint import KeepBest
from ecgjax.training.checkpoints.checkpoint_faults import fault_of
from ecgjax.training.checkpoints.orbax_noise import silence_orbax

PyTree = Any

_Preserve = ocp.training.preservation_policies
_SaveWhen = ocp.training.save_decision_policies


class CheckpointFolder:
    """A folder that holds one checkpoint for each step that was saved.

    Args:
        directory: Folder, which is made where it is missing. Files of a save that was killed are removed.
        keep_last: Number of the latest checkpoints that are kept.
        keep_every: Number of steps whose multiples are kept for good; None for none.
        best_of: Function from steps to the best of them, which is kept; None for none.
        read_only: Whether nothing is made, renamed or removed, so that a run still writing there is not disturbed.

    Attributes:
        directory: Folder as an absolute path.
        read_only: Whether nothing is changed.
        orbax: Orbax's object of the folder, which `reopen` replaces.

    Raises:
        CheckpointError: The folder cannot be used, or `read_only` is set and there is no such folder.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_last: int,
        keep_every: int | None,
        best_of: Callable[[Sequence[int]], int | None] | None,
        read_only: bool,
    ):
        self.directory, self.read_only = Path(directory).absolute(), read_only
        policies: list[Any] = [_Preserve.LatestN(keep_last)]
        if keep_every is not None:
            policies.append(_Preserve.EveryNSteps(keep_every))
        if best_of is not None:
            policies.append(KeepBest(best_of))
        self._policy = _Preserve.AnyPreservationPolicy(policies)
        if read_only and not self.directory.is_dir():
            raise CheckpointError(f"there are no checkpoints in {self.directory}: no such directory")
        silence_orbax()
        try:
            self.orbax = self._open()
        except OSError as error:
            raise CheckpointError(f"{self.name} cannot hold checkpoints: {with_remedy(error)}") from error

    @property
    def name(self) -> str:
        """Path of the folder, for messages."""
        return visible(str(self.directory))

    def path(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint."""
        return self.directory / str(step)

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints on the disk, ascending, damaged ones among them."""
        return _steps_in(self.directory)

    def listed(self) -> list[int]:
        """Returns the steps in Orbax's own list, which lacks damaged ones and may be older than the disk."""
        return [checkpoint.step for checkpoint in self.orbax.checkpoints]

    def save(self, step: int, parts: Mapping[str, PyTree], custom: Mapping[str, Any]) -> Any:
        """Starts writing a checkpoint; returns Orbax's response, for `error_of`. What Orbax raises passes.

        Args:
            step: Step of the checkpoint.
            parts: Trees of arrays by name, which must stay as they are until the checkpoint is finished.
            custom: JSON values that are stored beside the arrays.
        """
        with quiet():
            return self.orbax.save_checkpointables_async(step, parts, custom_metadata=dict(custom))

    def error_of(self, response: Any) -> Exception | None:
        """Waits for a save; returns why it failed, or None where it did not.

        Args:
            response: What `save` returned, or the error that it raised.
        """
        if isinstance(response, Exception):
            return response
        try:
            with quiet():
                saved = response is not None and response.result()
        except Exception as error:
            return error
        return None if saved else FileExistsError("there is a checkpoint of that step already")

    def load(self, step: int, templates: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """Returns the arrays of parts of a checkpoint; what Orbax raises passes.

        Args:
            step: Step of the checkpoint.
            templates: Trees of `jax.ShapeDtypeStruct` with shardings by name of the part, none of them empty.
        """
        with quiet():
            return self.orbax.load_checkpointables(step, templates)

    def custom(self, step: int) -> dict[str, Any]:
        """Returns the JSON values that were stored beside the arrays of a step.

        Raises:
            CheckpointError: The checkpoint cannot be read, or ecgjax did not write it.
        """
        path = visible(str(self.path(step)))
        try:
            with quiet():
                custom = self.orbax.metadata(step).custom_metadata
        except Exception as error:
            if is_shortage(error):
                raise
            fault = fault_of(self.path(step)) or cause_of(error)
            raise CheckpointError(f"checkpoint {path} cannot be read: {fault}") from error
        if not custom or "leaves" not in custom:
            fault = fault_of(self.path(step)) or "it has no digests of ecgjax"
            raise CheckpointError(f"checkpoint {path} cannot be read: {fault}")
        return custom

    def last_good(self) -> int | None:
        """Returns the latest step whose checkpoint has no fault; None where there is none or the disk fails."""
        try:
            return max((step for step in self.steps() if not fault_of(self.path(step))), default=None)
        except OSError:
            return None

    def strays(self) -> list[Path]:
        """Returns what bears the name of a step and is no folder, so that no checkpoint could be written there."""
        return [path for path in sorted(self.directory.iterdir()) if path.name.isdecimal() and not path.is_dir()]

    def reload(self) -> None:
        """Makes Orbax list the folder anew."""
        self.orbax.reload()

    def reopen(self) -> None:
        """Closes the folder, and opens it anew; it is made where it is missing."""
        self.close()
        self.orbax = self._open()

    def close(self) -> None:
        """Closes the folder. What a save that failed left in Orbax is raised once more there, and not told again."""
        with quiet(), contextlib.suppress(Exception):
            self.orbax.close()

    def _open(self) -> Any:
        if not self.read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
        with quiet():
            return ocp.training.Checkpointer(
                self.directory,
                preservation_policy=self._policy,
                # The loop decides when to save; a policy of Orbax's own would leave steps out.
                save_decision_policy=_SaveWhen.FixedIntervalPolicy(1),
                step_name_format=_SoundSteps(),
                # A reader must not remove what the run that it looks at is writing.
                cleanup_tmp_directories=not self.read_only,
            )


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


def reading_error(error: BaseException) -> str:
    """Returns what the innermost reader said, in whose place Orbax names only the readers that it tried."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return shortened(str(error).split(" [tensorstore_spec")[0].rpartition("driver: ")[2] or type(error).__name__)


def with_remedy(error: Exception) -> str:
    """Returns cause and remedy of an error in one clause."""
    remedy = remedy_of(error)
    return cause_of(error) + (f"; {remedy}" if remedy else "")


def is_shortage(error: Exception) -> bool:
    """Returns whether memory was short, which says nothing of the checkpoint."""
    # A disk that is full is named alike, but with the system's own number.
    text = str(error)
    return isinstance(error, MemoryError) or ("RESOURCE_EXHAUSTED" in text and "os_error_code" not in text)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
