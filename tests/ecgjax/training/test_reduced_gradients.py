"""Devices add up gradients in float32 although encoders compute in bfloat16, unless the config says otherwise.

What is looked at is the program behind XLA's partitioner (`tests/support/collectives.py`): a CPU would turn sums of
bfloat16 into sums of float32 later on, which other devices do not.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecgjax import encoders
from ecgjax.placement.parameter_layout import lay_out
from ecgjax.placement.settings import MeshSettings
from ecgjax.training import device_mesh
from ecgjax.training.steps import init_state, train_step
from tests.support.collectives import collectives

BATCH, SAMPLES, LEADS = 16, 160, 12
TINY = {
    "vit_s": {"patch": 20, "dim": 16, "depth": 2, "num_heads": 2},
    "resnet18": {"widths": (8,), "kernel": 3},
    "physio_transformer": {
        "stem_width": 8, "dim": 16, "depth": 2, "num_heads": 2, "hidden_dim": 32, "position_kernel": 4,
        "position_groups": 2, "decoder": True, "decoder_widths": (8, 8, 8, 8),
    },
}  # fmt: skip


def lowered(name, *, precision, reduce, sharding="replicated", **settings):
    """The step of an encoder that is trained towards 0, and its decoder towards the recordings."""
    encoder = encoders.create(
        name, seed=0, embedding_dim=8, num_leads=LEADS, precision=precision, **TINY[name] | settings
    )

    def loss(params, stats, batch, step, *, train):
        split = encoders.Split(encoder.graph, params["encoder"], stats["encoder"])
        if TINY[name].get("decoder"):
            (z, again), stats_after = encoders.reconstruct(split, batch, train=train, keys=None)
            value = jnp.square(z).mean() + jnp.square(again - batch).mean()
        else:
            z, stats_after = encoders.apply(split, batch, train=train)
            value = jnp.square(z).mean()
        return value, ({"encoder": stats_after}, {"loss": value})

    mesh = device_mesh.make_mesh()
    optimizer = optax.sgd(0.1)
    state = init_state({"encoder": encoder.params}, {"encoder": encoder.stats}, optimizer)
    layout = lay_out(state.params, mesh, MeshSettings(sharding=sharding, fsdp_min_mb=0.0))
    shardings = layout.shardings(state)
    batch = jax.ShapeDtypeStruct((BATCH, SAMPLES, LEADS), jnp.float32)
    step = jax.jit(
        train_step(layout.gathering(loss), optimizer, reduce=reduce),
        in_shardings=(shardings, device_mesh.batch_sharding(mesh)),
        out_shardings=(shardings, device_mesh.replicated(mesh)),
    )
    return step.lower(state, batch)


def sums(program):
    """Numbers of floating-point arrays that devices add up, by type."""
    found = [
        array.partition("[")[0]
        for each in collectives(program)
        if each.kind in ("all-reduce", "reduce-scatter")
        for array in each.arrays
    ]
    return {each: found.count(each) for each in set(found) if "f" in each}


CASES = [
    pytest.param("vit_s", {"depth": 5}, id="scan over layers"),
    *(
        pytest.param(*case, id=f"{case[0]}{' of ' if case[1] else ''}{', '.join(case[1])}", marks=pytest.mark.slow)
        for case in [
            ("vit_s", {"remat": True}),
            ("vit_s", {}),
            ("vit_s", {"sharding": "fsdp"}),
            ("resnet18", {}),
            ("resnet18", {"sharding": "fsdp"}),
            ("physio_transformer", {}),
        ]
    ),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_devices_add_up_gradients_in_float32_unless_told_otherwise(name, settings):
    wide = sums(lowered(name, precision="bfloat16", reduce="float32", **settings))
    narrow = sums(lowered(name, precision="bfloat16", reduce="bfloat16", **settings))
    assert set(wide) == {"f32"}
    assert narrow["bf16"] >= 5, "the control finds the sums that it should"
    if "sharding" not in settings:
        assert wide["f32"] == narrow["f32"] + narrow["bf16"]


def test_the_step_of_a_float32_encoder_is_the_same_program_in_either_case():
    programs = [lowered("vit_s", precision="float32", reduce=reduce).as_text() for reduce in ("float32", "bfloat16")]
    assert programs[0] == programs[1]


def test_batches_of_bfloat16_encoders_give_finite_losses_that_both_sums_agree_on():
    state = []
    for reduce in ("float32", "bfloat16"):
        step = lowered("vit_s", precision="bfloat16", reduce=reduce).compile()
        batch = np.random.default_rng(0).normal(size=(BATCH, SAMPLES, LEADS)).astype(np.float32)
        ours = encoders.create("vit_s", seed=0, embedding_dim=8, num_leads=LEADS, precision="bfloat16", **TINY["vit_s"])
        first = init_state({"encoder": ours.params}, {"encoder": ours.stats}, optax.sgd(0.1))
        mesh = device_mesh.make_mesh()
        placed = jax.device_put(first, device_mesh.replicated(mesh))
        _, metrics = step(placed, jax.device_put(batch, device_mesh.batch_sharding(mesh)))
        state.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    (loss, norm), (other_loss, other_norm) = state
    assert loss == other_loss, "nothing changes forwards"
    assert norm == pytest.approx(other_norm, rel=2e-2)
    assert norm != other_norm
