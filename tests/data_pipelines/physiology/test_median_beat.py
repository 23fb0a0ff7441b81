"""Measured intervals and amplitudes against ECGs whose waves are known, and against annotated real ones."""

import ast
import csv

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.physiology.median_beat import NAMES, UNITS, measure
from data_pipelines.records import STORED_LEADS

#: Amplitude of P, Q, R, S and T in each stored lead, mV.
_P = np.array([0.06, 0.12, 0.03, 0.05, 0.05, 0.05, 0.05, 0.05])
_R = np.array([0.8, 1.0, 0.2, 0.5, 0.9, 1.4, 1.3, 1.0])
_S = np.array([-0.1, -0.2, -0.9, -1.3, -0.9, -0.5, -0.2, -0.1])
_T = np.array([0.2, 0.3, 0.05, 0.5, 0.5, 0.4, 0.3, 0.25])


def _ecg(*, rate_hz=500, seconds=10.0, rr_s=0.8, pr_shift=0.0, p=1.0, qrs_width=1.0, t=1.0, t_shift=0.0, gain=1.0,
         limb=None, noise=0.0, wander=0.0, seed=0):  # fmt: skip
    """Beats of Gaussian waves, `int16[time, 8]`, R peaks on whole multiples of RR after 0.4 s."""
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    ecg = np.zeros((len(at), 8))
    waves = (
        (-0.150 - pr_shift, 0.018, p * _P),
        (0.0, 0.010 * qrs_width, _R),
        (0.028 * qrs_width, 0.010 * qrs_width, _S),
        (0.260 + t_shift, 0.040, t * _T),
    )
    for beat in np.arange(0.4, seconds, rr_s):
        for center, width, amplitude in waves:
            ecg += np.exp(-0.5 * ((at - beat - center) / width) ** 2)[:, None] * amplitude
    if limb is not None:
        ecg[:, 0] *= limb[0] / ecg[:, 0].max()
        ecg[:, 1] = ecg[:, 0] / limb[0] * limb[1]
    rng = np.random.default_rng(seed)
    ecg = gain * ecg + noise * rng.normal(size=ecg.shape) + wander * np.sin(2 * np.pi * 0.25 * at)[:, None]
    return np.round(ecg * 1000).astype(np.int16)


def _measure(*signals, rate_hz=500):
    found = measure(np.stack(signals), sampling_rate_hz=rate_hz, processes=1, progress=False)
    return [dict(zip(found.names, row, strict=True)) for row in found.values.astype(float)], found.failures


def test_names_units_and_shape():
    found = measure(np.stack([_ecg()] * 3), sampling_rate_hz=500, processes=1, progress=False)
    assert found.values.shape == (3, len(NAMES))
    assert found.values.dtype == np.float32
    assert found.names == NAMES
    assert dict(zip(found.names, found.units, strict=True)) == UNITS
    assert {f"T_{lead}" for lead in STORED_LEADS} < set(NAMES)
    assert np.isfinite(found.values).all()
    assert found.failures == {}


def test_rate_and_its_variability():
    (regular,), _ = _measure(_ecg(rr_s=0.75))
    assert regular["rr"] == pytest.approx(750, abs=2)
    assert regular["sdnn"] < 2
    assert regular["rmssd"] < 3
    assert regular["pnn50"] == 0


def test_intervals_of_a_known_beat():
    """A Gaussian wave of width σ reaches a twentieth to a quarter of its height 1.7 to 2.4 σ from its centre."""
    (beat,), _ = _measure(_ecg())
    onset = -0.022  # R at 0, σ 10 ms
    assert beat["pr"] == pytest.approx((0.150 + 1.9 * 0.018 + onset) * 1000, abs=16)
    assert beat["qrs"] == pytest.approx((0.028 + 0.045) * 1000, abs=16)
    assert beat["qt"] == pytest.approx((0.260 + 2 * 0.040 - onset) * 1000, abs=20)
    assert beat["qtc_bazett"] == pytest.approx(beat["qt"] / np.sqrt(0.8), rel=0.01)
    assert beat["t_peak"] == pytest.approx(260, abs=6)
    assert beat["p_duration"] == pytest.approx(4 * 18, abs=24)


@pytest.mark.parametrize(
    ("change", "name", "by", "tolerance"),
    [
        ({"pr_shift": 0.040}, "pr", 40, 5),
        ({"pr_shift": -0.030}, "pr", -30, 6),
        ({"t_shift": 0.050}, "qt", 50, 5),
        ({"t_shift": 0.050}, "t_peak", 50, 3),
        ({"qrs_width": 1.8}, "qrs", 0.8 * 73, 12),
    ],
)
def test_intervals_follow_the_waves(change, name, by, tolerance):
    (plain, changed), _ = _measure(_ecg(), _ecg(**change))
    assert changed[name] - plain[name] == pytest.approx(by, abs=tolerance)


