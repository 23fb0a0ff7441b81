"""Columns of label tables: which are known under what name, which are labels, and what is odd about those."""

import datetime

import numpy as np
import pandas as pd
import pytest

from data_pipelines.errors import DataError
from data_pipelines.label_tables.label_columns import judge_column
from data_pipelines.label_tables.label_table import LabelTable

PATH = "labels.csv"


def table(tmp_path, text, **changes):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return LabelTable(path, **changes)


@pytest.mark.parametrize(
    "header", ["Record,Patient ID,AGE,Sex", "RECORD,PatientID,Age,SEX", "record,patient-id, age ,Is Male"]
)
def test_known_columns_in_any_capitals_with_spaces_and_dashes(tmp_path, header):
    made = table(tmp_path, f"{header},LVEF\na,p,50,male,55\nb,q,60,male,50\n")
    assert made.columns == ("record", "patient_id", "age", "sex", "LVEF")
    assert made.scalars == ("LVEF",)
    assert made.rows_of(["a", "b"])["a"] == {
        "record": "a", "patient_id": "p", "age": "50", "sex": "male", "LVEF": "55"
    }  # fmt: skip
    assert any("read under another name" in note and "as patient_id" in note for note in made.notes)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("record,patinet_id", "rename its column 'patinet_id' to 'patient_id'"),
        ("record,patient", "rename its column 'patient' to 'patient_id'"),
        ("record,Subject ID", "rename its column 'Subject ID' to 'patient_id'"),
        ("filename,patient_id", "rename its column 'filename' to 'record'"),
        ("recrd,patient_id", "rename its column 'recrd' to 'record'"),
        ("record,patient_id,gender", "rename its column 'gender' to 'sex'"),
        ("record,patient_id,Sex (1=m)", r"rename its column 'Sex \(1=m\)' to 'sex'"),
        ("record,patient_id,Age [y]", r"rename its column 'Age \[y\]' to 'age'"),
        ("record,patient_id,sex_code", "rename its column 'sex_code' to 'sex'"),
        ("record,patient_id,Geschlecht", "rename its column 'Geschlecht' to 'sex'"),
        ("record,patient_id,split", "rename its column 'split' to 'fold'.*such as 1 to train on"),
        ("record,patient_id,strat_fold", "rename its column 'strat_fold' to 'fold'"),
        ("record,patient_id,flod", "rename its column 'flod' to 'fold'"),
        ("record,patient_id,Patient Age", "rename its column 'Patient Age' to 'age'"),
        ("record,patient_id,sex,gender", "columns 'sex' and 'gender' both mean 'sex'"),
        ("record,patient_id,sex,is_male", "columns 'sex' and 'is_male' both mean 'sex'"),
        ("record,patient_id,Patient ID", "columns 'patient_id' and 'Patient ID' both mean 'patient_id'"),
        ("record,patient_id,subject_id", "columns 'patient_id' and 'subject_id' both mean 'patient_id'"),
        ("record|patient_id", r"its columns are set apart by '\|': write it with commas"),
    ],
)
def test_columns_that_nearly_are_known_ones(tmp_path, header, message):
    with pytest.raises(DataError, match=message):
        table(tmp_path, f"{header}\n{','.join('1' * (header.count(',') + 1))}\n")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_of_spreadsheets_that_write_no_commas(tmp_path, separator):
    text = 'record,patient_id,lvef,report\na,P 1,55,x\nb,P2,,"1, 2"\n'.replace(",", separator)
    made = table(tmp_path, text.replace(f"1{separator} 2", "1, 2"))
    assert made.scalars == ("lvef",)
    rows = made.rows_of(["a", "b"])
    assert rows["a"]["patient_id"] == "P 1"
    assert rows["b"]["report"] == "1, 2"
    with pytest.raises(DataError, match=r"column 'lvef' has 1 numbers and 1 other values .'45,5'"):
        table(tmp_path, "record;patient_id;lvef\na;P1;45,5\nb;P2;50\n")
    with pytest.raises(DataError, match="line 3 has 2 cells where the header names 3 columns, set apart by ';'"):
        table(tmp_path, "record;patient_id;lvef\na;P1;45,5\nb;P2\n")


def test_other_names_of_a_recording_are_no_labels(tmp_path):
    made = table(tmp_path, "record,patient_id,ecg_id,filename,Unnamed: 0,lvef\na,p,17,a.hea,0,55\nb,q,18,b.hea,1,50\n")
    assert made.scalars == ("lvef",)
    assert "columns that are not numeric are not stored: ecg_id, filename, Unnamed: 0" in made.notes


