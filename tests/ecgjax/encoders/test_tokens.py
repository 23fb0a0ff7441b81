"""Tokens of every encoder: their pool is `features`, and times, mask and leads are where their samples lie."""

import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from ecgjax import encoders
from ecgjax.encoders import physio_transformer
from ecgjax.encoders.grid import Grid
from tests.ecgjax.encoders.test_all import DIM, LEADS, SAMPLES, TINY, covered_by, create, draw
from tests.support.plain_networks import away_from_initialisation

GUIDE = Path(__file__).parents[3] / "docs" / "encoders.md"
#: What sees nothing but its window, and what mixes all places by attention or a normalisation.
TRANSFORMERS = ("physio_transformer", "vit_s")
CONVOLUTIONS = sorted({*TINY} - {*TRANSFORMERS})
#: Of a network for each lead: those by default, and one that can be.
LEAD_WISE = ("temporal_net", "clocs_cnn", "resnet18")
#: Leads that the dual stream sees, I, II, V5, V6 and V1 to V4 among twelve.
STREAMS = ((0, 1, 10, 11), (6, 7, 8, 9))


@functools.cache
def made(name, **settings):
    settings = {"num_leads": LEADS, "embedding_dim": DIM, **TINY.get(name.partition(":")[0], {}), **settings}
    return away_from_initialisation(encoders.abstract(name, **settings))


def run(encoder, *args, **options):
    """Jitted method of the encoder at inference: `run(encoder, "tokens", ecg)`."""

    @jax.jit
    def program(params, stats, ecg):
        module = encoders.merge(encoder._replace(params=params, stats=stats))
        return getattr(module, args[0])(ecg, **{"train": False, **options})

    return jax.device_get(program(encoder.params, encoder.stats, *args[1:]))


def pooled(module, tokens, mask):
    """The pool that `str(module.pool)` names, token by token in float64."""
    leads = module.token_leads(SAMPLES)
    parts = [np.arange(tokens.shape[1])] if leads is None else [np.flatnonzero(leads == lead) for lead in set(leads)]
    rows = []
    for row, counts in zip(np.asarray(tokens, np.float64), mask, strict=True):
        of_leads = []
        for part in parts:
            there = row[part][counts[part]]
            of_leads.append(
                {
                    "mean": lambda there=there: there.mean(0),
                    "max and mean": lambda there=there: np.concatenate([there.max(0), there.mean(0)]),
                    "mean and deviation": lambda there=there: np.concatenate([there.mean(0), there.std(0)]),
                    "flatten": lambda row=row, part=part, counts=counts: (row * counts[:, None])[part].ravel(),
                }[str(module.pool).removeprefix("mean over leads of ")]()
            )
        rows.append(np.mean(of_leads, axis=0))
    return np.stack(rows)


