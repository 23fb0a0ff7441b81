"""How close simulated ECGs come to real ones: a report of both side by side.

  python -m data_pipelines.realism --real=PTBXL_DATASET_DIR --out=DIR [--seed=0] [--num_workers=2]

--real is a prepared data set (`python -m data_pipelines.build`). As many simulated records as it holds are made at its
rate and length. Where it has PTB-XL's diagnostic classes, normal records are also compared by themselves: the simulated
cohort has other shares of disease than a hospital's archive. Writes report.md, realism.json and strips.png.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.command import MOST_WORKERS, command, output_folder, run
from data_pipelines.errors import DataError
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.paper.strips import Condition, draw_strips
from data_pipelines.physiology.median_beat import Measurements, measure
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.prepared.index import NOT_A_DUPLICATE
from data_pipelines.records import STORED_LEADS
from data_pipelines.simulation.cohort import SIMULATED_NOTICE, Cohort, CohortConfig, SimulatedRecords
from data_pipelines.storage.store import open_store

INTERVALS = ("pr", "qrs", "qt", "rr")
_NORMAL_LABEL = "superdiagnostic:NORM"
_DISEASES = ("lvh", "lbbb", "rbbb", "af", "pvc", "pac", "ischaemia")
_SPECTRUM_EDGES_HZ = (0.3, 0.6, 1, 2, 3, 5, 7, 10, 14, 19, 25, 32, 40, 49, 60, 80, 110)
_FOLDS = 5
_FEWEST_RECORDS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recordings:
    """Records of one origin, real or simulated, and their measurements.

    Attributes:
        signal: `int16[n, time, lead]`, µV.
        patient: Codes of the patients, `int64[n]`.
        measurements: Intervals and amplitudes of the records.
    """

    signal: np.ndarray
    patient: np.ndarray
    measurements: Measurements

    def subset(self, chosen: np.ndarray) -> Recordings:
        """Returns the chosen records.

        Args:
            chosen: Whether each record is chosen, `bool[n]`.
        """
        measurements = dataclasses.replace(self.measurements, values=self.measurements.values[chosen])
        return Recordings(signal=self.signal[chosen], patient=self.patient[chosen], measurements=measurements)


def describe(recordings: Recordings) -> dict[str, Any]:
    """Returns, for JSON, quartiles of intervals (ms), leads' standard deviations (µV) and energy in three components.

    The share is that of each record: its leads' three largest eigenvalues of the covariance over all eight.
    """
    names = recordings.measurements.names
    columns = {name: recordings.measurements.values[:, names.index(name)] for name in INTERVALS}
    centred = recordings.signal - recordings.signal.mean(axis=1, keepdims=True, dtype=np.float64)
    covariance = np.einsum("nti,ntj->nij", centred, centred) / centred.shape[1]
    eigenvalues = np.linalg.eigvalsh(covariance)
    share = eigenvalues[:, -3:].sum(axis=1) / eigenvalues.sum(axis=1)
    deviations = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return {
        "records": len(recordings.signal),
        "patients": len(np.unique(recordings.patient)),
        "intervals_ms": {name: _quartiles(values) for name, values in columns.items()},
        "lead_sd_uv": {lead: _quartiles(deviations[:, column]) for column, lead in enumerate(STORED_LEADS)},
        "share_of_three_components": _quartiles(share),
    }


def _quartiles(values: np.ndarray) -> dict[str, float]:
    found = values[np.isfinite(values)]
    lower, median, upper = np.percentile(found, [25, 50, 75])
    return {
        "median": float(median),
        "lower_quartile": float(lower),
        "upper_quartile": float(upper),
        "not_found": float(1 - len(found) / len(values)),
    }


def telling_apart(
    real: Recordings, simulated: Recordings, *, sampling_rate_hz: int, seed: int
) -> dict[str, dict[str, float]]:
    """Returns the AUROC of classifiers trained to tell simulated from real; 0.5 means indistinguishable.

    They are cross-validated in five folds, without splitting patients. Intervals and amplitudes go to a random forest,
    the spectrum (log power in bands of each lead) to logistic regression, both together to a forest.

    Args:
        real: Real recordings.
        simulated: Simulated recordings.
        sampling_rate_hz: Rate of both.
        seed: Seed of folds and forests.

    Returns:
        Mean AUROC over folds and its standard deviation, by the features used.
    """
    measured = np.concatenate([real.measurements.values, simulated.measurements.values]).astype(np.float64)
    spectrum = np.concatenate([log_spectrum(side.signal, sampling_rate_hz) for side in (real, simulated)])
    label = np.repeat([0, 1], [len(real.signal), len(simulated.signal)])
    # Both number their patients from 0, and two people must not be kept together as one.
    patient = np.concatenate([real.patient, simulated.patient + real.patient.max() + 1])
    forest = RandomForestClassifier(100, min_samples_leaf=2, random_state=seed)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    tried = {
        "intervals and amplitudes": (measured, forest),
        "spectrum": (spectrum, linear),
        "both": (np.concatenate([measured, spectrum], axis=1), forest),
    }
    found = {}
    for name, (features, model) in tried.items():
        folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(features, label, patient)
        scores = []
        for train, test in folds:
            # A classifier that has not converged tells less apart, and the cohort would look better than it is.
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConvergenceWarning)
                model.fit(features[train], label[train])
            scores.append(roc_auc_score(label[test], model.predict_proba(features[test])[:, 1]))
        found[name] = {"auroc": float(np.mean(scores)), "sd_over_folds": float(np.std(scores, ddof=1))}
    return found


def log_spectrum(signal: np.ndarray, sampling_rate_hz: int) -> np.ndarray:
    """Returns the log power of each lead in bands below the Nyquist frequency, `f64[n, leads · bands]`.

    Args:
        signal: `int16[n, time, lead]`, µV.
        sampling_rate_hz: Rate of the signals.
    """
    hertz = np.fft.rfftfreq(signal.shape[1], 1 / sampling_rate_hz)
    edges = [edge for edge in _SPECTRUM_EDGES_HZ if edge < sampling_rate_hz / 2]
    power = np.abs(np.fft.rfft(signal.astype(np.float32), axis=1)) ** 2
    bands = [power[:, (hertz >= low) & (hertz < high)].sum(axis=1) for low, high in itertools.pairwise(edges)]
    # A dead lead has no power at all; a thousandth of a microvolt keeps its logarithm finite.
    return np.log(np.stack(bands, axis=2) + 1e-6).reshape(len(signal), -1)


def delineation_error(measurements: Measurements, scalars: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Returns quartiles of measured minus true PR, QRS and QT of simulated records, ms, by the interval's name.

    Args:
        measurements: Measurements of the records.
        scalars: True intervals, `f32[n]`, by name.
    """
    return {
        name: _quartiles(measurements.values[:, measurements.names.index(name)] - scalars[f"{name}_ms"])
        for name in ("pr", "qrs", "qt")
    }


