import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecgjax import leads
from ecgjax.augmentations import views as views_module
from ecgjax.augmentations.views import AUGMENTATIONS, CROPS, Recorded, Views, key_of, leaves_by_name
from ecgjax.errors import ConfigError
from ecgjax.keys import row_keys, split_rows, step_key
from ecgjax.training import device_mesh
from ecgjax.training.settings import PretrainingSettings
from tests.support.compile_options import EMITTERS_OF_RUNS

RNG = np.random.default_rng(0)
RATE_HZ = 125
SIGNAL = jnp.asarray(RNG.normal(0, 400, (16, 200, 8)).round(), jnp.int16)
TOWARDS = SIGNAL[::-1]
ROWS = jnp.arange(16, dtype=jnp.int32)
ALL = {name: {} for name in AUGMENTATIONS if name not in ("random_crop", "stretched_crop")}
SOME = {"vcg": {}, "time_mask": {}}


def keys_of(rows, seed=0, step=0):
    return row_keys(seed, jnp.int32(step), jnp.asarray(rows, jnp.int32), stream="views")


def views_of(augment, **settings):
    # Bits are compared as the emitters that runs use make them: the older ones, which tests compile with elsewhere,
    # round the same sum otherwise in arrays of other shapes.
    return jax.jit(Views(augment, rate_hz=RATE_HZ, **settings), compiler_options=EMITTERS_OF_RUNS)


def ramp(time=200, num_leads=8):
    """A recording whose samples say their number."""
    return jnp.broadcast_to(jnp.arange(time, dtype=jnp.int16)[None, :, None], (1, time, num_leads))


def recorded_of(*parts):
    return Recorded(*(jnp.asarray(column, jnp.int32) for column in zip(*parts, strict=True)))


@functools.cache
def drawn(some=False):
    """The function that draws all augmentations or some, jitted, and what it gives for rows 0 … 15."""
    views = Views(SOME if some else ALL, rate_hz=RATE_HZ)

    def draw(key, rows, signal, towards):
        return views(jax.vmap(jax.random.fold_in, (None, 0))(key, rows), signal, towards=towards)

    run = jax.jit(draw, compiler_options=EMITTERS_OF_RUNS)
    return run, np.asarray(run(step_key(0, 0, stream="views"), ROWS, SIGNAL, TOWARDS))


def test_views_depend_on_seed_step_and_row_alone():
    run, whole = drawn()
    key = step_key(0, 0, stream="views")
    assert whole.shape == (16, 2, 200, 12)
    # As many rows as before, for the compiled program; the next test has parts of the batch, two rows on each device.
    part = np.resize([7, 1, 9], 16)
    np.testing.assert_array_equal(run(key, ROWS[part], SIGNAL[part], TOWARDS[part]), whole[part])
    assert not np.array_equal(whole[:, 0], whole[:, 1])
    for seed, step, first in ((0, 1, 0), (1, 0, 0), (0, 0, 16)):
        assert not np.array_equal(run(step_key(seed, step, stream="views"), ROWS + first, SIGNAL, TOWARDS), whole)


@pytest.mark.parametrize("some", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["some", "all"])
def test_views_are_the_same_on_one_and_on_eight_devices(some):
    run, whole = drawn(some)
    devices = [jax.devices()[i] for i in (3, 7, 0, 5, 1, 6, 2, 4)]
    mesh = device_mesh.make_mesh(devices=devices)
    arrays = jax.device_put((ROWS, SIGNAL, TOWARDS), NamedSharding(mesh, PartitionSpec("data")))
    key = jax.device_put(step_key(0, 0, stream="views"), device_mesh.replicated(mesh))
    np.testing.assert_array_equal(run(key, *arrays), whole)


