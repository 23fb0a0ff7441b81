"""Conditions on the columns of an index: which rows remain, and which conditions are refused."""

import numpy as np
import pyarrow as pa
import pytest

from data_pipelines.errors import DataError
from ecgjax.search_index import conditions, index_folder
from ecgjax.search_index.embedding_tables import open_tables
from ecgjax.search_index.index_build import build_index
from ecgjax.search_index.index_folder import open_index
from tests.ecgjax.search_index.made_up_tables import directions, write_embeddings

SEX = ["female", "male", None, "female", "male", "female"]
AGE = [60.5, 70.0, 80.0, np.nan, 0.1, 60.5]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditions")
    columns = {"sex": SEX, "age": pa.array(AGE, pa.float32()), "fold": [1, 2, 3, 4, 5, None], "BNP>100": [0, 1] * 3}
    table = write_embeddings(folder / "one.parquet", directions(6), **columns)
    build_index(open_tables([str(table)]), folder / "index")
    return open_index(folder / "index")


@pytest.mark.parametrize(
    ("texts", "rows"),
    [
        (["sex=female"], [0, 3, 5]),
        (["sex!=female"], [1, 4]),
        (["age>60.5"], [1, 2]),
        (["age>=60.5"], [0, 1, 2, 5]),
        (["age < 60.5"], [4]),
        (["age<=60.5"], [0, 4, 5]),
        (["age=.1"], [4]),
        (["age!=0.1"], [0, 1, 2, 5]),
        (["fold>2"], [2, 3, 4]),
        (["BNP>100=1"], [1, 3, 5]),
        (["record=r3"], [3]),
        (["sex=female", "age>60"], [0, 5]),
        (["data_set=mine", "patient_id=p1", "fold<5"], [3]),
        ([], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_rows_remain_for_which_all_conditions_hold(index, texts, rows, monkeypatch):
    monkeypatch.setattr(index_folder, "_AT_ONCE", 4)
    assert conditions.remaining(index, texts).rows.tolist() == rows


def test_each_condition_says_how_many_rows_meet_it_and_have_no_value(index):
    assert conditions.remaining(index, ["sex=female", "age>60"]).told == (("sex=female", 3, 1), ("age>60", 4, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sexx=female", "'sexx' is no column of the index; there are, the nearest first, sex,"),
        ("=female", "'' is no column"),
        ("sex", "says no value"),
        ("sex=", "is no column|no value"),
        ("sex>female", "holds texts"),
        ("age=old", "'old' is none"),
        ("age>nan", "finite"),
        ("age<inf", "finite"),
        ("age=>60", "'>60' is none"),
        ("sex=other", r"no row .*sex=other holds for 0 of 6 rows"),
    ],
)
def test_conditions_that_cannot_be_are_refused(index, text, message):
    with pytest.raises(DataError, match=message):
        conditions.remaining(index, [text])


def test_a_column_that_does_not_exist_is_answered_with_the_nearest_ten():
    classes = [f"label_superdiagnostic:{name}" for name in ("CD", "HYP", "MI", "NORM", "STTC")]
    columns = ["record", "sex", *(f"label_form:F{number}" for number in range(30)), *classes, "label_all:NORM"]
    with pytest.raises(DataError) as refused:
        conditions.parse("label_NORM>0", pa.schema([(name, pa.float32()) for name in columns]))
    listed = str(refused.value).partition("the nearest first, ")[2].partition(";")[0]
    names, _, more = listed.partition(" and ")
    assert names.split(", ")[:2] == ["label_all:NORM", "label_superdiagnostic:NORM"]
    assert (len(names.split(", ")), more) == (10, "28 more")


def test_few_columns_are_all_listed():
    with pytest.raises(DataError, match=r"the nearest first, age, sex; write one with"):
        conditions.parse("ages>3", pa.schema([("sex", pa.string()), ("age", pa.float32())]))
