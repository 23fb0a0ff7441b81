"""FLOP of a step: loops, devices, branches and recomputation, against traces in which each product stands alone."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.sharding import PartitionSpec

from ecgjax import encoders
from ecgjax.encoders import cost
from ecgjax.encoders.cost import macs_of, step_flops
from ecgjax.encoders.operations.portability import portable
from ecgjax.objectives.losses.nt_xent import nt_xent
from ecgjax.objectives.pairs.relations import Rows, same_patient
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.training import device_mesh
from ecgjax.training.micro_batches import map_parts
from tests.ecgjax.encoders.test_all import DIM, LEADS, TINY, covered_by

BATCH, SAMPLES = 4, 192


def product_by_loops(equation):
    """Multiply-accumulates of one product, from its shapes and not as `cost` has them."""
    left, right = (np.array(variable.aval.shape) for variable in equation.invars)
    params = equation.params
    if equation.primitive.name == "dot_general":
        (_, contracted), (_, batched) = params["dimension_numbers"]
        free = [axis for axis in range(len(right)) if axis not in (*contracted, *batched)]
        return left.prod() * right[free].prod()
    (out,) = equation.outvars
    dims = params["dimension_numbers"]
    taps = right[list(dims.rhs_spec[1:])].prod()  # features of a group, and samples
    # Zeros between samples of a strided convolution's gradient.
    return np.prod(out.aval.shape) * taps // math.prod(params["lhs_dilation"])


def macs_unrolled(function, *args):
    """Traced without `jit`, loops are Python's: every product is one equation, and only custom gradients are nested."""

    def count(trace):
        total = 0
        for equation in trace.eqns:
            name = equation.primitive.name
            assert name not in ("scan", "while", "cond", "shard_map", "remat2", "checkpoint"), name
            if name in ("dot_general", "conv_general_dilated"):
                total += product_by_loops(equation)
            total += sum(count(inner) for inner in core.jaxprs_in_params(equation.params))
        return total

    with jax.disable_jit():
        return count(jax.make_jaxpr(function)(*args).jaxpr)


def encoded(name, *, parts, mesh, **settings):
    """`(function, its arguments)`: the gradient of a sum over the embeddings of a batch encoded in parts."""
    encoder = encoders.abstract(
        name, precision="float32", num_leads=LEADS, embedding_dim=DIM, dropout=0.2, **TINY[name], **settings
    )

    def loss(params, stats, ecg, keys):
        def encode(stats, rows):
            split = encoders.Split(encoder.graph, params, stats)
            z, stats = encoders.apply(split, rows["ecg"], train=True, keys=rows["keys"])
            return stats, z.reshape(len(z), -1)

        stats, z = map_parts(encode, stats, {"ecg": ecg, "keys": keys}, parts=parts, mesh=mesh)
        return (z * z).sum(), stats

    ecg = jax.ShapeDtypeStruct((BATCH, SAMPLES, LEADS), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BATCH))
    return jax.grad(loss, has_aux=True), (encoder.params, encoder.stats, ecg, keys)


def mesh_of(devices, model=1):
    return device_mesh.make_mesh(devices=jax.devices()[:devices], model=model)


@pytest.mark.parametrize("name", TINY)
def test_every_encoder_in_parts_costs_what_its_products_cost_one_by_one(name):
    plain, args = encoded(name, parts=1, mesh=mesh_of(1))
    in_parts, _ = encoded(name, parts=2, mesh=mesh_of(2))
    with portable():  # Convolutions over blocks of time have a test of their own.
        expected = macs_unrolled(plain, *args)
        assert expected > 0
        assert macs_of(in_parts, *args) == expected


@pytest.mark.parametrize(
    "name",
    covered_by("temporal_net", "clocs_cnn", names=("temporal_net", "temporal_net_dual", "xresnet1d50", "clocs_cnn")),
)
def test_zeros_of_convolutions_over_blocks_of_time_do_not_count(name, monkeypatch):

    def count():
        # A function of its own each time, because JAX keeps the traces of those that it knows.
        function, args = encoded(name, parts=1, mesh=mesh_of(1))
        return macs_of(function, *args)

    with portable():
        expected = count()
    # XLA's gradient of a strided convolution's input also counts the samples behind the last window.
    assert count() == (expected if name != "clocs_cnn" else pytest.approx(expected, rel=0.02))
    monkeypatch.setattr(cost, "useful", lambda scopes, macs: macs)
    assert count() > 1.1 * expected


@pytest.mark.parametrize("name", ["vit_s", "physio_transformer"])
def test_layers_that_are_computed_again_count_once_even_within_parts_that_are(name):
    plain, args = encoded(name, parts=1, mesh=mesh_of(1))
    again, _ = encoded(name, parts=2, mesh=mesh_of(1), remat=True)
    assert macs_of(again, *args) == macs_of(plain, *args)


ROWS, WIDTH = 64, 5


