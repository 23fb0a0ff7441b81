"""Draws the state of a simulated patient at a visit: identity, diseases, and the three continuous targets.

Distributions are literature-like judgement, not clinical truth.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from scipy.special import gammaincinv, ndtr
from scipy.stats import gamma, norm

from data_pipelines.records import FEMALE, MALE
from data_pipelines.simulation.random_numbers import Draws

# These are correlations of two visits' normal scores. LVEF hardly changes, filling pressure does, and potassium is a
# state of the day: drawn once a patient, positives of the same patient would look far better at potassium than they
# are.
_LVEF_CORRELATION = 0.92
_POTASSIUM_CORRELATION = 0.33
_WEDGE_CORRELATION = 0.56
_RATE_CORRELATION = 0.6

_PREVALENCE = {"lvh": 0.12, "rbbb": 0.035, "ischaemia": 0.10, "pac_carrier": 0.05}


def _mixture_quantiles(
    lowest: float, highest: float, cdf: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (probability, value), `f64[4096]` each, of a distribution that is cut off at physiological bounds.

    Args:
        lowest: Smallest value.
        highest: Largest value.
        cdf: Cumulative distribution function.
    """
    value = np.linspace(lowest, highest, 4096)
    probability = cdf(value)
    return (probability - probability[0]) / (probability[-1] - probability[0]), value


