import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import optim
from ecgjax.optim import Extension, OptimizerSettings

BIAS = {"bias": np.ones(1, np.float32)}
PARAMS = {"encoder": {"blocks": [BIAS, BIAS], "head": BIAS}}


@pytest.fixture(autouse=True)
def mixed_types():
    with jax.numpy_dtype_promotion("standard"):  # Optimisers mix types, which the other tests forbid.
        yield


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_the_logged_rate_is_that_of_the_update(extended, layer_decay):
    # Without momentum and trust, LARS' update of a bias is the gradient times the rate.
    settings = OptimizerSettings(
        name="lars", momentum=0.0, scaling="linear", learning_rate=0.1, final_fraction=0.2, layer_decay=layer_decay
    )
    extensions = (Extension(begin=0, end=6, schedule="rewarm", share=0.5),) if extended else ()
    arguments = {"num_steps": 8, "batch_size": 512, "extensions": extensions}
    optimizer = optim.create(settings, params=PARAMS, **arguments)
    steps = arguments.pop("num_steps")
    rate = optim.logged_rate(settings, steps, **arguments)
    state, update = optimizer.init(PARAMS), jax.jit(optimizer.update)
    seen = []
    for number in range(steps + 6 * extended):
        updates, state = update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
        seen.append(-float(updates["encoder"]["head"]["bias"][0]))
        assert rate(number) == pytest.approx(seen[-1], rel=1e-6)
    assert max(seen) == pytest.approx(0.2, rel=1e-6), "the peak is that of the batch"