def test_amplitudes_of_every_lead_with_their_signs():
    (beat, inverted), _ = _measure(_ecg(), _ecg(t=-1.0))
    for lead, p, r, s, t in zip(STORED_LEADS, _P, _R, _S, _T, strict=True):
        # Neighbouring waves overlap a little, the wander filter dips after the QRS.
        assert beat[f"R_{lead}"] == pytest.approx(r + s * np.exp(-0.5 * 2.8**2), abs=0.06)
        assert beat[f"S_{lead}"] == pytest.approx(s, abs=0.09)
        assert beat[f"T_{lead}"] == pytest.approx(t, abs=0.06)
        assert beat[f"P_{lead}"] == pytest.approx(p, abs=0.05)
        assert inverted[f"T_{lead}"] == pytest.approx(-t, abs=0.09)


def test_gain_scales_amplitudes_and_leaves_intervals():
    (plain, doubled), _ = _measure(_ecg(), _ecg(gain=2.0))
    for name in NAMES:
        factor = 2 if UNITS[name] == "mV" else 1
        assert doubled[name] == pytest.approx(factor * plain[name], rel=0.02, abs=2 if UNITS[name] == "ms" else 5e-3), (
            name
        )


@pytest.mark.parametrize(
    ("limb", "axis"),
    [
        ((1.0, 0.5), 0.0),  # aVF = II − I/2 = 0
        ((1.0, 1.0), 30.0),
        ((0.5, 1.0), 60.0),
        ((1.0, -0.5), -49.1),
    ],
)
def test_qrs_axis(limb, axis):
    (beat,), _ = _measure(_ecg(limb=limb))
    assert beat["qrs_axis"] == pytest.approx(axis, abs=2)


@pytest.mark.parametrize("rate_hz", [100, 250, 360, 1000])
def test_does_not_depend_on_the_stored_rate(rate_hz):
    (plain,), _ = _measure(_ecg())
    (other,), _ = _measure(_ecg(rate_hz=rate_hz), rate_hz=rate_hz)
    for name in NAMES:
        assert other[name] == pytest.approx(plain[name], rel=0.03, abs=6 if UNITS[name] == "ms" else 0.03), name


def test_noise_and_wander_change_little():
    (plain, noisy), _ = _measure(_ecg(), _ecg(noise=0.03, wander=0.5))
    assert noisy["rr"] == pytest.approx(plain["rr"], abs=4)
    for name in ("pr", "qrs", "qt"):
        assert noisy[name] == pytest.approx(plain[name], abs=20)
    # The sign of a wave no larger than the noise is not determined.
    for name in NAMES:
        if UNITS[name] == "mV" and abs(plain[name]) > 0.1:
            assert noisy[name] == pytest.approx(plain[name], abs=0.1), name


def test_absent_p_wave_is_missing_and_counted():
    (beat,), failures = _measure(_ecg(p=0.0))
    assert np.isnan(beat["pr"])
    assert np.isnan(beat["p_duration"])
    assert np.isfinite([beat["qrs"], beat["qt"], beat["rr"], beat["R_V5"]]).all()
    assert failures == {"no_pr": 1, "no_p_duration": 1}


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (np.zeros((5000, 8), np.int16), "flat_lead"),
        (np.full((5000, 8), 32767, np.int16), "flat_lead"),
        (_ecg(seconds=2.0, rr_s=1.0), "few_beats"),
        (_ecg(rr_s=6.0), "few_beats"),
    ],
)
def test_what_has_no_rhythm_is_missing_with_its_reason(signal, reason):
    (beat,), failures = _measure(signal)
    assert np.isnan(list(beat.values())).all()
    assert failures == {reason: 1}


def _odd_signals():
    rng = np.random.default_rng(0)
    spike = np.zeros((5000, 8), np.int16)
    spike[2500] = 30000
    clipped = np.clip(_ecg(gain=40.0).astype(int), -32768, 32767).astype(np.int16)
    return {
        "noise": rng.integers(-2000, 2000, (5000, 8)).astype(np.int16),
        "full_scale_noise": rng.integers(-32768, 32767, (5000, 8)).astype(np.int16),
        "spike": spike,
        "square": np.tile(np.repeat([-32768, 32767], 50), 50)[:, None].repeat(8, 1).astype(np.int16),
        "ramp": np.linspace(-32768, 32767, 5000)[:, None].repeat(8, 1).astype(np.int16),
        "only_lead_ii": _ecg() * (np.arange(8) == 1).astype(np.int16),
        "half_padded": np.r_[_ecg()[:2500], np.zeros((2500, 8), np.int16)],
        "clipped": clipped,
        "fast": _ecg(rr_s=0.25),
        "one_count": (np.arange(5000)[:, None].repeat(8, 1) % 2).astype(np.int16),
    }


