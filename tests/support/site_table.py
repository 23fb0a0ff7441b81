"""What simulated sites store of their patients, measured: how often labels are there, noise, amplitude, rate.

`python -m tests.support.site_table` prints the table of docs/simulator.md.
"""

import numpy as np

from data_pipelines.builders.simulated import CohortReader
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from data_pipelines.simulation.random_numbers import Draws
from data_pipelines.simulation.sites import NO_SITE, SITES
from data_pipelines.simulation.states import draw_states

_RATE_HZ, _SECONDS = 250, 10.0
_RECIPE = SignalRecipe(name="simulated", version=1, sampling_rate_hz=_RATE_HZ, seconds=_SECONDS, min_seconds=_SECONDS)


def stored(site, *, num_patients, noise=1.0, seed=0):
    """What a build stores of a site's patients: signals, `int16[n, time, lead]`, and columns of numbers, `f64[n]`."""
    config = CohortConfig(
        seed=seed, num_patients=num_patients, seconds=_SECONDS, noise=noise, site=site,
        sampling_rate_hz=site.recorder.sampling_rate_hz or _RATE_HZ,
    )  # fmt: skip
    cohort = Cohort(config)
    records = list(CohortReader(cohort, _RECIPE)(range(cohort.num_records)))
    columns = {name: np.array([record.scalars[name] for record in records]) for name in config.units}
    return np.stack([record.signal for record in records]), columns | {
        "age_years": np.array([record.age_years for record in records])
    }


def shares(population, *, num_patients=40_000):
    """Shares of patients of a population by the words of the table, at their first visit."""
    visit = np.zeros(num_patients, np.int64)
    states = draw_states(
        Draws(seed=1, patient=np.arange(num_patients), visit=visit), visit=visit, population=population
    )
    return {
        "LVEF < 40 %": np.mean(states.lvef < 40),
        "potassium > 5 mmol/L": np.mean(states.potassium > 5),
        "wedge pressure > 18 mmHg": np.mean(states.wedge_pressure > 18),
        "atrial fibrillation": np.mean(states.af),
    }


def rms_between(noise, low_hz, high_hz):
    """Root mean square of a band of each record's noise over its leads, `f64[n]`, µV."""
    spectrum = np.fft.rfft(noise, axis=1) / noise.shape[1]
    hertz = np.fft.rfftfreq(noise.shape[1], 1 / _RATE_HZ)
    inside = (hertz >= low_hz) & (hertz < high_hz)
    return np.sqrt(2 * (np.abs(spectrum[:, inside]) ** 2).sum(axis=1).mean(axis=1))


def has_mains(noise, hertz):
    """Whether each record's noise has a line at a frequency, `bool[n]`: ten times the power of its neighbours."""
    power = np.square([rms_between(noise, hertz + shift - 0.25, hertz + shift + 0.25) for shift in (-2, -1, 0, 1, 2)])
    return power[2] > 10 * np.median(power, axis=0)


def figures(site, *, num_patients):
    """Figures of a site by the words of the table."""
    signal, columns = stored(site, num_patients=num_patients)
    clean, _ = stored(site, num_patients=num_patients, noise=0.0)
    noise, lead_sd = signal.astype(np.float64) - clean, clean.std(axis=1)
    expected = shares(site.population)
    mains = [_percent(has_mains(noise, hertz).mean(), digits=0) for hertz in (50, 60)]
    v2_over_v5 = np.log(lead_sd[:, 3] / lead_sd[:, 6])
    first = columns["visit"] == 0
    return {
        "recordings": f"{len(signal)}",
        "age at the first visit, years, median": f"{np.median(columns['age_years'][first]):.0f}",
        **{
            name: f"{_percent(found.mean())} ({_percent(expected[name])})"
            for name, found in (
                ("LVEF < 40 %", columns["lvef"] < 40),
                ("potassium > 5 mmol/L", columns["potassium"] > 5),
                ("wedge pressure > 18 mmHg", columns["wedge_pressure"] > 18),
                ("atrial fibrillation", columns["af"] > 0),
            )
        },
        "heart rate, 1/min, median": f"{np.median(columns['heart_rate_bpm']):.1f}",
        "noise, rms, µV, median": f"{np.median(rms_between(noise, 0.05, 125)):.1f}",
        "its part below 1 Hz": f"{np.median(rms_between(noise, 0.05, 1)):.1f}",
        "its part of 20 to 40 Hz": f"{np.median(rms_between(noise, 20, 40)):.1f}",
        "its part of 70 to 120 Hz": f"{np.median(rms_between(noise, 70, 120)):.1f}",
        "with a line at 50 Hz; at 60 Hz": "; ".join(mains),
        "V2 over V5 without noise, median; log-sd": f"{np.exp(np.median(v2_over_v5)):.2f}; {v2_over_v5.std():.2f}",
    }


def _percent(share, *, digits=1):
    return f"{100 * share:.{digits}f} %"


def main():
    """Prints the table of 300 patients of every site."""
    columns = {site.name or "no site": figures(site, num_patients=300) for site in (NO_SITE, *SITES.values())}
    print("| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(column[row] for column in columns.values()) + " |")


if __name__ == "__main__":
    main()
