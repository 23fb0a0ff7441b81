"""The simulated cohort: determinism, label distributions, identity, and each signature's direction on clean records."""

import dataclasses
import functools

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from data_pipelines.records import FEMALE, MALE, STORED_LEADS
from data_pipelines.simulation import kernels, noise, waves
from data_pipelines.simulation.cohort import SCALARS, SIMULATED_NOTICE, UNITS, Cohort, CohortConfig
from data_pipelines.simulation.random_numbers import Draws
from data_pipelines.simulation.rhythm import NORMAL, PAC, PVC, draw_rhythms
from data_pipelines.simulation.states import States, draw_states
from data_pipelines.system.workers import map_ordered

_NUM_STATES = 40_000


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return Cohort(CohortConfig(seed=4, num_patients=160))


@pytest.fixture(scope="module")
def whole(cohort):
    return cohort.simulate(0, cohort.num_records)


@functools.cache
def _states(visit: int = 0) -> States:
    """States of many patients at one visit."""
    visits = np.full(_NUM_STATES, visit)
    return draw_states(Draws(seed=1, patient=np.arange(_NUM_STATES), visit=visits), visit=visits)


def _assert_same(some, whole, start, stop):
    np.testing.assert_array_equal(some.signal, whole.signal[start:stop])
    for name in ("patient", "visit", "age_years", "sex"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[start:stop])
    for name in SCALARS:
        np.testing.assert_array_equal(some.scalars[name], whole.scalars[name][start:stop])


# Determinism


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (37, 38), (5, 12), (90, 191), (0, 64), (63, 129)])
def test_a_record_does_not_depend_on_the_range_asked_for(cohort, whole, start, stop):
    _assert_same(cohort.simulate(start, stop), whole, start, stop)


@pytest.mark.parametrize("chunk_size", [1, 7, 50])
def test_chunks_join_to_the_whole(cohort, whole, chunk_size):
    parts = [cohort.simulate(start, min(start + chunk_size, 120)) for start in range(0, 120, chunk_size)]
    np.testing.assert_array_equal(np.concatenate([part.signal for part in parts]), whole.signal[:120])
    for name in SCALARS:
        np.testing.assert_array_equal(np.concatenate([part.scalars[name] for part in parts]), whole.scalars[name][:120])


def _simulate(cohort, numbers):
    return cohort.simulate(numbers.start, numbers.stop)


@pytest.mark.slow
def test_other_processes_make_the_same_records(cohort, whole):
    numbers = range(cohort.num_records)
    ranges = [numbers[start : start + 100] for start in range(0, len(numbers), 100)]
    parts = list(map_ordered(functools.partial(_simulate, cohort), ranges, num_workers=2, chunk_size=1))
    np.testing.assert_array_equal(np.concatenate([part.signal for part in parts]), whole.signal)


def test_more_patients_leave_the_first_ones_as_they_were(cohort, whole):
    larger = Cohort(dataclasses.replace(cohort.config, num_patients=100_000))
    _assert_same(larger.simulate(20, 50), whole, 20, 50)


def test_records_beyond_the_first_block_of_patients():
    cohort = Cohort(CohortConfig(seed=2, num_patients=70_000, visits_per_patient=(1, 3), sampling_rate_hz=50))
    middle = int(cohort._first_record[1])
    across = cohort.simulate(middle - 3, middle + 3)
    assert across.patient[3] == 65_536
    assert across.visit[3] == 0
    assert set(np.diff(across.patient)) <= {0, 1}
    np.testing.assert_array_equal(cohort.simulate(middle, middle + 1).signal[0], across.signal[3])


def test_another_seed_makes_other_patients(cohort, whole):
    other = Cohort(dataclasses.replace(cohort.config, seed=5)).simulate(0, 50)
    assert not np.any(np.all(other.signal == whole.signal[:50], axis=(1, 2)))
    assert np.corrcoef(other.scalars["lvef"], whole.scalars["lvef"][:50])[0, 1] < 0.5


def test_all_records_differ(whole):
    assert len({record.tobytes() for record in whole.signal}) == len(whole.signal)


def test_a_name_is_drawn_once():
    draws = Draws(seed=0, patient=np.arange(3), visit=np.zeros(3, np.int64))
    draws.normal("thing")
    draws.lasting_normal("thing")
    with pytest.raises(ValueError, match="'thing' was drawn before"):
        draws.uniform("thing")


