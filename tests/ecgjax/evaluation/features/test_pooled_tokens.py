"""Features pooled from tokens: means and deviations by brute force, padding that counts for nothing, leads in order."""

import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.evaluation.features import frozen_encoder, pooled_tokens
from ecgjax.evaluation.features.pooled_tokens import POOLED, moments, num_leads_of_tokens, token_mask, token_shape

RNG = np.random.default_rng(0)
LEADS, PLACES, DIM = 3, 5, 4
TOKENS = RNG.normal(size=(6, LEADS * PLACES, DIM)).astype(np.float32)
#: Row 0 is whole, row 1 has lost its end in every lead, row 2 its beginning; row 3 has nothing.
MASK = np.ones((6, LEADS, PLACES), bool)
MASK[1, :, 3:] = MASK[2, :, :2] = MASK[3] = False
MASK[4:] = RNG.random((2, LEADS, PLACES)) < 0.5
MASK = MASK.reshape(6, -1)


def _brute_force(readout, *, leads):
    """Loops over records, leads and places in float64."""
    rows = []
    for tokens, mask in zip(TOKENS.astype(np.float64), MASK, strict=True):
        means, deviations = [], []
        for own, kept in zip(np.split(tokens, leads), np.split(mask, leads), strict=True):
            chosen = [token for token, keep in zip(own, kept, strict=True) if keep]
            mean = sum(chosen, np.zeros(DIM)) / max(len(chosen), 1)
            means.append(mean)
            squares = sum(((token - mean) ** 2 for token in chosen), np.zeros(DIM)) / max(len(chosen), 1)
            deviations.append(np.sqrt(squares))
        rows.append(
            {
                "mean": np.mean(means, axis=0),
                "mean_deviation": np.concatenate([np.mean(means, axis=0), np.mean(deviations, axis=0)]),
                "lead_mean": np.concatenate(means),
            }[readout]
        )
    return np.array(rows)


def pooled(tokens, mask, *, readout, leads):
    return pooled_tokens.pooled(np.asarray(moments(jnp.asarray(tokens), jnp.asarray(mask), leads=leads)), readout)


@pytest.mark.parametrize("leads", [1, LEADS])
@pytest.mark.parametrize("readout", POOLED)
def test_pooled_tokens_are_those_of_loops_in_float64(readout, leads):
    found = pooled(TOKENS, MASK, readout=readout, leads=leads)
    np.testing.assert_allclose(found, _brute_force(readout, leads=leads), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("readout", POOLED)
def test_what_padding_holds_changes_nothing(readout):
    disturbed = np.where(MASK[:, :, None], TOKENS, np.inf)
    found, plain = (pooled(tokens, MASK, readout=readout, leads=LEADS) for tokens in (disturbed, TOKENS))
    np.testing.assert_array_equal(found, plain)
    assert not np.array_equal(plain, pooled(TOKENS, np.ones_like(MASK), readout=readout, leads=LEADS))


def test_small_deviations_about_a_large_mean_are_kept():
    tokens = (1000 + 0.01 * RNG.normal(size=(2, 50, 3))).astype(np.float32)
    found = pooled(tokens, np.ones((2, 50), bool), readout="mean_deviation", leads=1)[:, 3:]
    np.testing.assert_allclose(found, tokens.astype(np.float64).std(axis=1), rtol=1e-2)


@pytest.fixture(scope="module", params=[False, True])
def encoder(request):
    """A small encoder whose tokens see all leads, and one whose tokens see one lead each."""
    split = encoders.create("resnet18:small", seed=0, widths=(4,), kernel=3, num_leads=8, lead_wise=request.param)
    return frozen_encoder.Encoder(split, num_leads=8, batch_size=4)


def test_the_mean_of_whole_recordings_is_the_encoders_own_pool(encoder):
    signals = RNG.integers(-500, 500, (4, 200, 8)).astype(np.int16)
    leads = num_leads_of_tokens(encoder.split, 200)
    assert leads == (8 if encoders.merge(encoder.split).lead_groups == 8 else 1)
    mask = token_mask(encoder, 200, start=np.zeros(4, int), samples=np.full(4, 200))
    assert mask.all()
    of_tokens = pooled_tokens.moments_of(encoder, signals, mask)
    found = pooled_tokens.pooled(of_tokens, "mean")
    np.testing.assert_allclose(found, encoder.embed(signals), rtol=1e-5, atol=1e-6)
    tokens = pooled_tokens.tokens_of(encoder, signals)
    assert tokens.dtype == np.float16
    assert tokens.shape == (4, *token_shape(encoder, 200, 8)) == (4, mask.shape[1], 4)
    of_leads = pooled_tokens.pooled(of_tokens, "lead_mean")
    own = tokens.astype(np.float64).reshape(4, leads, -1, 4).mean(axis=2)
    np.testing.assert_allclose(of_leads, own.reshape(4, -1), rtol=2e-3, atol=2e-3)


def test_the_mask_leaves_out_padding_on_both_sides(encoder):
    start, samples = np.array([0, 100, 0]), np.array([200, 100, 100])
    mask = token_mask(encoder, 200, start=start, samples=samples)
    by_lead = mask.reshape(3, num_leads_of_tokens(encoder.split, 200), -1)
    assert by_lead[0].all()
    for row, outside in ((1, slice(None, 4)), (2, slice(-4, None))):
        assert not by_lead[row, :, outside].any()
        assert 0 < by_lead[row].sum() < by_lead[row].size
