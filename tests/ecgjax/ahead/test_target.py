"""Traced programs take the forms that suit the devices of their mesh, wherever they are traced."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgjax.encoders.operations.attention import SelfAttention
from ecgjax.encoders.operations.convolutions import grouped_conv
from ecgjax.objectives.pairs.tiles import CPU_CHUNK, Tiling
from ecgjax.placement.target import for_cpu, target_device, traced_for
from ecgjax.training import device_mesh

ROOT = Path(__file__).parents[3]

#: Functions that ask for the machine's own devices, and why they may: none of them is traced.
ASKS = {
    "ecgjax/benchmarks/device/against_torch.py": "measures on this machine",
    "ecgjax/benchmarks/device/jax_side.py": "measures on this machine",
    "ecgjax/benchmarks/device/part_process.py": "measures on this machine",
    "ecgjax/benchmarks/input_wait.py": "measures on this machine",
    "ecgjax/benchmarks/objective.py": "measures on this machine",
    "ecgjax/benchmarks/step_ceilings.py": "measures on this machine",
    "ecgjax/benchmarks/training_step.py": "measures on this machine",
    "ecgjax/export/onnx/conversion.py": "evaluates constants",
    "ecgjax/finetune.py": "says on what it runs",
    "ecgjax/model/reproduced.py": "says where a sample was reproduced",
    "ecgjax/placement/target.py": "is asked by traced code",
    "ecgjax/pretrain.py": "says on what it runs",
    "ecgjax/processes/start.py": "counts the devices of each process",
    "ecgjax/search_index/exact_search.py": "makes its mesh",
    "ecgjax/ahead/topologies.py": "makes simulated devices",
    "ecgjax/system/beside_training.py": "keeps off the accelerators",
    "ecgjax/system/environment.py": "describes this machine",
    "ecgjax/training/checkpoints/checkpoint_reading.py": "places what it restores",
    "ecgjax/training/compilation/compile_cache.py": "keeps programs of this machine",
    "ecgjax/training/device_mesh.py": "makes the mesh",
    "ecgjax/training/devices.py": "reads this machine's memory and kind",
}
QUESTIONS = {"default_backend", "local_devices", "devices"}


def asked_of_jax(source):
    """Names of JAX's functions on devices of this machine that a module's text calls or hands on."""
    tree = ast.parse(source)
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in QUESTIONS
        and isinstance(node.value, ast.Name)
        and node.value.id == "jax"
    } | {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "jax"
        for alias in node.names
        if alias.name in QUESTIONS
    }


def test_traced_code_never_asks_for_the_devices_of_the_machine():
    asking = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "ecgjax").rglob("*.py")
        if asked_of_jax(path.read_text(encoding="utf-8"))
    }
    assert asking == set(ASKS)


@pytest.mark.parametrize(
    "source", ["x = jax.default_backend()", "def f():\n    return jax.local_devices()[0]", "from jax import devices"]
)
def test_a_question_to_jax_is_found(source):
    assert asked_of_jax(source)


class Elsewhere:
    """A device that is not here."""

    def __init__(self, platform, kind="", capability="0"):
        self.platform, self.device_kind, self.compute_capability = platform, kind, capability


def mesh_of(device):
    class Mesh:
        devices = np.full((4, 1), device, dtype=object)

    return Mesh()


def test_the_target_is_that_of_the_mesh_inside_and_of_this_process_outside():
    tpu = Elsewhere("tpu")
    with traced_for(mesh_of(tpu)):
        assert target_device() is tpu
        assert not for_cpu()
    assert target_device() == jax.local_devices()[0]
    assert for_cpu()
    with traced_for(device_mesh.make_mesh(devices=jax.devices()[3:5])):
        assert target_device() == jax.devices()[3]


def test_convolutions_in_groups_are_one_on_a_tpu_and_apart_on_a_cpu():
    x, kernel = jax.ShapeDtypeStruct((2, 32, 8), jnp.float32), jax.ShapeDtypeStruct((3, 2, 8), jnp.float32)

    def convolutions(device):
        with traced_for(mesh_of(device)):
            # A function of its own each time: JAX keeps traces.
            jaxpr = jax.make_jaxpr(lambda x, kernel: grouped_conv(x, kernel, groups=4, padding=(1, 1)))(x, kernel)
        return str(jaxpr).count("conv_general_dilated[")

    assert (convolutions(Elsewhere("cpu")), convolutions(Elsewhere("tpu"))) == (4, 1)


def test_tiles_are_larger_on_a_tpu():
    with traced_for(mesh_of(Elsewhere("tpu"))):
        assert Tiling().chunk_of(1024, 2**20) == 2**24 // 1024
    assert Tiling().chunk_of(1024, 2**20) == CPU_CHUNK


def test_attention_is_fused_on_a_gpu_alone(monkeypatch):
    taken = []

    def attention(query, key, value, *, implementation):
        taken.append(implementation)
        return query

    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    layer = SelfAttention(
        16, num_heads=2, use_bias=False, kernel_init=nnx.initializers.ones, out_init=nnx.initializers.ones,
        dtype=jnp.dtype("bfloat16"), rngs=nnx.Rngs(0),
    )  # fmt: skip
    for device in (Elsewhere("tpu"), Elsewhere("gpu", "NVIDIA H100", "9.0"), Elsewhere("cpu")):
        with traced_for(mesh_of(device)):
            layer(jnp.ones((1, 4, 16), jnp.bfloat16))
    assert taken == ["cudnn"]