@pytest.mark.slow
def test_real_recordings_stay_finite_and_of_their_size(real_data):
    import wfdb

    names = sorted((real_data / "ptbxl" / "records500" / "00000").glob("*.hea"))[:4]
    signals = np.stack([wfdb.rdsamp(str(name.with_suffix("")))[0] for name in names])[:, :, [0, 1, *range(6, 12)]]
    stored = jnp.asarray(np.rint(signals * 1000), jnp.int16)
    names = [name for name in ALL if name not in ("time_mask", "lead_mask", "emg")]
    quiet = {name: {"max_amplitude_mv": 0.05} if name in ("powerline", "baseline_wander") else {} for name in names}
    views = jax.jit(Views(quiet, rate_hz=500))
    ecg = np.asarray(views(keys_of(np.arange(len(stored))), stored, towards=stored))
    assert ecg.shape == (4, 2, 5000, 12)
    assert np.isfinite(ecg).all()
    # Per recording: a dipole is scaled by at most 1.5 or its inverse, gains and noise are small.
    before, after = np.asarray(leads.prepare(stored)).std((1, 2)), ecg.std((2, 3))
    assert (after > before[:, None] / 2.5).all()
    assert (after < before[:, None] * 2.5).all()


@pytest.mark.parametrize("name", ["vcg", "powerline", "time_mask"])
def test_each_draws_from_the_key_of_its_name(name):
    # One more or one less then leaves the others' draws as they were.
    alone = views_of({name: {}, "time_mask": {"enabled": name == "time_mask"}}, num_views=1, num_leads=8)
    ecg, key = leads.millivolts(SIGNAL[0]), key_of(split_rows(keys_of([0]), 1)[0, 0], name)
    settings = {"rate_hz": RATE_HZ} if name == "powerline" else {}
    draw = jax.jit(lambda key, ecg: AUGMENTATIONS[name](key, ecg, **settings), compiler_options=EMITTERS_OF_RUNS)
    expected = draw(key, ecg)
    np.testing.assert_allclose(alone(keys_of([0]), SIGNAL[:1])[0, 0], expected, atol=1e-6)


def test_keys_of_names_are_independent():
    keys = jax.vmap(lambda row: jnp.stack([key_of(row, name) for name in AUGMENTATIONS]))(keys_of(np.arange(8)))
    assert len(np.unique(np.asarray(jax.random.key_data(keys)).reshape(-1, 2), axis=0)) == 8 * len(AUGMENTATIONS)


def test_noise_then_limb_algebra_then_masks():
    noise = {"emg": {}, "gaussian_noise": {}, "time_mask": {"ratio": 0.5}}
    broken = np.asarray(views_of(noise, num_views=1)(keys_of([0]), SIGNAL[:1]))[0, 0]
    whole = np.asarray(views_of({**noise, "restore_limb_algebra": {}}, num_views=1)(keys_of([0]), SIGNAL[:1]))[0, 0]
    for ecg in (broken, whole):
        assert ((ecg == 0).sum(0) == 100).all(), "masks come last"
    np.testing.assert_array_equal(broken == 0, whole == 0)
    # Two programs, which round differently.
    stored = [0, 1, *range(6, 12)]
    np.testing.assert_allclose(whole[:, stored], broken[:, stored], atol=1e-5)
    one, two, three = whole[:, 0], whole[:, 1], whole[:, 2]
    seen = (one != 0) & (two != 0) & (three != 0)
    assert seen.any()
    np.testing.assert_allclose(three[seen], (two - one)[seen], atol=1e-6)
    assert np.abs(broken[seen, 2] - (broken[seen, 1] - broken[seen, 0])).max() > 0.1


def test_what_acts_on_stored_leads_keeps_limb_algebra():
    stored = {name: {} for name in ("resized_crop", *views_module.ON_STORED_LEADS)}
    ecg = np.asarray(views_of(stored)(keys_of(np.arange(4)), SIGNAL[:4]))
    np.testing.assert_array_equal(leads.restore_limb_algebra(jnp.asarray(ecg)), ecg)


