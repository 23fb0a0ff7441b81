"""Counts records and positives of every label by fold, and finds folds that lack positives or negatives.

A label cannot be tested on a fold without a positive record, nor learned from a training set without one. The build
reports this, so that it does not first show when a model is evaluated.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.prepared.index import Index
from data_pipelines.records import LABEL_MISSING, NO_FOLD

_RECORDS_PER_STEP = 1 << 16
_NAMED = 8
_LABELS_SHOWN = 12
_MOST_FOLDS_SHOWN = 12

#: Advice for folds without positives.
SPREAD_LABELS = (
    "To have every label in every fold, build with --folds=stratified (--builder=folder, or --builder=prepared of the "
    "data set that is built, at its own rate and length)"
)


def labels_by_fold(index: Index) -> dict[str, Any]:
    """Returns the numbers of records of every label by fold.

    Args:
        index: Index of the whole data set.

    Returns:
        Values that JSON can hold. `folds` has the numbers of the folds and `records` the number of records in each.
        `labels` has, by the name that `Index.label` takes, the number of `known` records in each fold; and for labels
        of 0 and 1 the number of `positive` records, for others the `mean`, which is None where no record is known.
    """
    folds, place = np.unique(np.asarray(index.fold), return_inverse=True)
    labels = {name: _scalar(values, place, len(folds)) for name, values in index.scalars.items()}
    for name, task in index.tasks.items():
        known, positive = _task(task.values, place, len(folds))
        for column, label in enumerate(task.classes):
            labels[f"{name}:{label}"] = {"known": known[:, column].tolist(), "positive": positive[:, column].tolist()}
    return {"folds": folds.tolist(), "records": np.bincount(place).tolist(), "labels": labels}


def _scalar(values: np.ndarray, place: np.ndarray, num_folds: int) -> dict[str, Any]:
    values = np.asarray(values, np.float64)
    present = ~np.isnan(values)
    known = np.bincount(place[present], minlength=num_folds)
    total = np.bincount(place[present], weights=values[present], minlength=num_folds)
    if present.any() and np.isin(values[present], (0, 1)).all():
        return {"known": known.tolist(), "positive": total.astype(int).tolist()}
    means = [float(part / count) if count else None for part, count in zip(total, known, strict=True)]
    return {"known": known.tolist(), "mean": means}


def _task(values: np.ndarray, place: np.ndarray, num_folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of records with a label and of positive records, `int64[fold, class]` each.

    Args:
        values: Labels of the task, `int8[n, class]`.
        place: Position of each record's fold, `int64[n]`.
        num_folds: Number of folds.
    """
    known = np.zeros((num_folds, values.shape[1]), np.int64)
    positive = np.zeros_like(known)
    # A task is memory-mapped, and is compared in steps, so that memory never holds a copy of all of it.
    for start in range(0, len(values), _RECORDS_PER_STEP):
        block, where = values[start : start + _RECORDS_PER_STEP], place[start : start + _RECORDS_PER_STEP]
        for fold in np.unique(where):
            inside = block[where == fold]
            known[fold] += np.count_nonzero(inside != LABEL_MISSING, axis=0)
            positive[fold] += np.count_nonzero(inside == 1, axis=0)
    return known, positive


def lacking_folds(counted: Mapping[str, Any]) -> list[str]:
    """Returns sentences on labels that lack positives or negatives in some fold.

    A label that has fewer of them than there are folds cannot be in every fold, and is named as rare instead.

    Args:
        counted: Result of `labels_by_fold`.
    """
    lacking: dict[str, list[str]] = {"positive": [], "negative": []}
    rare = []
    places = [place for place, number in enumerate(counted["folds"]) if number != NO_FOLD]
    for name, label in counted["labels"].items():
        if "positive" not in label or len(places) < 2:
            continue
        known, positive = (np.array(label[key])[places] for key in ("known", "positive"))
        for kind, have in (("positive", positive), ("negative", known - positive)):
            empty = [str(counted["folds"][place]) for place, count in zip(places, have, strict=True) if not count]
            if empty and have.sum() >= len(places):
                lacking[kind].append(f"{name} in {', '.join(empty)}")
            elif empty and have.sum():
                rare.append(f"{name} ({have.sum()} {kind})")
    sentences = [
        f"folds without a {kind} record: {_some(names, sign='; ')}. {SPREAD_LABELS}"
        for kind, names in lacking.items()
        if names
    ]
    if rare:
        sentences.append(
            f"labels rarer than there are folds: {_some(rare, sign=', ')}; put several folds on each side of a split "
            "(config.data.train_folds, val_folds, test_folds), or cross-validate"
        )
    return sentences


def _some(labels: Sequence[str], *, sign: str) -> str:
    more = f" … and {len(labels) - _NAMED} more labels" if len(labels) > _NAMED else ""
    return sign.join(labels[:_NAMED]) + more


def fold_table(counted: Mapping[str, Any], *, most: int | None = _LABELS_SHOWN) -> list[Sequence[str]]:
    """Returns rows of text, a header first, with every label's positives, or mean and number of records, by fold.

    Args:
        counted: Result of `labels_by_fold`.
        most: Largest number of labels, None for all; if some are left out, scalars and tasks with few classes are
            preferred.
    """
    shown = counted["folds"][:_MOST_FOLDS_SHOWN]
    more_folds = len(counted["folds"]) - len(shown)
    header = ["label", *("none" if fold == NO_FOLD else f"fold {fold}" for fold in shown)]
    names = list(counted["labels"])
    if most is not None and len(names) > most:
        sizes = collections.Counter(name.partition(":")[0] for name in names)
        names = sorted(names, key=lambda name: sizes[name.partition(":")[0]])[:most]
    rows: list[Sequence[str]] = [header, ["records", *map(str, counted["records"][: len(shown)])]]
    rows += [[name, *_cells(counted["labels"][name])[: len(shown)]] for name in names]
    if more_folds:
        rows = [[*row, f"… {more_folds} more" if row is header else ""] for row in rows]
    return rows


def _cells(label: Mapping[str, Any]) -> list[str]:
    counted = zip(label.get("positive") or label["mean"], label["known"], strict=True)
    if "positive" in label:
        return [f"{count}/{known}" if known else "-" for count, known in counted]
    return [f"{mean:.3g} ({known})" if known else "-" for mean, known in counted]
