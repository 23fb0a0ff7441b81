"""Partners of the other label from the plan of optimal transport, and a step along its geodesic towards them."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from data_pipelines.simulation.cohort import Cohort, CohortConfig
from data_pipelines.streaming.orders import RecordOrder
from data_pipelines.streaming.sampler import Sampler
from ecgjax import leads
from ecgjax.augmentations import partners as partners_module
from ecgjax.augmentations.beats import r_peaks
from ecgjax.augmentations.crops import Recorded
from ecgjax.augmentations.geodesic import Overlay, geodesic, towards_others
from ecgjax.augmentations.partners import Partners, preview_partners, transport_plan
from ecgjax.augmentations.views import Views
from ecgjax.keys import row_keys
from ecgjax.objectives.pairs.tiles import Tiling, take
from ecgjax.training import device_mesh
from ecgjax.training.micro_batches import map_parts

RATE_HZ = 100
RNG = np.random.default_rng(0)


def beats_at(times, *, height=1.0, num_leads=8, seconds=6):
    """`int16[time, lead]`, µV, a narrow wave at each time and a broad one a quarter of a second later."""
    time = np.arange(seconds * RATE_HZ)[:, None] / RATE_HZ
    waves = np.exp(-0.5 * ((time - times) / 0.015) ** 2) + 0.2 * np.exp(-0.5 * ((time - times - 0.25) / 0.05) ** 2)
    return jnp.asarray(np.rint(1000 * height * waves.sum(1)[:, None] * np.ones(num_leads)), jnp.int16)


OWN, OTHER = beats_at(np.arange(0.5, 6, 0.8)), beats_at(np.arange(0.3, 6, 1.1), height=3.0)
FIND = jax.jit(functools.partial(r_peaks, rate_hz=RATE_HZ))
WHOLE = Recorded(jnp.zeros(2, jnp.int32), jnp.full(2, 600, jnp.int32))


def overlay(signal, partner, *, recorded=None, valid=None):
    """Of a batch on one device."""
    if recorded is None:
        recorded = Recorded(*(jnp.full(len(signal), value, jnp.int32) for value in (0, signal.shape[1])))
    valid = jnp.ones(len(signal), bool) if valid is None else jnp.asarray(valid)
    lay = Overlay(rate_hz=RATE_HZ, take=lambda tree, row: jax.tree.map(lambda x: x[row], tree))
    return jax.device_get(jax.jit(lay)(signal, jnp.asarray(partner, jnp.int32), recorded=recorded, valid=valid))


def peaks_of(ecg):
    return np.flatnonzero(FIND(ecg))


# --- partners ---


def sinkhorn(cost, *, scale):
    """Entropic plan between uniform distributions over rows and columns, by itself."""
    kernel = np.exp(-cost / scale)
    columns = np.ones(cost.shape[1])
    for _ in range(3000):
        rows = 1 / (kernel @ columns) / len(cost)
        columns = 1 / (kernel.T @ rows) / cost.shape[1]
    return rows[:, None] * kernel * columns


def choose(label, physiology=None, *, batch_size=None, step=0, rows=None, seed=0, **settings):
    """Partners of a batch that begins with an epoch, and the labels of its rows."""
    label = np.asarray(label, np.float32)
    sampler = Sampler(RecordOrder(np.arange(len(label)), seed=1), batch_size=batch_size or len(label))
    rows = np.arange(sampler.batch_size) if rows is None else np.asarray(rows)
    columns = {"label": label} | ({} if physiology is None else {"physiology": physiology})
    coupling = "independent" if physiology is None else "transport"
    found = Partners(sampler, columns, seed=seed, coupling=coupling, **settings)(step, rows)
    return found, sampler.record_numbers(step, rows)


def test_the_plan_is_that_of_sinkhorn_and_far_points_do_not_break_it():
    source, target = RNG.normal(size=(4, 3)), RNG.normal(size=(6, 3))
    cost = ((source[:, None] - target[None]) ** 2).sum(2)
    plan = transport_plan(source, target, regularisation=0.2)
    np.testing.assert_allclose(plan, sinkhorn(cost, scale=0.2 * cost.mean()), atol=1e-6)
    far = transport_plan(np.vstack([source, 1e3 * np.ones(3)]), np.vstack([target, -1e3 * np.ones(3)]))
    np.testing.assert_allclose(far.sum(1), 1 / 5, rtol=0.05)
    np.testing.assert_allclose(far.sum(0), 1 / 7, rtol=1e-6)


def frequencies(label, physiology=None, **settings):
    """How often each record is each other's partner, `f64[n, n]`, in batches with a hundred copies of each."""
    counts = np.zeros((len(label), len(label)))
    for seed in range(5):
        partner, records = choose(label, physiology, batch_size=100 * len(label), seed=seed, **settings)
        np.add.at(counts, (records, records[partner]), 1)
    return counts / counts.sum(1, keepdims=True)


