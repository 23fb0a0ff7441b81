"""Batch buffers are given out again when nothing refers to their memory any more, and not before."""

import concurrent.futures

import jax
import numpy as np
import pytest

from data_pipelines.system.buffers import BatchBuffers


@pytest.fixture
def buffers():
    return BatchBuffers((64, 16, 8), np.int16)


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_dropped(buffers):
    first = buffers.take()
    assert (first.shape, first.dtype) == ((64, 16, 8), np.int16)
    where = address(first)
    second = buffers.take()
    assert address(second) != where
    del first
    assert address(buffers.take()) == where


@pytest.mark.parametrize(
    "hold",
    [
        lambda array: array[3:5],
        lambda array: array.reshape(-1)[::7].T,
        lambda array: memoryview(array)[1:],
        lambda array: np.from_dlpack(array),
        lambda array: np.frombuffer(array, np.uint8),
        lambda array: {"batch": [array]},
        lambda array: lambda: array,
    ],
    ids=["slice", "view_of_view", "memoryview", "dlpack", "frombuffer", "container", "closure"],
)
def test_memory_is_kept_for_whatever_refers_to_it(buffers, hold):
    array = buffers.take()
    where, held = address(array), hold(array)
    del array
    taken = [buffers.take() for _ in range(3)]
    assert where not in map(address, taken)
    del held, taken
    assert where in map(address, [buffers.take() for _ in range(4)])


@pytest.mark.parametrize(
    "put", [jax.device_put, lambda array: jax.device_put(array, may_alias=True), jax.numpy.asarray]
)
def test_arrays_on_a_device_keep_their_values(buffers, put):
    on_device = []
    for value in range(20):
        array = buffers.take()
        array[...] = value
        on_device.append(put(array))
        del array
    for value, array in enumerate(on_device):
        assert (np.asarray(array) == value).all()


def test_threads_never_share_memory(buffers):
    def fill(value):
        array = buffers.take()
        array[...] = value
        return int(array.min()), int(array.max())

    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        assert list(executor.map(fill, range(2000))) == [(value, value) for value in range(2000)]


def test_no_more_arrays_are_made_than_are_in_use(buffers):
    places = set()
    for _ in range(50):
        pair = buffers.take(), buffers.take()
        places.update(map(address, pair))
        del pair
    assert len(places) == 2


@pytest.mark.parametrize("shape", [(64, 16, 8), (3, 5, 1)])
def test_arrays_on_a_cpu_device_are_the_memory_itself(shape):
    array = BatchBuffers(shape, np.int16).take()
    assert address(array) % 4096 == 0
    assert jax.device_put(array).unsafe_buffer_pointer() == address(array)
