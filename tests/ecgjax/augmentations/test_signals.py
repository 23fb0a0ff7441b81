"""Each augmentation against its definition: moments, ranges, frequencies, identities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal, stats
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from ecgjax import leads
from ecgjax.augmentations import warps
from ecgjax.augmentations.crops import Recorded, random_crop, resized_crop, stretched_crop
from ecgjax.augmentations.dipole import rotation, vcg
from ecgjax.augmentations.draws import levels_between, normals
from ecgjax.augmentations.filters import lowpass
from ecgjax.augmentations.masks import lead_mask, time_mask
from ecgjax.augmentations.noise import (
    baseline_shift,
    baseline_wander,
    emg,
    gaussian_noise,
    noise_floor,
    powerline,
)
from ecgjax.augmentations.resampling import resample
from ecgjax.augmentations.warps import amplitude_scale, polarity, time_reversal, time_warp

RNG = np.random.default_rng(0)
ECG = jnp.asarray(RNG.normal(0, 0.4, (200, 8)), jnp.float32)
RATE_HZ = 250
NOTHING = jnp.zeros((500, 12), jnp.float32)


def drawn(augmentation, ecg, *, num=200, seed=0, **settings):
    """`f32[num, time, lead]`, what so many keys give."""
    run = jax.jit(jax.vmap(functools.partial(augmentation, **settings), in_axes=(0, None)))
    return np.asarray(run(jax.random.split(jax.random.key(seed), num), ecg))


def assert_uniform(values, low, high):
    """Kolmogorov-Smirnov at a level that one draw in ten thousand fails; the seed is fixed."""
    assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("augmentation", "settings"),
    [
        (random_crop, {"ratio": 1.0}),
        (resized_crop, {"min_ratio": 1.0}),
        (resized_crop, {"min_ratio": 1.0, "method": "cubic"}),
        (stretched_crop, {"ratio": 1.0, "max_change": 0.0}),
        (stretched_crop, {"ratio": 1.0, "max_change": 0.0, "method": "cubic"}),
        (time_warp, {"sigma": 0.0}),
        (time_reversal, {"p": 0.0}),
        (vcg, {"max_angle_deg": 0.0, "max_scale": 1.0}),
        (vcg, {"max_angle_deg": 0.0, "max_scale": 1.0, "matrix": "kors"}),
        (amplitude_scale, {"sigma": 0.0}),
        (polarity, {"p": 0.0}),
        (gaussian_noise, {"min_sigma_mv": 0.0, "max_sigma_mv": 0.0}),
        (noise_floor, {"p": 0.0}),
        (lowpass, {"p": 0.0, "rate_hz": RATE_HZ}),
        (lowpass, {"min_hz": 125.0, "max_hz": 150.0, "rate_hz": RATE_HZ}),
        (emg, {"max_amplitude_mv": 0.0}),
        (emg, {"p": 0.0}),
        (powerline, {"max_amplitude_mv": 0.0, "rate_hz": RATE_HZ}),
        (powerline, {"p": 0.0, "rate_hz": RATE_HZ}),
        (baseline_wander, {"max_amplitude_mv": 0.0, "rate_hz": RATE_HZ}),
        (baseline_wander, {"p": 0.0, "rate_hz": RATE_HZ}),
        (baseline_shift, {"max_shift_mv": 0.0}),
        (baseline_shift, {"p": 0.0}),
        (time_mask, {"ratio": 0.0}),
        (lead_mask, {"drop_rate": 0.0}),
    ],
)
def test_no_strength_is_the_identity_bit_for_bit(augmentation, settings):
    np.testing.assert_array_equal(drawn(augmentation, ECG, num=2, **settings), np.broadcast_to(ECG, (2, *ECG.shape)))


@pytest.mark.parametrize("augmentation", [emg, noise_floor, polarity, time_reversal, baseline_shift])
def test_p_is_the_share_of_rows_that_change(augmentation):
    changed = (drawn(augmentation, ECG, num=400, p=0.3) != np.asarray(ECG)).any((1, 2))
    assert abs(changed.mean() - 0.3) < 4 * np.sqrt(0.21 / 400)


def crop_starts(start, samples, *, time=200, num=400):
    """Where crops of half the time begin, in a signal whose samples say their number."""
    ecg = jnp.broadcast_to(jnp.arange(time, dtype=jnp.float32)[:, None], (time, 8))
    recorded = None if start is None else Recorded(jnp.int32(start), jnp.int32(samples))
    crops = drawn(random_crop, ecg, num=num, recorded=recorded, ratio=0.5)
    assert crops.shape == (num, time // 2, 8)
    assert (np.diff(crops[:, :, 0], axis=1) == 1).all()
    return crops[:, 0, 0].astype(int)


PLACES = [
    (30, 130, 30, 60),  # long enough: inside what was recorded
    (0, 110, 0, 10),
    (90, 110, 90, 100),
    (30, 100, 30, 30),  # just as long
    (60, 40, 0, 60),  # shorter: covers it
    (150, 50, 100, 100),
    (0, 20, 0, 0),
    (90, 99, 89, 90),
]


@pytest.mark.parametrize(("start", "samples", "low", "high"), PLACES)
def test_crops_keep_to_what_was_recorded(start, samples, low, high):
    starts = crop_starts(start, samples)
    assert (starts.min(), starts.max()) == (low, high)
    assert len(np.unique(starts)) == high - low + 1, "every place comes"


def test_crops_of_whole_recordings_are_drawn_as_without_padding():
    np.testing.assert_array_equal(crop_starts(0, 200), crop_starts(None, None))


@pytest.mark.parametrize(("start", "samples", "low", "high"), PLACES[:5])
def test_resized_crops_keep_to_what_was_recorded(start, samples, low, high):
    ecg = jnp.broadcast_to(jnp.arange(200, dtype=jnp.float32)[:, None], (200, 8))
    recorded = Recorded(jnp.int32(start), jnp.int32(samples))
    first = drawn(resized_crop, ecg, recorded=recorded, min_ratio=0.5, max_ratio=0.5)[:, 0, 0]
    assert low - 1e-3 <= first.min()
    assert first.max() <= high + 1e-3
    assert np.ptp(first) >= 0.9 * (high - low)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_resized_crop_stretches_a_part_of_a_random_length_to_the_whole(method):
    # A slow cosine tells, at its ends and in between, which part was taken.
    time = np.arange(1000)
    ecg = jnp.asarray(np.cos(2 * np.pi * time / 2000)[:, None] * np.ones(8), jnp.float32)
    crops = np.arccos(np.clip(drawn(resized_crop, ecg, num=300, method=method)[..., 0], -1, 1)) * 2000 / (2 * np.pi)
    start, length = crops[:, 0], crops[:, -1] - crops[:, 0] + 1
    np.testing.assert_allclose(crops[:, 500], start + 500 * (length - 1) / 999, atol=0.5)
    assert_uniform(length / 1000, 0.5, 1.0)
    assert_uniform(start / (1000 - length), 0, 1)


def test_stretched_crop_plays_a_part_at_a_speed_about_the_usual():
    # The first lead tells the position that each sample was read at.
    ecg = np.column_stack([np.arange(400), RNG.normal(size=(400, 2)).cumsum(0)])
    run = functools.partial(drawn, stretched_crop, jnp.asarray(ecg, jnp.float32), num=300, max_change=0.25)
    crops = run(ratio=0.5).astype(np.float64)
    assert crops.shape == (300, 200, 3)
    position = crops[:, :, 0]
    speed = (position[:, -1] - position[:, 0]) / 199
    np.testing.assert_allclose(position, position[:, :1] + speed[:, None] * np.arange(200), atol=2e-4)
    assert_uniform(speed, 0.8, 1.25)
    assert_uniform(position[:, 0] / (399 - 199 * speed), 0, 1)
    for crop in crops[:20]:
        expected = np.column_stack([np.interp(crop[:, 0], np.arange(400), ecg[:, lead]) for lead in (1, 2)])
        np.testing.assert_allclose(crop[:, 1:], expected, atol=2e-3)
    # At the greatest ratio there is just room for the greatest speed.
    position = run(ratio=0.8)[:, :, 0]
    assert position.min() >= 0
    assert position.max() <= 399


@pytest.mark.parametrize(("start", "samples", "low", "high"), PLACES[:5])
def test_stretched_crops_keep_to_what_was_recorded(start, samples, low, high):
    ecg = jnp.broadcast_to(jnp.arange(200, dtype=jnp.float32)[:, None], (200, 8))
    recorded = Recorded(jnp.int32(start), jnp.int32(samples))
    first = drawn(stretched_crop, ecg, recorded=recorded, ratio=0.5, max_change=0.0)[:, 0, 0]
    assert low - 1e-3 <= first.min()
    assert first.max() <= high + 1e-3
    assert np.ptp(first) >= 0.9 * (high - low)


def test_cubic_resampling_is_closer_than_linear_to_what_lies_between():
    time, position = np.arange(100), RNG.uniform(3, 96, 50)
    wave = lambda t: np.sin(2 * np.pi * t / 9)[:, None] * np.ones(2)  # noqa: E731
    error = {
        method: np.abs(
            resample(jnp.asarray(wave(time), jnp.float32), jnp.asarray(position, jnp.float32), method=method)
            - wave(position)
        ).max()
        for method in ("linear", "cubic")
    }
    assert error["linear"] < 0.07
    assert error["cubic"] < 0.3 * error["linear"]


def test_rotation_against_scipy():
    angles = RNG.uniform(-1, 1, (20, 3))
    expected = Rotation.from_euler("xyz", angles).as_matrix()  # extrinsic: R_z R_y R_x
    np.testing.assert_allclose(rotation(jnp.asarray(angles, jnp.float32)), expected, atol=1e-6)


def test_vcg_moves_a_pure_dipole_as_its_matrices_say():
    # On leads that a dipole explains wholly, 3KG is D·S·R·(dipole): recover S·R by least squares, then R up to scale.
    dipole = RNG.normal(size=(200, 3))
    ecg = jnp.asarray(dipole @ leads.DOWER.T, jnp.float32)
    scales, angles = [], []
    for moved in drawn(vcg, ecg, num=400, seed=3).astype(np.float64):
        change = np.linalg.lstsq(dipole, moved @ np.linalg.pinv(leads.DOWER).T, rcond=None)[0].T
        scale = np.linalg.norm(change, axis=1)
        turned = change / scale[:, None]
        np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-4)
        assert np.linalg.det(turned) == pytest.approx(1, abs=1e-4)
        scales.append(scale)
        angles.append(np.degrees([np.arctan2(turned[2, 1], turned[2, 2]), np.arcsin(-turned[2, 0])]))
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
    residual = np.eye(8) - leads.DOWER @ leads.DOWER_PINV
    for moved in drawn(vcg, ECG, num=3):
        np.testing.assert_allclose(moved @ residual.T, np.asarray(ECG) @ residual.T, atol=1e-5)


def test_vcg_with_kors_matrices_changes_the_leads_within_its_forward_matrix():
    outside = np.eye(8) - leads.KORS_FORWARD @ np.linalg.pinv(leads.KORS_FORWARD)
    change = drawn(vcg, ECG, num=3, matrix="kors") - np.asarray(ECG)
    np.testing.assert_allclose(change @ outside.T, 0, atol=1e-5)
    assert np.abs(change).max() > 0.1


def test_normals_are_standard_normal_and_uncorrelated():
    draw = np.asarray(normals(jax.random.key(0), (2001, 12)))
    assert draw.shape == (2001, 12)
    assert stats.kstest(draw.ravel(), "norm").pvalue > 1e-4
    assert stats.kstest(np.asarray(normals(jax.random.key(1), (2001, 12))).ravel(), "norm").pvalue > 1e-4
    bound = 5 / np.sqrt(1000)
    assert np.abs(np.corrcoef(draw.T) - np.eye(12)).max() < bound, "leads"
    for lag in (1, 2, 12, 1000, 1001):
        assert abs(np.mean(draw[lag:] * draw[:-lag])) < bound / np.sqrt(6), "samples, the halves of a pair among them"
    assert 3.5 < np.abs(draw).max() < 6
    other = np.asarray(normals(jax.random.key(1), (2001, 12)))
    assert abs(np.mean(draw * other)) < bound / np.sqrt(6)


def test_gaussian_noise_has_one_spread_a_row():
    spread = drawn(gaussian_noise, NOTHING, min_sigma_mv=0.0, max_sigma_mv=0.1).std(1)
    np.testing.assert_allclose(spread, np.broadcast_to(spread.mean(1, keepdims=True), spread.shape), rtol=0.2)
    assert_uniform(spread.mean(1), 0, 0.1)


def test_noise_floors_are_log_uniform_and_leads_differ_by_a_factor():
    alike = drawn(noise_floor, NOTHING, num=400, min_sigma_mv=0.002, max_sigma_mv=0.2, max_lead_ratio=1.0).std(1)
    np.testing.assert_allclose(alike, np.broadcast_to(alike.mean(1, keepdims=True), alike.shape), rtol=0.2)
    assert_uniform(np.log(alike.mean(1)), np.log(0.002), np.log(0.2))
    fixed = drawn(noise_floor, NOTHING, num=400, min_sigma_mv=0.05, max_sigma_mv=0.05, max_lead_ratio=4.0)
    assert_uniform(np.log(fixed.std(1)[:, 0] / 0.05), -np.log(4), np.log(4))
    assert abs(np.corrcoef(np.log(fixed.std(1))[:, :2].T)[0, 1]) < 0.2, "each lead draws for itself"


@pytest.mark.parametrize("rate_hz", [100, 250])
def test_lowpass_is_a_windowed_sinc_of_a_log_uniform_cutoff(rate_hz):
    reach, middle = round(0.05 * rate_hz), 100
    run = functools.partial(drawn, lowpass, num=100, rate_hz=rate_hz, min_hz=20.0, max_hz=45.0)
    taps = run(jnp.zeros((201, 1), jnp.float32).at[middle].set(1.0))[:, :, 0].astype(np.float64)
    assert not taps[:, : middle - reach].any()
    assert not taps[:, middle + reach + 1 :].any()
    taps = taps[:, middle - reach : middle + reach + 1]
    np.testing.assert_allclose(taps.sum(1), 1, atol=1e-6)
    levels = levels_between(20.0, 45.0)
    published = np.array([signal.firwin(2 * reach + 1, hertz, window="hamming", fs=rate_hz) for hertz in levels])
    which = np.abs(taps[:, None] - published[None]).max(2).argmin(1)
    np.testing.assert_allclose(taps, published[which], atol=1e-6)
    assert_uniform(np.log(levels[which]), np.log(20), np.log(45))
    # The same keys filter a recording by the same taps, with its ends repeated.
    ecg = RNG.normal(size=(120, 3)).cumsum(0)
    padded = np.pad(ecg, ((reach, reach), (0, 0)), mode="edge")
    for found, own in zip(run(jnp.asarray(ecg, jnp.float32))[:10], taps, strict=False):
        expected = np.column_stack([np.convolve(padded[:, lead], own, mode="valid") for lead in range(3)])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_lowpass_halves_a_wave_at_its_cutoff_and_keeps_what_is_far_below():
    time = np.arange(1000) / RATE_HZ
    waves = jnp.asarray(np.cos(2 * np.pi * time[:, None] * np.array([[1.0, 40.0, 110.0]])), jnp.float32)
    run = drawn(lowpass, waves, num=2, rate_hz=RATE_HZ, min_hz=40.0, max_hz=40.0)[0, 125:-125]
    np.testing.assert_allclose(run.std(0) * np.sqrt(2), [1, 0.5, 0], atol=0.02)


def test_emg_has_a_spread_of_its_own_in_every_lead_and_all_frequencies():
    noise = drawn(emg, NOTHING)
    assert_uniform(noise.std(1).ravel(), 0, 0.5)
    power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean((0, 2))[1:]
    assert power[:125].sum() / power.sum() == pytest.approx(0.5, abs=0.02), "as much below 62.5 Hz as above"


def test_powerline_is_one_line_at_50_or_60_hz_alike_in_all_leads():
    hum = drawn(powerline, NOTHING, rate_hz=RATE_HZ)
    np.testing.assert_array_equal(hum, np.broadcast_to(hum[:, :, :1], hum.shape))
    spectrum = np.fft.rfft(hum[:, :, 0]) / 250  # 2 s: a bin is half a hertz
    hertz = np.abs(spectrum).argmax(1) / 2
    assert set(hertz) == {50.0, 60.0}
    assert abs((hertz == 50).mean() - 0.5) < 4 * 0.5 / np.sqrt(200)
    line = spectrum[np.arange(200), (2 * hertz).astype(int)]
    assert_uniform(np.abs(line), 0, 0.5)
    assert_uniform(np.angle(line), -np.pi, np.pi)
    np.testing.assert_allclose(np.sum(np.abs(spectrum) ** 2, 1), np.abs(line) ** 2, rtol=1e-3)


def test_powerline_keeps_its_frequency_to_the_end_of_long_recordings():
    hum = drawn(powerline, jnp.zeros((5000, 1), jnp.float32), num=4, rate_hz=500, mains_hz=(50.0,))[:, :, 0]
    np.testing.assert_allclose(hum[:, -1000:], hum[:, :1000], atol=2e-3)


def test_baseline_wander_is_slow_and_each_lead_sees_the_same_waves():
    wander = drawn(baseline_wander, jnp.zeros((10_000, 3), jnp.float32), num=60, rate_hz=RATE_HZ)
    _, size, right = np.linalg.svd(wander, full_matrices=False)
    assert (size[:, 1] < 1e-4 * size[:, 0]).all(), "a gain for each lead"
    # Ratios of leads whose gains are N(1, ½²): that of the waves themselves is not known.
    assert np.median(right[:, 0, 1:] / right[:, 0, :1]) == pytest.approx(1, abs=0.25)
    # A Hann window keeps what is in one bin out of the others.
    power = np.abs(np.fft.rfft(wander[:, :, 0] * np.hanning(10_000)[None], axis=1)) ** 2
    hertz = np.fft.rfftfreq(10_000, 1 / RATE_HZ)
    assert (power[:, hertz > 0.3].sum(1) < 1e-3 * power.sum(1)).all()
    assert power[:, (hertz > 0.05) & (hertz < 0.2)].sum() > 0.5 * power.sum()
    # Three cosines of amplitude U(0, ½): mean square 3 · (1/12) / 2, times 1 + ¼ for the gain.
    assert np.mean(wander**2) == pytest.approx(0.125 * 1.25, rel=0.3)


def test_baseline_shift_moves_one_segment_by_one_size():
    shifted = drawn(baseline_shift, NOTHING)
    size = np.abs(shifted).max((1, 2))
    assert_uniform(size, 0, 0.25)
    moved = np.abs(shifted) > 0
    np.testing.assert_array_equal(moved, np.broadcast_to(moved[:, :, :1], moved.shape))
    np.testing.assert_array_equal(np.abs(shifted)[moved], np.broadcast_to(size[:, None, None], moved.shape)[moved])
    edges = np.diff(moved[:, :, 0].astype(int), axis=1, prepend=0, append=0)
    assert ((edges == 1).sum(1) == 1).all()
    length = moved[:, :, 0].sum(1)
    assert length.mean() == pytest.approx(100, abs=4 * 20 / np.sqrt(200))
    assert length.std() == pytest.approx(20, rel=0.25)
    up = (shifted > 0).any(1)
    assert abs(up.mean() - 0.5) < 4 * 0.5 / np.sqrt(up.size)
    assert_uniform((edges == 1).argmax(1) / (500 - length), 0, 1)


def test_amplitude_scale_is_a_gain_for_each_lead():
    gain = drawn(amplitude_scale, ECG) / np.asarray(ECG)
    np.testing.assert_allclose(gain, np.broadcast_to(gain[:, :1], gain.shape), rtol=1e-5)
    assert stats.kstest((gain[:, 0].ravel() - 1) / 0.1, "norm").pvalue > 1e-4


def test_polarity_and_time_reversal_turn_the_whole_recording():
    np.testing.assert_array_equal(drawn(polarity, ECG, num=1, p=1.0)[0], -ECG)
    np.testing.assert_array_equal(drawn(time_reversal, ECG, num=1, p=1.0)[0], ECG[::-1])


def test_time_warp_follows_a_spline_of_speeds_and_keeps_the_ends():
    time = np.arange(1000)
    ecg = jnp.asarray(time[:, None] * np.ones(2), jnp.float32)
    position = drawn(time_warp, ecg, num=300)[..., 0].astype(np.float64)
    np.testing.assert_allclose(position[:, 0], 0, atol=1e-3)
    np.testing.assert_allclose(position[:, -1], 999, rtol=1e-6)
    assert (np.diff(position) > 0).all(), "time never runs back"
    # Its speed is the natural cubic spline through its own values at the knots, to a digit of the drift.
    knots = np.linspace(0, 999, 6)
    speed = np.gradient(position, axis=1)
    at_knots = np.stack([np.interp(knots, time, one) for one in speed])
    spline = CubicSpline(knots, at_knots, axis=1, bc_type="natural")(time)
    np.testing.assert_allclose(speed[:, 2:-2], spline[:, 2:-2], atol=0.02)
    # Draws cut off at 2.25 σ spread by .924 σ; fixing the ends takes out what the knots have in common.
    relative = at_knots - at_knots.mean(1, keepdims=True)
    assert relative.std() == pytest.approx(0.2 * 0.924 * np.sqrt(5 / 6), rel=0.08)


@pytest.mark.parametrize("num_knots", [1, 4, 16])
def test_time_cannot_run_back_at_the_largest_spread(num_knots):
    knots = np.linspace(0, 999, num_knots + 2)
    basis = CubicSpline(knots, np.eye(num_knots + 2), bc_type="natural")(np.arange(1000))
    assert 0.2 * warps._MOST_DEVIATIONS * np.abs(basis - basis.mean(0)).sum(1).max() < 1


def test_time_mask_zeroes_one_circular_window_a_lead():
    ecg = jnp.ones((200, 12), jnp.float32)
    gone = drawn(time_mask, ecg, num=50, ratio=0.3) == 0
    assert (gone.sum(1) == 60).all()
    edges = gone & ~np.roll(gone, 1, axis=1)
    assert (edges.sum(1) == 1).all(), "one contiguous window, the end being joined to the start"
    starts = edges.argmax(1)
    assert_uniform(starts.ravel() / 200, 0, 1)
    assert (starts.std(1) > 0).all(), "each lead has its own window"


def test_lead_mask_drops_each_lead_by_itself_but_never_all():
    ecg = jnp.ones((4, 12), jnp.float32)
    kept = drawn(lead_mask, ecg, num=2000)
    assert ((kept == 0) | (kept == 1)).all()
    np.testing.assert_array_equal(kept, np.broadcast_to(kept[:, :1], kept.shape))
    share = kept[:, 0].mean(0)
    assert np.abs(share - 0.5).max() < 4 * 0.5 / np.sqrt(2000)
    assert np.abs(np.corrcoef(kept[:, 0].T) - np.eye(12)).max() < 5 / np.sqrt(2000)
    strict = drawn(lead_mask, ecg, num=600, drop_rate=0.99)[:, 0]
    assert (strict.sum(1) >= 1).all()
    # One lead, any with equal chance, where all would go.
    assert np.abs(strict.mean(0) - 1 / 12).max() < 0.06


def test_inverse_dower_is_the_published_one():
    # Edenbrandt & Pahlm 1988, columns I II V1…V6.
    published = [
        [0.156, -0.010, -0.172, -0.074, 0.122, 0.231, 0.239, 0.194],
        [-0.227, 0.887, 0.057, -0.019, -0.106, -0.022, 0.041, 0.048],
        [0.022, 0.102, -0.229, -0.310, -0.246, -0.063, 0.055, 0.108],
    ]
    np.testing.assert_allclose(leads.DOWER_PINV, published, atol=6e-4)


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
