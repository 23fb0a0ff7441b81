"""The comparison of simulated with real records, on cohorts whose likeness is known."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from data_pipelines import realism
from data_pipelines.errors import DataError
from data_pipelines.physiology.median_beat import NAMES, UNITS, Measurements
from data_pipelines.records import STORED_LEADS, SignalFormat
from data_pipelines.simulation.cohort import Cohort, CohortConfig

_RATE_HZ = 100
_NUM_RECORDS = 240


def _measurements(signal: np.ndarray) -> Measurements:
    """Stand-in for the slow measurements: the SD of leads, whatever the columns are called."""
    values = np.resize(signal.std(axis=1), (len(signal), len(NAMES))).astype(np.float32)
    return Measurements(
        names=NAMES, units=tuple(UNITS.values()), values=values, median_beats=np.zeros((len(values), 0, 8)), failures={}
    )


def _recordings(seed: int, **changes) -> realism.Recordings:
    config = CohortConfig(seed=seed, num_patients=_NUM_RECORDS, visits_per_patient=(1, 2), sampling_rate_hz=_RATE_HZ)
    made = Cohort(dataclasses.replace(config, **changes)).simulate(0, _NUM_RECORDS)
    return realism.Recordings(signal=made.signal, patient=made.patient, measurements=_measurements(made.signal))


@pytest.mark.slow
def test_two_draws_of_one_cohort_cannot_be_told_apart():
    found = realism.telling_apart(_recordings(0), _recordings(1), sampling_rate_hz=_RATE_HZ, seed=0)
    assert set(found) == {"intervals and amplitudes", "spectrum", "both"}
    for score in found.values():
        # The standard error of an AUROC of 240 against 240 records is .026; visits are not independent.
        assert abs(score["auroc"] - 0.5) < 0.12


def test_records_without_noise_are_told_apart_by_their_spectrum():
    found = realism.telling_apart(_recordings(0), _recordings(1, noise=0.0), sampling_rate_hz=_RATE_HZ, seed=0)
    assert found["spectrum"]["auroc"] > 0.95


def test_description_of_known_signals():
    rng = np.random.default_rng(0)
    dipole = rng.normal(size=(20, 500, 3))
    signal = np.rint(1000 * dipole @ rng.normal(size=(3, 8))).astype(np.int16)
    recordings = realism.Recordings(signal=signal, patient=np.arange(20) // 2, measurements=_measurements(signal))
    found = realism.describe(recordings)
    assert found["records"] == 20
    assert found["patients"] == 10
    assert found["share_of_three_components"]["median"] == pytest.approx(1.0, abs=1e-4)
    for column, lead in enumerate(STORED_LEADS):
        expected = np.median(signal[:, :, column].std(axis=1))
        assert found["lead_sd_uv"][lead]["median"] == pytest.approx(expected, rel=1e-6)


def test_intervals_not_found_are_counted_and_left_out():
    values = np.full((4, len(NAMES)), 80.0, np.float32)
    values[0, NAMES.index("qrs")] = np.nan
    measurements = Measurements(
        names=NAMES, units=tuple(UNITS.values()), values=values, median_beats=np.zeros((len(values), 0, 8)), failures={}
    )
    found = realism.delineation_error(measurements, {"pr_ms": np.full(4, 70.0), "qrs_ms": 90.0, "qt_ms": 80.0})
    assert found["pr"]["median"] == 10
    assert found["qrs"] == {"median": -10.0, "lower_quartile": -10.0, "upper_quartile": -10.0, "not_found": 0.25}


def _dataset(*, simulated: bool, num_records: int) -> SimpleNamespace:
    normal = (np.arange(num_records) % 2).astype(np.float32)
    index = SimpleNamespace(
        duplicate_of=np.where(np.arange(num_records) == 3, 2, -1),
        patient=np.arange(num_records, dtype=np.int32),
        labels=("superdiagnostic:NORM", "all:NORM"),
        label=lambda name: normal,
    )
    return SimpleNamespace(
        directory="some/dataset", simulated=simulated, index=index, card={"name": "stand-in"}, fingerprint="f" * 32,
        format=SignalFormat(sampling_rate_hz=_RATE_HZ, num_samples=10 * _RATE_HZ),
    )  # fmt: skip


def test_a_simulated_or_tiny_data_set_is_refused(tmp_path):
    options = {"seed": 0, "max_records": 100, "num_workers": 1, "out": tmp_path}
    with pytest.raises(DataError, match="some/dataset: is simulated"):
        realism.compare(_dataset(simulated=True, num_records=100), **options)
    with pytest.raises(DataError, match="19 distinct records, at least 50"):
        realism.compare(_dataset(simulated=False, num_records=20), **options)


@pytest.mark.parametrize("classifiers", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_report_is_written_and_says_simulated(tmp_path, monkeypatch, classifiers):
    """Through stand-ins of the store, the measurements and the classifiers, which have tests of their own."""
    if not classifiers:
        score = {"auroc": 0.6, "sd_over_folds": 0.1}
        scores = {features: score for features in ("intervals and amplitudes", "spectrum", "both")}
        monkeypatch.setattr(realism, "telling_apart", lambda real, simulated, **options: scores)
    signal = _recordings(5).signal
    monkeypatch.setattr(realism, "open_store", lambda directory: SimpleNamespace(read=lambda records: signal[records]))
    monkeypatch.setattr(realism, "measure", lambda signals, **options: _measurements(signals))
    dataset = _dataset(simulated=False, num_records=_NUM_RECORDS)
    found = realism.compare(dataset, seed=0, max_records=2000, num_workers=1, out=tmp_path / "report")
    written = json.loads((tmp_path / "report" / "realism.json").read_text())
    assert written == found
    assert written["groups"]["all"]["real"]["records"] == _NUM_RECORDS - 1
    assert written["groups"]["normal"]["real"]["records"] == _NUM_RECORDS // 2 - 1
    report = (tmp_path / "report" / "report.md").read_text()
    assert "SIMULATED" in report.splitlines()[2]
    assert "| SD of V2, µV |" in report
    assert (tmp_path / "report" / "strips.png").read_bytes().startswith(b"\x89PNG")
