"""Norms of the gradients of objective and task apart: those of each loss alone, whatever is trained beside."""

import jax
import numpy as np
import optax
import pytest

from ecgjax.objectives.losses.reconstruction import Reconstruction
from ecgjax.objectives.settings import ObjectiveSettings
from ecgjax.training.gradient_norms import far_apart, gradient_norms, weights_of
from ecgjax.training.steps import init_state
from ecgjax.training.tasks.heads import SupervisedTask
from ecgjax.training.tasks.task_settings import TaskSettings
from tests.ecgjax.training.test_train_step import HOST_BATCH, LABELS, PARAMS, PLAIN, make_loss, make_mesh, place

WEIGHTS = {"objective": 1.0, "task": 0.5}


def state_and_loss():
    """A state, and the loss of an objective, a task and a reconstruction."""
    task = SupervisedTask(TaskSettings(name="regression", weight=WEIGHTS["task"]), dim=8, labels=LABELS, seed=0)
    params = {"encoder": PLAIN.params, "objective": PARAMS["objective"], "task": task.head.params}
    stats = {"encoder": PLAIN.stats, "task": task.head.stats}
    loss = make_loss(make_mesh("one device"), graph=PLAIN.graph, task=task, reconstruction=Reconstruction())
    return init_state(params, stats, optax.sgd(0.1)), loss


def test_norms_are_those_of_each_loss_alone_without_what_is_frozen():
    state, loss = state_and_loss()
    batch = place(make_mesh("one device"), host_batch={**HOST_BATCH, "label": LABELS})

    @jax.jit
    def alone(state, batch):
        def one(params, name):
            _, (_, metrics) = loss(params, state.stats, batch, state.step, train=True)
            return WEIGHTS[name] * metrics[name]

        return {name: jax.grad(one)(state.params, name) for name in WEIGHTS}

    expected = alone(state, batch)
    found = jax.jit(gradient_norms(loss, weights=WEIGHTS))(state, batch)
    assert found.keys() == {"grad_norm_objective", "grad_norm_task"}
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[f"grad_norm_{name}"], optax.tree.norm(gradient), rtol=1e-4, err_msg=name)
    # Of the task only its own head is left then, and of the objective only the temperature.
    paths = [path for path, _ in jax.tree.leaves_with_path(state.params)]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
    frozen = [name for name in names if name.startswith("encoder/")]
    found = jax.jit(gradient_norms(loss, weights=WEIGHTS, frozen=frozen))(state, batch)
    for name, gradient in expected.items():
        own = optax.tree.norm({part: gradient[part] for part in ("objective", "task")})
        np.testing.assert_allclose(found[f"grad_norm_{name}"], own, rtol=1e-4, err_msg=name)
        assert own > 0


def test_both_must_train():
    objective, task = ObjectiveSettings(), TaskSettings(name="binary", weight=2.0)
    assert weights_of(objective, task) == {"objective": 1.0, "task": 2.0}
    assert weights_of(objective, TaskSettings()) is None
    assert weights_of(objective, TaskSettings(name="binary", weight=0.0)) is None
    assert weights_of(ObjectiveSettings(weight=0.0), task) is None


@pytest.mark.parametrize(
    ("objective", "task", "words"),
    [
        (10.0, 1.0, ""),
        (10.5, 1.0, "the gradient of the objective is 10.5 times that of the task (train/grad_norm_objective 10.5, "),
        (0.01, 1.0, "the gradient of the task is 100 times that of the objective"),
        (2.0, 0.0, "the gradient of the objective is there, and none of the task"),
        (0.0, 0.0, ""),
    ],
)
def test_norms_far_apart_are_said(objective, task, words):
    assert far_apart(objective, task).startswith(words)
    assert bool(far_apart(objective, task)) == bool(words)
