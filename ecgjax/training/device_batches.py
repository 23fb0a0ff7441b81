"""Batches that are put on the devices before they are asked for.

A thread of its own takes batches from the stream and puts them on the devices, so that the loop, which has metrics to
fetch and states to save, finds the next ones there.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Generator
from typing import NamedTuple, TypeVar

Batch = TypeVar("Batch")

#: Number of batches that are on the devices ahead of the step.
ON_DEVICES_AHEAD = 2

#: What the name of a thread begins with that puts batches on the devices.
THREAD_NAME = "ecgjax-device-batches"

_LOOK_EVERY_S = 0.05
_END_AT_MOST_S = 5.0


class _Failed(NamedTuple):
    """An error of the stream in the place of the batch that it did not give."""

    error: BaseException


class _Ended:
    """The place after the last batch."""


def put_ahead(stream: Generator[Batch, None, None], *, ahead: int = ON_DEVICES_AHEAD) -> Generator[Batch, None, None]:
    """Yields the batches of a stream, which a thread takes from it before they are asked for.

    The thread begins with the first batch that is asked for, and ends when the generator is closed or dropped, when the
    stream ends or fails, and before the process ends: JAX must not be called from a thread while it is taken down.

    Args:
        stream: Stream that puts a batch on the devices when it is asked for one; it is closed by the thread.
        ahead: Number of batches that wait to be asked for.

    Yields:
        The same batches in the same order.

    Raises:
        BaseException: What the stream raised, in the place of the batch that it did not give.
    """
    waiting: queue.Queue[Batch | _Failed | _Ended] = queue.Queue(ahead)
    closing = threading.Event()

    def offer(item: Batch | _Failed | _Ended) -> None:
        while not closing.is_set():
            try:
                waiting.put(item, timeout=_LOOK_EVERY_S)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for batch in stream:
                offer(batch)
                del batch  # Its memory must not wait for the next one.
                if closing.is_set():
                    return
            offer(_Ended())
        except BaseException as error:  # Whoever asks for the batch is told.
            offer(_Failed(error))
        finally:
            stream.close()

    thread = threading.Thread(target=work, name=THREAD_NAME, daemon=True)

    def stop() -> None:
        closing.set()
        thread.join(_END_AT_MOST_S)  # A read that never returns must not keep the process.

    atexit.register(stop)
    thread.start()
    try:
        while True:
            if isinstance(item := waiting.get(), _Ended):
                return
            if isinstance(item, _Failed):
                raise item.error
            yield item
            del item
    finally:
        atexit.unregister(stop)
        stop()
