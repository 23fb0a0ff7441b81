"""The gradient of a small ResNet in float64 beside central differences: leaf → relative error, as JSON.

    python -m tests.support.finite_differences

The network is the one that runs, with every float32 in it replaced by float64, so that differences have digits enough
to judge every leaf. It is a process of its own, because JAX takes 64 bits for all programs or for none.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
jnp.float32 = jnp.float64  # before the package reads it

from ecgjax import encoders  # noqa: E402
from ecgjax.encoders import registry  # noqa: E402
from tests.support.plain_networks import away_from_initialisation, simulated_ecg  # noqa: E402

_STEP = 1e-6


def errors():
    """Returns leaf → difference between the slope along a random direction and the gradient's part along it."""
    registry.PRECISIONS = {"float32": jnp.dtype("float64")}
    encoder = encoders.abstract("resnet18", widths=(4, 6), kernel=3, embedding_dim=8, dropout=0.2)
    encoder = away_from_initialisation(encoder)
    params, stats = (jax.tree.map(lambda x: jnp.asarray(x, np.float64), tree) for tree in encoder[1:])
    ecg = jnp.asarray(simulated_ecg(4, 12), np.float64)
    rng = np.random.default_rng(0)
    target = rng.normal(size=(4, 8))

    @jax.jit
    def loss(params):
        keys = jax.random.split(jax.random.key(1), 4)
        z, _ = encoders.apply(encoder._replace(params=params, stats=stats), ecg, train=True, keys=keys)
        assert z.dtype == np.float64
        return (target * z).sum()

    leaves, structure = jax.tree.flatten(params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    gradient = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    found = {}
    for number, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
        direction = rng.normal(size=leaf.shape)
        above, below = (
            float(loss(structure.unflatten([*leaves[:number], leaf + sign * _STEP * direction, *leaves[number + 1 :]])))
            for sign in (1, -1)
        )
        slope, expected = (above - below) / (2 * _STEP), float((gradient[number] * direction).sum())
        found[path] = abs(slope - expected) / float(np.linalg.norm(gradient[number]) * np.linalg.norm(direction))
    return found


if __name__ == "__main__":
    print(json.dumps(errors()))
