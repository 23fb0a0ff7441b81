"""Groups by any column: bands, categories, quarters, classes, data sets, and what is refused."""

import math
import types

import numpy as np
import pytest

from data_pipelines.errors import DataError
from ecgjax.data import recordings
from ecgjax.data.groups import MISSING, check_groups, group_columns

COLUMNS = {
    "sex": [1, 0, math.nan, 1, 0, 1, 0, 1, 0, 1, 0, 1],
    "age_years": [39.9, 40, 61, 75, math.nan, 20, 20, 20, 20, 20, 20, 20],
    "potassium": [3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 3.7, 3.8, 3.9, 4.0, 4.1, math.nan],
    "device": [2, 2, 2, 1, 1, 1, 1, 1, 1, 1, math.nan, 1],
    "site": [*range(100, 111), math.nan],
    "tied": [0, 0, 0, 0, 0, 0, *range(1, 6), 99],
    "rhythm:AF": [0, 0, 1, 1, math.nan, 0, 0, 0, 0, 0, 0, 0],
}


class _Index:
    num_records = 12
    labels = tuple(COLUMNS)

    def label(self, name):
        return np.array(COLUMNS[name], np.float32)


def _recordings(*names, index=None):
    cards = [{"name": name, "scalars": {"potassium": {"unit": "mmol/L"}}} for name in names]
    datasets = [types.SimpleNamespace(card=card, index=types.SimpleNamespace(num_records=6)) for card in cards]
    return recordings.Recordings(
        datasets=tuple(datasets), index=index or _Index(), format=None, store=None, split=None, linked=False
    )


def _found(column, *, records=None, names=("one",)):
    records = np.arange(12) if records is None else np.asarray(records)
    return group_columns([column], _recordings(*names), records)[column].tolist()


def test_demographics():
    assert _found("sex", records=[0, 1, 2]) == ["female", "male", MISSING]
    bands = ["below 40 years", "40 to 60 years", "60 to 75 years", "75 years and more", MISSING]
    assert _found("age", records=range(5)) == _found("age_years", records=range(5)) == bands


def test_few_numbers_are_categories_and_many_are_quarters():
    assert _found("device", records=[0, 3, 10]) == ["2", "1", MISSING]
    quarters = _found("potassium", names=("one", "two"))
    # Quantiles of 3.1 … 4.1: 3.35, 3.6 and 3.85; a value on an edge belongs to the quarter above.
    names = ["below 3.35 mmol/L", "3.35 to 3.6 mmol/L", "3.6 to 3.85 mmol/L", "3.85 mmol/L and more"]
    assert quarters == [*[names[0]] * 3, *[names[1]] * 2, *[names[2]] * 3, *[names[3]] * 3, MISSING]
    assert _found("potassium", records=[3, 0, 11]) == ["3.4", "3.1", MISSING], "those of the records alone count"


def test_of_codes_every_one_can_be_a_group():
    assert len(set(_found("site"))) == 5
    assert _found("=site") == [*map(str, range(100, 111)), MISSING]
    assert _found("=potassium", records=[0, 11]) == ["3.1", MISSING]


def test_edges_that_are_one_value_are_one_edge():
    # Seven different numbers are categories; of 21, three quarters of them equal, there is one edge.
    assert sorted(set(_found("tied"))) == ["0", "1", "2", "3", "4", "5", "99"]
    values = np.r_[np.zeros(60), np.arange(1, 21)].astype(np.float32)
    index = types.SimpleNamespace(labels=("score",), label=lambda name: values)
    found = group_columns(["score"], _recordings("one", index=index), np.arange(80))["score"]
    assert dict(zip(*np.unique(found.astype(str), return_counts=True), strict=True)) == {
        "0 to 0.25": 60, "0.25 and more": 20,
    }  # fmt: skip


def test_classes_are_yes_or_no():
    assert _found("rhythm:AF", records=[1, 2, 4]) == ["no", "yes", MISSING]


def test_joined_data_sets_are_groups():
    assert _found("dataset", records=[5, 6, 0], names=("Ulm", "Bonn")) == ["Ulm", "Bonn", "Ulm"]
    assert _found("dataset", records=[5, 6], names=("Ulm", "Ulm")) == ["Ulm (1)", "Ulm (2)"]


def test_what_there_is_not_is_refused_by_name():
    check_groups(("sex", "age", "=site", "rhythm:AF"), _recordings("one"))
    for column in ("ward", "=ward", "=dataset", "rhythm:*", 7):
        with pytest.raises(DataError, match=rf"no column '?{str(column).replace('*', '.')}'? .*sex, age.*potassium"):
            check_groups(("sex", column), _recordings("one"))
    with pytest.raises(DataError, match=r"asks for 'dataset', but config\.data\.dir names one data set"):
        check_groups(("dataset",), _recordings("one"))
    assert group_columns((), _recordings("one"), np.arange(3)) == {}
