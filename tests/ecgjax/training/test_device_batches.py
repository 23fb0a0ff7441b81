"""Batches come from the thread that puts them on the devices in their order, with its errors, and it always ends."""

import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from data_pipelines.system.buffers import BatchBuffers
from ecgjax.training import device_batches, device_mesh
from ecgjax.training.device_batches import put_ahead


def counting(taken, *, stop=10**6, error=None):
    try:
        for number in range(stop):
            taken.append(number)
            yield number
        if error is not None:
            raise error
    finally:
        taken.append("closed")


def threads():
    return [each for each in threading.enumerate() if each.name == device_batches.THREAD_NAME]


def soon(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_batches_come_in_order_and_no_more_are_taken_ahead_than_asked_for():
    taken = []
    stream = put_ahead(counting(taken), ahead=2)
    assert not taken, "nothing is read before the first batch is asked for"
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert soon(lambda: len(taken) == 8)  # Two wait, and one is offered.
    time.sleep(0.1)
    assert len(taken) == 8
    stream.close()
    assert taken[-1] == "closed"
    assert not threads()


def test_a_stream_that_ends_ends():
    assert list(put_ahead(counting([], stop=7))) == list(range(7))


def test_an_error_comes_in_its_place_and_as_it_is():
    stream = put_ahead(counting([], stop=3, error=ZeroDivisionError("at the fourth")))
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError, match="at the fourth"):
        next(stream)
    assert not threads()


def test_dropping_a_stream_ends_its_thread():
    taken = []
    stream = put_ahead(counting(taken))
    next(stream)
    assert threads()
    del stream
    assert soon(lambda: taken[-1] == "closed" and not threads())


def test_a_process_ends_while_a_stream_is_open():
    program = (
        "import itertools\nfrom ecgjax.training.device_batches import put_ahead\n"
        "def endless():\n    for number in itertools.count():\n        yield number\n"
        "stream = put_ahead(endless())\nprint(next(stream))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_a_batch_on_a_cpu_device_is_the_memory_that_it_was_read_into_and_keeps_its_values():
    buffers = BatchBuffers((16, 100, 8), np.int16)
    sharding = device_mesh.batch_sharding(device_mesh.make_mesh(devices=jax.devices()[:1]))
    rows = np.arange(16)
    where = set()

    def stream():
        for value in range(30):
            signal = buffers.take()
            where.add(signal.ctypes.data)
            signal[...] = value
            yield device_mesh.put_batch({"signal": signal}, sharding=sharding, rows=rows, batch_size=16)

    put = put_ahead(stream(), ahead=2)
    kept = []
    for value, batch in enumerate(put):
        assert batch["signal"].addressable_data(0).unsafe_buffer_pointer() in where
        kept = [*kept[-2:], (value, batch["signal"])]
        del batch
        for expected, signal in kept:
            assert (np.asarray(signal) == expected).all()
    assert len(where) < 15, "memory is used again"
