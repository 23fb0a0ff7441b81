"""Computes figures of a prepared data set for its users: patients, labels and quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data_pipelines.prepared.dataset import Dataset
from data_pipelines.prepared.fold_labels import labels_by_fold
from data_pipelines.prepared.index import NOT_A_DUPLICATE, Index, duplicate_pairs
from data_pipelines.prepared.kept_seconds import kept_seconds
from data_pipelines.records import FEMALE, LABEL_MISSING, MICROVOLTS_PER_MILLIVOLT, SEX_NAMES, SEX_UNKNOWN, STORED_LEADS
from data_pipelines.signals.quality import QualityFlag, flag_names
from data_pipelines.storage.store import Store

#: Entries that are copied from the data set's own card.
_FROM_CARD = (
    *("name", "simulated", "description", "license", "citation"),
    *("layout_version", "signal_format", "recipe", "leads"),
    *("num_records", "num_patients", "fingerprint"),
)

_DECADE_YEARS = 10
_RECORDS_PER_READ = 256


def dataset_card(dataset: Dataset, *, amplitudes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns figures of a data set as values that JSON can hold; shares are from 0 to 1, undefined values are None.

    Args:
        dataset: Data set to describe.
        amplitudes: Amplitudes of its signals, from `amplitudes_of`.

    Returns:
        Figures by name; `text.card_text` formats them.
    """
    index = dataset.index
    # Data sets that were built before there were remarks, doubts or shared contents have no such entries.
    summary = dataset.card["summary"]
    return {name: dataset.card[name] for name in _FROM_CARD} | {
        "directory": str(dataset.directory),
        "notes": list(summary["notes"]),
        "records_in": summary["records_in"],
        "quarantined": dict(summary["quarantined"]),
        "remarks": dict(summary.get("remarks", {})),
        "doubts": list(summary.get("doubts", [])),
        "records_per_patient": _records_per_patient(index),
        "duplicates": _duplicates(index),
        "shared_contents": list(summary.get("shared_contents", ())),
        "seconds": kept_seconds(index, dataset.format),
        "sex": sex_counts(index),
        "sex_reading": summary.get("sex_reading", ""),
        "age_years": _spread(index.age_years) | {"by_decade": _by_decade(index)},
        "folds": _folds(index),
        "labels_by_fold": labels_by_fold(index),
        "tasks": {name: _task(index, name) for name in index.tasks},
        "scalars": {
            name: {"unit": dataset.card["scalars"][name]["unit"]} | _spread(values)
            for name, values in index.scalars.items()
        },
        "amplitudes": dict(amplitudes),
        "padding": _padding(dataset),
        "quality": _quality(index),
    }


def amplitudes_of(
    store: Store, index: Index, *, max_records: int, seed: int, progress: Callable[[int], object] = lambda count: None
) -> dict[str, Any]:
    """Measures the amplitude of each lead, over all records or a random sample of them.

    Args:
        store: Store of the data set's signals.
        index: Index of the same data set.
        max_records: Largest number of records to read; of a larger data set, this many are drawn without replacement.
        seed: Seed of that draw.
        progress: Function that is called after each read with the number of records that were read.

    Returns:
        `records_read`, `seed` (None where all were read) and `peak_to_peak_mv`: for every stored lead the 1st,
        50th and 99th percentile and the largest, over records, of the span of its recorded samples.
    """
    sampled = index.num_records > max_records
    numbers = np.arange(index.num_records)
    if sampled:
        # Sorted, the records are read in the order in which they lie on the disk.
        numbers = np.sort(np.random.default_rng(seed).choice(index.num_records, max_records, replace=False))
    spans = np.empty((len(numbers), len(STORED_LEADS)), np.int32)
    for first in range(0, len(numbers), _RECORDS_PER_READ):
        block = numbers[first : first + _RECORDS_PER_READ]
        for position, (number, signal) in enumerate(zip(block, store.read(block), strict=True), start=first):
            start = index.valid_start[number]
            recorded = signal[start : start + index.valid_samples[number]]
            # A span can be twice as large as int16 holds.
            spans[position] = recorded.max(axis=0).astype(np.int32) - recorded.min(axis=0)
        progress(len(block))
    at = np.percentile(spans / MICROVOLTS_PER_MILLIVOLT, (1, 50, 99, 100), axis=0).T.tolist()
    names = ("p1", "median", "p99", "max")
    return {
        "records_read": len(numbers),
        "seed": seed if sampled else None,
        "peak_to_peak_mv": {
            lead: dict(zip(names, values, strict=True)) for lead, values in zip(STORED_LEADS, at, strict=True)
        },
    }