@functools.cache
def _lvef_quantiles(low: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns (probability, value) of LVEF in percent, `f64[4096]` each.

    Args:
        low: Share of the component of low LVEF.
    """
    usual = _rest(low)
    return _mixture_quantiles(8.0, 85.0, lambda x: usual * norm.cdf(x, 62, 6) + low * norm.cdf(x, 34, 10))


@functools.cache
def _potassium_quantiles(high: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns (probability, value) of serum potassium in mmol/L, `f64[4096]` each.

    Args:
        high: Share of the component above 5 mmol/L.
    """
    usual, low = _rest(high + 0.04), 0.04
    return _mixture_quantiles(
        2.2,
        9.5,
        lambda x: (
            usual * norm.cdf(x, 4.25, 0.36) + high * gamma.cdf(x - 5, a=1.6, scale=0.55) + low * norm.cdf(x, 3.2, 0.25)
        ),
    )


def _rest(share: float) -> float:
    # Without rounding, 1 − .18 is not the number nearest to .82, and cohorts would not be what they were to the bit.
    return round(1 - share, 12)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Population:
    """Distribution of ages and of the three continuous targets among the patients of a site.

    Attributes:
        mean_age_years: Mean of the ages at the first visit, which are normal, cut off at 18 and 90 years.
        sd_age_years: Standard deviation of the ages.
        low_lvef: Share of the component N(34 %, 10 %) of LVEF; all others are of N(62 %, 6 %).
        high_potassium: Share of the component of potassium above 5 mmol/L, 0 … 0.96.
        median_wedge_mmhg: Median of the wedge pressure before what a low LVEF, atrial fibrillation and hypertrophy add.
    """

    mean_age_years: float = 62.0
    sd_age_years: float = 16.0
    low_lvef: float = 0.18
    high_potassium: float = 0.12
    median_wedge_mmhg: float = 12.0


#: Population of a cohort without a site.
USUAL_POPULATION = Population()


@dataclasses.dataclass(frozen=True, kw_only=True)
class States:
    """State of `n` patients at a visit; every field is an array over records.

    Attributes:
        age_years: Ages, f64.
        sex: Sexes, int8, `MALE` or `FEMALE`.
        rate_bpm: Mean ventricular rate of the basic rhythm.
        lvef: Left ventricular ejection fraction, %.
        potassium: Serum potassium, mmol/L.
        wedge_pressure: Mean pulmonary capillary wedge pressure, mmHg.
        lvh_grade: Grade of left ventricular hypertrophy, 0 without it.
        lbbb: Whether there is left bundle branch block, bool.
        rbbb: Whether there is right bundle branch block, bool; never together with left.
        af: Whether there is atrial fibrillation during the recording, bool.
        pvc_carrier: Whether the patient has premature ventricular beats, bool; a strip may contain none.
        pac_carrier: Whether the patient has premature atrial beats, bool; a strip may contain none.
        st_deviation_mv: Signed size of the ischaemic ST vector; 0 without ischaemia.
        territory: Ischaemic territory, int64: 0 anterior, 1 inferior, 2 lateral.
        lvef_strength: Factor by which this patient's ECG shows a low LVEF, 1 on average.
        potassium_strength: Factor by which this patient's ECG shows abnormal potassium, 1 on average.
        wedge_strength: Factor by which this patient's ECG shows a high wedge pressure, 1 on average.
    """

    age_years: np.ndarray
    sex: np.ndarray
    rate_bpm: np.ndarray
    lvef: np.ndarray
    potassium: np.ndarray
    wedge_pressure: np.ndarray
    lvh_grade: np.ndarray
    lbbb: np.ndarray
    rbbb: np.ndarray
    af: np.ndarray
    pvc_carrier: np.ndarray
    pac_carrier: np.ndarray
    st_deviation_mv: np.ndarray
    territory: np.ndarray
    lvef_strength: np.ndarray
    potassium_strength: np.ndarray
    wedge_strength: np.ndarray

    @property
    def dysfunction(self) -> np.ndarray:
        """Degree of dysfunction: 0 at an LVEF of 55 % and above, 1 at 35 %."""
        return dysfunction(self.lvef)

    def showing(self, factor: float) -> States:
        """Returns the same states, of which the ECG shows LVEF, potassium and wedge pressure `factor` times as much."""
        return dataclasses.replace(
            self,
            lvef_strength=factor * self.lvef_strength,
            potassium_strength=factor * self.potassium_strength,
            wedge_strength=factor * self.wedge_strength,
        )


def dysfunction(lvef: np.ndarray) -> np.ndarray:
    """Returns h = (55 − LVEF)₊ / 20, `f64[n]`, to which the ECG changes of a low LVEF are proportional.

    Args:
        lvef: Left ventricular ejection fraction, %, `f64[n]`.
    """
    return np.maximum(55 - lvef, 0) / 20


def draw_states(draws: Draws, *, visit: np.ndarray, population: Population = USUAL_POPULATION) -> States:
    """Draws the states of records.

    Args:
        draws: Random numbers of the records.
        visit: Number of the visit of each record, `int64[n]`, 0 for a patient's first.
        population: Distribution of ages and targets.
    """
    sex = np.where(draws.lasting_uniform("sex") < 0.47, FEMALE, MALE).astype(np.int8)
    first_age = np.clip(population.mean_age_years + population.sd_age_years * draws.lasting_normal("age"), 18, 90)
    age_years = first_age + visit * 3 * draws.lasting_uniform("years between visits")

    lvef_score = draws.correlated_normal("lvef", correlation=_LVEF_CORRELATION)
    lvef = np.interp(ndtr(lvef_score), *_lvef_quantiles(population.low_lvef))
    potassium_score = draws.correlated_normal("potassium", correlation=_POTASSIUM_CORRELATION)
    potassium = np.interp(ndtr(potassium_score), *_potassium_quantiles(population.high_potassium))
    h = dysfunction(lvef)

    af = draws.lasting_uniform("af") < 0.03 + 0.08 * h
    lbbb = draws.lasting_uniform("lbbb") < 0.012 + 0.10 * np.minimum(h, 1.5)
    rbbb = (draws.lasting_uniform("rbbb") < _PREVALENCE["rbbb"]) & ~lbbb
    lvh = draws.lasting_uniform("lvh") < _PREVALENCE["lvh"]
    lvh_grade = np.where(lvh, gammaincinv(2.0, draws.lasting_uniform("lvh grade")) * 0.3, 0.0)

    ischaemia = draws.uniform("ischaemia") < _PREVALENCE["ischaemia"]
    sign = np.where(draws.uniform("st sign") < 0.5, -1.0, 1.0)
    st_deviation_mv = np.where(ischaemia, sign * (0.03 + 0.15 * draws.uniform("st size")), 0.0)

    wedge_score = draws.correlated_normal("wedge", correlation=_WEDGE_CORRELATION)
    base_pressure = population.median_wedge_mmhg * np.exp(0.42 * wedge_score)
    congestion = 5 * h * gammaincinv(2.0, draws.lasting_uniform("congestion")) * 0.5
    wedge_pressure = np.clip(base_pressure + congestion + 3 * af + 1.5 * lvh, 2, 50)

    rate_score = draws.correlated_normal("rate", correlation=_RATE_CORRELATION)
    rate_bpm = np.clip(69 * np.exp(0.17 * rate_score) * (1 + 0.04 * h) * np.where(af, 1.2, 1.0), 40, 150)

    return States(
        age_years=age_years,
        sex=sex,
        rate_bpm=rate_bpm,
        lvef=lvef,
        potassium=potassium,
        wedge_pressure=wedge_pressure,
        lvh_grade=lvh_grade,
        lbbb=lbbb,
        rbbb=rbbb,
        af=af,
        pvc_carrier=draws.lasting_uniform("pvc") < 0.04 + 0.08 * h,
        pac_carrier=(draws.lasting_uniform("pac") < _PREVALENCE["pac_carrier"]) & ~af,
        st_deviation_mv=st_deviation_mv,
        territory=np.minimum((3 * draws.uniform("territory")).astype(np.int64), 2),
        **{f"{name}_strength": _strength(draws, f"{name} strength") for name in ("lvef", "potassium", "wedge")},
    )


def _strength(draws: Draws, name: str) -> np.ndarray:
    """Draws factors by which patients' ECGs show a condition, `f64[n]`: log-normal of mean 1, equal at all visits.

    Args:
        draws: Random numbers of the records.
        name: Name of the draw.
    """
    return np.exp(0.6 * draws.lasting_normal(name) - 0.18)
