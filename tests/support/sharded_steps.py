"""Some steps of tiny runs on a mesh, from the checkpoint in a folder where there is one.

As a program it is one process of one or several, with a vision transformer:

    python -m tests.support.sharded_steps DATA FOLDER OUT STEPS LEAF=VALUE …
"""

import ast
import json
import math
import sys
from pathlib import Path

import jax
import numpy as np

from configs import physioclr, simclr
from ecgjax import defaults, processes
from ecgjax.training import device_mesh
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.run import prepare_run, restore_latest

#: Encoder → its settings; with an average of the weights, rates that fall from layer to layer, and frozen parts.
ENCODERS = {
    "one stage": {
        "encoder.name": "resnet18", "encoder.widths": (8,), "encoder.kernel": 3, "encoder.embedding_dim": 8,
        "encoder.dropout": 0.2, "optimizer.frozen": ("^encoder/stem_",), "augment.vcg.enabled": False,
        "augment.time_mask.enabled": False,
    },
    "vit": {
        "encoder.name": "vit_s", "encoder.patch": 20, "encoder.dim": 32, "encoder.depth": 2, "encoder.num_heads": 2,
        "encoder.embedding_dim": 8, "optimizer.frozen": ("encoder/patches",),
    },
    "resnet": {
        "encoder.name": "resnet18", "encoder.widths": (8, 16), "encoder.kernel": 3, "encoder.embedding_dim": 8,
        "encoder.dropout": 0.2, "optimizer.frozen": ("^encoder/stem_",),
    },
    "physioclr": {
        "encoder.stem_width": 16, "encoder.dim": 32, "encoder.depth": 2, "encoder.num_heads": 2,
        "encoder.hidden_dim": 64, "encoder.position_kernel": 8, "encoder.position_groups": 2,
        "encoder.decoder_widths": (16, 8, 8, 8), "encoder.embedding_dim": 8, "optimizer.frozen": ("encoder/stem/",),
    },
}  # fmt: skip
_OF_ALL = {
    "batch_size": 16,
    "duration.value": 12.0,
    "duration.unit": "steps",
    "optimizer.ema_decay": 0.9,
    "optimizer.layer_decay": 0.8,
    # Adam divides by √v + ε: with the usual ε, rounding noise of gradients near zero becomes steps of ± the rate.
    "optimizer.eps": 0.1,
    "mesh.fsdp_min_mb": 0.0,
}


def config_of(name, dataset, **leaves):
    config = physioclr.get_config("small") if name == "physioclr" else simclr.get_config()
    changed = {**_OF_ALL, **ENCODERS[name], **{leaf.replace("__", "."): value for leaf, value in leaves.items()}}
    config.data.dir = str(dataset)
    with config.ignore_type():
        config.update_from_flattened_dict(changed)
    return config


def share(state):
    """The share of a state's bytes that one device holds."""
    leaves = jax.tree.leaves(state)
    here = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
    return here / sum(leaf.nbytes for leaf in leaves)


def take_steps(config, number, *, folder=None, devices=None):
    """Losses of the steps, the share of the state that a device holds, and the parameters after the steps."""
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power.
        settings = defaults.settings_of(config)
        mesh = device_mesh.make_mesh(model=settings.mesh.model, devices=devices)
        run = prepare_run(settings, mesh=mesh)
        if folder is None:
            return _steps(run, run.state, number)
        metadata = {"fingerprint": run.fingerprint, "digests": dict(run.digests), "records": "r", "own_records": "r"}
        with Checkpoints(folder) as checkpoints:
            state, _ = restore_latest(run, checkpoints, metadata)
            losses, held, state = _steps(run, state, number)
            checkpoints.save(int(state.step), state.parts(), metadata=metadata)
        return losses, held, state


def _steps(run, state, number):
    stream, losses = run.batches(run.sampler, start_step=int(state.step)), []
    for _ in range(number):
        state, metrics = run.step(state, next(stream))
        losses.append(float(metrics["loss"]))
    stream.close()
    return losses, share(state), state


def main(dataset, folder, out, number, *leaves):
    processes.begin()
    pairs = [leaf.split("=", 1) for leaf in leaves]
    changed = {name.replace(".", "__"): ast.literal_eval(value) for name, value in pairs}
    losses, held, state = take_steps(config_of("vit", dataset, **changed), int(number), folder=folder)
    if jax.process_index() == 0:
        found = {"losses": losses, "share": held, "devices": jax.device_count(), "processes": jax.process_count()}
        Path(out).write_text(json.dumps(found | {"step": int(np.asarray(state.step))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
