import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecgjax import augment, leads, parallel
from ecgjax.keys import row_keys, split_rows

RNG = np.random.default_rng(0)
SIGNAL = jnp.asarray(RNG.normal(0, 400, (16, 200, 8)).round(), jnp.int16)
ALL = {"vcg": {}, "gaussian_noise": {}, "time_mask": {}}


def keys_of(rows, seed=0, step=0):
    return row_keys(seed, jnp.int32(step), jnp.asarray(rows, jnp.int32), stream="views")


def test_twelve_leads_follow_from_eight():
    eight = RNG.normal(size=(5, 100, 8)).astype(np.float32)
    twelve = np.asarray(leads.twelve_leads(jnp.asarray(eight)))
    by_name = dict(zip(("I", "II", "III", "aVR", "aVL", "aVF"), np.moveaxis(twelve[..., :6], -1, 0), strict=True))
    one, two = eight[..., 0], eight[..., 1]
    np.testing.assert_array_equal(by_name["I"], one)
    np.testing.assert_array_equal(by_name["II"], two)
    np.testing.assert_allclose(by_name["III"], two - one, atol=1e-6)
    np.testing.assert_allclose(by_name["aVR"], -(one + two) / 2, atol=1e-6)
    np.testing.assert_allclose(by_name["aVL"], (one - by_name["III"]) / 2, atol=1e-6)
    np.testing.assert_allclose(by_name["aVF"], (two + by_name["III"]) / 2, atol=1e-6)
    np.testing.assert_array_equal(twelve[..., 6:], eight[..., 2:])
    np.testing.assert_allclose(twelve, eight @ leads.TWELVE_FROM_EIGHT.T.astype(np.float32), atol=1e-6)


def test_inverse_dower_is_the_published_one():
    # Edenbrandt & Pahlm 1988, columns I II V1…V6.
    published = [
        [0.156, -0.010, -0.172, -0.074, 0.122, 0.231, 0.239, 0.194],
        [-0.227, 0.887, 0.057, -0.019, -0.106, -0.022, 0.041, 0.048],
        [0.022, 0.102, -0.229, -0.310, -0.246, -0.063, 0.055, 0.108],
    ]
    np.testing.assert_allclose(leads.DOWER_PINV, published, atol=6e-4)


def test_rotation_against_scipy():
    from scipy.spatial.transform import Rotation

    angles = RNG.uniform(-1, 1, (20, 3))
    expected = Rotation.from_euler("xyz", angles).as_matrix()  # extrinsic: R_z R_y R_x
    np.testing.assert_allclose(augment.rotation(jnp.asarray(angles, jnp.float32)), expected, atol=1e-6)


def test_vcg_is_the_identity_at_zero_strength_bit_for_bit():
    ecg = leads.millivolts(SIGNAL[0])
    out = augment.vcg(jax.random.key(1), ecg, max_angle_deg=0.0, max_scale=1.0)
    np.testing.assert_array_equal(out, ecg)


def test_vcg_moves_a_pure_dipole_as_its_matrices_say():
    # On leads that a dipole explains wholly, 3KG is D·S·R·(dipole): recover S·R by least squares, then R up to scale.
    dipole = RNG.normal(size=(200, 3))
    ecg = jnp.asarray(dipole @ leads.DOWER.T, jnp.float32)
    keys = jax.random.split(jax.random.key(3), 400)
    out = jax.vmap(lambda key: augment.vcg(key, ecg))(keys)
    scales, angles = [], []
    for moved in np.asarray(out, np.float64):
        change = np.linalg.lstsq(dipole, moved @ np.linalg.pinv(leads.DOWER).T, rcond=None)[0].T
        scale = np.linalg.norm(change, axis=1)
        rotation = change / scale[:, None]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
        assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-4)
        scales.append(scale)
        angles.append(np.degrees([np.arctan2(rotation[2, 1], rotation[2, 2]), np.arcsin(-rotation[2, 0])]))
    scales, angles = np.array(scales), np.array(angles)
    assert scales.max() <= 1.5 + 1e-4
    assert scales.min() >= 1 / 1.5 - 1e-4
    inverted = (scales < 1).all(1)
    assert ((scales > 1).all(1) | inverted).all(), "all three scales are inverted together"
    assert abs(inverted.mean() - 0.5) < 4 * 0.5 / 20
    assert np.abs(angles).max() <= 45 + 1e-3
    # A uniform angle in ±45° has a standard deviation of 45/√3.
    np.testing.assert_allclose(angles.std(0), 45 / np.sqrt(3), rtol=0.1)