def test_an_augmentation_acts_on_the_views_that_it_is_told():
    both = views_of({"vcg": {}, "polarity": {"p": 1.0, "views": (1,)}, "lead_mask": {"views": (0, 2)}}, num_views=3)
    ecg = np.asarray(both(keys_of(np.arange(8)), SIGNAL[:8]))
    plain = np.asarray(views_of({"vcg": {}}, num_views=3)(keys_of(np.arange(8)), SIGNAL[:8]))
    np.testing.assert_array_equal(ecg[:, 1], -plain[:, 1])
    for view in (0, 2):
        kept = (ecg[:, view] != 0).any(1)
        assert 0 < kept.mean() < 1
        np.testing.assert_array_equal(ecg[:, view], np.where(kept[:, None, :], plain[:, view], 0))


def test_segments_are_adjacent_and_each_has_its_views():
    views = views_of({}, num_views=2, segments=4, num_leads=8)
    ecg = np.asarray(views(keys_of([0]), ramp()))
    assert ecg.shape == (1, 8, 50, 8)
    np.testing.assert_allclose(ecg[0, ::2, :, 0].ravel(), np.arange(200) / 1000, atol=1e-7)
    np.testing.assert_array_equal(ecg[:, ::2], ecg[:, 1::2])
    crops = np.asarray(views_of({"random_crop": {}}, segments=2, num_leads=8)(keys_of(np.zeros(1)), ramp()))
    assert crops.shape == (1, 4, 50, 8)
    first = np.rint(crops[0, :, 0, 0] * 1000)
    assert (first[:2] <= 50).all()
    assert ((first[2:] >= 100) & (first[2:] <= 150)).all()


@pytest.mark.parametrize(
    ("start", "samples", "starts"),
    [
        (0, 200, (0, 100)),
        (30, 150, (30, 80)),  # shorter than both together: from its beginning, and to its end
        (60, 140, (60, 100)),
        (20, 40, (0, 20)),  # shorter than one: both cover it
        (170, 30, (100, 100)),
    ],
)
def test_segments_keep_to_what_was_recorded(start, samples, starts):
    recorded = recorded_of((start, samples))
    views = views_of({}, num_views=1, segments=2, num_leads=8)
    ecg = np.asarray(views(keys_of([0]), ramp(), recorded=recorded))
    np.testing.assert_array_equal(np.rint(ecg[0, :, 0, 0] * 1000), starts)
    crops = views_of({"random_crop": {"ratio": 0.2}}, num_views=8, segments=2, num_leads=8)
    first = np.rint(np.asarray(crops(keys_of([0]), ramp(), recorded=recorded))[0, :, 0, 0] * 1000)
    assert (first >= start).all(), "crops of segments keep to it as well"
    assert (first + 20 <= start + samples).all()


@pytest.mark.slow
def test_padding_changes_the_crop_alone_and_no_other_row():
    views = views_of({"random_crop": {}, "vcg": {}, "gaussian_noise": {}, "time_mask": {}})
    whole = recorded_of(*[(0, 200)] * 16)
    without = np.asarray(views(keys_of(np.arange(16)), SIGNAL))
    np.testing.assert_array_equal(views(keys_of(np.arange(16)), SIGNAL, recorded=whole), without)
    short = Recorded(whole.start.at[3].set(20), whole.samples.at[3].set(105))
    padded = np.asarray(views(keys_of(np.arange(16)), SIGNAL, recorded=short))
    others = np.arange(16) != 3
    np.testing.assert_array_equal(padded[others], without[others])
    assert not np.array_equal(padded[3], without[3])
    np.testing.assert_array_equal(padded[3] == 0, without[3] == 0, err_msg="the masks stay where they were")
    alone = Recorded(short.start[3:4], short.samples[3:4])
    np.testing.assert_array_equal(views(keys_of([3]), SIGNAL[3:4], recorded=alone), padded[3:4])


def test_nothing_enabled_gives_what_an_encoder_sees():
    views = views_of(PretrainingSettings().augment)(keys_of(np.arange(16)), SIGNAL)
    for view in range(2):
        np.testing.assert_array_equal(views[:, view], leads.prepare(SIGNAL))


