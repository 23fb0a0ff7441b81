"""What says that a value is missing: one rule for ids, ages, sexes, labels and folds."""

import csv

import numpy as np
import pytest

from data_pipelines.builders.folder import FolderSource
from data_pipelines.errors import DataError
from data_pipelines.metadata.ages import read_age
from data_pipelines.metadata.demographics import number
from data_pipelines.metadata.missing import is_missing, is_missing_id, is_missing_in_file
from data_pipelines.metadata.sexes import WORDS, column_coding, declared_sexes
from data_pipelines.records import FEMALE, MALE, SEX_UNKNOWN
from data_pipelines.signals.recipe import SignalRecipe
from tests.support.fixtures import results_of, twelve_lead_mv, write_wfdb

RECIPE = SignalRecipe(name="test", version=1, sampling_rate_hz=100, seconds=2.0, min_seconds=1.0)

MISSING = (
    "", " ", "NA", "n/a", "NaN", "None", "NULL", "unknown", "Unknown ", "-", "--", "?", "??", ".", "#N/A", "<NA>",
    "\\N", "unbekannt", "not available", "NaT", "\u00a0", "…", "(null)", "Not  Known", "desconocido", "未知", "#VALUE!",
)  # fmt: skip


@pytest.mark.parametrize("text", MISSING)
def test_missing_is_missing_in_every_column(text):
    assert is_missing(text)
    assert is_missing_id(text)
    assert np.isnan(number(text))
    age, remark = read_age(text, source="s")
    assert np.isnan(age)
    assert remark is None
    assert WORDS.read(text, source="s") == (SEX_UNKNOWN, None)


@pytest.mark.parametrize(
    "text", ["Anonymous", "ANONYMIZED", "test", "Test Patient", "redacted", "xxx", "-1", "-99", "John Doe", "no name"]
)
def test_ids_that_are_nobodys(text):
    assert is_missing_id(text)
    assert not is_missing(text)


@pytest.mark.parametrize("text", ["0", "000", "1", "9999", "A-1", "na1", "patient 7", "NAN2", "123.0", "none-such"])
def test_ids_that_may_be_somebodys(text):
    assert not is_missing_id(text)


def test_recorders_fill_the_field_with_zeros_and_the_user_names_further_values():
    assert is_missing_in_file("000000")
    assert not is_missing_in_file("0001")
    assert is_missing_in_file("Notaufnahme", more={"notaufnahme"})
    assert is_missing_id("99999", more={"99999"})


def write_records(folder, names, comments=()):
    for seed, name in enumerate(names):
        write_wfdb(folder, name, twelve_lead_mv(seconds=2, seed=seed), comments=comments)


def folder_source(folder, **changes):
    arguments = {"labels": None, "patient_field": None, "name": "ours", "recipe": RECIPE}
    return FolderSource(folder, **(arguments | changes))


def with_table(tmp_path, rows, **changes):
    """Writes a recording for each row after the first, which is the header, and the table."""
    names = [row[0] for row in rows[1:]]
    write_records(tmp_path / "in", names)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder_source(tmp_path / "in", labels=tmp_path / "labels.csv", **changes)


def test_patients_without_an_id_are_not_one_patient(tmp_path):
    ids = ["NA", "nan", "None", "unknown", "-", "Anonymous", "0", "p1"]
    rows = [("record", "patient_id"), *((f"r{number}", text) for number, text in enumerate(ids))]
    *bad, zero, good = results_of(with_table(tmp_path, rows))
    assert {result.reason for result in bad} == {"missing_patient"}
    assert bad[0].message.endswith(
        "patient_id in the table of labels is 'NA', which names nobody, so its patient is not known"
    )
    assert (zero.patient_id, good.patient_id) == ("0", "p1")


def test_the_user_names_ids_that_are_nobodys(tmp_path):
    rows = [("record", "patient_id"), ("a", "0"), ("b", "Ward 3"), ("c", "7")]
    results = results_of(with_table(tmp_path, rows, missing_ids=["0", "ward 3"]))
    assert [getattr(result, "reason", result.record_id) for result in results] == [*["missing_patient"] * 2, "c"]


@pytest.mark.parametrize("text", ["Anonymous", "000000", "?", "unbekannt"])
def test_a_patient_that_a_file_does_not_name(tmp_path, text):
    write_records(tmp_path, ["a"], comments=(f"Patient ID: {text}",))
    (result,) = results_of(folder_source(tmp_path, patient_field="Patient ID"))
    assert result.reason == "missing_patient"
    assert f"field 'Patient ID' in the file is '{text}', which names nobody" in result.message