def _spread(values: np.ndarray) -> dict[str, Any]:
    """Returns count, missing share, mean, percentiles and whether all are 0 or 1, of a column with NaN for missing.

    Args:
        values: Values of the column, `[n]`.
    """
    # In float32 the sum of a million values would lose digits.
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    names = ("min", "p1", "median", "p99", "max")
    at = np.percentile(known, (0, 1, 50, 99, 100)) if len(known) else [None] * len(names)
    return {
        "known": len(known),
        "missing_share": 1 - len(known) / len(values),
        "mean": float(known.mean()) if len(known) else None,
        "binary": bool(len(known)) and bool(np.isin(known, (0, 1)).all()),
    } | {name: None if value is None else float(value) for name, value in zip(names, at, strict=True)}


def _records_per_patient(index: Index) -> dict[str, Any]:
    counts = np.bincount(index.patient)
    sizes, patients = np.unique(counts, return_counts=True)
    return {
        "mean": float(counts.mean()),
        "median": float(np.median(counts)),
        "max": int(counts.max()),
        # The keys of JSON are texts.
        "patients_by_records": dict(zip(map(str, sizes.tolist()), patients.tolist(), strict=True)),
    }


def _duplicates(index: Index) -> dict[str, Any]:
    number = np.flatnonzero(index.duplicate_of != NOT_A_DUPLICATE)
    first = index.duplicate_of[number]
    return {
        "records": len(number),
        "under_another_patient": int(np.count_nonzero(index.patient[number] != index.patient[first])),
        # Groups are numbered from 0 without gaps.
        "groups": int(index.group.max()) + 1,
        "pairs": duplicate_pairs(index),
    }


def _by_decade(index: Index) -> list[dict[str, int]]:
    """Returns the number of records of each sex by decade of age, from the first decade with records to the last."""
    known = ~np.isnan(index.age_years)
    decade = (np.asarray(index.age_years)[known] // _DECADE_YEARS).astype(int)
    sex = np.asarray(index.sex)[known]
    if not len(decade):
        return []
    return [
        {"from_years": row * _DECADE_YEARS}
        | {name: int(np.count_nonzero((decade == row) & (sex == code))) for code, name in SEX_NAMES.items()}
        for row in range(decade.min(), decade.max() + 1)
    ]


def _folds(index: Index) -> list[dict[str, Any]]:
    rows = []
    for fold in np.unique(index.fold):
        inside = index.fold == fold
        ages, sex = index.age_years[inside], index.sex[inside]
        # A fold whose sexes are mostly unknown would otherwise seem to have few women.
        known_sex = np.count_nonzero(sex != SEX_UNKNOWN)
        rows.append(
            {
                "fold": int(fold),
                "records": int(np.count_nonzero(inside)),
                "patients": len(np.unique(index.patient[inside])),
                "median_age_years": _spread(ages)["median"],
                "female_share": np.count_nonzero(sex == FEMALE) / known_sex if known_sex else None,
            }
        )
    return rows


def _task(index: Index, name: str) -> dict[str, Any]:
    """Returns numbers of records and patients of every class of a task; prevalence is the share of labelled records.

    Args:
        index: Index of the data set.
        name: Name of the task.
    """
    task = index.tasks[name]
    # A record has all labels of a task or none.
    labelled = (task.values != LABEL_MISSING).all(axis=1)
    num_labelled = int(np.count_nonzero(labelled))
    classes = {}
    for column, label in enumerate(task.classes):
        patients = index.patient[task.values[:, column] == 1]
        prevalence = len(patients) / num_labelled if num_labelled else None
        classes[label] = {"records": len(patients), "patients": len(np.unique(patients)), "prevalence": prevalence}
    return {"labelled": num_labelled, "missing": index.num_records - num_labelled, "classes": classes}


def _padding(dataset: Dataset) -> dict[str, Any]:
    index, form = dataset.index, dataset.format
    padded = index.valid_samples < form.num_samples
    seconds = np.asarray(index.valid_samples)[padded] / form.sampling_rate_hz
    return {
        "padded": int(np.count_nonzero(padded)),
        "padded_before": int(np.count_nonzero(index.valid_start > 0)),
        "shortest_seconds": float(seconds.min()) if len(seconds) else None,
        "median_seconds": float(np.median(seconds)) if len(seconds) else None,
    }


def sex_counts(index: Index) -> dict[str, int]:
    """Returns the number of records of each sex, by its name."""
    return {name: int(np.count_nonzero(index.sex == code)) for code, name in SEX_NAMES.items()}


def flag_counts(index: Index) -> dict[str, int]:
    """Returns the number of records that have each flag of quality, by its name."""
    return {name: int(np.count_nonzero(index.quality & flag)) for flag in QualityFlag for name in flag_names(flag)}


def _quality(index: Index) -> dict[str, Any]:
    clipped = np.asarray(index.clipped_samples)
    return {
        "flags": flag_counts(index),
        "clipped_records": int(np.count_nonzero(clipped)),
        "clipped_samples": int(clipped.sum(dtype=np.int64)),
    }
