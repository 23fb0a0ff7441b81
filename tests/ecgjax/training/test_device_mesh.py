import jax
import numpy as np
import pytest

from ecgjax.training import device_mesh

ORDER = [3, 7, 0, 5, 1, 6, 2, 4]


@pytest.mark.parametrize(("count", "model"), [(1, 1), (2, 1), (8, 1), (8, 2), (8, 8)])
def test_one_process_has_all_rows_in_order(count, model):
    devices = [jax.devices()[i] for i in ORDER][:count]
    sharding = device_mesh.batch_sharding(device_mesh.make_mesh(model=model, devices=devices))
    np.testing.assert_array_equal(device_mesh.local_rows(sharding, 16), np.arange(16))


@pytest.mark.parametrize("model", [1, 2])
def test_put_batch_puts_each_row_where_the_mesh_has_it(model):
    mesh = device_mesh.make_mesh(model=model, devices=[jax.devices()[i] for i in ORDER])
    sharding = device_mesh.batch_sharding(mesh)
    values = np.arange(32).reshape(16, 2)
    batch = device_mesh.put_batch({"x": values}, sharding=sharding, rows=np.arange(16), batch_size=16)
    np.testing.assert_array_equal(batch["x"], values)
    share = 16 // (8 // model)
    for shard in batch["x"].addressable_shards:
        place = np.argwhere(mesh.devices == shard.device)[0][0]
        np.testing.assert_array_equal(shard.data, values[place * share : (place + 1) * share])


class PartOfASharding:
    """A batch sharding of which this process has only some devices, as on a pod."""

    def __init__(self, mesh, slices):
        self.mesh, self.slices = mesh, slices

    def addressable_devices_indices_map(self, shape):
        return {i: (part,) for i, part in enumerate(self.slices)}


def test_rows_of_a_process_follow_its_devices_and_may_be_apart_or_shared():
    mesh = device_mesh.make_mesh()
    apart = PartOfASharding(mesh, [slice(12, 14), slice(2, 4)])
    np.testing.assert_array_equal(device_mesh.local_rows(apart, 16), [2, 3, 12, 13])
    shared = PartOfASharding(mesh, [slice(4, 6), slice(4, 6)])
    np.testing.assert_array_equal(device_mesh.local_rows(shared, 16), [4, 5])


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"config\.batch_size=12 does not divide over the 8 devices"):
        device_mesh.local_rows(device_mesh.batch_sharding(device_mesh.make_mesh()), 12)
    with pytest.raises(ValueError, match=r"config\.mesh\.model=3 does not divide the 8 devices"):
        device_mesh.make_mesh(model=3)