def test_partners_are_drawn_from_the_plan():
    label, physiology = np.repeat([0, 1], [4, 6]), RNG.normal(size=(10, 2))
    found = frequencies(label, physiology, regularisation=0.3)
    plan = transport_plan(physiology[:4], physiology[4:], regularisation=0.3)
    np.testing.assert_allclose(found[:4, 4:], plan * 4, atol=0.08)
    np.testing.assert_allclose(found[4:, :4], plan.T * 6, atol=0.08)
    assert found[:4, :4].sum() == found[4:, 4:].sum() == 0


def test_an_independent_coupling_draws_all_alike():
    found = frequencies(np.repeat([0, 1], [3, 5]))
    np.testing.assert_allclose(found[:3, 3:], 1 / 5, atol=0.08)
    np.testing.assert_allclose(found[3:, :3], 1 / 3, atol=0.08)


def test_partners_follow_from_seed_step_and_row_alone(monkeypatch):
    monkeypatch.setattr(partners_module, "BLOCK", 16)
    label, physiology = RNG.integers(0, 2, 90), RNG.normal(size=(90, 4))
    same = {"batch_size": 40, "step": 3}
    whole, records = choose(label, physiology, **same)
    rows = np.array([39, 3, 17, 18, 0])
    np.testing.assert_array_equal(choose(label, physiology, rows=rows, **same)[0], whole[rows])
    assert (label[records[whole]] == 1 - label[records]).all()
    np.testing.assert_array_equal(whole // 16, np.arange(40) // 16, err_msg="partners are of the same block")
    same_records = types.SimpleNamespace(batch_size=90, record_numbers=lambda step, rows: rows)
    draws = [Partners(same_records, {"label": label}, seed=seed, coupling="independent") for seed in (0, 0, 1)]
    first, again, other_seed = (one(3, np.arange(90)) for one in draws)
    np.testing.assert_array_equal(again, first)
    for other in (other_seed, draws[0](4, np.arange(90))):
        assert (other != first).mean() > 0.5


def test_without_label_physiology_or_another_label_there_is_no_partner():
    label, physiology = np.array([0, 1, np.nan, 0, 1, 1]), RNG.normal(size=(6, 3))
    physiology[4] = np.nan
    partner, records = choose(label, physiology)
    np.testing.assert_array_equal(partner < 0, np.isin(records, (2, 4)))
    assert not np.isin(records[partner[partner >= 0]], (2, 4)).any()
    assert (choose(np.zeros(6))[0] == -1).all()


def test_partners_of_a_preview():
    label = np.array([np.nan, 1, 0, 0, 1], np.float32)
    np.testing.assert_array_equal(preview_partners(label, np.array([0, 1, 3]), among=np.arange(2, 5)), [0, 2, 4])


# --- overlay and step ---


def test_the_step_keeps_the_rhythm_and_moves_the_shape():
    towards, found = overlay(jnp.stack([OWN, OTHER]), [1, 0])
    assert found.all()
    move = jax.jit(jax.vmap(geodesic, in_axes=(0, None, None)))
    moved = np.asarray(move(jax.random.split(jax.random.key(0), 200), OWN, towards[0]))
    peaks = peaks_of(leads.millivolts(OWN))
    heights = moved[:, peaks[1:-1], 0]
    step = (heights.mean(1) - 1) / 2  # of the way from a height of 1 to one of 3
    assert step.min() >= -1e-3
    assert step.max() <= 0.5 + 1e-3
    assert step.mean() == pytest.approx(0.25, abs=0.04)
    np.testing.assert_allclose(heights, 1 + 2 * step[:, None] * np.ones(len(peaks) - 2), atol=0.05)
    for one in moved[:2]:
        np.testing.assert_array_equal(peaks_of(jnp.asarray(one)), peaks)


@pytest.mark.parametrize("settings", [{"max_step": 0.0}, {"p": 0.0}])
def test_no_step_is_the_identity(settings):
    stored = jnp.asarray(RNG.integers(-(2**15), 2**15, (600, 8)), jnp.int16)
    moved = geodesic(jax.random.key(0), stored, OTHER, **settings)
    np.testing.assert_array_equal(moved, leads.millivolts(stored))


@pytest.mark.parametrize("p", [0.25, 1.0])
def test_it_acts_as_often_as_it_is_told(p):
    keys = jax.random.split(jax.random.key(1), 400)
    moved = np.asarray(jax.vmap(functools.partial(geodesic, p=p), in_axes=(0, None, None))(keys, OWN, OTHER))
    acted = (moved != np.asarray(leads.millivolts(OWN))).any((1, 2)).mean()
    assert acted == pytest.approx(p, abs=0.06)


def test_samples_at_both_ends_of_their_range_do_not_overflow():
    keys = jax.random.split(jax.random.key(0), 50)
    low, high = (jnp.full((600, 8), value, jnp.int16) for value in (-(2**15), 2**15 - 1))
    moved = np.asarray(jax.jit(jax.vmap(geodesic, in_axes=(0, None, None)))(keys, low, high))
    assert (moved >= -32.768).all()
    assert (moved <= 0).all()
    assert moved.max() > -5


def test_rows_that_cannot_be_moved_stay():
    silence = jnp.zeros_like(OWN)
    signal = jnp.stack([OWN, OTHER, silence, OWN, OTHER, OWN])
    # A partner; none; silence itself; a silent partner; one that was not read; and itself not read.
    towards, found = overlay(signal, [1, -1, 0, 2, 5, 1], valid=[True, True, True, True, True, False])
    np.testing.assert_array_equal(found, [True, False, False, False, False, False])
    np.testing.assert_array_equal(towards[1:], signal[1:])
    assert (towards[0] != signal[0]).any()


def test_padding_stays_silent_and_none_is_laid_over():
    padded, short = OWN.at[:150].set(0), (OTHER + 500).at[400:].set(0)
    recorded = Recorded(jnp.asarray([150, 0], jnp.int32), jnp.asarray([450, 400], jnp.int32))
    towards, found = overlay(jnp.stack([padded, short]), [1, 0], recorded=recorded)
    assert found.all()
    assert (towards[0, :150] == 0).all()
    assert (towards[0, 150:] >= 500).all(), "the other recording's level, and none of its padding"
    assert (towards[1, 400:] == 0).all()


def test_beats_are_laid_over_beats():
    towards, _ = overlay(jnp.stack([OWN, OTHER]), [1, 0])
    own, other = (peaks_of(leads.millivolts(one)) for one in (OWN, OTHER))
    for number, peak in enumerate(own[1:-1], start=1):
        beat = other[number % len(other)]
        np.testing.assert_array_equal(towards[0, peak - 20 : peak + 20], np.asarray(OTHER)[beat - 20 : beat + 20])


def test_figures_are_drawn_of_given_partners():
    expected, _ = overlay(jnp.stack([OWN, OTHER]), [1, -1])
    one = Recorded(*(column[:1] for column in WHOLE))
    found = towards_others(OWN[None], OTHER[None], recorded=one, others_recorded=one, rate_hz=RATE_HZ)
    np.testing.assert_array_equal(found, expected[:1])


# --- of the global batch ---


@pytest.fixture(scope="module")
def batch():
    """16 simulated recordings with padding, their partners, and the views of one device."""
    signal = jnp.asarray(Cohort(CohortConfig(num_patients=16, sampling_rate_hz=RATE_HZ)).simulate(0, 16).signal)
    rows = {
        "signal": signal[:, :400].at[:, :20].set(0),
        "partner": ((7 * jnp.arange(16) + 3) % 16).astype(jnp.int32).at[3].set(-1),
        "row": jnp.arange(16, dtype=jnp.int32),
        "recorded": Recorded(jnp.full(16, 20, jnp.int32), jnp.full(16, 380, jnp.int32)),
        "valid": jnp.arange(16) != 5,
    }
    views, moved = draw(rows, mesh=device_mesh.make_mesh(devices=jax.devices()[:1]))
    assert 10 <= moved.sum() < 15
    return rows, views, moved


def draw(rows, *, mesh, form="gathered", parts=1, augment=None):
    views = Views(
        {"geodesic": {"views": (1,)}, "random_crop": {}} if augment is None else augment, segments=2, rate_hz=RATE_HZ
    )
    lay = Overlay(rate_hz=RATE_HZ, take=functools.partial(take, tiling=Tiling(form, mesh=mesh)))

    def of_part(_, part):
        keys = row_keys(0, 0, part["row"], stream="views")
        return None, views(keys, part["signal"], recorded=part["recorded"], towards=part["towards"])

    @jax.jit
    def run(rows):
        towards, moved = lay(rows["signal"], rows["partner"], recorded=rows["recorded"], valid=rows["valid"])
        of_rows = {name: rows[name] for name in ("row", "signal", "recorded")} | {"towards": towards}
        return map_parts(of_part, None, of_rows, parts=parts, mesh=mesh)[1], moved

    return jax.device_get(run(jax.device_put(rows, NamedSharding(mesh, PartitionSpec("data")))))


@pytest.mark.parametrize(
    ("form", "parts"), [pytest.param("gathered", 1, marks=pytest.mark.slow), ("ring", 1), ("gathered", 2)]
)
def test_eight_devices_and_parts_give_the_same_bits(batch, form, parts):
    rows, views, moved = batch
    mesh = device_mesh.make_mesh(devices=[jax.devices()[i] for i in (3, 7, 0, 5, 1, 6, 2, 4)])
    again, moved_again = draw(rows, mesh=mesh, form=form, parts=parts)
    np.testing.assert_array_equal(again, views)
    np.testing.assert_array_equal(moved_again, moved)


def test_only_the_views_that_it_is_told_and_only_rows_with_partners_move(batch):
    rows, views, moved = batch
    plain, _ = draw(rows, mesh=device_mesh.make_mesh(devices=jax.devices()[:1]), augment={"random_crop": {}})
    changed = (plain != views).any((2, 3)).reshape(16, 2, 2)
    assert not changed[:, :, 0].any()
    np.testing.assert_array_equal(changed[:, :, 1].any(1), moved)
