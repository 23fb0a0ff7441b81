"""Simulated sites: every setting has an effect and no other, people of two sites are different people."""

import dataclasses
import itertools

import numpy as np
import pytest

from data_pipelines.builders.simulated import SimulatedSource
from data_pipelines.errors import DataError
from data_pipelines.records import SignalFormat
from data_pipelines.signals.filters import resample
from data_pipelines.simulation import waves
from data_pipelines.simulation.cohort import SCALARS, Cohort, CohortConfig
from data_pipelines.simulation.noise import USUAL_NOISE, NoiseSources, draw_noise_levels
from data_pipelines.simulation.random_numbers import Draws
from data_pipelines.simulation.recorder import EXACT_RECORDER, Recorder, draw_gain, recorded
from data_pipelines.simulation.sites import NO_SITE, SITES, Site, site_named
from data_pipelines.simulation.states import USUAL_POPULATION, Population, draw_states
from data_pipelines.simulation.waves import USUAL_PLACEMENT, Placement
from tests.support import site_table

_PLAIN = Site(name="plain", number=9, description="")
_NUM = 20_000


def _config(site=NO_SITE, **changes):
    return CohortConfig(
        **{
            "seed": 5,
            "num_patients": 40,
            "visits_per_patient": (1, 1),
            "sampling_rate_hz": 250,
            "site": site,
            **changes,
        }
    )


def _simulated(site=NO_SITE, **changes):
    return Cohort(_config(site, **changes)).simulate(0, 40)


def _like_plain(**settings):
    return dataclasses.replace(_PLAIN, **settings)


def _draws(num=_NUM):
    return Draws(seed=1, patient=np.arange(num), visit=np.zeros(num, np.int64))


def _states(population):
    return draw_states(_draws(), visit=np.zeros(_NUM, np.int64), population=population)


def _source(site=None, *, rate=100, num_patients=4):
    form = SignalFormat(sampling_rate_hz=rate, num_samples=3 * rate)
    return SimulatedSource(num_patients=num_patients, seed=5, signal_format=form, site=site)


# A cohort without a site: its signals are held against their record in test_beat_to_beat.py


def test_without_a_site_everything_is_usual():
    parts = (USUAL_POPULATION, USUAL_NOISE, EXACT_RECORDER, USUAL_PLACEMENT)
    assert (NO_SITE.population, NO_SITE.noise, NO_SITE.recorder, NO_SITE.placement) == parts
    assert CohortConfig().site == NO_SITE
    np.testing.assert_array_equal(USUAL_PLACEMENT.mean_matrix(), waves._DOWER)
    millivolts = np.random.default_rng(0).normal(size=(8, 100)).astype(np.float32)
    shown = recorded(
        millivolts, EXACT_RECORDER, gain=float(draw_gain(_draws(1), EXACT_RECORDER)[0]), sampling_rate_hz=50
    )
    np.testing.assert_array_equal(shown, millivolts)


def test_a_data_set_without_a_site_holds_the_cohort_as_it_is():
    source = _source()
    records = list(source.reader()(source.items))
    cohort = Cohort(CohortConfig(seed=5, num_patients=4, sampling_rate_hz=100, seconds=3.0))
    np.testing.assert_array_equal([record.signal for record in records], cohort.simulate(0, len(records)).signal)
    assert records[0].record_id == "simulated-5-00000000-0"
    assert source.card.name == "simulated"
    assert source.label_schema.scalars == SCALARS
    assert "site" not in source.card.description


# People


def test_ids_and_people_of_two_sites_are_others():
    cohorts = {name: Cohort(_config(site)) for name, site in (("", NO_SITE), *SITES.items())}
    ids = [cohort.patient_id(number) for cohort in cohorts.values() for number in range(3)]
    assert len(set(ids)) == len(ids)
    assert all(site in one for site, cohort in cohorts.items() for one in [cohort.patient_id(0)])
    # All draws of a patient follow from one key: with one population, scores would be equal if people were.
    sites = [NO_SITE, *(Site(name=name, number=1, description="") for name in SITES)]
    lvef = np.stack([_simulated(site, sampling_rate_hz=50, seconds=2.0, noise=0.0).scalars["lvef"] for site in sites])
    assert not any(np.isin(one, other).any() for one, other in itertools.combinations(lvef, 2))
    assert np.abs(np.corrcoef(lvef) - np.eye(len(lvef))).max() < 0.6


