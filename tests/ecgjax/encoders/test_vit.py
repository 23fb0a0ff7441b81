"""The vision transformer over time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.encoders.cost import macs
from ecgjax.encoders.transformer import sincos_positions
from ecgjax.errors import ConfigError
from tests.support.random_arrays import count, random_encoder

TINY = {"patch": 8, "dim": 16, "depth": 2, "num_heads": 2, "embedding_dim": 4, "num_leads": 3}
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("name", "published"), [("vit_s", 14_277_888), ("vit_b", 85_185_024)])
def test_published_parameter_count(name, published):
    # Weimann & Conrad, configs/pretrain/ViTS_all.yaml and ViTB_all.yaml: learnable encoder parameters.
    params = encoders.abstract(name).params
    assert count(params) - count(params["head"]) == published


def test_cost_of_the_base_form():
    # Ten seconds at 500 Hz: 200 patches and the register, of 12 · dim² and 2 · tokens · dim products a layer each.
    tokens = 201
    expected = 200 * 300 * 768 + 12 * tokens * (12 * 768**2 + 2 * tokens * 768) + 768 * 128
    assert macs(encoders.abstract("vit_b"), (5000, 12)) == expected


def test_places_are_sines_and_cosines_of_the_token():
    found = np.asarray(jax.jit(sincos_positions, static_argnums=(0, 1))(7, 6))
    for token in range(7):
        for pair in range(3):
            angle = token / 10_000 ** (2 * pair / 6)
            np.testing.assert_allclose(found[token, 2 * pair : 2 * pair + 2], [np.sin(angle), np.cos(angle)], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 15, "num_heads": 3}, r"config\.encoder\.dim=15 must be even"),
        ({"num_heads": 3}, r"config\.encoder\.dim=16 does not divide into config\.encoder\.num_heads=3"),
    ],
)
def test_widths_that_do_not_divide_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        encoders.create("vit_s", seed=0, **TINY | settings)


def test_features_are_the_mean_over_patches_with_places_beside_a_register():
    encoder = random_encoder("vit_s", **TINY)
    ecg = RNG.normal(size=(3, 20, 3)).astype(np.float32)
    ecg[2] = np.concatenate([ecg[1, 8:16], ecg[1, :8], ecg[1, 16:]])
    # The last patch has four samples and the last of them four times more.
    patches = np.concatenate([ecg, np.repeat(ecg[:, -1:], 4, axis=1)], axis=1).reshape(3, 3, 24)

    @jax.jit
    def both(params, ecg, patches):
        module = encoders.merge(encoder._replace(params=params))
        tokens = patches @ params["patches"]["kernel"] + sincos_positions(3, 16)[None]
        register = jnp.tile(params["token_register"][None, None], (3, 1, 1))
        last = module.norm(module.blocks(jnp.concatenate([register, tokens], axis=1), None))
        return module.features(ecg, train=False), last

    found, last = jax.device_get(both(encoder.params, ecg, patches))
    np.testing.assert_allclose(found, last[:, 1:].mean(1), rtol=1e-4, atol=1e-5)
    assert np.abs(found - last.mean(1)).max() > 1e-2, "the register is left out"
    assert np.abs(found[2] - found[1]).max() > 1e-2, "patches in another order are another recording"