def test_settings_at_their_defaults_have_every_augmentation_and_enable_none():
    augment = PretrainingSettings().augment
    assert set(augment) == {*AUGMENTATIONS, "restore_limb_algebra"}
    assert not any(settings["enabled"] for settings in augment.values())
    assert augment["vcg"] == {
        "enabled": False,
        "views": (),
        "max_angle_deg": 45.0,
        "max_scale": 1.5,
        "invert": True,
        "matrix": "dower",
    }


def test_every_setting_has_a_meaning_and_every_numeric_one_a_bound():
    for name, leaves in leaves_by_name().items():
        for setting, leaf in leaves.items():
            where = f"augment.{name}.{setting}"
            assert leaf.meaning, where
            assert (leaf.bound is not None) == bool({leaf.kind, leaf.element} & {int, float}), where


@pytest.mark.parametrize(
    ("augment", "settings", "message"),
    [
        ({"vgc": {}}, {}, r"unknown entries \['vgc'\].*'vcg'"),
        ({"time_mask": {"share": 0.5}}, {}, r"time_mask has no settings \['share'\]; there are: .*'ratio'"),
        ({"emg": {"rate_hz": 100}}, {}, r"emg has no settings \['rate_hz'\]"),
        ({"restore_limb_algebra": {"p": 1}}, {}, r"restore_limb_algebra has no settings \['p'\]"),
        ({"restore_limb_algebra": {}}, {"num_leads": 8}, "is for 12 leads; config.encoder.num_leads=8"),
        ({"geodesic": {"key": 1}}, {}, r"geodesic has no settings \['key'\]; there are: .*'max_step', 'p', 'coupling'"),
        ({"geodesic": {}}, {}, "config.augment.geodesic moves recordings towards others, and there are none here"),
        ({"random_crop": {}, "resized_crop": {}}, {}, "random_crop and resized_crop, which are 2 ways to crop"),
        ({name: {} for name in CROPS}, {}, "random_crop and resized_crop and stretched_crop, which are 3 ways"),
        ({"stretched_crop": {"views": (1,)}}, {}, "stretched_crop.views must be empty"),
        ({"stretched_crop": {"ratio": 0.95}}, {}, r"ratio=0.95 leaves no room for max_change=0.1: .* at most 1 / 1.1"),
        ({"noise_floor": {"min_sigma_mv": 0.2}}, {}, "min_sigma_mv=0.2 exceeds max_sigma_mv=0.1"),
        ({"lowpass": {"min_hz": 120.0}}, {}, "min_hz=120.0 exceeds max_hz=100.0"),
        ({"vcg": {"views": (2,)}}, {}, r"vcg.views=\(2,\) names views that there are not; each recording has 2"),
        ({"random_crop": {"views": (1,)}}, {}, "random_crop.views must be empty"),
        ({}, {"num_leads": 3}, "num_leads=3 is not possible"),
        ({"vcg": {"matrix": "frank"}}, {}, "vcg.matrix='frank' is unknown; there are: dower, kors"),
        ({"resized_crop": {"method": "nearest"}}, {}, "method='nearest' of resampling is unknown; there are: linear"),
        ({"resized_crop": {"min_ratio": 0.9, "max_ratio": 0.8}}, {}, "min_ratio=0.9 exceeds max_ratio=0.8"),
        ({"powerline": {"mains_hz": (50.0, 62.5)}}, {}, "must be below half the sampling rate, here 62.5 Hz"),
        ({"baseline_wander": {"min_hz": 1.0}}, {}, "min_hz=1.0 exceeds max_hz=0.2"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(augment, settings, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(Views(augment, rate_hz=RATE_HZ, **settings), keys_of([0]), SIGNAL[:1])


def test_streams_of_keys_are_independent():
    rows = jnp.arange(4, dtype=jnp.int32)
    a, b = (jax.random.key_data(row_keys(0, jnp.int32(0), rows, stream=s)) for s in ("views", "dropout"))
    assert len(np.unique(np.concatenate([a, b]), axis=0)) == 8
    assert split_rows(row_keys(0, 0, rows, stream="views"), 3).shape == (4, 3)
