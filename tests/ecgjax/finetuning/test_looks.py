"""Looks at validation: the best is kept, and all of it comes back from JSON to the last bit."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.finetuning.looks import Look, Looks
from ecgjax.training.steps import Weights


def weights(number):
    return Weights({"encoder": jnp.full(3, number, jnp.float32)}, {"encoder": {}})


def seen(*values):
    looks = Looks()
    for number, value in enumerate(values):
        looks.see(Look(number, value, value, 0.1 * number), weights(number))
    return looks


def test_of_equal_looks_the_first_is_kept():
    looks = seen(0.5, 0.7, 0.7, 0.6)
    assert (looks.best.step, looks.since_best) == (1, 2)
    np.testing.assert_array_equal(looks.weights.params["encoder"], np.ones(3))


def test_a_look_without_numbers_is_never_the_best():
    looks = seen(-math.inf, math.nan)
    assert looks.best is None
    assert looks.weights is None
    assert not looks.trained
    assert not seen(0.6, -math.inf).trained, "step 0 alone gave a number"
    assert seen(0.6, 0.5).trained


@pytest.mark.parametrize(
    ("values", "patience", "ends"),
    [((0.6,), 1, False), ((0.6, 0.5), 1, True), ((0.6, 0.5), 2, False), ((0.6, 0.5, 0.4), 2, True),
     ((0.6, 0.5, 0.7), 2, False), ((0.6, 0.5, 0.4, 0.3), 0, False), ((-math.inf,), 1, False)],
)  # fmt: skip
def test_patience_counts_looks_after_training_steps(values, patience, ends):
    assert seen(*values).exhausted(patience) == ends


def test_looks_come_back_from_json_to_the_last_bit():
    looks = seen(-math.inf, 0.1 + 0.2, math.nan, 0.25)
    written = json.loads(json.dumps(looks.to_json(), allow_nan=False))
    again = Looks.from_json(written, weights(1))
    assert again.to_json() == looks.to_json()
    assert again.best == looks.best
    assert again.since_best == looks.since_best == 2
    for look in (Look(4, 0.2, 0.2, 0.0), Look(5, 0.9, 0.9, 0.0)):
        again.see(look, weights(look.step))
        looks.see(look, weights(look.step))
    assert again.to_json() == looks.to_json()
    assert again.best.step == 5
