"""The physiology vector against ECGs whose waves are known, brute-force formulas, and the simulator's truth."""

import itertools
import math
import statistics

import numpy as np
import pytest

from data_pipelines.physiology.beats import Beats, measure_beats, prepare
from data_pipelines.physiology.vector import NAMES, NUM_BEATS, UNITS, UNUSABLE, Missing, measure_record
from data_pipelines.records import STORED_LEADS

RATE = 500
LEAD_II = STORED_LEADS.index("II")

#: Amplitude of P, R, S and T in each stored lead, mV.
_P = np.array([0.06, 0.12, 0.03, 0.05, 0.05, 0.05, 0.05, 0.05])
_R = np.array([0.8, 1.0, 0.2, 0.5, 0.9, 1.4, 1.3, 1.0])
_S = np.array([-0.1, -0.2, -0.9, -1.3, -0.9, -0.5, -0.2, -0.1])
_T = np.array([0.2, 0.3, 0.05, 0.5, 0.5, 0.4, 0.3, 0.25])
_ST = np.ones(8)

#: R peaks of 12 regular beats.
REGULAR = tuple(0.4 + 0.8 * np.arange(12))


def _ecg(r_s=REGULAR, *, rate_hz=RATE, seconds=10.0, p=1.0, r=1.0, s=1.0, t=1.0, st=0.0, pr_shift=0.0, t_shift=0.0,
         qrs_width=1.0):  # fmt: skip
    """Returns `int16[time, 8]`: Gaussian waves at known times; every argument may be one number or one a beat."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    ecg = np.zeros((len(time), 8))
    per_beat = [np.broadcast_to(value, len(r_s)) for value in (p, r, s, t, st, pr_shift, t_shift, qrs_width)]
    for at, p_k, r_k, s_k, t_k, st_k, pr_k, late_k, wide_k in zip(r_s, *per_beat, strict=True):
        for centre, width, amplitude in (
            (-0.150 - pr_k, 0.018, p_k * _P),
            (0.0, 0.010 * wide_k, r_k * _R),
            (0.028 * wide_k, 0.010 * wide_k, s_k * _S),
            (0.120, 0.035, st_k * _ST),
            (0.260 + late_k, 0.040, t_k * _T),
        ):
            ecg += np.exp(-0.5 * ((time - at - centre) / width) ** 2)[:, None] * amplitude
    return np.round(ecg * 1000).astype(np.int16)


def _measure(signal, rate_hz=RATE):
    values, reasons = measure_record(signal, sampling_rate_hz=rate_hz)
    assert values.shape == (len(NAMES),)
    assert values.dtype == np.float32
    assert bool(np.isnan(values).any()) == bool(reasons), (reasons, np.array(NAMES)[np.isnan(values)])
    assert not np.isinf(values).any()
    return dict(zip(NAMES, values.astype(float), strict=True)), reasons


def _of_beats(measured, kind):
    return np.array([measured[f"{kind}_{beat}"] for beat in range(1, NUM_BEATS + 1)])


def test_159_measurements_with_names_and_units():
    kinds = ["rr", "pr", "qrs", "qtc", "p_duration", "t_duration", "r_amplitude", "t_amplitude", "p_amplitude",
             "qrs_slope"]  # fmt: skip
    assert list(NAMES[:100]) == [f"{kind}_{beat}" for kind in kinds for beat in range(1, 11)]
    assert list(NAMES[100:144]) == [f"{kind}_{of}" for kind in [*kinds, "st"] for of in ("mean", "sd", "median", "iqr")]
    assert len(NAMES) == len(set(NAMES)) == 159
    assert [UNITS[name] for name in ("rr_1", "r_amplitude_sd", "qrs_slope_10", "st_iqr", "pnn50", "rmssd")] == [
        "ms", "mV", "mV/s", "mV", "1", "ms"]  # fmt: skip


def test_a_whole_record_has_every_measurement():
    measured, reasons = _measure(_ecg(REGULAR[:-1]))
    assert reasons == Missing(0)
    assert np.isfinite(list(measured.values())).all()


def test_rr_counts_from_the_peak_before():
    rr = np.array([0.8, 0.9, 0.7, 0.8, 0.55, 1.0, 0.8, 0.85, 0.75])
    measured, reasons = _measure(_ecg(0.5 + np.append(0, np.cumsum(rr))))
    np.testing.assert_allclose(_of_beats(measured, "rr")[:9], rr * 1000, atol=4)
    assert np.isnan(measured["rr_10"])
    assert Missing.FEWER_THAN_TEN in reasons


def test_intervals_of_a_known_beat():
    """A Gaussian wave of width σ reaches a twentieth to a quarter of its height 1.7 to 2.4 σ from its centre."""
    measured, _ = _measure(_ecg())
    onset = -0.022
    assert measured["pr_median"] == pytest.approx((0.150 + 1.9 * 0.018 + onset) * 1000, abs=16)
    assert measured["qrs_median"] == pytest.approx((0.028 + 0.045) * 1000, abs=16)
    qt = (0.260 + 2 * 0.040 - onset) * 1000
    assert measured["qtc_median"] == pytest.approx(qt / math.sqrt(0.8), abs=24)
    # The tangents at the steepest points of a Gaussian meet its foot two widths from its centre.
    assert measured["t_duration_median"] == pytest.approx(4 * 40, abs=16)
    assert measured["p_duration_median"] == pytest.approx(4 * 18, abs=24)


def test_waves_belong_to_beats_by_time_not_by_position_in_a_list():
    """One beat without P, one with a late P: only these two change, and each under its own number."""
    p, shift = np.ones(12), np.zeros(12)
    p[4], shift[7] = 0, 0.030
    plain, _ = _measure(_ecg())
    changed, reasons = _measure(_ecg(p=p, pr_shift=shift))
    difference = _of_beats(changed, "pr") - _of_beats(plain, "pr")
    assert np.isnan(difference[3])
    assert difference[6] == pytest.approx(30, abs=6)
    np.testing.assert_allclose(np.delete(difference, [3, 6]), 0, atol=3)
    assert np.isnan(changed["p_amplitude_4"])
    assert np.isnan(changed["p_duration_4"])
    assert changed["p_absent_share"] == pytest.approx(1 / 11)
    assert reasons == Missing.P_NOT_FOUND


def test_amplitudes_are_signed_and_of_lead_ii():
    measured, _ = _measure(_ecg())
    for name, expected, tolerance in (("r", 1.0, 0.05), ("t", 0.3, 0.04), ("p", 0.12, 0.03)):
        np.testing.assert_allclose(_of_beats(measured, f"{name}_amplitude")[:9], expected, atol=tolerance)
    inverted, _ = _measure(_ecg(t=-1.0, p=-1.0))
    assert inverted["t_amplitude_median"] == pytest.approx(-0.3, abs=0.04)
    assert inverted["p_amplitude_median"] == pytest.approx(-0.12, abs=0.03)
    assert inverted["t_inverted_share"] == 1
    assert measured["t_inverted_share"] == 0


def test_a_negative_qrs_has_a_negative_amplitude():
    measured, _ = _measure(_ecg(r=0.2, s=6.0))
    assert measured["r_amplitude_median"] == pytest.approx(-1.2, abs=0.15)


def test_lead_i_cancels_nothing():
    signal = _ecg()
    opposed = signal.copy()
    opposed[:, 0] = -signal[:, LEAD_II]
    plain, turned = _measure(signal)[0], _measure(opposed)[0]
    for name in ("r_amplitude", "t_amplitude", "p_amplitude", "qrs_slope", "st"):
        assert turned[f"{name}_median"] == pytest.approx(plain[f"{name}_median"], rel=0.05, abs=0.01)


def test_slope_of_a_known_qrs():
    """A Gaussian is steepest one width from its centre: A/σ · e^−½."""
    measured, _ = _measure(_ecg(s=0.0))
    assert measured["qrs_slope_median"] == pytest.approx(1.0 / 0.010 * math.exp(-0.5), rel=0.03)
    wide, _ = _measure(_ecg(s=0.0, qrs_width=2.0))
    assert wide["qrs_slope_median"] == pytest.approx(1.0 / 0.020 * math.exp(-0.5), rel=0.03)


@pytest.mark.parametrize("st", [0.25, -0.25])
def test_st_is_signed(st):
    """ST is read 60 ms after the J point, here 30 ms after R, on a bump 35 ms wide about 120 ms after R."""
    measured, _ = _measure(_ecg(st=st, s=0.0))
    assert measured["st_median"] == pytest.approx(st * math.exp(-0.5 * (30 / 35) ** 2), abs=0.02)
    assert measured["st_deviating_share"] == 1
    assert _measure(_ecg(s=0.0))[0]["st_deviating_share"] == 0


def test_bazett_takes_the_interval_before_the_beat():
    r_s = np.array([0.5, 1.3, 2.1, 2.9, 3.45, 4.5, 5.3, 6.1, 6.9, 7.7, 8.5])
    beats = measure_beats(prepare(_ecg(r_s), sampling_rate_hz=RATE))
    np.testing.assert_allclose(beats.qtc, beats.qt / np.sqrt(beats.rr / 1000))
    assert beats.rr[3] == pytest.approx(550, abs=2)
    # Equal beats have an equal QT; that after the early one is corrected by the long interval before it.
    assert beats.qtc[4] < beats.qtc[2] < beats.qtc[3]


def test_absent_p_is_missing_never_zero():
    measured, reasons = _measure(_ecg(p=0.0))
    for name in NAMES:
        if name.startswith(("pr_", "p_duration", "p_amplitude")):
            assert np.isnan(measured[name]), name
    assert measured["p_absent_share"] == 1
    assert Missing.P_NOT_FOUND in reasons
    assert np.isfinite([measured[f"{name}_median"] for name in ("qrs", "qtc", "t_amplitude", "qrs_slope")]).all()


def _brute_force(beats: Beats):
    """The formulas once more, in plain Python."""
    rr = beats.rr.tolist()
    found = {
        kind: [value for value in getattr(beats, kind).tolist() if not math.isnan(value)]
        for kind in ("rr", "pr", "qrs", "qtc", "p_duration", "t_duration", "r_amplitude", "t_amplitude",
                     "p_amplitude", "qrs_slope", "st")
    }  # fmt: skip
    expected = {}
    for kind, values in found.items():
        lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
        expected[f"{kind}_mean"] = math.fsum(values) / len(values)
        expected[f"{kind}_sd"] = statistics.stdev(values)
        expected[f"{kind}_median"] = statistics.median(values)
        expected[f"{kind}_iqr"] = upper - lower
    steps = [after - before for before, after in itertools.pairwise(rr)]

    def share(values, holds):
        return sum(map(holds, values)) / len(values)

    middle = statistics.median(found["st"])
    return expected | {
        "rmssd": math.sqrt(sum(step * step for step in steps) / len(steps)),
        "pnn50": share(steps, lambda step: abs(step) > 50),
        "rr_cv": statistics.stdev(rr) / statistics.mean(rr),
        "rr_short_share": share(rr, lambda interval: interval < 0.8 * statistics.median(rr)),
        "pr_long_share": share(found["pr"], lambda interval: interval > 200),
        "qrs_wide_share": share(found["qrs"], lambda interval: interval >= 120),
        "qrs_borderline_share": share(found["qrs"], lambda interval: 100 <= interval < 120),
        "qtc_long_share": share(found["qtc"], lambda interval: interval >= 500),
        "p_absent_share": 1 - len(found["pr"]) / len(found["qrs"]),
        "t_inverted_share": share(found["t_amplitude"], lambda value: value < -0.05),
        "st_deviating_share": share(found["st"], lambda value: abs(value) >= 0.1),
        "st_mad": statistics.median(abs(value - middle) for value in found["st"]),
        "beat_correlation_mean": statistics.mean(beats.correlation.tolist()),
        "beat_correlation_sd": statistics.stdev(beats.correlation.tolist()),
        "beat_correlation_min": min(beats.correlation.tolist()),
    }


def _varied():
    """Beats that differ in everything, so that no share is 0 or 1."""
    rng = np.random.default_rng(5)
    rr = np.array([0.9, 0.9, 0.95, 0.6, 1.1, 0.85, 0.9, 0.92, 0.88, 0.9])
    n = len(rr) + 1
    alternating = np.arange(n) % 3 == 0
    return _ecg(
        0.45 + np.append(0, np.cumsum(rr)), p=np.where(np.arange(n) == 4, 0, 1.3), pr_shift=rng.uniform(0, 0.06, n),
        t=np.where(alternating, -1, 1), st=rng.uniform(0, 0.2, n), qrs_width=rng.uniform(1, 2.2, n), r=1.5,
        t_shift=rng.uniform(0, 0.12, n),
    )  # fmt: skip


def test_statistics_and_scalars_follow_their_formulas():
    signal = _varied()
    measured, _ = _measure(signal)
    expected = _brute_force(measure_beats(prepare(signal, sampling_rate_hz=RATE)))
    assert set(expected) == set(NAMES[100:])
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    varied = ["pnn50", "rr_short_share", "qrs_wide_share", "t_inverted_share", "st_deviating_share", "p_absent_share"]
    assert all(0 < measured[name] < 1 for name in varied), {name: measured[name] for name in varied}


def test_correlation_of_neighbouring_beats():
    same, _ = _measure(_ecg())
    assert same["beat_correlation_min"] > 0.995
    turned, _ = _measure(_ecg(t=np.where(np.arange(12) == 6, -4.0, 1.0)))
    assert turned["beat_correlation_min"] < 0.6
    assert turned["beat_correlation_sd"] > 0.1


@pytest.mark.parametrize("rate_hz", [100, 250, 400])
def test_does_not_depend_on_the_stored_rate(rate_hz):
    plain, _ = _measure(_ecg())
    other, _ = _measure(_ecg(rate_hz=rate_hz), rate_hz)
    for kind in ("rr", "pr", "qrs", "qtc", "t_duration"):
        assert other[f"{kind}_median"] == pytest.approx(plain[f"{kind}_median"], abs=6)
    for kind in ("r", "t", "p"):
        assert other[f"{kind}_amplitude_median"] == pytest.approx(plain[f"{kind}_amplitude_median"], abs=0.03)


def _odd_signals():
    rng = np.random.default_rng(0)
    paced = _ecg()
    paced[(np.array(REGULAR) * RATE).astype(int) - 60] += 5000
    spike = np.zeros((5000, 8), np.int16)
    spike[2500] = 30000
    return {
        "zeros": (np.zeros((5000, 8), np.int16), Missing.FLAT_LEAD),
        "rail": (np.full((5000, 8), 32767, np.int16), Missing.FLAT_LEAD),
        "empty": (np.zeros((0, 8), np.int16), Missing.FLAT_LEAD),
        "two_beats": (_ecg((1.0, 2.0), seconds=3.0), Missing.FEW_BEATS),
        "half_a_second": (_ecg(seconds=0.5), Missing.FEW_BEATS),
        "six_samples": (_ecg()[197:203], Missing.FEW_BEATS),
        "four_beats": (_ecg(REGULAR[:4], seconds=4.0), None),
        "noise": (rng.integers(-2000, 2000, (5000, 8)).astype(np.int16), None),
        "full_scale_noise": (rng.integers(-32768, 32767, (5000, 8)).astype(np.int16), None),
        "small_noise": (rng.integers(-20, 20, (5000, 8)).astype(np.int16), None),
        "spike": (spike, None),
        "square": (np.tile(np.repeat([-32768, 32767], 50), 50)[:, None].repeat(8, 1).astype(np.int16), None),
        "ramp": (np.linspace(-32768, 32767, 5000)[:, None].repeat(8, 1).astype(np.int16), None),
        "one_count": ((np.arange(5000)[:, None].repeat(8, 1) % 2).astype(np.int16), None),
        "only_lead_ii": (_ecg() * (np.arange(8) == LEAD_II).astype(np.int16), None),
        "fast": (_ecg(tuple(np.arange(0.4, 10, 0.25))), None),
        "paced": (paced, None),
    }


@pytest.mark.parametrize("name", _odd_signals())
def test_odd_signals_give_reasons_and_neither_errors_nor_warnings(name):
    signal, reason = _odd_signals()[name]
    before = signal.copy()
    measured, reasons = _measure(signal)
    np.testing.assert_array_equal(signal, before)
    if reason is not None:
        assert reasons == reason
    if reasons & UNUSABLE:
        assert np.isnan(list(measured.values())).all()


@pytest.mark.parametrize("sampling_rate_hz", [100, 250])
def test_clean_sinus_rhythm_against_the_simulators_truth(sampling_rate_hz):
    from data_pipelines.simulation.cohort import Cohort, CohortConfig

    config = CohortConfig(num_patients=30, sampling_rate_hz=sampling_rate_hz, seed=4, noise=0.0)
    made = Cohort(config).simulate(0, Cohort(config).num_records)
    sinus = np.flatnonzero(np.all([made.scalars[name] == 0 for name in ("af", "pvc", "pac")], axis=0))
    assert len(sinus) > 50
    errors = {name: [] for name in ("rr", "pr", "qrs", "qt")}
    for record in sinus:
        beats = measure_beats(prepare(made.signal[record], sampling_rate_hz=sampling_rate_hz))
        for name in ("pr", "qrs", "qt"):
            found = getattr(beats, name)[np.isfinite(getattr(beats, name))]
            measured = np.median(found) if len(found) else math.nan
            errors[name].append(measured - made.scalars[f"{name}_ms"][record])
        errors["rr"].append(beats.rr.mean() - 60_000 / made.scalars["heart_rate_bpm"][record])
    for name, most in (("rr", 4), ("pr", 15), ("qrs", 12), ("qt", 25)):
        assert np.isfinite(errors[name]).mean() >= 0.95, name
        assert np.nanmedian(np.abs(errors[name])) <= most, name


def test_fibrillation_has_no_p_waves_and_an_irregular_rhythm():
    from data_pipelines.simulation.cohort import Cohort, CohortConfig

    cohort = Cohort(CohortConfig(num_patients=400, sampling_rate_hz=100, seed=4, visits_per_patient=(1, 1)))
    made = cohort.simulate(0, 400)
    fibrillating = np.flatnonzero(made.scalars["af"] == 1)[:12]
    sinus = np.flatnonzero(np.all([made.scalars[name] == 0 for name in ("af", "pvc", "pac")], axis=0))[:12]
    absent, variation = (
        [np.array([_measure(made.signal[record], 100)[0][name] for record in records])
         for records in (fibrillating, sinus)]
        for name in ("p_absent_share", "rr_cv")
    )  # fmt: skip
    assert len(fibrillating) > 5
    assert absent[0].mean() > absent[1].mean() + 0.3
    assert np.median(variation[0]) > 2 * np.median(variation[1])


@pytest.mark.slow
def test_at_most_a_twentieth_of_real_records_fails(real_data):
    import csv

    import wfdb

    with (real_data / "ptbxl" / "ptbxl_database.csv").open() as file:
        rows = list(csv.DictReader(file))[::6]
    unusable = 0
    for row in rows:
        signal, fields = wfdb.rdsamp(str(real_data / "ptbxl" / row["filename_lr"]))
        order = [[name.upper() for name in fields["sig_name"]].index(lead) for lead in STORED_LEADS]
        measured, reasons = _measure(np.round(signal[:, order] * 1000).astype(np.int16), 100)
        unusable += (
            bool(reasons & UNUSABLE)
            or not np.isfinite([measured[f"{kind}_median"] for kind in ("rr", "qrs", "qtc")]).all()
        )
    assert unusable <= 0.05 * len(rows)


def test_a_t_wave_far_from_the_others_is_none(monkeypatch):
    from data_pipelines.physiology import beats

    shift = np.zeros(12)
    shift[5] = 0.06
    plain, kept = _measure(_ecg())[0], _measure(_ecg(t_shift=shift))[0]
    assert kept["qtc_5"] - plain["qtc_5"] == pytest.approx(60 / math.sqrt(0.8), abs=6)
    # So that the wave lies beyond it: one that is later still would pass for an R peak of its own.
    monkeypatch.setattr(beats, "_T_FROM_MEDIAN_MS", 50.0)
    measured, reasons = _measure(_ecg(t_shift=shift))
    np.testing.assert_array_equal(np.isnan(_of_beats(measured, "qtc")), np.arange(10) == 4)
    assert np.isnan(measured["t_amplitude_5"])
    assert reasons == Missing.T_NOT_FOUND


def test_a_qrs_that_runs_into_st_ends_where_the_vector_is_slowest(monkeypatch):
    """Simulated left bundle branch block whose discordant ST leaves no quiet stretch after the QRS."""
    from data_pipelines.physiology import delineation
    from data_pipelines.simulation.cohort import Cohort, CohortConfig

    made = Cohort(CohortConfig(num_patients=40, sampling_rate_hz=250, seed=4, noise=0.0)).simulate(29, 30)
    assert made.scalars["lbbb"][0] == 1
    measured, reasons = _measure(made.signal[0], 250)
    assert Missing.QRS_NOT_FOUND not in reasons
    assert measured["qrs_median"] == pytest.approx(made.scalars["qrs_ms"][0], abs=40)
    monkeypatch.setattr(delineation, "_MERGED_SHARE", 0.0)
    assert Missing.QRS_NOT_FOUND in _measure(made.signal[0], 250)[1]