def compare(dataset: Dataset, *, seed: int, max_records: int, num_workers: int, out: Path) -> dict[str, Any]:
    """Compares a data set of real recordings with as many simulated ones, and writes the report.

    Args:
        dataset: Prepared data set of real recordings.
        seed: Seed of the simulated cohort.
        max_records: Largest number of records to take from `dataset`, its first ones.
        num_workers: Number of processes that measure.
        out: Directory to write to, which is created.

    Returns:
        The contents of `realism.json`.

    Raises:
        DataError: The data set is simulated itself, or too small.
    """
    if dataset.simulated:
        raise DataError(f"{dataset.directory}: is simulated; --real takes a data set of real recordings")
    # Equal records under two patients could come into training and test.
    chosen = np.flatnonzero(np.asarray(dataset.index.duplicate_of) == NOT_A_DUPLICATE)[:max_records]
    if len(chosen) < _FEWEST_RECORDS:
        raise DataError(f"{dataset.directory}: {len(chosen)} distinct records, at least {_FEWEST_RECORDS} are needed")
    rate, seconds = dataset.format.sampling_rate_hz, dataset.format.seconds
    config = CohortConfig(
        seed=seed, num_patients=len(chosen), visits_per_patient=(1, 2), sampling_rate_hz=rate, seconds=seconds
    )
    made = Cohort(config).simulate(0, len(chosen))
    signal = open_store(dataset.directory).read(chosen)

    def measured(signal: np.ndarray, patient: np.ndarray) -> Recordings:
        measurements = measure(signal, sampling_rate_hz=rate, processes=num_workers)
        return Recordings(signal=signal, patient=patient.astype(np.int64), measurements=measurements)

    real = measured(signal, np.asarray(dataset.index.patient)[chosen])
    simulated = measured(made.signal, made.patient)
    found: dict[str, Any] = {
        "notice": SIMULATED_NOTICE,
        "real": {"name": dataset.card["name"], "fingerprint": dataset.fingerprint},
        "sampling_rate_hz": rate,
        "seed": seed,
        "groups": {},
        "delineation_error_ms": delineation_error(simulated.measurements, made.scalars),
    }
    groups = {"all": (np.ones(len(chosen), bool),) * 2}
    if _NORMAL_LABEL in dataset.index.labels:
        groups["normal"] = (dataset.index.label(_NORMAL_LABEL)[chosen] == 1, without_finding(made))
    for name, (of_real, of_simulated) in groups.items():
        sides = real.subset(of_real), simulated.subset(of_simulated)
        found["groups"][name] = {
            "real": describe(sides[0]),
            "simulated": describe(sides[1]),
            "telling_apart": telling_apart(*sides, sampling_rate_hz=rate, seed=seed),
        }
    out.mkdir(parents=True, exist_ok=True)
    (out / "realism.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(found), encoding="utf-8")
    draw_strips(_conditions(dataset, chosen, signal, made), sampling_rate_hz=rate, path=out / "strips.png")
    return found


def without_finding(records: SimulatedRecords) -> np.ndarray:
    """Returns which records have no finding, `bool[n]`: no disease, LVEF from 50 %, potassium of 3.5 to 5 mmol/L."""
    scalars = records.scalars
    healthy = np.all([scalars[name] == 0 for name in _DISEASES], axis=0)
    return healthy & (scalars["lvef"] >= 50) & (scalars["potassium"] >= 3.5) & (scalars["potassium"] <= 5)


def _conditions(dataset: Dataset, chosen: np.ndarray, signal: np.ndarray, made: SimulatedRecords) -> list[Condition]:
    """Returns the first simulated and the first real example of each condition; either may be missing.

    Args:
        dataset: Data set of real recordings.
        chosen: Record numbers of the real records, `int64[n]`.
        signal: Signals of the real records, `int16[n, time, lead]`, µV.
        made: Simulated records.
    """
    scalars = made.scalars
    # Each has PTB-XL's statement, where it has one.
    shown = (
        ("no finding", "NORM", without_finding(made)),
        ("atrial fibrillation", "AFIB", scalars["af"] == 1),
        ("left bundle branch block", "CLBBB", (scalars["lbbb"] == 1) & (scalars["af"] == 0)),
        ("right bundle branch block", "CRBBB", (scalars["rbbb"] == 1) & (scalars["af"] == 0)),
        ("premature ventricular beat", "PVC", scalars["pvc"] == 1),
        ("left ventricular hypertrophy", "LVH", scalars["lvh"] == 1),
        ("ischaemic ST/T", "ISC_", scalars["ischaemia"] == 1),
        ("potassium above 6.5 mmol/L", None, scalars["potassium"] > 6.5),
    )
    conditions = []
    for name, code, in_simulated in shown:
        label = f"all:{code}"
        labelled = dataset.index.label(label)[chosen] == 1 if label in dataset.index.labels else np.zeros(0, bool)
        simulated, real = _first(made.signal, in_simulated), _first(signal, labelled)
        conditions.append(Condition(name=name, simulated=simulated, real=real))
    return conditions


def _first(signal: np.ndarray, chosen: np.ndarray) -> np.ndarray | None:
    found = np.flatnonzero(chosen)
    return signal[found[0]] if len(found) else None


def markdown(found: Mapping[str, Any]) -> str:
    """Returns the report of what `compare` found, as Markdown."""
    lines = [
        "# Simulated beside real",
        "",
        f"**{found['notice']}**",
        "",
        f"Real: {found['real']['name']} ({found['real']['fingerprint'][:12]}), {found['sampling_rate_hz']} Hz. "
        f"Simulated: seed {found['seed']}. Medians, quartiles in brackets; intervals are measured on both alike.",
    ]
    for name, group in found["groups"].items():
        real, simulated = group["real"], group["simulated"]
        lines += [
            "",
            f"## {name.capitalize()} records: {real['records']} real, {simulated['records']} simulated",
            "",
            "| | real | simulated |",
            "|---|---|---|",
        ]
        columns = []
        for side in (real, simulated):
            cells = [_cell(side["intervals_ms"][interval], 0) for interval in INTERVALS]
            cells += [_cell(side["lead_sd_uv"][lead], 0) for lead in STORED_LEADS]
            columns.append([*cells, _cell(side["share_of_three_components"], 3)])
        names = [
            *(f"{interval.upper()}, ms" for interval in INTERVALS),
            *(f"SD of {lead}, µV" for lead in STORED_LEADS),
        ]
        rows = zip([*names, "Energy in three components"], *columns, strict=True)
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += ["", "| Told apart by | AUROC (0.5: not at all) |", "|---|---|"]
        lines += [
            f"| {features} | {score['auroc']:.3f} ± {score['sd_over_folds']:.3f} |"
            for features, score in group["telling_apart"].items()
        ]
    lines += ["", "## Measured − true on simulated records", "", "| interval | ms |", "|---|---|"]
    lines += [f"| {name.upper()} | {_cell(error, 0)} |" for name, error in found["delineation_error_ms"].items()]
    lines += ["", "![Simulated strips beside real ones](strips.png)", ""]
    return "\n".join(lines)


def _cell(quartiles: Mapping[str, float], digits: int) -> str:
    values = [f"{quartiles[name]:.{digits}f}" for name in ("median", "lower_quartile", "upper_quartile")]
    return f"{values[0]} [{values[1]}–{values[2]}]"


def define_flags() -> None:
    """Defines the flags of the command in a function, as at import they would collide with those of other commands."""
    flags.DEFINE_string("real", None, "Directory of a prepared data set of real recordings.")
    flags.DEFINE_string("out", None, "Directory to write the report to.")
    # Seeds of scikit-learn have 32 bits.
    flags.DEFINE_integer("seed", 0, "Seed of the simulated cohort.", lower_bound=0, upper_bound=2**32 - 1)
    flags.DEFINE_integer("max_records", 2000, "Most real records to compare with.", lower_bound=50)
    words = "Processes that measure."
    flags.DEFINE_integer("num_workers", os.cpu_count(), words, lower_bound=1, upper_bound=MOST_WORKERS)


@command
def main() -> None:
    """Writes and prints the report that the flags ask for."""
    with finished_folder(flags.FLAGS.out) as out:
        found = compare(
            open_dataset(dataset_folder(flags.FLAGS.real, flag="real")),
            seed=flags.FLAGS.seed,
            max_records=flags.FLAGS.max_records,
            num_workers=flags.FLAGS.num_workers,
            out=output_folder("out", out),
        )
    print(markdown(found))
    print(f"written to {flags.FLAGS.out}")


if __name__ == "__main__":
    define_flags()
    run(main, required=["real", "out"])