def test_vcg_keeps_what_a_dipole_does_not_explain():
    ecg = leads.millivolts(SIGNAL[0])
    residual = np.eye(8) - leads.DOWER @ leads.DOWER_PINV
    out = augment.vcg(jax.random.key(5), ecg)
    np.testing.assert_allclose(np.asarray(out) @ residual.T, np.asarray(ecg) @ residual.T, atol=1e-5)


def test_time_mask_zeroes_one_circular_window_a_lead():
    ecg = jnp.ones((200, 12), jnp.float32)
    starts = []
    for i in range(50):
        gone = np.asarray(augment.time_mask(jax.random.key(i), ecg, ratio=0.3)) == 0
        assert (gone.sum(0) == 60).all()
        edges = (gone & ~np.roll(gone, 1, axis=0)).sum(0)
        assert (edges == 1).all(), "one contiguous window, the end being joined to the start"
        starts.append(np.argmax(gone & ~np.roll(gone, 1, axis=0), axis=0))
    starts = np.array(starts)
    assert len(np.unique(starts[:, 0])) > 25
    assert (starts.std(1) > 0).all(), "each lead has its own window"


def crop_starts(start, samples, *, time=200, num=400):
    """Where `num` crops of half the time begin, in a signal whose samples say their number."""
    ecg = jnp.broadcast_to(jnp.arange(time, dtype=jnp.float32)[:, None], (time, 8))
    recorded = None if start is None else augment.Recorded(jnp.int32(start), jnp.int32(samples))
    crop = jax.vmap(lambda key: augment.random_crop(key, ecg, recorded=recorded, ratio=0.5))
    crops = np.asarray(crop(jax.random.split(jax.random.key(0), num)))
    assert crops.shape == (num, time // 2, 8)
    assert (np.diff(crops[:, :, 0], axis=1) == 1).all()
    return crops[:, 0, 0].astype(int)


@pytest.mark.parametrize(
    ("start", "samples", "low", "high"),
    [
        (30, 130, 30, 60),  # long enough: inside what was recorded
        (0, 110, 0, 10),
        (90, 110, 90, 100),
        (30, 100, 30, 30),  # just as long
        (60, 40, 0, 60),  # shorter: covers it
        (150, 50, 100, 100),
        (0, 20, 0, 0),
        (90, 99, 89, 90),
    ],
)
def test_crops_keep_to_what_was_recorded(start, samples, low, high):
    starts = crop_starts(start, samples)
    assert (starts.min(), starts.max()) == (low, high)
    assert len(np.unique(starts)) == high - low + 1, "every place comes"


def test_crops_of_whole_recordings_are_drawn_as_without_padding():
    np.testing.assert_array_equal(crop_starts(0, 200), crop_starts(None, None))


def test_padding_changes_the_crop_alone_and_no_other_row():
    settings = {"random_crop": {}, "vcg": {}, "gaussian_noise": {}, "time_mask": {}}
    views = jax.jit(augment.Views(settings))
    whole = augment.Recorded(jnp.zeros(16, jnp.int32), jnp.full(16, 200, jnp.int32))
    without = np.asarray(views(keys_of(np.arange(16)), SIGNAL))
    np.testing.assert_array_equal(views(keys_of(np.arange(16)), SIGNAL, recorded=whole), without)
    short = augment.Recorded(whole.start.at[3].set(20), whole.samples.at[3].set(105))
    padded = np.asarray(views(keys_of(np.arange(16)), SIGNAL, recorded=short))
    others = np.arange(16) != 3
    np.testing.assert_array_equal(padded[others], without[others])
    assert not np.array_equal(padded[3], without[3])
    np.testing.assert_array_equal(padded[3] == 0, without[3] == 0, err_msg="the masks stay where they were")
    alone = augment.Recorded(short.start[3:4], short.samples[3:4])
    np.testing.assert_array_equal(views(keys_of([3]), SIGNAL[3:4], recorded=alone), padded[3:4])


def test_gaussian_noise_has_the_stated_spread():
    ecg = jnp.zeros((2000, 12), jnp.float32)
    spread = [float(augment.gaussian_noise(jax.random.key(i), ecg, max_sigma_mv=0.1).std()) for i in range(200)]
    assert max(spread) < 0.101
    assert abs(np.mean(spread) - 0.05) < 4 * 0.1 / np.sqrt(12) / np.sqrt(200)


def test_masking_comes_last():
    views = augment.Views({"time_mask": {"ratio": 0.5}, "gaussian_noise": {}}, num_views=1)
    assert (np.asarray(views(keys_of([0]), SIGNAL[:1])) == 0).mean() == pytest.approx(0.5, abs=0.02)


def test_views_depend_on_seed_step_and_row_alone():
    views = jax.jit(augment.Views(ALL))
    rows = np.arange(16)
    whole = np.asarray(views(keys_of(rows), SIGNAL))
    assert whole.shape == (16, 2, 200, 12)
    for part in ([3], [15, 2], [7, 1, 9, 0, 4]):
        np.testing.assert_array_equal(views(keys_of(part), SIGNAL[np.array(part)]), whole[part])
    assert not np.array_equal(whole[:, 0], whole[:, 1])
    for other in (keys_of(rows, step=1), keys_of(rows, seed=1), keys_of(rows + 16)):
        assert not np.array_equal(views(other, SIGNAL), whole)


@pytest.mark.parametrize("permuted", [False, True])
def test_views_are_the_same_on_one_and_on_eight_devices(permuted):
    devices = list(jax.devices())
    if permuted:
        devices = [devices[i] for i in (3, 7, 0, 5, 1, 6, 2, 4)]
    sharding = NamedSharding(parallel.make_mesh(devices=devices), PartitionSpec("data"))
    views = augment.Views({"vcg": {}, "time_mask": {}})
    run = jax.jit(lambda rows, signal: views(row_keys(0, jnp.int32(0), rows, stream="views"), signal))
    rows = jnp.arange(16, dtype=jnp.int32)
    sharded = run(*jax.device_put((rows, SIGNAL), sharding))
    np.testing.assert_array_equal(sharded, run(rows, SIGNAL))


def test_switching_one_off_leaves_the_others_draws():
    signal = jnp.maximum(jnp.abs(SIGNAL[:1]), 1)  # no sample is 0 but a masked one
    mask = augment.Views({"vcg": {"enabled": False}, "time_mask": {}}, num_views=1, num_leads=8)(keys_of([0]), signal)
    both = augment.Views({"gaussian_noise": {}, "time_mask": {}}, num_views=1, num_leads=8)(keys_of([0]), signal)
    np.testing.assert_array_equal(np.asarray(mask) == 0, np.asarray(both) == 0)
    assert not np.array_equal(mask, both)


def test_nothing_configured_gives_what_an_encoder_sees():
    views = augment.Views({}, num_views=2)(keys_of(np.arange(16)), SIGNAL)
    np.testing.assert_array_equal(views[:, 0], augment.prepare(SIGNAL))
    np.testing.assert_array_equal(views[:, 1], augment.prepare(SIGNAL))


def test_errors_name_what_exists():
    with pytest.raises(ValueError, match=r"unknown entries \['vgc'\].*vcg"):
        augment.Views({"vgc": {}})
    with pytest.raises(ValueError, match="num_leads=3 is not possible"):
        augment.prepare(SIGNAL, num_leads=3)


def test_streams_of_keys_are_independent():
    rows = jnp.arange(4, dtype=jnp.int32)
    a, b = (jax.random.key_data(row_keys(0, jnp.int32(0), rows, stream=s)) for s in ("views", "dropout"))
    assert len(np.unique(np.concatenate([a, b]), axis=0)) == 8
    assert split_rows(row_keys(0, 0, rows, stream="views"), 3).shape == (4, 3)


def test_settings_that_do_not_exist_are_named():
    with pytest.raises(
        ValueError, match=r"config.augment.time_mask has no settings \['share'\]; there are: \['ratio'\]"
    ):
        augment.Views({"time_mask": {"share": 0.5}})
