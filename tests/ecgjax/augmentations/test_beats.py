"""R peaks found on the device, against the simulator's and NeuroKit2's; beats in another order."""

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.simulation.cohort import Cohort, CohortConfig
from data_pipelines.simulation.random_numbers import Draws
from data_pipelines.simulation.rhythm import draw_rhythms
from data_pipelines.simulation.states import draw_states
from ecgjax import leads
from ecgjax.augmentations.beats import heartbeat_shuffle, permute_beats, r_peaks

#: A peak counts as found within so many seconds.
TOLERANCE_S = 0.05
#: Peaks nearer than this to the ends are not counted: half a QRS may be missing.
EDGE_S = 0.15


def simulated(num_records, *, rate_hz, seed=0, noise=1.0):
    """`f32[n, time, 8]`, mV, and the times of the R peaks of each record in seconds."""
    config = CohortConfig(seed=seed, num_patients=num_records, sampling_rate_hz=rate_hz, noise=noise)
    records = Cohort(config).simulate(0, num_records)
    visit = records.visit.astype(np.int64)
    draws = Draws(seed=seed, patient=records.patient, visit=visit)
    rhythms = draw_rhythms(draws, draw_states(draws, visit=visit), seconds=config.seconds)
    times = [one[(one >= 0) & (one < config.seconds)] for one in rhythms.time_s]
    return np.array(leads.millivolts(jnp.asarray(records.signal))), times


def found_by(ecg, *, rate_hz):
    """Times of the R peaks that are found in each record, seconds."""
    peaks = np.asarray(jax.jit(jax.vmap(functools.partial(r_peaks, rate_hz=rate_hz)))(jnp.asarray(ecg, jnp.float32)))
    return [np.flatnonzero(one) / rate_hz for one in peaks]


def agreement(found, expected, *, seconds=10.0):
    """Sensitivity, positive predictive value and the offsets of the matched ones in seconds."""
    hits, num_found, num_expected, offsets = 0, 0, 0, []
    for one, other in zip(found, expected, strict=True):
        distance = np.abs(one[:, None] - other[None, :])
        seen, true = (
            (distance <= TOLERANCE_S).any(axis)[(times > EDGE_S) & (times < seconds - EDGE_S)]
            for axis, times in ((0, other), (1, one))
        )
        hits, num_expected = hits + np.array([seen.sum(), true.sum()]), num_expected + len(seen)
        num_found += len(true)
        if len(one) and len(other):
            nearest = one[distance.argmin(0)] - other
            offsets.append(nearest[np.abs(nearest) <= TOLERANCE_S])
    return hits[0] / num_expected, hits[1] / num_found, np.concatenate(offsets)


@pytest.mark.parametrize("rate_hz", [100, 500])
def test_r_peaks_of_simulated_records(rate_hz):
    ecg, times = simulated(30, rate_hz=rate_hz)
    sensitivity, predictive, offsets = agreement(found_by(ecg, rate_hz=rate_hz), times)
    assert sensitivity > 0.985
    assert predictive > 0.985
    assert np.median(np.abs(offsets)) <= 0.015


def test_r_peaks_of_real_records_are_those_of_neurokit(real_data):
    import neurokit2
    import wfdb

    with (real_data / "ptbxl" / "ptbxl_database.csv").open() as file:
        names = [row["filename_hr"] for row in csv.DictReader(file)][:40]
    ecg, expected = [], []
    for name in names:
        signal, fields = wfdb.rdsamp(str(real_data / "ptbxl" / name))
        ecg.append(signal[:, [0, 1, *range(6, 12)]])
        lead_two = neurokit2.ecg_clean(signal[:, fields["sig_name"].index("II")], sampling_rate=500)
        _, peaks = neurokit2.ecg_peaks(lead_two, sampling_rate=500)
        expected.append(np.asarray(peaks["ECG_R_Peaks"]) / 500)
    sensitivity, predictive, _ = agreement(found_by(np.stack(ecg), rate_hz=500), expected)
    assert sensitivity > 0.97
    assert predictive > 0.97


def test_silence_has_no_r_peaks_and_neither_has_a_single_row_a_batch_mate():
    ecg, _ = simulated(3, rate_hz=100)
    batch = jnp.concatenate([jnp.asarray(ecg), jnp.zeros((1, 1000, 8), jnp.float32)])
    find = jax.jit(jax.vmap(functools.partial(r_peaks, rate_hz=100)))
    peaks = np.asarray(find(batch))
    assert not peaks[3].any()
    for row in range(4):
        np.testing.assert_array_equal(find(batch[row : row + 1])[0], peaks[row])


def test_padding_has_no_r_peaks():
    ecg, _ = simulated(4, rate_hz=100)
    ecg[:, :300] = 0
    assert not any((times < 2.9).any() for times in found_by(ecg, rate_hz=100))


def test_whole_beats_change_places_and_head_and_tail_do_not():
    ecg = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    peaks = [20, 70, 100, 160, 220, 290]
    permute = jax.jit(permute_beats)
    orders = set()
    head, *beats, tail = np.split(ecg, peaks)
    for seed in range(60):
        shuffled = np.asarray(permute(jax.random.key(seed), jnp.asarray(ecg), jnp.asarray([*peaks, 300, 300])))
        np.testing.assert_array_equal(shuffled[:20], head)
        np.testing.assert_array_equal(shuffled[290:], tail)
        # Each sample is a row of its own, so that a beat is known by its first one.
        order, at = [], 20
        while at < 290:
            order.append(next(k for k, beat in enumerate(beats) if (beat[0] == shuffled[at]).all()))
            np.testing.assert_array_equal(shuffled[at : at + len(beats[order[-1]])], beats[order[-1]])
            at += len(beats[order[-1]])
        assert sorted(order) == [0, 1, 2, 3, 4]
        orders.add(tuple(order))
    assert len(orders) > 35, "of 120 orders"


@pytest.mark.parametrize("at", [(), (50,), (50, 120)])
def test_too_few_beats_stay_as_they_are(at):
    ecg = jnp.asarray(np.random.default_rng(0).normal(size=(300, 3)), jnp.float32)
    peaks = jnp.asarray([*at, 300, 300, 300], jnp.int32)
    np.testing.assert_array_equal(jax.jit(permute_beats)(jax.random.key(0), ecg, peaks), ecg)


def test_the_shuffle_of_records_keeps_every_sample_and_the_distribution_of_rr():
    ecg, _ = simulated(6, rate_hz=100)
    shuffle = jax.jit(jax.vmap(functools.partial(heartbeat_shuffle, rate_hz=100)))
    shuffled = np.asarray(shuffle(jax.random.split(jax.random.key(0), 6), jnp.asarray(ecg)))
    assert (shuffled != ecg).any((1, 2)).all()
    for before, after in zip(ecg, shuffled, strict=True):
        np.testing.assert_array_equal(before[np.lexsort(before.T)], after[np.lexsort(after.T)])
    found = found_by(shuffled, rate_hz=100)
    for before, after in zip(found_by(ecg, rate_hz=100), found, strict=True):
        assert abs(len(before) - len(after)) <= 1
        assert abs(np.diff(before).mean() - np.diff(after).mean()) < 0.1