def test_draws_are_uniform_and_independent():
    draws = Draws(seed=0, patient=np.repeat(np.arange(20_000), 2), visit=np.tile([0, 1], 20_000))
    passing, lasting = draws.uniform("a", (2,)), draws.lasting_uniform("a")
    assert np.ptp(np.histogram(passing, bins=20, range=(0, 1))[0]) < 6 * np.sqrt(4000) * 1.5
    assert abs(np.corrcoef(passing[:, 0], passing[:, 1])[0, 1]) < 4 / np.sqrt(40_000)
    assert abs(np.corrcoef(passing[::2, 0], passing[1::2, 0])[0, 1]) < 4 / np.sqrt(20_000)
    np.testing.assert_array_equal(lasting[::2], lasting[1::2])


# Shape, units, configuration


def test_records_have_the_stored_form(cohort, whole):
    assert whole.signal.shape == (cohort.num_records, 2500, len(STORED_LEADS))
    assert whole.signal.dtype == np.int16
    assert tuple(whole.scalars) == SCALARS == tuple(UNITS)
    assert {values.dtype for values in whole.scalars.values()} == {np.dtype(np.float32)}
    assert np.isin(whole.sex, (MALE, FEMALE)).all()
    assert "SIMULATED" in SIMULATED_NOTICE
    assert cohort.patient_id(3).startswith("simulated-")


def test_visits_are_numbered_within_the_range_asked_for(whole):
    _, visits = np.unique(whole.patient, return_counts=True)
    assert set(visits) == {1, 2, 3, 4}
    expected = np.concatenate([np.arange(count) for count in visits])
    np.testing.assert_array_equal(whole.visit, expected)
    np.testing.assert_array_equal(whole.scalars["visit"], expected)
    assert np.all(np.diff(whole.age_years)[np.diff(whole.patient) == 0] >= 0)


def test_amplitudes_are_those_of_ecgs(whole):
    lead_sd = whole.signal.std(axis=1)
    assert np.all(lead_sd > 20)
    # Medians of 500 PTB-XL records lie between 128 (lead I) and 276 µV (V2).
    assert np.all((np.median(lead_sd, axis=0) > 90) & (np.median(lead_sd, axis=0) < 350))
    assert np.abs(whole.signal).max() < 12_000


def test_intervals_and_rates_are_plausible(whole):
    scalars = whole.scalars
    assert np.array_equal(np.isnan(scalars["pr_ms"]), scalars["af"] == 1)
    for name, low, high in (("pr_ms", 145, 175), ("qrs_ms", 88, 104), ("qt_ms", 355, 390), ("heart_rate_bpm", 65, 80)):
        assert low < np.nanmedian(scalars[name]) < high, name
    for name in SCALARS:
        if name != "pr_ms":
            assert np.isfinite(scalars[name]).all(), name


def test_the_same_record_at_another_rate(cohort):
    twice = Cohort(dataclasses.replace(cohort.config, sampling_rate_hz=500)).simulate(0, 8)
    clean = Cohort(dataclasses.replace(cohort.config, noise=0.0))
    clean_twice = Cohort(dataclasses.replace(cohort.config, noise=0.0, sampling_rate_hz=500))
    np.testing.assert_allclose(clean_twice.simulate(0, 8).signal[:, ::2], clean.simulate(0, 8).signal, atol=1)
    for name in SCALARS:
        np.testing.assert_array_equal(twice.scalars[name], cohort.simulate(0, 8).scalars[name])


def test_noise_is_not_louder_at_a_lower_rate():
    """The same spectrum sampled slower holds less of it, and both share what they share."""
    levels = noise.draw_noise_levels(Draws(seed=0, patient=np.arange(4), visit=np.zeros(4, np.int64)), seconds=10.0)
    levels = dataclasses.replace(levels, motion_mv=np.zeros((4, 2)), mains_mv=np.zeros((4, noise.NUM_ELECTRODES, 2)))

    def make(rate):
        return noise.record_noise(
            levels, 0, generator=np.random.Generator(np.random.Philox(key=1)), breath_hz=0.25, breath_phase=0.0,
            num_samples=10 * rate, sampling_rate_hz=rate,
        )  # fmt: skip

    slow, fast = make(100), make(500)
    assert np.all(slow.std(axis=1) < fast.std(axis=1) * 1.001)
    smooth = fast.reshape(8, 1000, 5).mean(axis=2)
    assert np.all([np.corrcoef(a, b)[0, 1] > 0.9 for a, b in zip(slow, smooth, strict=True)])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("num_patients", 0),
        ("visits_per_patient", (0, 2)),
        ("visits_per_patient", (3, 2)),
        ("sampling_rate_hz", 10),
        ("seconds", 1.0),
        ("seconds", 10.001),
        ("noise", -0.5),
    ],
)
def test_bad_configuration_is_named(field, value):
    with pytest.raises(DataError, match=rf"simulated cohort: {field}=.* must be"):
        CohortConfig(**{field: value})


