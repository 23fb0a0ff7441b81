"""Maps a function over many items by several processes, with the results in the items' order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Protocol, TypeVar

from data_pipelines.errors import DataError

Item = TypeVar("Item")
ItemOut = TypeVar("ItemOut", covariant=True)
Result = TypeVar("Result")


class Items(Protocol[ItemOut]):
    """Items in a fixed order that can be sliced: a sequence, or an array along its first axis."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ItemOut]: ...

    def __getitem__(self, index: slice, /) -> Iterable[ItemOut]: ...


class WorkerDiedError(DataError):
    """A worker process ended without a result.

    Attributes:
        process_ids: Ids of the workers that died; those of workers that were ended along with them are left out.
        how: How the workers died, in words.
    """

    def __init__(self, process_ids: Sequence[int], how: str):
        super().__init__(f"a worker process died ({how}); run again with fewer, for example --num_workers=1")
        self.process_ids, self.how = tuple(process_ids), how


def map_ordered(
    function: Callable[[Item], Result], items: Items[Item], *, num_workers: int, chunk_size: int = 32
) -> Generator[Result, None, None]:
    """Yields `function(item)` for every item in order, computed by `num_workers` processes.

    Only a few chunks are in flight, so memory stays bounded however slowly the results are consumed.

    Args:
        function: Function that can be pickled (at module level, or a partial of such).
        items: Items that can be pickled.
        num_workers: Number of processes; 0 or 1 computes in this process.
        chunk_size: Number of items sent to a worker at once.

    Yields:
        The results, in the order of `items`.

    Raises:
        WorkerDiedError: A worker died, for example for lack of memory.
    """
    if num_workers <= 1:
        yield from map(function, items)
        return
    # Processes are spawned, because a fork of a process with threads (JAX, TFDS) can deadlock.
    context = multiprocessing.get_context("spawn")
    pending: deque[Future[list[Result]]] = deque()
    others = set(multiprocessing.active_children())
    workers: set[BaseProcess] = set()
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_leave_with_parent)
    try:
        for start in range(0, len(items), chunk_size):
            pending.append(pool.submit(_map_chunk, function, items[start : start + chunk_size]))
            workers.update(set(multiprocessing.active_children()) - others)
            if len(pending) > 2 * num_workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        pool.shutdown(wait=True, cancel_futures=True)  # Only after this is it known how they ended.
        raise _died(workers) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _died(workers: Collection[BaseProcess]) -> WorkerDiedError:
    # The pool ends the other workers by SIGTERM, so they are not among those that died by themselves.
    ended = {worker.pid: worker.exitcode for worker in workers if worker.pid and worker.exitcode}
    died = {process_id: code for process_id, code in ended.items() if code != -signal.SIGTERM}
    return WorkerDiedError([*died], ", ".join(map(_how, sorted(set(died.values())))) or "out of memory?")


def _how(exitcode: int) -> str:
    if exitcode == -signal.SIGKILL:
        return "killed, as the system does when memory runs out"
    return f"by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"with exit code {exitcode}"


def _map_chunk(function: Callable[[Item], Result], chunk: Iterable[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def _leave_with_parent() -> None:
    """Ends this worker process when its parent ends, since a killed build must leave no process behind."""
    if (parent := multiprocessing.parent_process()) is None:
        raise RuntimeError("only a worker leaves with its parent")

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="leave-with-parent").start()