@pytest.mark.parametrize("name", _odd_signals())
def test_odd_signals_never_raise_nor_warn(name):
    (beat,), failures = _measure(_odd_signals()[name])
    assert not np.isinf(list(beat.values())).any()
    if np.isnan(list(beat.values())).any():
        assert failures


@pytest.mark.parametrize("seconds", [0.002, 0.1, 0.6, 1.5])
def test_very_short_signals_never_raise(seconds):
    (beat,), failures = _measure(_ecg(seconds=seconds))
    assert np.isnan(beat["rr"])
    assert len(failures) == 1


@pytest.mark.slow
def test_processes_give_the_same_in_the_same_order():
    signals = np.stack([_ecg(rr_s=0.6 + 0.01 * i, seconds=5.0) for i in range(20)])
    one = measure(signals, sampling_rate_hz=500, processes=1, progress=False)
    two = measure(signals, sampling_rate_hz=500, processes=2, progress=False)
    np.testing.assert_array_equal(one.values, two.values)
    assert one.failures == two.failures
    assert (np.diff(one.values[:, NAMES.index("rr")]) > 5).all()


def test_no_records():
    found = measure(np.zeros((0, 5000, 8), np.int16), sampling_rate_hz=500, progress=False)
    assert found.values.shape == (0, len(NAMES))


@pytest.mark.parametrize(
    "signals", [np.zeros((2, 5000, 8)), np.zeros((2, 8, 5000), np.int16), np.zeros((5000, 8), np.int16)]
)
def test_refuses_another_form(signals):
    with pytest.raises(DataError, match="int16"):
        measure(signals, sampling_rate_hz=500)


@pytest.mark.slow
def test_separates_annotated_diagnoses(real_data):
    """Conduction diagnoses of PTB-XL are defined by these intervals: they must separate them."""
    import wfdb

    from ecgjax.evaluation.metrics.ranking import auroc

    folder = real_data / "ptbxl"
    with (folder / "ptbxl_database.csv").open() as file:
        rows = list(csv.DictReader(file))
    codes = [ast.literal_eval(row["scp_codes"]) for row in rows]
    conduction = {"CLBBB", "CRBBB", "1AVB"}
    keep = [i for i, found in enumerate(codes) if conduction & set(found) or i % 4 == 0]
    signals = []
    for i in keep:
        signal, fields = wfdb.rdsamp(str(folder / rows[i]["filename_lr"]))
        names = [name.upper() for name in fields["sig_name"]]
        signals.append(np.round(signal[:, [names.index(lead) for lead in STORED_LEADS]] * 1000).astype(np.int16))
    found = measure(np.stack(signals), sampling_rate_hz=100, processes=1, progress=False)
    column = dict(zip(found.names, found.values.T, strict=True))
    normal = np.array(["NORM" in codes[i] for i in keep])
    assert 140 < np.nanmedian(column["pr"][normal]) < 180
    assert 75 < np.nanmedian(column["qrs"][normal]) < 105
    assert 340 < np.nanmedian(column["qt"][normal]) < 420
    for code, name, least in (("CLBBB", "qrs", 0.95), ("CRBBB", "qrs", 0.9), ("1AVB", "pr", 0.85)):
        labels = np.array([code in codes[i] for i in keep])
        known = np.isfinite(column[name])
        assert auroc(labels[known].astype(int), column[name][known]) > least, code


def test_agrees_with_the_simulators_own_intervals():
    from data_pipelines.simulation.cohort import Cohort, CohortConfig

    cohort = Cohort(CohortConfig(num_patients=80, sampling_rate_hz=100, seed=3))
    simulated = cohort.simulate(0, cohort.num_records)
    found = measure(simulated.signal, sampling_rate_hz=100, processes=1, progress=False)
    column = dict(zip(found.names, found.values.T, strict=True))
    for name, bias_ms, scatter_ms in (("pr", 6, 10), ("qrs", 14, 12), ("qt", 10, 10)):
        truth = simulated.scalars[f"{name}_ms"]
        errors = (column[name] - truth)[np.isfinite(column[name]) & np.isfinite(truth)]
        assert len(errors) > 0.85 * len(truth)
        assert abs(np.median(errors)) < bias_ms, name
        assert 1.48 * np.median(np.abs(errors - np.median(errors))) < scatter_ms, name
    assert np.nanmedian(np.abs(60_000 / column["rr"] - simulated.scalars["heart_rate_bpm"])) < 1
