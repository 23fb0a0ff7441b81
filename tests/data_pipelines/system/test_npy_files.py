"""Arrays written piece by piece are what NumPy reads; a full disk is an error."""

import errno
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.system.npy_files import write_npy


@pytest.mark.parametrize("dtype", ["<U7", "<i8", "|u1", "<f4"])
@pytest.mark.parametrize("width", [(), (3,)])
def test_pieces_make_the_array(tmp_path, dtype, width):
    whole = np.arange(60).reshape(-1, *width).astype(dtype)
    pieces = [
        piece.astype(np.min_scalar_type(60) if whole.dtype.kind != "U" else "<U2") for piece in np.split(whole, 5)
    ]
    write_npy(tmp_path / "a.npy", [whole[:0], *pieces], dtype=whole.dtype, shape=whole.shape)
    read = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert read.dtype == whole.dtype
    assert np.array_equal(read, whole)


@pytest.mark.parametrize("rows", [0, 1, 12_345])
def test_the_first_axis_may_be_counted(tmp_path, rows):
    whole = np.arange(3 * rows, dtype=np.float16).reshape(-1, 3)
    pieces = np.array_split(whole, 7)
    assert write_npy(tmp_path / "a.npy", pieces, dtype=whole.dtype, shape=(None, 3)) == rows
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), whole)
    assert (tmp_path / "a.npy").stat().st_size == 128 + whole.nbytes


@pytest.mark.parametrize("pieces", [[np.zeros((4, 2))], [np.zeros((6, 2))], [np.zeros((5, 3))], [np.zeros(5)], []])
def test_pieces_that_do_not_fit_are_refused(tmp_path, pieces):
    with pytest.raises(ValueError, match=r"for an array of shape \(5, 2\)"):
        write_npy(tmp_path / "a.npy", pieces, dtype=np.dtype("<f8"), shape=(5, 2))


def test_a_full_disk_is_an_error():
    with pytest.raises(OSError, match="No space left") as caught:
        write_npy(Path("/dev/full"), [np.zeros(10**6)], dtype=np.dtype("<f8"), shape=(10**6,))
    assert caught.value.errno == errno.ENOSPC