def test_a_recording_may_be_called_anything_where_no_patients_are_given(tmp_path):
    write_records(tmp_path, ["NA", "test"])
    assert [result.patient_id for result in results_of(folder_source(tmp_path))] == ["NA", "test"]


def test_age_sex_and_fold_that_are_missing_do_not_cost_the_recording(tmp_path):
    rows = [
        ("record", "patient_id", "age", "sex", "fold", "report", "lvef"),
        ("a", "p", "?", "n/a", "-", "NULL", "#N/A"),
    ]
    (result,) = results_of(with_table(tmp_path, [*rows, ("b", "q", "50", "m", "2", "fine", "55")]))[:1]
    assert (np.isnan(result.age_years), result.sex, result.fold, result.report) == (True, SEX_UNKNOWN, -1, "")
    assert np.isnan(result.scalars["lvef"])
    assert result.remarks == ()


# Ages


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("63", 63), ("63,5", 63.5), (".5", 0.5), ("45 years", 45), ("045Y", 45), ("6M", 0.5), ("006M", 0.5),
        ("2 y/o", 2), ("45 Jahre", 45), ("1e1", 10), ("26 weeks", 0.498289), ("0", 0), ("+45", 45),
    ],
)  # fmt: skip
def test_ages_that_are_read(text, years):
    age, remark = read_age(text, source="s")
    assert age == pytest.approx(years, rel=1e-5)
    assert remark is None


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("89+", 89), (">89", 90), ("> 89", 90), (">=90", 90), ("≥ 90", 90), ("90 or older", 90), ("over 89", 90),
        ("90+ years", 90), ("90plus", 90), ("300", 90), ("300.0", 90), ("<1", 0), ("89 and above", 89),
    ],
)  # fmt: skip
def test_ages_at_a_limit_are_read_and_told(text, years):
    age, remark = read_age(text, source="s")
    assert age == years
    assert (remark.reason, remark.value) == ("age_at_limit", text)
    assert remark.message == f"s: age is '{text}', which is read as {years} years"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-1", "unknown_age"), ("999", "unknown_age"), ("121", "unknown_age"), ("1950", "unknown_age"),
        ("forty", "unread_age"), ("60-69", "unread_age"), ("1950-02-01", "unread_age"), ("5 feet", "unread_age"),
        ("<18", "unread_age"), ("inf", "unread_age"), (">300", "unknown_age"),
    ],
)  # fmt: skip
def test_ages_that_are_none_are_missing_and_told(text, reason):
    age, remark = read_age(text, source="s")
    assert np.isnan(age)
    assert (remark.reason, remark.value) == (reason, text)


def test_an_age_of_zero_among_adults_is_missing_and_among_children_an_infants(tmp_path):
    header = ("record", "patient_id", "age")
    adults = [(f"a{place}", f"p{place}", str(30 + place)) for place in range(10)]
    zero = ("z", "pz", "0")
    write_records(tmp_path / "in", ["z"])
    for youngest, expected in (("35", np.nan), ("3", 0.0)):
        rows = [header, *adults, zero, ("y", "py", youngest)]
        (tmp_path / "labels.csv").write_text("\n".join(map(",".join, rows)))
        source = folder_source(tmp_path / "in", labels=tmp_path / "labels.csv")
        (result,) = [result for result in results_of(source) if result.record_id == "z"]
        np.testing.assert_equal(result.age_years, expected)
        assert [remark.reason for remark in result.remarks] == (["unknown_age"] if np.isnan(expected) else [])


def test_a_row_that_contradicts_its_file_is_told(tmp_path):
    write_records(tmp_path / "in", ["a", "b"], comments=("Age: 63", "Sex: Female"))
    (tmp_path / "labels.csv").write_text("record,patient_id,age,sex\na,p,21,m\nb,q,64,f\n")
    one, other = results_of(folder_source(tmp_path / "in", labels=tmp_path / "labels.csv"))
    assert (one.age_years, one.sex, other.age_years, other.sex) == (21, MALE, 64, FEMALE)
    assert [remark.reason for remark in one.remarks] == ["age_disagrees", "sex_disagrees"]
    assert "its age is '21' in the table of labels and '63' in the file; the table's is kept" in one.remarks[0].message
    assert other.remarks == ()


# Sexes


def coding(values, *, column="sex", declared=()):
    return column_coding(values, column=column, declared=declared_sexes(declared), where="t.csv")


