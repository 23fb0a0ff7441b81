"""The page on adding a method: its blocks are taken from there, run, and compared with what they say."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import defaults, encoders
from ecgjax.augmentations import views
from ecgjax.augmentations.views import Views
from ecgjax.config import recipes, run_config
from ecgjax.data import row_metadata
from ecgjax.encoders import registry
from ecgjax.errors import ConfigError
from ecgjax.keys import row_keys, step_key
from ecgjax.objectives import objective
from ecgjax.objectives.miners.miners import MINERS
from ecgjax.objectives.pairs import relations
from ecgjax.objectives.pairs.distances import DISTANCES
from ecgjax.objectives.pairs.relations import Rows, same_record
from ecgjax.objectives.pairs.tiles import Tiling
from tests.docs.blocks import ROOT, fenced_blocks
from tests.golden.commands import environment
from tests.support.fixtures import make_simulated_dataset

BLOCKS = [block.code for block in fenced_blocks(ROOT / "docs" / "add_a_method.md") if block.language == "python"]

#: Registries that blocks add to, with the names that they add.
REGISTRIES = (
    (relations.RELATIONS, ("same_decade",)),
    (row_metadata.NEEDS, ("same_decade",)),
    (objective.OBJECTIVES, ("pull_push",)),
    (MINERS, ("near_nearest",)),
    (views.NOISE, ("lead_gain",)),
    (views.AUGMENTATIONS, ("lead_gain",)),
    (registry.ENCODERS, ("two_convolutions", "two_convolutions:small")),
)


@pytest.fixture
def registries(monkeypatch):
    """What blocks register is taken back."""
    for names, added in REGISTRIES:
        for name in added:
            monkeypatch.setitem(names, name, None)
            monkeypatch.delitem(names, name)


@pytest.fixture
def config_file(tmp_path, registries):
    path = tmp_path / "my_method.py"
    path.write_text("\n\n".join(BLOCKS), encoding="utf-8")
    return path


def run_block(words):
    (code,) = [block for block in BLOCKS if words in block]
    names = {"__name__": "my_method"}
    exec(compile(code, "docs/add_a_method.md", "exec", dont_inherit=True), names)
    return names


def test_the_miner_chooses_negatives_that_are_as_near_as_it_says(registries):
    near_nearest = run_block("def near_nearest")["near_nearest"]
    rng, number = np.random.default_rng(0), np.arange(32, dtype=np.int32)
    z = rng.normal(size=(32, 4)).astype(np.float32)
    ids = [jnp.asarray(values) for values in (number, number // 2, number // 2, number % 2, number >= 0)]
    mine = jax.jit(
        lambda z: near_nearest(
            z,
            Rows(*ids),
            relation=same_record,
            distance=DISTANCES["euclidean"],
            tiling=Tiling("dense"),
            key=step_key(0, 0, stream="mining"),
            margin=0.5,
        )
    )
    mined = mine(jnp.asarray(z))
    d = np.linalg.norm(z[:, None].astype(np.float64) - z[None], axis=-1)
    others = number[:, None] // 2 != number[None] // 2
    nearest = np.where(others, d, np.inf).min(axis=1)
    negative = np.asarray(mined.negative)[:, 0]
    assert mined.found.all()
    assert (np.asarray(mined.positive)[:, 0] == (number ^ 1)).all()
    assert others[number, negative].all()
    assert (d[number, negative] <= nearest + 0.5 + 1e-5).all()
    assert (d[number, negative] > nearest + 1e-5).any(), "the nearest negative alone is another miner"


def test_the_augmentation_changes_each_lead_by_one_gain_and_nothing_at_strength_0(registries):
    run_block("def lead_gain")
    signal = jnp.asarray(np.random.default_rng(1).integers(-1000, 1000, (2, 200, 8)), jnp.int16)
    keys = row_keys(0, 0, jnp.arange(2), stream="views")

    def drawn(**settings):
        return np.asarray(Views({"lead_gain": settings}, num_views=1, num_leads=8, rate_hz=100)(keys, signal))[:, 0]

    plain = np.asarray(signal) / 1000
    np.testing.assert_allclose(drawn(max_change=0.0), plain, atol=1e-7)
    changed = drawn(max_change=0.3)
    gains = (changed * plain).sum(1) / (plain * plain).sum(1)
    np.testing.assert_allclose(changed, plain * gains[:, None], atol=1e-5)
    assert (np.abs(gains - 1) <= 0.3 + 1e-5).all()
    assert len(np.unique(gains.round(4))) == gains.size


def test_the_encoder_makes_embeddings_and_tokens_where_it_says(registries):
    run_block("class TwoConvolutions")
    encoder = encoders.create("two_convolutions:small", seed=0, embedding_dim=8)
    ecg = jnp.zeros((2, 1000, 12), jnp.float32)
    module = encoders.merge(encoder)
    tokens = jax.eval_shape(lambda ecg: module.tokens(ecg, train=False), ecg)
    assert encoders.apply(encoder, ecg, train=False)[0].shape == (2, 8)
    assert tokens.shape == (2, len(module.token_times(1000, rate_hz=100)), 16)
    assert [at.grid.stride for at in module.feature_maps(ecg, train=False)] == [4, 16]


@pytest.mark.parametrize("variant", ["", ":small", ":triplets,small"])
def test_all_blocks_in_one_file_are_a_config(config_file, variant):
    settings = defaults.settings_of(recipes.load_recipe(f"{config_file}{variant}"))
    assert settings.augment["lead_gain"] == {"enabled": True, "views": (), "max_change": 0.2}
    if "triplets" in variant:
        assert (settings.miner.name, settings.miner.arguments["margin"]) == ("near_nearest", 0.1)


@pytest.mark.parametrize("in_package", [True, False])
def test_later_commands_read_a_run_whose_encoder_and_augmentations_are_in_the_package(
    config_file, tmp_path, monkeypatch, in_package
):
    config = recipes.load_recipe(f"{config_file}:triplets")
    if in_package:
        del config.augment.lead_gain
        config.encoder.name = "resnet18:small"
    run_config.write_resolved(config, tmp_path / "run")
    for names, added in REGISTRIES:
        for name in added:
            monkeypatch.delitem(names, name, raising=False)
    if in_package:
        assert defaults.settings_of_run(tmp_path / "run").miner.arguments["margin"] == 0.1
    else:
        with pytest.raises(ConfigError, match="lead_gain"):
            defaults.settings_of_run(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", ":triplets"])
def test_the_commands_of_the_page_pretrain(config_file, tmp_path, variant):
    (block,) = [each for each in fenced_blocks(ROOT / "docs" / "add_a_method.md") if each.language == "bash"]
    assert f"--config=my_method.py{variant} " in block.code
    data = make_simulated_dataset(tmp_path / "data", num_patients=60).directory
    size = [
        "--config.duration.value=2",
        "--config.duration.unit=steps",
        "--config.batch_size=16",
        "--config.pictures=0",
    ]
    line = [f"--config={config_file.name}{variant or ':small'}", f"--config.data.dir={data}", "--workdir=run", *size]
    done = subprocess.run(
        [sys.executable, "-m", "ecgjax.pretrain", *line],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