def contrasted(tiling):
    def loss(z):
        row = jnp.arange(ROWS, dtype=jnp.int32)
        rows = Rows(row=row, record=row // 2, patient=row // 2, view=row % 2, valid=row >= 0)
        return nt_xent(z, rows, relation=same_patient, tiling=tiling).loss

    return jax.grad(loss)


MESHES = {"1 device": (1, 1), "2 devices": (2, 1), "8 devices": (8, 1), "four by two": (8, 2)}


@pytest.mark.parametrize("form", ["gathered", "ring"])
@pytest.mark.parametrize("mesh", MESHES)
def test_an_objective_costs_the_same_in_any_form_on_any_number_of_devices(form, mesh):
    z = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
    tiling = Tiling(form, mesh=mesh_of(*MESHES[mesh]), chunk=8)
    # Similarities, and the gradients of anchors and keys.
    assert macs_of(contrasted(Tiling("dense")), z) == 3 * ROWS * ROWS * WIDTH
    assert macs_of(contrasted(tiling), z) == 3 * ROWS * ROWS * WIDTH


def test_a_step_s_compiled_form_on_devices_agrees_where_there_is_no_loop():
    """The compiler sees one device's share, so that a count for all devices is that times their number."""
    mesh = mesh_of(8)
    spec = PartitionSpec("data")
    a, b = jnp.ones((16, 32)), jnp.ones((32, 64))

    def mapped(a, b):
        return jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec)(a, b)

    def whole(a, b):
        return jnp.matmul(jax.lax.with_sharding_constraint(a, jax.NamedSharding(mesh, spec)), b)

    for function in (mapped, whole):
        counted = jax.jit(function).trace(a, b)
        assert step_flops(counted.jaxpr.jaxpr) == 2 * 16 * 32 * 64
        assert counted.lower().compile().cost_analysis()["flops"] * 8 == pytest.approx(2 * 16 * 32 * 64, rel=0.1)


def test_devices_along_an_axis_that_nothing_is_cut_along_repeat_work_that_counts_once():
    mesh = mesh_of(8, model=2)
    a, b = jnp.ones((16, 32)), jnp.ones((32, 64))
    for of_a, of_b, out in ((("data",), (), ("data",)), (("data",), (None, "model"), ("data", "model")), ((), (), ())):
        mapped = jax.shard_map(
            jnp.matmul,
            mesh=mesh,
            in_specs=(PartitionSpec(*of_a), PartitionSpec(*of_b)),
            out_specs=PartitionSpec(*out),
            check_vma=False,
        )
        assert macs_of(mapped, a, b) == 16 * 32 * 64
        gradient = jax.grad(lambda a, b, mapped=mapped: (mapped(a, b) ** 2).sum(), argnums=(0, 1))
        assert macs_of(gradient, a, b) == 3 * 16 * 32 * 64


def test_of_branches_the_costliest_counts_and_of_custom_gradients_what_runs():
    a = jnp.ones((4, 4))
    one = 4**3

    def branches(a):
        return jax.lax.cond(a.sum() > 0, lambda a: a @ a @ a, lambda a: a @ a, a)

    assert macs_of(branches, a) == 2 * one

    @jax.custom_vjp
    def square(a):
        return a @ a

    square.defvjp(lambda a: (square(a), a), lambda a, g: (g @ a.T + a.T @ g,))
    assert macs_of(square, a) == one
    assert macs_of(jax.jit(jax.grad(lambda a: square(a).sum())), a) == 3 * one

    @jax.custom_jvp
    def cube(a):
        return a @ a @ a

    cube.defjvp(lambda primals, tangents: (cube(*primals), tangents[0] @ jnp.ones((4, 4))))
    assert macs_of(cube, a) == 2 * one
    assert macs_of(jax.jit(jax.grad(lambda a: cube(a).sum())), a) == 3 * one


def test_attention_in_one_kernel_costs_what_its_products_do(monkeypatch):
    # The kernel is NVIDIA's and cannot run here; a trace only asks which version there would be.
    fused = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused, "check_compute_capability", lambda capability: True)
    query = jax.ShapeDtypeStruct((2, 24, 3, 8), jnp.bfloat16)

    def attend(query, key, value, implementation):
        with jax.numpy_dtype_promotion("standard"):
            return jax.nn.dot_product_attention(query, key, value, implementation=implementation)

    def gradient(implementation, query, key, value):
        return jax.grad(lambda *args: attend(*args, implementation).astype(jnp.float32).sum(), argnums=(0, 1, 2))(
            query, key, value
        )

    forwards = {name: functools.partial(attend, implementation=name) for name in ("cudnn", "xla")}
    assert macs_of(forwards["cudnn"], query, query, query) == macs_of(forwards["xla"], query, query, query)
    backwards = {name: functools.partial(gradient, name) for name in ("cudnn", "xla")}
    assert macs_of(backwards["cudnn"], query, query, query) == macs_of(backwards["xla"], query, query, query) > 0


def test_a_loop_without_a_known_number_of_rounds_leaves_a_step_uncounted():
    def endless(a):
        return jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ x, a)

    def harmless(a):
        return jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x - 1, a @ a)

    a = jnp.ones((3, 3))
    assert step_flops(jax.jit(endless).trace(a).jaxpr.jaxpr) is None
    assert step_flops(jax.jit(harmless).trace(a).jaxpr.jaxpr) == 2 * 27