def test_numbers_and_names_of_sites_are_their_own():
    assert all(name == site.name for name, site in SITES.items())
    assert len({0, *(site.number for site in SITES.values())}) == 1 + len(SITES)


def test_an_unknown_site_is_refused_with_the_names_of_all():
    with pytest.raises(
        DataError, match=r"--site=screning: no such simulated site; .*emergency.*did you mean screening"
    ):
        site_named("screning")
    with pytest.raises(DataError, match="the sites are emergency, elderly_clinic, screening"):
        _source("B")


# Population


@pytest.mark.parametrize(
    ("changed", "share"),
    [
        ({"low_lvef": 0.4}, lambda states: np.mean(states.lvef < 40)),
        ({"high_potassium": 0.3}, lambda states: np.mean(states.potassium > 5)),
        ({"median_wedge_mmhg": 16.0}, lambda states: np.mean(states.wedge_pressure > 18)),
        ({"mean_age_years": 75.0}, lambda states: np.mean(states.age_years > 70)),
        ({"sd_age_years": 30.0}, lambda states: np.mean(states.age_years > 80)),
    ],
)
def test_shares_of_the_population_are_moved(changed, share):
    assert share(_states(Population(**changed))) > 1.5 * share(_states(USUAL_POPULATION))


def test_a_population_moves_nothing_else():
    usual, moved = _states(USUAL_POPULATION), _states(Population(high_potassium=0.3))
    for field in dataclasses.fields(usual):
        if field.name != "potassium":
            np.testing.assert_array_equal(getattr(usual, field.name), getattr(moved, field.name))


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_prevalence_of_a_site_differs(site):
    usual, here = site_table.shares(USUAL_POPULATION, num_patients=_NUM), site_table.shares(site.population)
    ill = site.name != "screening"
    for name in ("LVEF < 40 %", "potassium > 5 mmol/L", "wedge pressure > 18 mmHg"):
        assert (here[name] > usual[name]) == ill
        assert abs(here[name] - usual[name]) > 0.02


# Noise


@pytest.mark.parametrize(
    ("factor", "fields"),
    [("muscle", {"muscle_mv"}), ("wander", {"drift_mv", "breath_mv"}), ("mains", {"mains_mv"})],
)
def test_factors_of_noise(factor, fields):
    usual, loud = (
        draw_noise_levels(_draws(50), seconds=10, sources=sources)
        for sources in (USUAL_NOISE, NoiseSources(**{factor: 2.0}))
    )
    for field in dataclasses.fields(usual):
        times = 2.0 if field.name in fields else 1.0
        np.testing.assert_allclose(getattr(loud, field.name), times * getattr(usual, field.name), rtol=1e-12)


def test_shares_and_frequency_of_noise():
    levels = draw_noise_levels(
        _draws(), seconds=10, sources=NoiseSources(mains_share=0.7, mains_hz=60.0, moved_share=0.25)
    )
    assert set(levels.mains_hz) == {60.0}
    assert abs(levels.mains_mv.any(axis=(1, 2)).mean() - 0.7) < 0.02
    assert abs((levels.motion_mv != 0).mean() - 0.25) < 0.02


def test_the_mains_are_found_in_what_is_stored():
    """The line at 60 Hz passes the recorder, the resampling and the storing."""
    mains = NoiseSources(mains=10.0, mains_share=1.0, mains_hz=60.0)
    site = dataclasses.replace(SITES["emergency"], noise=mains)
    loud, clean = (site_table.stored(site, num_patients=4, noise=level)[0].astype(float) for level in (1.0, 0.0))
    assert site_table.has_mains(loud - clean, 60).mean() > 0.8
    assert not site_table.has_mains(loud - clean, 50).any()


# Recorder


def test_the_gain_of_a_recorder_scales_recordings():
    plain = _simulated(_PLAIN, sampling_rate_hz=100)
    off = _simulated(_like_plain(recorder=Recorder(gain=1.04, log_sd_gain=0.03)), sampling_rate_hz=100)
    # Least squares through zero, since samples are whole microvolts.
    one, other = plain.signal.astype(float), off.signal.astype(float)
    gain = (one * other).sum(axis=(1, 2)) / np.square(one).sum(axis=(1, 2))
    np.testing.assert_allclose(other, gain[:, None, None] * one, atol=2)
    assert abs(np.log(np.median(gain) / 1.04)) < 4 * 0.03 / np.sqrt(len(gain))
    assert 0.02 < np.log(gain).std() < 0.04
    for name in SCALARS:
        np.testing.assert_array_equal(plain.scalars[name], off.scalars[name])