def test_labels_that_only_sound_like_known_columns_stay_labels(tmp_path):
    names = ("age_at_death", "wage", "gold", "recorded", "sexual_history", "reported", "foldable", "page")
    made = table(tmp_path, f"record,patient_id,{','.join(names)}\na,p,{','.join('1' * 8)}\nb,q,{','.join('2' * 8)}\n")
    assert made.scalars == names


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["55,5", "60,0", "48"], r"1 numbers and 2 other values \('55,5', '60,0'\)"),
        (["45 %", "50 %", "38 %"], r"0 numbers and 3 other values \('45 %', '50 %', '38 %'\)"),
        (["4.1", "3.9", "hemolysed"], r"2 numbers and 1 other values \('hemolysed'\)"),
        (["0.5", "<0.01", "0.4"], r"\('<0.01'\)"),
        (["4.1 mmol/l", "4.2 mmol/l"], "without units"),
        (["1", "0", "positive", "1"], r"3 numbers and 1 other values \('positive'\)"),
        (["1_000", "2", "3"], r"'1_000'"),
    ],
)
def test_a_label_that_is_not_wholly_numbers_is_an_error(values, named):
    with pytest.raises(DataError, match=named):
        judge_column("lvef", values, path=PATH)


@pytest.mark.parametrize(
    ("values", "is_label"),
    [
        (["yes", "no", ""], True),
        (["True", "FALSE", "nan"], True),
        (["1", "?", "-", "#N/A", "0"], True),
        (["positive", "negative"], False),
        (["2020-01-01", "2021-02-03"], False),
        (["12A", "14B", "3C", "7"], False),
        (["I48.0", "I10"], False),
        (["", "NA"], False),
    ],
)
def test_which_columns_are_labels(values, is_label):
    assert judge_column("x", values, path=PATH).is_label == is_label


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["1"] * 5, "label 'x' is 1 in all of its 5 rows"),
        ([str(number) for number in range(100, 125)], "another whole number in each of its 25 rows; is it an id?"),
        (["20200101", "20210203", "20210203"], "holds dates such as 20200101"),
        (["55", "60", "-1", "-1"], "is -1 in 2 rows, far from its other values"),
        (["0", "1", "-9", "1"], "is -9 in 1 row"),
        (["4.1", "3.9", "999"], "is 999 in 1 row"),
    ],
)
def test_odd_labels_are_stored_and_told(values, told):
    judged = judge_column("x", values, path=PATH)
    assert judged.is_label
    assert any(told in sentence for sentence in judged.told), judged.told


@pytest.mark.parametrize("values", [["0", "1", "1"], ["-3.5", "-1", "2"], ["99", "80", "120"], ["55.5", "60", "48"]])
def test_ordinary_labels_are_not_told(values):
    assert judge_column("x", values, path=PATH).told == ()


def test_ids_that_pandas_took_for_numbers_with_gaps(tmp_path):
    made = table(tmp_path, "record,patient_id,fold\n1.0,123.0,2.0\n2.0,456.0,\n3.0,,1.0\n")
    rows = made.rows_of(["1", "2", "3"])
    assert [row["patient_id"] for row in rows.values()] == ["123", "456", ""]
    assert rows["1"]["fold"] == "2"


def test_ids_of_which_some_end_with_a_fraction_stay_apart(tmp_path):
    rows = table(tmp_path, "record,patient_id\na,123.0\nb,123\n").rows_of(["a", "b"])
    assert [row["patient_id"] for row in rows.values()] == ["123.0", "123"]


def test_ids_that_a_spreadsheet_shortened(tmp_path):
    with pytest.raises(DataError, match=r"column 'patient_id' has '1.23457E\+11', a whole number as spreadsheets"):
        table(tmp_path, "record,patient_id\na,1.23457E+11\nb,1.23457E+11\n")


def test_rows_that_repeat_and_rows_without_a_record(tmp_path):
    made = table(tmp_path, "record,patient_id,x\na,p,1\na,p,1\nNA,q,2\n,q,3\nb,q,4\n")
    assert len(made) == 2
    assert "1 row of the labels repeats an earlier one in all columns" in made.notes
    assert "2 rows of the labels name no record ('NA' 1, '' 1) and are left out" in made.notes


def test_a_table_without_rows(tmp_path):
    with pytest.raises(DataError, match="has no row below its header"):
        table(tmp_path, "record,patient_id\n")


def test_parquet_types(tmp_path):
    path = tmp_path / "labels.parquet"
    frame = pd.DataFrame(
        {
            "Patient ID": pd.Categorical(["p", "q", "p"]),
            "sex": pd.Categorical(["male", None, "male"]),
            "sick": pd.array([True, None, False], "boolean"),
            "count": np.array([1, 2, 3], np.int8),
            "lvef": np.array([55.5, np.nan, 40], np.float32),
            "when": [datetime.datetime(2020, 1, 1)] * 3,
            "note": [b"x", b"y", None],
        },
        index=pd.Index(["a", "b", "c"], name="record"),
    )
    frame.to_parquet(path)
    made = LabelTable(path)
    assert made.scalars == ("sick", "count", "lvef")
    assert set(made.ignored) == {"when", "note"}
    rows = list(made.rows_of(["a", "b", "c"]).values())
    assert [row["patient_id"] for row in rows] == ["p", "q", "p"]
    assert [row["sick"] for row in rows] == ["True", "", "False"]
    assert [row["lvef"] for row in rows] == ["55.5", "", "40"]


def test_parquet_ids_too_large_for_their_type(tmp_path):
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"record": ["a", "b"], "patient_id": [2.0**60, np.nan]}).to_parquet(path)
    with pytest.raises(DataError, match="column 'patient_id' holds numbers with a fraction, too large to be exact"):
        LabelTable(path)