@pytest.mark.parametrize(
    ("column", "men", "women"),
    [
        (
            "sex",
            ["male", "M", "Männlich", "homme", "masculino", "MALE"],
            ["female", "F", "weiblich", "femme", "feminino"],
        ),
        ("sex", ["m"], ["w"]),
        ("sex", ["H"], ["M", "mujer"]),
        ("sex", ["h"], ["f"]),
        ("sex", ["M"], ["K"]),
        ("sex", ["E"], ["K"]),
        ("is_male", ["True", "1", "yes"], ["False", "0"]),
        ("Male", ["1", "1.0"], ["0", "0.0"]),
        ("Is Female", ["0"], ["1"]),
    ],
)
def test_clear_codings_of_a_column(column, men, women):
    read = coding([*men, *women, "", "NA"], column=column)
    assert [read.read(text, source="s") for text in men] == [(MALE, None)] * len(men)
    assert [read.read(text, source="s") for text in women] == [(FEMALE, None)] * len(women)
    assert read.read("NA", source="s") == (SEX_UNKNOWN, None)


@pytest.mark.parametrize(
    ("values", "ways"),
    [
        (
            ["0"] * 3 + ["1"] * 2,
            r"--sex_coding=0=male,1=female \(3 men, 2 women\) or --sex_coding=1=male,0=female \(2 ",
        ),
        (
            ["1"] * 3 + ["2"] * 2 + ["0", "9"],
            r"--sex_coding=1=male,2=female \(3 men, 2 women\) or --sex_coding=2=male,",
        ),
        (["True", "False"], r"'true' in 1 row, 'false' in 1 row.*--sex_coding=true=male,false=female"),
        (["m", "v"], r"--sex_coding=m=male,v=female .* or --sex_coding=v=male,m=female"),
        (["male", "female", "1", "2"], r"What '1', '2' means differs between tables"),
        (["A", "B", "B"], r"--sex_coding=b=male,a=female \(2 men, 1 women\)"),
        (["1", "1"], r"--sex_coding=1=male or --sex_coding=1=female"),
        (["F", "N"], r"'f' in 1 row, 'n' in 1 row"),
    ],
)
def test_a_coding_that_is_not_clear_is_asked_for(values, ways):
    with pytest.raises(DataError, match=ways):
        coding(values)


def test_a_declared_coding_is_followed_and_said():
    read = coding(["1", "2", "2", "0", "M"], declared=["1=male", "2=female", "0=unknown"])
    assert [read.read(text, source="s").code for text in ("1", "2.0", "0", "M")] == [MALE, FEMALE, SEX_UNKNOWN, MALE]
    assert "'2' 2 as female" in read.said_by
    assert "--sex_coding=1=male,2=female,0=unknown" in read.said_by


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["1"], "'1' is not VALUE=male, VALUE=female or VALUE=unknown"),
        (["1=man"], "'1=man' is not VALUE=male"),
        (["1=male", "1.0=female"], "says twice what '1.0' means"),
        (["3=male", "4=female"], "says what '3', '4' means, and column 'sex' has '1' in 1 row"),
    ],
)
def test_declared_codings_that_are_none(entries, message):
    with pytest.raises(DataError, match=message):
        coding(["1", "2"], declared=entries)


@pytest.mark.parametrize(
    ("text", "reason"), [("1", "ambiguous_sex"), ("v", "ambiguous_sex"), ("O", "other_sex"), ("UN", "other_sex"),
                         ("mle", "unread_sex"), ("U", None)]
)  # fmt: skip
def test_sexes_of_files_that_are_not_clear_are_unknown_and_told(tmp_path, text, reason):
    write_records(tmp_path, ["a"], comments=(f"Sex: {text}",))
    (result,) = results_of(folder_source(tmp_path))
    assert result.sex == SEX_UNKNOWN
    assert [remark.reason for remark in result.remarks] == ([reason] if reason else [])


def test_sexes_of_files_by_a_declared_coding(tmp_path):
    write_records(tmp_path, ["a"], comments=("Sex: 1",))
    source = folder_source(tmp_path, sex_coding=["1=male", "2=female"])
    assert [result.sex for result in results_of(source)] == [MALE]
    assert source.card.sex_reading == "1=male,2=female as declared, else from words"


def test_a_few_codes_for_unknown_among_words_are_unknown(tmp_path):
    read = coding(["M"] * 40 + ["F"] * 40 + ["9"])
    code, remark = read.read("9", source="s")
    assert (code, remark.reason) == (SEX_UNKNOWN, "ambiguous_sex")
