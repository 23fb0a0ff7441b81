"""The relation and the loss that docs/add_a_method.md adds: the code is taken from there and run."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecgjax.data import row_metadata
from ecgjax.keys import step_key
from ecgjax.objectives import objective
from ecgjax.objectives.pairs import relations
from ecgjax.objectives.pairs.relations import Rows
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.training import device_mesh

GUIDE = Path(__file__).parents[2] / "docs" / "add_a_method.md"
N, DIM = 48, 6


@pytest.fixture
def code(monkeypatch):
    """Its source; what it registers is taken back."""
    for module, name in ((objective, "OBJECTIVES"), (relations, "RELATIONS"), (row_metadata, "NEEDS")):
        registry = getattr(module, name)
        for key in {"pull_push", "same_decade"}:
            monkeypatch.setitem(registry, key, None)
            monkeypatch.delitem(registry, key)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (source,) = [block for block in blocks if "def pull_push" in block]
    return source


def brute_force(z, patient, age, tau):
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    costs = []
    for i in range(N):
        pull, push = [], []
        for j in range(N):
            if i == j:
                continue
            s = z[i] @ z[j]
            if patient[i] == patient[j] or age[i] // 10 == age[j] // 10:
                pull.append(1 - s)
            else:
                push.append(np.log1p(np.exp(s / tau)))
        if pull:
            costs.append(np.mean(pull) + (np.mean(push) if push else 0))
    return np.mean(costs)


def test_the_guide_s_method_works_in_every_form(code):
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) < 30
    exec(compile(code, str(GUIDE), "exec"), {})
    method = (
        ObjectiveSettings(name="pull_push", arguments={"temperature": 0.2}),
        RelationSettings(name="same_decade"),
        MinerSettings(),
    )
    assert row_metadata.NEEDS["same_decade"] == ("age",)

    rng = np.random.default_rng(0)
    z, number = rng.normal(size=(N, DIM)), np.arange(N, dtype=np.int32)
    age = rng.integers(20, 90, N).astype(np.float32)
    ids = [jnp.asarray(values) for values in (number, number // 2, number // 4, number % 2, number >= 0)]
    rows = Rows(*ids, age=jnp.asarray(age))
    embeddings = jnp.asarray(z, jnp.float32)
    mesh = device_mesh.make_mesh()
    placed = jax.device_put((embeddings, rows), NamedSharding(mesh, PartitionSpec("data")))
    key, step = step_key(0, jnp.int32(0), stream="mining"), jnp.int32(0)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # a guide is not that strict
        for tiling in (Tiling("dense"), Tiling("gathered", mesh=mesh, chunk=5), Tiling("ring", mesh=mesh)):
            loss = objective.Objective(*method, tiling=tiling, num_views=2)
            run = jax.jit(jax.value_and_grad(lambda z, rows, loss=loss: loss({}, z, rows, key=key, step=step).loss))
            value, gradient = run(*((embeddings, rows) if tiling.mesh is None else placed))
            np.testing.assert_allclose(value, brute_force(z, number // 4, age, 0.2), rtol=1e-5)
            if tiling.form == "dense":
                expected = gradient
            np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    assert np.abs(expected).max() > 1e-3
