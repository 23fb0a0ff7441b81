"""The data axis runs slice by slice, and the model axis stays within a slice."""

import jax
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.placement import slices
from ecgjax.training import device_mesh


@pytest.fixture
def two_slices(monkeypatch):
    """Devices whose slices alternate."""
    monkeypatch.setattr(slices, "slice_of", lambda device: device.id % 2)


@pytest.mark.parametrize("model", [1, 2, 4])
def test_data_runs_slice_by_slice_and_model_within_one(two_slices, model):
    mesh = device_mesh.make_mesh(model=model)
    of_devices = np.vectorize(lambda device: device.id % 2)(mesh.devices)
    assert of_devices.shape == (8 // model, model)
    np.testing.assert_array_equal(of_devices, np.repeat([0, 1], 4).reshape(-1, model))
    assert {device.id for device in mesh.devices.flat} == set(range(8))
    assert slices.num_slices(mesh) == 2


def test_what_a_slice_does_not_divide_into_is_refused(two_slices):
    with pytest.raises(ConfigError, match=r"config\.mesh\.model=8 does not divide the 4 devices of slice 0 of 2"):
        device_mesh.make_mesh(model=8)


def test_meshes_that_do_not_run_slice_by_slice_count_as_one(two_slices):
    assert slices.num_slices(None) == 1
    assert slices.num_slices(device_mesh.make_mesh(devices=jax.devices())) == 1, "slices alternate"
    assert slices.num_slices(device_mesh.make_mesh(devices=jax.devices(), model=2)) == 1, "both in a line"
    unequal = [jax.devices()[i] for i in (0, 2, 4, 1, 3)]
    assert slices.num_slices(device_mesh.make_mesh(devices=unequal)) == 1


def test_without_slices_devices_lie_as_jax_arranges_them():
    own, of_jax = device_mesh.make_mesh(model=2), jax.make_mesh((4, 2), ("data", "model"))
    assert (own.devices == of_jax.devices).all()
    assert slices.num_slices(own) == 1