@pytest.mark.parametrize(
    ("name", "train"),
    [
        *((name, True) for name in TINY),
        *(pytest.param(name, False, marks=() if name in ("resnet18", "vit_s") else pytest.mark.slow) for name in TINY),
    ],
)
def test_the_pool_of_the_tokens_is_the_features(name, train):
    encoder, (ecg, keys) = create(name), draw(3)

    @jax.jit
    def both(params, stats, ecg, keys):
        encoder_ = encoder._replace(params=params, stats=stats)
        features, moved = encoders.apply(encoder_, ecg, train=train, keys=keys, features=True)
        module = encoders.merge(encoder_)
        tokens = module.tokens(ecg, train=train, keys=keys)
        mask = module.token_mask(SAMPLES, recorded=jnp.full(3, SAMPLES))
        return features, module.pool(tokens), module.pool(tokens, mask), tokens, mask, moved, encoders.stats_of(module)

    features, plain, masked, tokens, mask, *stats = jax.device_get(both(encoder.params, encoder.stats, ecg, keys))
    assert tokens.dtype == np.float32
    assert mask.all()
    atol = 1e-6 * np.abs(features).max()
    np.testing.assert_allclose(plain, features, rtol=1e-6, atol=atol)
    np.testing.assert_allclose(masked, features, rtol=1e-6, atol=atol)
    np.testing.assert_allclose(pooled(encoders.merge(encoder), tokens, mask), features, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(*map(jax.tree.leaves, stats), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", [*TINY, "xresnet1d50:lead_wise"])
def test_the_pool_leaves_masked_tokens_out(name):
    name, _, lead_wise = name.partition(":")
    module = encoders.merge(made(name, lead_wise=True) if lead_wise else create(name))
    recorded = np.array([SAMPLES, 100, 60])
    mask = np.asarray(module.token_mask(SAMPLES, recorded=jnp.asarray(recorded)))
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(*mask.shape, module.feature_dim // (2 if " and " in str(module.pool) else 1)))
    if "flatten" in str(module.pool):
        mask = mask & (rng.uniform(size=mask.shape) < 0.5)  # The tiny form has one token a lead.
        tokens = rng.normal(size=(*mask.shape, 5))
    tokens = tokens.astype(np.float32)
    found = jax.jit(module.pool)(tokens, mask)
    np.testing.assert_allclose(found, pooled(module, tokens, mask), rtol=1e-5, atol=1e-6)
    silent = jnp.where(mask[:, :, None], tokens, 100.0)
    np.testing.assert_array_equal(jax.jit(module.pool)(silent, mask), found)
    assert np.isfinite(jax.jit(module.pool)(tokens, np.zeros_like(mask))).all()


@pytest.mark.parametrize("name", TINY)
def test_the_mask_has_tokens_whose_stride_holds_a_recorded_sample(name):
    module = encoders.merge(create(name))
    recorded = np.array([SAMPLES, SAMPLES - 1, 100, 33, 1, 0])
    mask = np.asarray(module.token_mask(SAMPLES, recorded=jnp.asarray(recorded)))
    stride = module.grids(SAMPLES)[-1].stride
    for samples, row in zip(recorded, mask, strict=True):
        for time, counts in zip(module.token_times(SAMPLES, rate_hz=1), row, strict=True):
            # Sample 0 is centred on half a sampling interval.
            assert counts == (time - 0.5 - stride / 2 < samples), (samples, time)
    assert mask[0].all()
    assert not mask[-1].all()


@pytest.mark.parametrize("name", [*TINY, "pclr_resnet:published", "pclr_resnet:any length"])
def test_all_tokens_count_in_recordings_without_padding(name):
    name, _, form = name.partition(":")
    settings = {"": TINY[name], "any length": {"input_samples": 0}}.get(form, {})
    module = encoders.merge(encoders.abstract(name, **settings))
    for samples in (*range(150, 700, 7), 1000, 2500, 5000):
        times, stride = module.token_times(samples, rate_hz=1), module.grids(samples)[-1].stride
        assert times.min() > 0
        assert times.max() - 0.5 - stride / 2 < samples, samples


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        *((name, SAMPLES + 15) for name in TINY),
        *(pytest.param(name, SAMPLES, marks=() if name == "vit_s" else pytest.mark.slow) for name in TINY),
    ],
)
def test_feature_maps_lie_on_their_grids_from_fine_to_coarse(name, samples):
    encoder = made(name)
    ecg = jax.ShapeDtypeStruct((2, samples, LEADS), jnp.float32)

    def maps(params, stats, ecg):
        module = encoders.merge(encoder._replace(params=params, stats=stats))
        return module.feature_maps(ecg, train=True), module.tokens(ecg, train=True)

    maps, tokens = jax.eval_shape(maps, encoder.params, encoder.stats, ecg)
    module = encoders.merge(encoder)
    for values, grid in maps:
        assert values.shape[:2] == (2, grid.number * max(1, len(grid.leads))) == (2, len(grid.times(rate_hz=1)))
    strides = [grid.stride for _, grid in maps]
    assert strides == sorted(set(strides)), "one map a stride"
    assert maps[-1].values.shape == tokens.shape
    assert len(module.token_times(samples, rate_hz=500)) == tokens.shape[1]
    assert module.token_mask(samples, recorded=jnp.zeros(2, jnp.int32)).shape == tokens.shape[:2]


@pytest.mark.parametrize("name", [*CONVOLUTIONS, "pclr_resnet:0"])
def test_places_of_maps_are_centred_on_the_samples_that_reach_them(name):
    name, _, length = name.partition(":")
    encoder = made(name, input_samples=0) if length else made(name)
    resampled = {"clocs_cnn", "pclr_resnet"} & ({name} if not length else set())
    samples = 2 * TINY[name]["input_samples"] if resampled else SAMPLES
    # Where no weight is negative, a huge sample makes a huge value at every place that it reaches.
    encoder = encoder._replace(params=jax.tree.map(jnp.abs, encoder.params))
    ecg = np.zeros((samples, samples, LEADS), np.float32)
    ecg[np.arange(samples), np.arange(samples), 0] = 1e20
    inner = 0
    for values, grid in run(encoder, "feature_maps", ecg):
        reached = (values > 1e9).any(2)
        leads = grid.lead_of_places()
        if leads is not None:
            assert not reached[:, leads != 0].any()
        for place, time in zip(np.flatnonzero(reached.any(0)), grid.times(rate_hz=1), strict=False):
            first, last = np.flatnonzero(reached[:, place])[[0, -1]]
            if first == 0 or last == samples - 1:
                continue  # It reaches into the padding.
            inner += 1
            # Of two samples that one is interpolated between, the farther may have a weight near zero.
            assert abs((first + last) / 2 + 0.5 - time) <= (1 if resampled else 0), (grid, place)
    assert inner > 20


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_sample_moves_the_token_whose_patch_it_is_in(name, monkeypatch):
    # Without attention, neighbouring positions and the norm over the recording a token is its patch's alone.
    monkeypatch.setattr(physio_transformer.ChannelNorm, "__call__", lambda self, x: x)
    encoder = made(name)
    params = jax.tree.map(lambda leaf: leaf, encoder.params)
    out = params["blocks"]["layers"]["attention"]["out"]
    out["kernel"] = jnp.zeros_like(out["kernel"])
    if name == "physio_transformer":
        params["positions"]["length"] = jnp.zeros_like(params["positions"]["length"])
    samples = SAMPLES - 3
    ecg = np.repeat(np.random.default_rng(0).normal(size=(1, samples, LEADS)).astype(np.float32), samples, axis=0)
    # Not the last one, which the padding repeats; its row is the plain recording.
    moved = np.arange(samples - 1)
    ecg[moved, moved] += 1
    for values, grid in run(encoder._replace(params=params), "feature_maps", ecg):
        sample, place = np.nonzero((values[:-1] != values[-1:]).any(2))
        np.testing.assert_array_equal(sample, moved)
        assert (np.abs(sample + 0.5 - grid.times(rate_hz=1)[place]) < grid.stride / 2).all(), grid


@pytest.mark.parametrize("name", [*LEAD_WISE, "lead_resnet"])
def test_tokens_change_places_with_their_leads(name):
    encoder, (ecg, _) = made(name, lead_wise=name in LEAD_WISE), draw(2)
    leads = encoders.merge(encoder).token_leads(SAMPLES)
    assert sorted(set(leads)) == list(range(LEADS))
    order = np.random.default_rng(0).permutation(LEADS)
    plain, other = (run(encoder, "tokens", x) for x in (ecg, ecg[:, :, order]))
    for lead, source in enumerate(order):
        np.testing.assert_allclose(other[:, leads == lead], plain[:, leads == source], rtol=1e-5, atol=1e-6)
    assert np.abs(plain[:, leads == 0] - plain[:, leads == 1]).max() > 1e-2


def test_tokens_of_two_streams_see_the_leads_of_their_stream():
    encoder, (ecg, _) = create("temporal_net_dual"), draw(2)
    module = encoders.merge(encoder)
    leads = module.token_leads(SAMPLES)
    assert tuple(dict.fromkeys(leads.tolist())) == STREAMS[0] + STREAMS[1]
    order = np.arange(LEADS)
    for stream in STREAMS:
        order[list(stream)] = np.roll(stream, 1)
    plain, other = (run(encoder, "tokens", x) for x in (ecg, ecg[:, :, order]))
    for lead in STREAMS[0] + STREAMS[1]:
        np.testing.assert_allclose(other[:, leads == lead], plain[:, leads == order[lead]], rtol=1e-5, atol=1e-6)


def test_tokens_that_see_all_leads_have_none():
    for name in ("resnet18", "vit_s", "physio_transformer", "xresnet1d50", "pclr_resnet"):
        assert encoders.merge(create(name)).token_leads(SAMPLES) is None


def test_times_of_published_forms():
    vit = encoders.merge(encoders.abstract("vit_b", patch=50))
    np.testing.assert_allclose(vit.token_times(5000, rate_hz=500), np.arange(100) * 0.1 + 0.05, rtol=1e-6)
    resnet = encoders.merge(encoders.abstract("resnet18"))
    np.testing.assert_allclose(resnet.token_times(2500, rate_hz=250), (32 * np.arange(79) + 0.5) / 250, rtol=1e-6)
    # Eight leads, each of a quarter of the samples.
    temporal = encoders.merge(encoders.abstract("temporal_net"))
    expected = np.tile((4 * np.arange(625) + 2) / 250, 8)
    np.testing.assert_allclose(temporal.token_times(2500, rate_hz=250), expected, rtol=1e-6)
    # By hand: conv 7 by 3, pooling by 2, three times, all without padding.
    clocs = encoders.merge(encoders.abstract("clocs_cnn"))
    first = 3 + 0.5 * 3 + 6 * (3 + 0.5 * 3) + 36 * (3 + 0.5 * 3)
    expected = np.tile((216 * np.arange(10) + first + 0.5) / 500, 12)
    np.testing.assert_allclose(clocs.token_times(2500, rate_hz=500), expected, rtol=1e-6)
    assert [str(module.pool) for module in (vit, temporal, clocs)] == [
        "mean", "mean over leads of mean", "mean over leads of flatten",
    ]  # fmt: skip


def test_a_grid_is_static_in_traced_functions():
    grid = Grid(3, 1.5, 4.0, (0, 2))
    assert jax.jit(lambda x: (x, grid))(jnp.zeros(3))[1] == grid
    np.testing.assert_array_equal(grid.lead_of_places(), [0, 0, 0, 2, 2, 2])
    np.testing.assert_array_equal(grid.times(rate_hz=2), [1, 3, 5, 1, 3, 5])


# In `tests/ecgjax/export/test_all.py` each is exported with a number of recordings that is left open, too.
@pytest.mark.parametrize("name", covered_by("resnet18", "vit_s"))
def test_an_exported_encoder_takes_any_number_of_recordings(name):
    encoder = create(name)
    forward = jax.jit(lambda ecg: encoders.apply(encoder, ecg, train=False)[0])
    (batch,) = export.symbolic_shape("batch")
    exported = export.export(forward)(jax.ShapeDtypeStruct((batch, SAMPLES, LEADS), jnp.float32))
    expected = forward(draw(5)[0])
    for number in (1, 5):
        found = exported.call(draw(number)[0])
        np.testing.assert_allclose(found, expected[:number], rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_guide_s_code_runs(capsys):
    (source,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(source, names)
    assert capsys.readouterr().out == "mean over leads of mean [((4, 20000, 4), 1.0), ((4, 5000, 32), 4.0)]\n"
    assert names["features"].shape == (4, 32)
    assert names["leads"].tolist() == np.repeat(np.arange(8), 625).tolist()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "xresnet1d101" else name  # 101 layers, as 50 are
        for name in sorted(encoders.ENCODERS)
        if ":" not in name
    ],
)
def test_the_guide_s_table_is_that_of_the_encoders(name):
    (line,) = re.findall(rf"^\| `{name}` \| .*", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    pool, tokens, width, strides = (cell.strip() for cell in line.split("|")[3:7])
    encoder = encoders.abstract(name)
    module = encoders.merge(encoder)
    ecg = jax.ShapeDtypeStruct((1, 2500, 8 if name.startswith("temporal") else 12), jnp.float32)

    def last(params, stats, ecg):
        return encoders.merge(encoder._replace(params=params, stats=stats)).tokens(ecg, train=False)

    found = jax.eval_shape(last, encoder.params, encoder.stats, ecg)
    assert found.shape == (1, math.prod(map(int, tokens.split(" × "))), int(width))
    assert str(module.pool) == pool
    np.testing.assert_allclose([grid.stride for grid in module.grids(2500)], eval(strides), atol=0.005)