def test_records_outside_the_cohort_are_refused(cohort):
    with pytest.raises(DataError, match=rf"0:{cohort.num_records}"):
        cohort.simulate(0, cohort.num_records + 1)
    assert cohort.simulate(3, 3).signal.shape == (0, 2500, 8)


# Label distributions


def _assert_share(found: np.ndarray, expected: float):
    """Within four standard errors of a binomial share."""
    share, error = found.mean(), np.sqrt(expected * (1 - expected) / len(found))
    assert abs(share - expected) < 4 * error, (share, expected)


def test_ejection_fraction_follows_its_mixture():
    lvef = _states().lvef
    _assert_share(lvef < 40, 0.82 * 0.0001 + 0.18 * 0.7257)
    _assert_share(lvef > 62, 0.82 * 0.5 + 0.18 * 0.0026)


def test_potassium_follows_its_mixture():
    potassium = _states().potassium
    _assert_share(potassium > 5, 0.84 * 0.0186 + 0.12)
    _assert_share(potassium < 3.5, 0.84 * 0.0186 + 0.04 * 0.8849)
    _assert_share(potassium > 6, 0.12 * 0.3454)


def test_conduction_and_rhythm_follow_ejection_fraction():
    states = _states()
    h = states.dysfunction
    for name, expected in (
        ("af", 0.03 + 0.08 * h),
        ("lbbb", 0.012 + 0.10 * np.minimum(h, 1.5)),
        ("pvc_carrier", 0.04 + 0.08 * h),
    ):
        for chosen in (h == 0, h > 0.75):
            found, share = getattr(states, name)[chosen], expected[chosen].mean()
            assert abs(found.mean() - share) < 4 * np.sqrt(share / chosen.sum()), name
    assert not np.any(states.lbbb & states.rbbb)


def test_wedge_pressure_rises_with_its_causes():
    states = _states()
    healthy = (states.dysfunction == 0) & ~states.af & (states.lvh_grade == 0)
    # A log-normal of median 12: half above, and 8.4 % above 12 · e^(1.38 · .42).
    _assert_share(states.wedge_pressure[healthy] > 12, 0.5)
    _assert_share(states.wedge_pressure[healthy] > 12 * np.exp(0.42), 0.1587)
    others = (states.dysfunction == 0) & (states.lvh_grade == 0) & states.af
    rise = np.median(states.wedge_pressure[others]) - 12
    assert 2.3 < rise < 3.7
    low = (states.dysfunction > 0.9) & (states.dysfunction < 1.1) & ~states.af & (states.lvh_grade == 0)
    assert 4 < states.wedge_pressure[low].mean() - states.wedge_pressure[healthy].mean() < 6


@pytest.mark.parametrize(
    ("name", "expected"), [("lvef", 0.9), ("potassium", 0.3), ("wedge_pressure", 0.6), ("rate_bpm", 0.6)]
)
def test_visits_of_a_patient_are_correlated(name, expected):
    """Potassium must be a state of the day: as a patient's constant it flatters every positive of the same patient."""
    found = np.corrcoef(getattr(_states(0), name), getattr(_states(1), name))[0, 1]
    assert abs(found - expected) < 0.03


