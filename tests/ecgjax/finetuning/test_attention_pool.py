"""Attention pool: what it computes, where it begins, what it finds that a mean does not, and that a seed repeats it."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipelines.errors import DataError
from ecgjax.evaluation.models.fitted import Examples
from ecgjax.evaluation.models.kinds import KINDS, NO_MODEL
from ecgjax.evaluation.models.linear import fit_linear
from ecgjax.finetuning import attention_pool as module
from ecgjax.finetuning.attention_pool import TokenRecords, fit_attention
from ecgjax.settings.probe import AttentionSettings

RNG = np.random.default_rng(0)
TOKENS, DIM = 12, 6
SETTINGS = AttentionSettings(queries=2, steps=60, batch_size=32, learning_rate=0.02, weight_decays=(0.0,), eval_every=5)


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam raises a float to an integer power, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        yield


def _records(number, *, seed, kind="binary"):
    """One token of a recording, at a place of its own that its first channel marks, says the label."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(number, TOKENS, DIM))
    tokens[:, :, 0] = 0
    at, hidden = rng.integers(TOKENS - 3, size=number), rng.normal(size=number)
    tokens[np.arange(number), at, 0] = 6
    tokens[np.arange(number), at, 1] = 2 * hidden
    mask = np.ones((number, TOKENS), bool)
    mask[: number // 2, -3:] = False
    labels = {"binary": (hidden > 0).astype(int), "quantity": 50 + 9 * hidden}.get(kind)
    if kind == "multilabel":
        labels = np.stack([hidden > 0, hidden > 0.5], axis=1).astype(int)
    tokens = tokens.astype(np.float16)
    return TokenRecords(tokens.__getitem__, mask, labels)


def _fit(train, val, *, kind="binary", seed=0, **changes):
    classes = ("a", "b") if kind == "multilabel" else ()
    settings = dataclasses.replace(SETTINGS, **changes)
    return fit_attention(train, val, settings, kind=KINDS[kind], classes=classes, seed=seed)


def _by_hand(pool, records):
    """Outputs in loops and in float64."""
    rows = []
    for number in range(len(records.mask)):
        (own,), mask = records.read(np.array([number])).astype(np.float64), records.mask[number]
        own = (own[mask] - pool.middle) / pool.spread
        pooled = []
        for query in np.asarray(pool.params["queries"], np.float64):
            along = np.array([query @ token / np.sqrt(DIM) for token in own])
            weights = np.exp(along) / np.exp(along).sum()
            pooled.append(sum(weight * token for weight, token in zip(weights, own, strict=True)))
        outputs = np.concatenate(pooled) @ pool.params["kernel"] + pool.params["bias"]
        rows.append(outputs * pool.scale + pool.location)
    return np.array(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_loops_in_float64(kind):
    train, val = _records(90, seed=1, kind=kind), _records(70, seed=2, kind=kind)
    pool = _fit(train, val, kind=kind, steps=10)
    expected = _by_hand(pool, val)
    found = pool.outputs(val.read, val.mask)
    assert found.shape == val.targets.shape
    np.testing.assert_allclose(found.reshape(len(expected), -1), expected, rtol=1e-4, atol=1e-4 * expected.std())
    assert pool.val_metric == pytest.approx(KINDS[kind].value(val.targets, found, classes=("a", "b")), abs=1e-9)


def test_finds_a_token_that_a_mean_loses_in_the_others():
    train, val, test = (_records(number, seed=seed) for number, seed in ((300, 1), (150, 2), (300, 3)))
    pool = _fit(train, val, steps=300)
    own = KINDS["binary"].value(test.targets, pool.outputs(test.read, test.mask))
    mean = [module._mean_tokens(each, middle=pool.middle, spread=pool.spread) for each in (train, val, test)]
    probe = fit_linear(
        Examples(kind=KINDS["binary"], train=mean[0], targets=train.targets, val=mean[1], val_targets=val.targets)
    )
    assert own > KINDS["binary"].value(test.targets, probe.predict(mean[2])) + 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_begins_near_the_linear_probe_of_the_mean_token(kind, monkeypatch):
    train, val = _records(90, seed=1, kind=kind), _records(70, seed=2, kind=kind)
    monkeypatch.setattr(module, "_step", lambda params, moments, *rest, **more: (params, moments))
    monkeypatch.setattr(module, "_FIRST_QUERIES", 0.0)
    pool = _fit(train, val, kind=kind)
    assert pool.selected.startswith("step 0 of at most 60")
    mean = [module._mean_tokens(each, middle=pool.middle, spread=pool.spread) for each in (train, val)]
    classes = ("a", "b") if kind == "multilabel" else ()
    probe = fit_linear(
        Examples(
            kind=KINDS[kind], train=mean[0], targets=train.targets, val=mean[1], val_targets=val.targets,
            classes=classes,
        )
    )  # fmt: skip
    expected = probe.predict(mean[1])
    np.testing.assert_allclose(pool.outputs(val.read, val.mask), expected, rtol=1e-3, atol=1e-4 * expected.std())


def test_a_seed_repeats_it_and_another_does_not():
    train, val = _records(90, seed=1), _records(70, seed=2)
    one, again, other = (_fit(train, val, seed=seed, steps=20) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.outputs(val.read, val.mask), again.outputs(val.read, val.mask))
    assert not np.array_equal(one.outputs(val.read, val.mask), other.outputs(val.read, val.mask))


def test_the_decay_and_the_step_are_the_best_on_validation_and_training_ends_after_its_patience(monkeypatch):
    train, val, seen = _records(60, seed=1), _records(70, seed=2), []
    value = KINDS["binary"].value

    class Noted(type(KINDS["binary"])):
        def value(self, *args, **kwargs):
            seen.append(value(*args, **kwargs))
            return seen[-1]

    monkeypatch.setattr(module, "fit_linear", lambda examples, strength: fit_linear(
        dataclasses.replace(examples, kind=KINDS["binary"])
    ))  # fmt: skip
    settings = dataclasses.replace(SETTINGS, weight_decays=(0.0, 30.0), patience=2, steps=200)
    pool = fit_attention(train, val, settings, kind=Noted(), seed=0)
    assert pool.val_metric == max(seen)
    assert 4 <= len(seen) < 2 * (1 + 200 // 5), "patience ended it"


def test_what_is_masked_changes_nothing():
    train, val = _records(60, seed=1), _records(70, seed=2)
    disturbed = val.read(np.arange(70)).copy()
    disturbed[~val.mask] = 1000
    pool = _fit(train, val, steps=10)
    np.testing.assert_array_equal(pool.outputs(disturbed.__getitem__, val.mask), pool.outputs(val.read, val.mask))
    assert not np.array_equal(
        pool.outputs(disturbed.__getitem__, np.ones_like(val.mask)), pool.outputs(val.read, val.mask)
    )


def test_labels_of_one_class_and_tokens_beyond_half_precision_are_said():
    train, val = _records(60, seed=1), _records(70, seed=2)
    with pytest.raises(DataError, match=r"no model can be fitted: .*train split") as caught:
        _fit(train._replace(targets=np.ones(60, int)), val)
    assert caught.value.reason == NO_MODEL
    large = np.full((60, TOKENS, DIM), np.inf, np.float16)
    with pytest.raises(DataError, match="numbers of tokens in half precision are not finite"):
        _fit(train._replace(read=large.__getitem__), val)