def test_the_filter_of_a_recorder_leaves_nothing_above_its_corner():
    hertz, window = np.fft.rfftfreq(2500, 1 / 250), np.hanning(2500)[:, None]

    def power(site):
        # Without the window, the step from the strip's end to its beginning would hide what is filtered.
        return np.square(np.abs(np.fft.rfft(window * _simulated(site).signal, axis=1))).mean(axis=(0, 2))

    ratio = power(_like_plain(recorder=Recorder(lowpass_hz=40.0))) / power(_PLAIN)
    assert ratio[(hertz > 1) & (hertz < 20)].min() > 0.98
    assert ratio[hertz > 80].mean() < 0.02


def test_recordings_of_a_site_come_at_its_rate_and_are_converted():
    source = _source("emergency")
    assert source._cohort.config.sampling_rate_hz == 1000
    records = list(source.reader()(source.items))
    made = source._cohort.simulate(0, len(records)).signal
    assert made.shape[1:] == (3000, 8)
    for record, signal in zip(records, made, strict=True):
        wanted = resample(signal / 1000, source_rate_hz=1000, target_rate_hz=100, source="here") * 1000
        np.testing.assert_array_equal(record.signal, np.rint(wanted))
        assert (record.valid_samples, record.recording_seconds) == (300, 3.0)


def test_a_recording_of_a_site_that_fails_a_check_is_quarantined(monkeypatch):
    source = _source("screening")
    made = source._cohort.simulate(0, 1)
    made.signal[..., 2] = 0
    monkeypatch.setattr(source._cohort, "simulate", lambda start, stop: made)
    [refused] = source.reader()([0])
    assert (refused.record_id, refused.reason) == ("simulated-screening-5-00000000-0", "flat_lead")


# Electrodes


def test_the_mean_matrix_of_the_chest_leads_turns_and_drops():
    usual, moved = USUAL_PLACEMENT.mean_matrix(), Placement(chest_turn_degrees=90.0, chest_drop=0.2).mean_matrix()
    np.testing.assert_array_equal(moved[:2], usual[:2])
    np.testing.assert_allclose(moved[2:, 1], usual[2:, 1] + 0.2)
    np.testing.assert_allclose(moved[2:, [0, 2]], np.stack([-usual[2:, 2], usual[2:, 0]], axis=1), atol=1e-12)


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_matrices_of_a_site_scatter_round_its_own(site):
    matrices, usual = (waves._leads(_draws(4000), each) for each in (site.placement, USUAL_PLACEMENT))
    mean = waves._MEAN_LEAD_GAIN[:, None] * site.placement.mean_matrix()
    np.testing.assert_allclose(matrices.mean(axis=0), mean, atol=0.02)
    assert np.abs(mean - usual.mean(axis=0))[2:].max() > 0.05
    if site.name != "screening":
        assert np.all(matrices.std(axis=0).mean(axis=1) > 1.1 * usual.std(axis=0).mean(axis=1))


def test_a_placement_changes_what_the_chest_leads_show_and_no_label():
    moved = _simulated(_like_plain(placement=Placement(chest_turn_degrees=10.0)), sampling_rate_hz=100, noise=0.0)
    plain = _simulated(_PLAIN, sampling_rate_hz=100, noise=0.0)
    np.testing.assert_array_equal(moved.signal[..., :2], plain.signal[..., :2])
    assert np.all(moved.signal[..., 2:].std(axis=1) != plain.signal[..., 2:].std(axis=1))
    for name in SCALARS:
        np.testing.assert_array_equal(moved.scalars[name], plain.scalars[name])


# The data set


@pytest.mark.parametrize("share", [None, 0.5])
def test_the_label_site_is_the_number_of_the_site(share):
    made = _simulated(SITES["screening"], sampling_rate_hz=50, seconds=2.0, beat_to_beat_share=share)
    assert list(made.scalars)[-1] == "site"
    assert set(made.scalars["site"]) == {3.0}


@pytest.mark.parametrize("name", SITES)
def test_the_card_names_the_site_and_says_simulated(name):
    source = _source(name)
    assert source.card.simulated
    assert source.card.name == f"simulated_{name}"
    for text in (source.card.description, source.card.notes[1]):
        assert f"SIMULATED site {name} (--site, label site = {SITES[name].number})" in text
    assert source.label_schema.scalars == (*SCALARS, "site")
    assert source.recipe == _source().recipe
