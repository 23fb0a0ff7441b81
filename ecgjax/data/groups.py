"""Groups of patients in a report, such as bands of age, made from columns of a data set's index."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.data.recordings import Recordings, unit_of

#: Columns whose groups are defined here; all others are labels of the index.
AGE, SEX, DATASET = "age", "sex", "dataset"

#: Group of the records whose value in a column is missing.
MISSING = "missing"

#: Prefix of the name of a column, such as codes of sites, of which every value is a group, however many there are.
EACH = "="

#: Edges of the age bands in years.
AGE_BANDS = (40.0, 60.0, 75.0)

#: Most distinct values of a numeric column that are categories; columns with more are cut into quarters.
_FEW = 10


def check_groups(columns: Sequence[str], recordings: Recordings, *, leaf: str = "config.probe.groups") -> None:
    """Refuses columns that the recordings lack.

    Args:
        columns: Columns of `config.probe.groups`.
        recordings: Recordings to be evaluated.
        leaf: Leaf that names the columns, for messages.

    Raises:
        DataError: There is no such column; the message names it and the existing ones.
    """
    known = (SEX, AGE, *recordings.index.labels)
    for column in columns:
        if column == DATASET and len(recordings.datasets) < 2:
            raise DataError(
                f"{leaf}={tuple(columns)} asks for {DATASET!r}, but config.data.dir names one data set: "
                "leave it out, or give several with commas between"
            )
        if column != DATASET and str(column).removeprefix(EACH) not in known:
            raise DataError(
                f"{leaf}={tuple(columns)}: no column {column!r} in this data set; it has "
                f"{', '.join(dict.fromkeys(known))}, and where several are joined {DATASET!r}"
            )


def group_columns(columns: Sequence[str], recordings: Recordings, records: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the group of each record in every column.

    Args:
        columns: Names of columns: `"sex"`, `"age"` (bands), `"dataset"`, or labels of the index, which are scalars, or
            classes of a task, whose groups are `"yes"` and `"no"`. A column of more than ten different numbers is cut
            at the quartiles of these records; `"=site"` makes every value of `site` a group.
        recordings: Recordings that the records belong to.
        records: Record numbers, `int64[n]`.

    Returns:
        Names of the records' groups, `str[n]` (object array), by column; `MISSING` where the value is missing.

    Raises:
        DataError: `check_groups` refuses a column.
    """
    check_groups(columns, recordings)
    return {column: _groups(column, recordings, records) for column in columns}


def categories(values: np.ndarray) -> np.ndarray:
    """Returns a column's values as names of groups, `str[n]` (object array), `MISSING` where there is no value.

    Args:
        values: Values of the column, `[n]`, either text (empty where missing) or numbers (NaN where missing); whole
            numbers lose their ".0".
    """
    values = np.asarray(values)
    if values.dtype.kind == "f":
        return np.array([MISSING if np.isnan(value) else f"{value:g}" for value in values], dtype=object)
    if values.dtype.kind in "biu":
        return values.astype(str).astype(object)
    return np.array([str(value) if value not in (None, "") else MISSING for value in values], dtype=object)


def bands(values: np.ndarray, edges: Sequence[float], *, unit: str = "") -> np.ndarray:
    """Returns the name of each value's band, such as `"40 to 60"`: `str[n]` (object array), `MISSING` for NaN.

    A value on an edge belongs to the band above.

    Args:
        values: Numbers, `[n]`, such as ages; NaN where missing.
        edges: Edges of the bands, ascending.
        unit: Unit that follows the numbers in the names.

    Raises:
        DataError: The edges do not ascend.
    """
    edges = list(edges)
    if not edges or any(low >= high for low, high in itertools.pairwise(edges)):
        raise DataError(f"edges of bands must ascend, unlike {edges}")
    unit = f" {unit}" if unit else ""
    names = [
        f"below {edges[0]:g}{unit}",
        *(f"{low:g} to {high:g}{unit}" for low, high in itertools.pairwise(edges)),
        f"{edges[-1]:g}{unit} and more",
    ]
    values = np.asarray(values, np.float64)
    index = np.searchsorted(edges, values, side="right")
    return np.array([MISSING if np.isnan(value) else names[i] for value, i in zip(values, index, strict=True)], object)


def _groups(column: str, recordings: Recordings, records: np.ndarray) -> np.ndarray:
    if column == DATASET:
        return _dataset_names(recordings)[recordings.dataset_of(records)]
    each, label = column.startswith(EACH), column.removeprefix(EACH)
    label = "age_years" if label == AGE else label
    values = recordings.index.label(label)[records]
    if each:
        return categories(values)
    if label == SEX:
        return np.where(np.isnan(values), MISSING, np.where(values == 1, "female", "male")).astype(object)
    if label == "age_years":
        return bands(values, AGE_BANDS, unit="years")
    if ":" in label:
        return np.where(np.isnan(values), MISSING, np.where(values == 1, "yes", "no")).astype(object)
    known = values[~np.isnan(values)].astype(np.float64)
    if len(np.unique(known)) <= _FEW:
        return categories(values)
    # Where many values are equal, two quartiles may coincide.
    edges = np.unique(np.quantile(known, (0.25, 0.5, 0.75)))
    return bands(values, edges.tolist(), unit=unit_of(label, recordings))


def _dataset_names(recordings: Recordings) -> np.ndarray:
    """Returns the data sets' names, `[datasets]`, with their place in `config.data.dir` where two are the same."""
    names = [dataset.card["name"] for dataset in recordings.datasets]
    number = collections.Counter(names)
    named = [f"{name} ({place})" if number[name] > 1 else name for place, name in enumerate(names, start=1)]
    return np.array(named, object)
