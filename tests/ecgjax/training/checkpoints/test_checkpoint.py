import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecgjax.errors import CheckpointError
from ecgjax.training import device_mesh
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.checkpoints.leaf_digests import describe
from tests.support.storage_faults import damage, largest_file


def make_parts(seed=0, width=64):
    rng = np.random.default_rng(seed)
    params = {
        "blocks": {0: jnp.asarray(rng.normal(size=(width, width)), jnp.float32), 1: jnp.ones((3, 2), jnp.bfloat16)},
        "bias": jnp.asarray(rng.normal(), jnp.float32),
    }
    return {"params": params, "stats": {}, "opt_state": optax.adamw(1e-3).init(params), "step": jnp.int32(seed)}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_round_trip_keeps_structure_types_and_bits(tmp_path):
    parts = make_parts(3)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save(3, parts, metadata={"fingerprint": "abc"})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        step, restored = checkpoints.restore(make_parts(9))
        assert step == 3
        assert_same(restored, parts)
        assert checkpoints.metadata(3) == {"fingerprint": "abc"}
        _, only = checkpoints.restore({"params": parts["params"]})
        assert_same(only, {"params": parts["params"]})


def test_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    parts = make_parts(1, width=1500)
    expected = jax.tree.map(lambda x: np.array(x, copy=True), parts)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, parts, metadata={})
        for _ in range(3):
            parts = overwrite(parts)
        jax.block_until_ready(parts)
        _, restored = checkpoints.restore(make_parts(1, width=1500))
    assert_same(restored, jax.tree.map(jnp.asarray, expected))


def test_retention(tmp_path):
    with Checkpoints(tmp_path, keep_last=2, keep_every=4) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, {"step": jnp.int32(step)}, metadata={})
        checkpoints.wait()
        assert checkpoints.steps() == [4, 6, 7]


def test_restores_onto_another_sharding(tmp_path):
    values = jnp.arange(64.0).reshape(16, 4)
    mesh = device_mesh.make_mesh()
    sharded = jax.device_put(values, NamedSharding(mesh, PartitionSpec("data")))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"params": {"w": sharded}}, metadata={})
        _, one = checkpoints.restore({"params": {"w": values}})
        assert one["params"]["w"].sharding == values.sharding
        np.testing.assert_array_equal(one["params"]["w"], values)
        checkpoints.save(2, {"params": {"w": values}}, metadata={})
        _, eight = checkpoints.restore({"params": {"w": sharded}})
        assert eight["params"]["w"].sharding == sharded.sharding
        np.testing.assert_array_equal(eight["params"]["w"], values)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_digest_sees_every_single_bit(dtype):
    rng = np.random.default_rng(0)
    array = np.asarray(jnp.asarray(rng.integers(0, 2, (5, 3)), dtype))
    clean = describe({"x": jnp.asarray(array)})["x"]
    bits = 1 if dtype == "bool" else 8 * array.dtype.itemsize
    for element in range(array.size):
        for bit in range(bits):
            raw = np.array(array).view(f"u{array.dtype.itemsize}").reshape(-1)
            raw[element] ^= np.array(1 << bit, raw.dtype)
            flipped = raw.reshape(array.shape).view(array.dtype)
            assert describe({"x": jnp.asarray(flipped)})["x"][2] != clean[2]
    swapped = array[::-1]
    if not np.array_equal(swapped, array):
        assert describe({"x": jnp.asarray(swapped)})["x"][2] != clean[2]


def test_a_damaged_checkpoint_that_is_asked_for_is_refused(tmp_path):
    parts = make_parts(2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_parts(1), metadata={})
        checkpoints.save(2, parts, metadata={})
    damage(largest_file(tmp_path / "2" / "params" / "d"))
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match=r"/2 is damaged: .*there are also those of step 1"):
            checkpoints.restore(parts, step=2)
        step, restored = checkpoints.restore(parts, step=1)
        assert step == 1
        assert_same(restored, make_parts(1))


def test_a_silently_changed_leaf_is_named(tmp_path, monkeypatch):
    parts = make_parts(2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, parts, metadata={})
        load = checkpoints._folder.orbax.load_checkpointables

        def flips_a_bit(*args):
            loaded = load(*args)
            loaded["params"]["blocks"][0] = loaded["params"]["blocks"][0].at[3, 3].multiply(-1)
            return loaded

        monkeypatch.setattr(checkpoints._folder.orbax, "load_checkpointables", flips_a_bit)
        with pytest.raises(CheckpointError, match=r"damaged: params/blocks/0 .*there is no other"):
            checkpoints.restore(parts, step=2)
        with pytest.raises(CheckpointError, match=r"can be used \(step 2: params/blocks/0 .*starts anew"):
            checkpoints.restore(parts)


def test_another_models_checkpoint_names_the_leaves(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_parts(1, width=64), metadata={})
        with pytest.raises(CheckpointError, match=r"another model: params/blocks/0: stored .*64, 64.*wanted .*32, 32"):
            checkpoints.restore(make_parts(1, width=32))


def test_no_checkpoint_is_a_plain_error(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="has no finished checkpoint; give the command"):
            checkpoints.restore(make_parts())
        with pytest.raises(CheckpointError, match="has no finished checkpoint"):
            checkpoints.restore(make_parts(), step=7)
    with pytest.raises(CheckpointError, match="no such directory"):
        Checkpoints(tmp_path / "nowhere", read_only=True)


SAVES_FOR_EVER = textwrap.dedent("""
    import sys, itertools, jax.numpy as jnp
    from ecgjax.training.checkpoints.checkpoint import Checkpoints
    with Checkpoints(sys.argv[1]) as checkpoints:
        start = checkpoints.latest_step() or 0
        if start:
            _, parts = checkpoints.restore({"params": {"w": jnp.zeros((700, 700))}})
            assert (parts["params"]["w"] == start).all()
        print("ready", start, flush=True)
        for step in itertools.count(start + 1):
            checkpoints.save(step, {"params": {"w": jnp.full((700, 700), float(step))}}, metadata={})
""")


def has_saved(folder):
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


@pytest.mark.parametrize("kills", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_sigkill_in_mid_save_leaves_the_last_good_checkpoint(tmp_path, kills):
    rng = np.random.default_rng(0)
    reached = []
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES_FOR_EVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = process.stdout.readline()
        assert line.startswith("ready"), process.communicate()[1]
        reached.append(int(line.split()[1]))
        while not has_saved(tmp_path):  # However slow the machine: a first checkpoint is what a kill may cost.
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0.05, 0.6)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert reached[0] == 0
    assert reached == sorted(reached)
    assert reached[-1] > 0
    template = {"params": {"w": jnp.zeros((700, 700))}}
    with Checkpoints(tmp_path) as checkpoints:
        step, parts = checkpoints.restore(template)
        assert step >= reached[-1]
        np.testing.assert_array_equal(parts["params"]["w"], np.full((700, 700), step, np.float32))
    leftovers = [path.name for path in tmp_path.iterdir() if not path.name.isdigit()]
    assert leftovers == []
