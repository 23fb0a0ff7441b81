"""People and settings of a small study."""

import dataclasses

from configs import cross_validation as default_method
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax import cross_validate as entry
from ecgjax.settings.sections import read
from tests.data_pipelines.test_link import record

RATE_HZ = 100


def people(seed, count, *, prefix):
    """Two records each of simulated people, every second of them old and a woman."""
    settings = {"visits_per_patient": (2, 2), "sampling_rate_hz": RATE_HZ, "seconds": 10.0}
    signals = Cohort(CohortConfig(seed=seed, num_patients=count, **settings)).simulate(0, 2 * count).signal
    return [
        dataclasses.replace(
            record(signal, f"{prefix}{number}", patient=f"{prefix}{number // 2}", fold=1 + number // 2 % 10),
            age_years=float(40 + 30 * (number // 2 % 2)),
            sex=number // 2 % 2,
        )
        for number, signal in enumerate(signals)
    ]


def method(**changed):
    config = default_method.get_config()
    config.update({"outer_folds": 3, "inner_folds": 2, "strengths": (1e-3, 0.1), "min_positives": 4, "resamples": 100})
    return read(entry.Method, config.to_dict() | changed)
