"""Folds of a folder's patients, stratified by the labels of its table before any recording is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.label_tables.label_table import LabelTable
from data_pipelines.metadata.demographics import number
from data_pipelines.metadata.missing import is_missing_id
from data_pipelines.prepared.stratified_folds import label_indicators, stratified_folds


def check_dealing(folds: str | None, table: LabelTable | None) -> None:
    """Raises `DataError` if `folds` asks for folds that the table already has, or for stratified ones without labels.

    Args:
        folds: Way of assigning patients to folds, one of `stratified_folds.DEALINGS`, or None.
        table: Table of labels, or None.
    """
    if folds is None:
        return
    if table is not None and "fold" in table.columns:
        message = f"--folds={folds}: {table.path} has a column 'fold'; take it out of the table, or leave --folds out"
        raise DataError(message)
    if folds == "stratified" and (table is None or not table.scalars):
        message = "--folds=stratified needs labels to stratify by: numeric columns of the table that --labels names"
        raise DataError(message)


def with_stratified_folds(
    rows: Mapping[str, Mapping[str, str] | None],
    table: LabelTable,
    *,
    is_stored: Callable[[str], bool],
    missing_ids: Collection[str],
) -> dict[str, Mapping[str, str] | None]:
    """Returns the rows with stratified folds: a value of `fold` in every row that has a recording and a patient.

    Args:
        rows: Row of each record by its id, None for a recording without a row.
        table: Table that the rows come from.
        is_stored: Function that returns whether a record has a recording.
        missing_ids: Values of the patient id that mean "unknown", in addition to those that always do.
    """
    # A record that is quarantined later must not take a place in a fold.
    chosen = {
        record: row
        for record, row in rows.items()
        if row is not None and is_stored(record) and not is_missing_id(row["patient_id"], more=missing_ids)
    }
    if not chosen:
        return dict(rows)
    ids, patient = np.unique([row["patient_id"] for row in chosen.values()], return_inverse=True)
    scalars = {name: np.array([number(row[name]) for row in chosen.values()], np.float32) for name in table.scalars}
    folds = stratified_folds(patient, ids.tolist(), label_indicators(scalars, {}))[patient]
    dealt = {name: {**row, "fold": str(fold)} for (name, row), fold in zip(chosen.items(), folds.tolist(), strict=True)}
    return {record: dealt.get(record, row) for record, row in rows.items()}
