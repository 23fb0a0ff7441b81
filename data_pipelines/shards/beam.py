"""Makes the shards of a build with Apache Beam: DirectRunner uses this machine; Dataflow, Spark or Flink use many.

A Beam worker is given the path of a task and runs `making.make_shard`, as the processes of other builds do, so the same
records are in the same shards. They must see the directory of the data set, and the recordings, under the same paths as
this machine; a bucket has to be mounted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from data_pipelines.errors import DataError
from data_pipelines.shards.making import BuildJob, ShardTask, Told, make_shard
from data_pipelines.shards.plan import Shard

# Beam's DirectRunner first looks for Prism, a program that it would download, and otherwise falls back to this runner.
_RUNNERS = {"DirectRunner": "FnApiRunner"}

_TASK, _FAILURE = ".pickle", ".failure"

_SECONDS_BETWEEN_COUNTS = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamWorkers:
    """Makes shards with a Beam runner; a `dataset_build.ShardMaker`.

    Attributes:
        runner: Name of the runner, such as `"DirectRunner"`.
        options: Command line options of Beam.
    """

    runner: str
    options: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises `DataError` if Beam is not installed: before the source is read, which can take minutes."""
        _import_beam()

    def __call__(self, job: BuildJob, tasks: Sequence[ShardTask], *, folder: Path, progress: Told) -> None:
        """Makes every shard.

        Args:
            job: Facts that all shards share.
            tasks: Shards to make, each with its items.
            folder: Folder for files that the workers read and write.
            progress: Function that is called with the number of items of each finished shard.

        Raises:
            DataError: The pipeline failed, or the making of a shard did.
        """
        beam = _import_beam()
        from apache_beam.options.pipeline_options import PipelineOptions

        # Tasks go through files and not as elements of the pipeline: their items can exceed a runner's limit on its
        # size.
        shard_of: dict[Path, Shard] = {}
        for task in tasks:
            file = folder / f"{task.shard.number:05d}{_TASK}"
            file.write_bytes(pickle.dumps((job, task)))
            shard_of[file] = task.shard
        try:
            runner = _RUNNERS.get(self.runner, self.runner)
            pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(self.options))
            # Without the reshuffle, all shards would be fused with the list of them onto one worker.
            _ = pipeline | beam.Create(list(map(str, shard_of))) | beam.Reshuffle() | beam.Map(make_shard_of_file)
            with _counting(job, list(shard_of.values()), progress):
                pipeline.run().wait_until_finish()
        except (RuntimeError, ValueError) as error:  # Errors of Beam and of code on the workers.
            raise DataError(f"--beam={self.runner}: the pipeline failed: {error}") from error
        for file in shard_of:
            failure = file.with_suffix(_FAILURE)
            if failure.exists():
                raise DataError(failure.read_text(encoding="utf-8"))


def local_options(runner: str, *, num_workers: int) -> tuple[str, ...]:
    """Returns Beam options by which a runner uses several processes of this machine; empty for any but DirectRunner.

    Args:
        runner: Name of the runner.
        num_workers: Number of processes.
    """
    if runner != "DirectRunner" or num_workers == 1:
        return ()
    return (f"--direct_num_workers={num_workers}", "--direct_running_mode=multi_processing")


def make_shard_of_file(task_file: str) -> None:
    """Makes the shard of the task in a file; this is what a Beam worker runs.

    Runners retry a task that raises, and then report it at length. A `DataError` would only recur, so its message is
    left in a file instead.
    """
    path = Path(task_file)
    job, task = pickle.loads(path.read_bytes())
    try:
        make_shard(job, task)
    except DataError as error:
        path.with_suffix(_FAILURE).write_text(str(error), encoding="utf-8")


def _import_beam() -> ModuleType:
    try:
        import apache_beam
    except ImportError as error:
        raise DataError("--beam needs Apache Beam; install it with pip install 'ecgjax[beam]'") from error
    return apache_beam


@contextlib.contextmanager
def _counting(job: BuildJob, shards: Sequence[Shard], progress: Told) -> Iterator[None]:
    """Reports each shard to `progress` when its part file appears, whichever machine makes it."""
    ended = threading.Event()
    missing = {job.part_path(shard): shard.num_items for shard in shards}

    def count() -> None:
        for path in [path for path in missing if path.exists()]:
            progress(missing.pop(path))

    def watch() -> None:
        while not ended.wait(_SECONDS_BETWEEN_COUNTS):
            count()

    watcher = threading.Thread(target=watch, name="count-shards", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        # The last shards may have appeared since the watcher looked.
        count()