def test_lasting_traits_last():
    first, second = _states(0), _states(1)
    for name in ("sex", "lvh_grade", "potassium_strength"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    # A left block that appears with a falling LVEF takes the right one's place.
    neither_left = ~first.lbbb & ~second.lbbb
    np.testing.assert_array_equal(first.rbbb[neither_left], second.rbbb[neither_left])
    assert (first.af == second.af).mean() > 0.99


# Rhythm


@functools.cache
def _rhythms(**changes):
    n = 4000
    draws = Draws(seed=3, patient=np.arange(n), visit=np.zeros(n, np.int64))
    states = draw_states(draws, visit=np.zeros(n, np.int64))
    states = dataclasses.replace(states, **{name: np.full(n, value) for name, value in changes.items()})
    return draw_rhythms(draws, states, seconds=10.0)


def test_strips_are_filled_with_beats():
    rhythms = _rhythms()
    assert np.all(rhythms.time_s[:, -1] > 10.5)
    assert np.all(rhythms.time_s[:, 0] < 1.0)
    assert np.diff(rhythms.time_s, axis=1).min() >= 0.3 - 1e-9


def test_fibrillation_is_irregular_and_sinus_rhythm_is_not():
    for af, low, high in ((True, 0.19, 0.25), (False, 0.01, 0.06)):
        rhythms = _rhythms(af=af, pvc_carrier=False, pac_carrier=False, rate_bpm=70.0)
        variation = np.log(np.diff(rhythms.time_s, axis=1)).std(axis=1)
        assert low < np.median(variation) < high


def test_premature_ventricular_beats_pause_and_premature_atrial_ones_reset():
    changes = {"af": False, "rate_bpm": 60.0}
    for carrier, kind, coupling, after in (("pvc_carrier", PVC, 0.62, 1.38), ("pac_carrier", PAC, 0.72, 1.0)):
        none = {"pvc_carrier": False, "pac_carrier": False}
        rhythms = _rhythms(**changes, **{**none, carrier: True})
        rows, beats = np.nonzero(rhythms.kind[:, 2:-2] == kind)
        assert 0.11 < len(rows) / rhythms.kind[:, 2:-2].size < 0.13
        rr = np.diff(rhythms.time_s, axis=1)
        assert abs(np.median(rr[rows, beats + 1]) - coupling) < 0.01
        assert abs(np.median(rr[rows, beats + 2]) - after) < 0.01
        assert not np.any(rhythms.contains(PVC if kind == PAC else PAC))


def test_labels_say_what_the_strip_contains():
    rhythms = _rhythms(pvc_carrier=True, af=False)
    contains = rhythms.contains(PVC)
    seen = ((rhythms.kind == PVC) & (rhythms.time_s > 0.06) & (rhythms.time_s < 9.94)).any(axis=1)
    np.testing.assert_array_equal(contains, seen)
    assert 0.02 < 1 - contains.mean() < 0.5


# Signatures, on clean templates of otherwise equal patients


def _with(**changes):
    """Templates of 400 patients without disease but for `changes`, every strength 1."""
    n = 400
    draws = Draws(seed=9, patient=np.arange(n), visit=np.zeros(n, np.int64))
    states = draw_states(draws, visit=np.zeros(n, np.int64))
    healthy = {
        "lvef": 62.0, "potassium": 4.2, "wedge_pressure": 12.0, "lvh_grade": 0.0, "lbbb": False, "rbbb": False,
        "af": False, "pvc_carrier": False, "pac_carrier": False, "st_deviation_mv": 0.0, "territory": 0,
        "lvef_strength": 1.0, "potassium_strength": 1.0, "wedge_strength": 1.0, "rate_bpm": 60.0,
    }  # fmt: skip
    filled = {name: np.full(n, value) for name, value in (healthy | changes).items()}
    states = dataclasses.replace(states, **filled)
    return waves.draw_templates(draws, states)


def _beat(templates, kind=NORMAL) -> np.ndarray:
    """Mean beat over patients, mV at 1 ms from −300 to 500 ms: `[lead, time]`."""
    time = np.arange(-300, 500)
    centre, width = templates.centre_ms[:, kind, :, None], templates.width_ms[:, kind, :, None]
    return np.einsum("nlk,nkt->lt", templates.lead_mv[:, kind], np.exp(-0.5 * ((time - centre) / width) ** 2)) / len(
        centre
    )


def _intervals(templates) -> dict[str, float]:
    found = kernels.intervals_ms(templates.centre_ms[:, NORMAL], templates.width_ms[:, NORMAL])
    return {name: values.mean() for name, values in found.items()}


_P = slice(100, 235)
_T = slice(450, 800)


def _lead(name: str) -> int:
    return STORED_LEADS.index(name)


def test_normal_beat():
    beat, intervals = _beat(_with()), _intervals(_with())
    assert 150 < intervals["pr_ms"] < 168
    assert 90 < intervals["qrs_ms"] < 102
    assert 380 < intervals["qt_ms"] < 410
    assert beat[_lead("V5")].max() > 0.9
    assert beat[_lead("V2")].min() < -0.8
    assert beat[_lead("II"), _P].max() > 0.05
    assert beat[_lead("V4"), _T].max() > 0.25


def test_potassium_peaks_and_narrows_t_and_widens_pr_and_qrs():
    normal, high = _with(), _with(potassium=7.0)
    tall = [_beat(each)[_lead("V4"), _T].max() for each in (normal, high)]
    assert tall[1] > 1.6 * tall[0]
    widths = [each.width_ms[:, NORMAL, kernels.T1].mean() for each in (normal, high)]
    assert widths[1] < 0.75 * widths[0]
    before, after = _intervals(normal), _intervals(high)
    assert after["pr_ms"] > before["pr_ms"] + 5
    assert after["qrs_ms"] > before["qrs_ms"] * 1.08
    p_wave = [_beat(each)[_lead("II"), _P].max() for each in (normal, high)]
    assert p_wave[1] < 0.8 * p_wave[0]


def test_low_potassium_shows_a_u_wave_and_a_flat_t():
    normal, low = _beat(_with()), _beat(_with(potassium=2.5))
    assert low[_lead("V5"), 760:780].mean() > normal[_lead("V5"), 760:780].mean() + 0.03
    assert low[_lead("V5"), 500:620].max() < 0.75 * normal[_lead("V5"), 500:620].max()


def test_low_ejection_fraction_widens_qrs_and_flattens_t():
    normal, low = _with(), _with(lvef=25.0)
    assert _intervals(low)["qrs_ms"] > 1.07 * _intervals(normal)["qrs_ms"]
    assert _beat(low)[_lead("V6"), _T].max() < 0.6 * _beat(normal)[_lead("V6"), _T].max()
    assert _beat(low)[_lead("V6")].max() < _beat(normal)[_lead("V6")].max()


def test_wedge_pressure_turns_the_late_p_wave_backward():
    normal, high = _with(), _with(wedge_pressure=30.0)
    late = slice(170, 200)
    assert _beat(high)[_lead("V1"), late].mean() < _beat(normal)[_lead("V1"), late].mean() - 0.01
    assert high.width_ms[:, NORMAL, kernels.P2].mean() > normal.width_ms[:, NORMAL, kernels.P2].mean() * 1.03
    assert _beat(high)[_lead("V6"), _T].max() < _beat(normal)[_lead("V6"), _T].max()


def test_bundle_branch_blocks():
    normal = _with()
    left, right = _with(lbbb=True), _with(rbbb=True)
    assert _intervals(left)["qrs_ms"] > 150
    assert 120 < _intervals(right)["qrs_ms"] < 150
    late = slice(340, 370)
    assert _beat(left)[_lead("V6"), late].mean() > 0.4
    assert _beat(left)[_lead("V1"), late].mean() < -0.3
    assert _beat(right)[_lead("V1"), late].mean() > 0.25
    assert _beat(right)[_lead("I"), late].mean() < -0.1
    assert _beat(left)[_lead("V6"), _T].max() < 0.5 * _beat(normal)[_lead("V6"), _T].max()


def test_hypertrophy_raises_voltage_and_strains_t():
    normal, hypertrophic = _beat(_with()), _beat(_with(lvh_grade=1.0))

    def sokolow_lyon(beat):
        return beat[_lead("V5")].max() - beat[_lead("V1")].min()

    assert sokolow_lyon(hypertrophic) > 1.3 * sokolow_lyon(normal)
    assert hypertrophic[_lead("V6"), 540:560].mean() < normal[_lead("V6"), 540:560].mean() - 0.05


@pytest.mark.parametrize(("territory", "lead"), [(0, "V3"), (1, "II"), (2, "V6")])
def test_ischaemia_moves_st_in_its_territory(territory, lead):
    st = slice(395, 425)
    raised, lowered = (
        _beat(_with(st_deviation_mv=size, territory=territory))[_lead(lead), st].mean() for size in (0.15, -0.15)
    )
    level = _beat(_with())[_lead(lead), st].mean()
    assert raised > level + 0.08
    assert lowered < level - 0.08


def test_fibrillation_replaces_the_p_wave():
    templates = _with(af=True)
    np.testing.assert_array_equal(templates.lead_mv[:, NORMAL, :, kernels.P_WAVE], 0)
    assert np.all(np.abs(templates.fibrillation_mv).max(axis=1) > 0)
    np.testing.assert_array_equal(_with().fibrillation_mv, 0)


def test_premature_beats_look_it():
    templates = _with()
    wide = [templates.width_ms[:, kind, kernels.R2].mean() for kind in (NORMAL, PVC)]
    assert wide[1] > 2 * wide[0]
    np.testing.assert_array_equal(templates.lead_mv[:, PVC, :, kernels.P_WAVE], 0)
    main, t_wave = templates.lead_mv[:, PVC, :, kernels.R2], templates.lead_mv[:, PVC, :, kernels.T1]
    discordant = np.sign(main) != np.sign(t_wave)
    assert np.average(discordant, weights=np.abs(main)) > 0.9
    early = [_beat(templates, kind)[_lead("II"), 125:150].mean() for kind in (NORMAL, PAC)]
    assert early[1] < early[0]


# Identity


def test_a_patient_resembles_himself_more_than_others():
    """Clean QRST of healthy patients: two visits against two patients."""
    patients = 300
    patient, visit = np.repeat(np.arange(patients), 2), np.tile([0, 1], patients)
    draws = Draws(seed=6, patient=patient, visit=visit)
    templates = waves.draw_templates(draws, draw_states(draws, visit=visit))
    time = np.arange(-60, 400, 4)
    centre, width = templates.centre_ms[:, NORMAL, :, None], templates.width_ms[:, NORMAL, :, None]
    beats = np.matmul(templates.lead_mv[:, NORMAL], np.exp(-0.5 * ((time - centre) / width) ** 2))
    beats = beats.reshape(len(patient), -1)
    distance = np.sqrt(((beats[::2, None] - beats[None, 1::2]) ** 2).sum(axis=-1))
    own = np.diag(distance)
    others = distance[~np.eye(patients, dtype=bool)]
    assert np.median(own) < 0.5 * np.median(others)
    nearest_is_own = (distance.argmin(axis=1) == np.arange(patients)).mean()
    assert 0.3 < nearest_is_own < 1.0


def test_every_patient_has_leads_of_his_own():
    """No patient is seen through Dower's matrix itself, and not through a multiple of it."""
    n = 50
    leads = waves._leads(Draws(seed=0, patient=np.arange(n), visit=np.zeros(n, np.int64)), waves.Placement())
    scale = (leads * waves._DOWER).sum(axis=(1, 2)) / (waves._DOWER**2).sum()
    off = np.sqrt(((leads - scale[:, None, None] * waves._DOWER) ** 2).sum(axis=(1, 2)) / (waves._DOWER**2).sum())
    assert np.all(off > 0.05)


# Calibration


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "lowest", "highest"), [("lvef", 0.84, 0.93), ("potassium", 0.78, 0.90), ("wedge_pressure", 0.72, 0.86)]
)
def test_targets_are_neither_trivial_nor_hidden(target, lowest, highest):
    """A linear probe on aligned clean waves, about what a small CNN reaches with 16,000 labels.

    Without additive differences between patients, the wedge pressure is read off at .89 here.
    """
    n, train = 9000, 6500
    draws = Draws(seed=5, patient=np.arange(n), visit=np.zeros(n, np.int64))
    states = draw_states(draws, visit=np.zeros(n, np.int64))
    templates = waves.draw_templates(draws, states)
    centre, width = templates.centre_ms[:, NORMAL], templates.width_ms[:, NORMAL]
    # Windows about the P wave, R and the T wave: a CNN finds the waves wherever they are, a linear probe does not.
    p_wave, t_wave = centre[:, kernels.P1] + 15, centre[:, kernels.T_WAVE].mean(axis=1)
    windows = []
    for about, reach in ((p_wave, 75), (np.zeros(n), 100), (t_wave, 150)):
        time = about[:, None] + np.arange(-reach, reach, 12)
        shape = np.exp(-0.5 * ((time[:, None] - centre[:, :, None]) / width[:, :, None]) ** 2)
        windows.append(np.matmul(templates.lead_mv[:, NORMAL], shape).reshape(n, -1))
    features = np.concatenate([*windows, p_wave[:, None], t_wave[:, None]], axis=1)
    features = features + 0.003 * np.random.default_rng(0).normal(size=features.shape)
    label, kept = {
        "lvef": (states.lvef < 40, np.ones(n, bool)),
        "potassium": (states.potassium > 5, states.potassium > 4),
        "wedge_pressure": (states.wedge_pressure > 18, np.ones(n, bool)),
    }[target]
    probe = make_pipeline(PCA(120, random_state=0), StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    probe.fit(features[:train][kept[:train]], label[:train][kept[:train]])
    score = roc_auc_score(label[train:][kept[train:]], probe.decision_function(features[train:][kept[train:]]))
    assert lowest < score < highest
