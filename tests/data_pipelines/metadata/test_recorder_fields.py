"""Dates, ages and sexes of recorders' files: what cannot be told is left out, and told; the recording stays."""

import numpy as np
import pytest

from data_pipelines.builders.folder import FolderSource
from data_pipelines.metadata.recorder_fields import StatedDate, age_text, birth_date, compact_moment, recorder_fields
from data_pipelines.readers.dicom_files import read_dicom
from data_pipelines.readers.xml.hl7_aecg import read_aecg
from data_pipelines.readers.xml.muse import read_muse
from data_pipelines.readers.xml.philips import read_philips
from data_pipelines.signals.recipe import SignalRecipe
from tests.data_pipelines.readers.vendor_files import (
    STORED_COLUMNS,
    aecg_xml,
    counts_of,
    muse_xml,
    philips_xml,
    write_dicom,
)
from tests.support.fixtures import results_of

COUNTS = counts_of(microvolts=2.5)
RECIPE = SignalRecipe(name="test", version=1, sampling_rate_hz=100, seconds=2.0, min_seconds=1.0)


def fields_of(*, birth="", acquired="20130125105919", age="", sex="M"):
    return recorder_fields(
        source="s",
        patient_id="p",
        sex=sex,
        birth=birth_date(birth),
        acquired=StatedDate(acquired, compact_moment(acquired)),
        age=age,
    )


@pytest.mark.parametrize(
    ("birth", "age"),
    [
        ("19500125", "63"),
        ("19500126", "62"),
        ("1950-01-26", "62"),
        ("1950.01.25", "63"),
        ("1950", "62"),
        ("195001", "63"),
    ],
)
def test_ages_follow_from_dates_of_birth_also_incomplete_ones(birth, age):
    fields, remarks = fields_of(birth=birth)
    assert fields["Age"] == age
    assert remarks == ()


@pytest.mark.parametrize(
    ("birth", "reason", "said"),
    [
        ("19000101", "unknown_date", "date of birth is '19000101', which stands for none"),
        ("18991230", "unknown_date", "which stands for none"),
        ("20500101", "unknown_date", "date of birth is '20500101', after that of the recording ('20130125105919')"),
        ("19501340", "unread_date", "date of birth is '19501340', which cannot be read"),
        ("13/02/1950", "unread_date", "which cannot be read"),
        ("00000000", "unread_date", "which cannot be read"),
    ],
)
def test_dates_of_birth_that_are_none_are_told_and_give_no_age(birth, reason, said):
    fields, (remark,) = fields_of(birth=birth)
    assert "Age" not in fields
    assert (remark.reason, remark.value) == (reason, birth)
    assert said in remark.message
    assert fields_of(birth=birth, age="63 years").fields["Age"] == "63 years"


@pytest.mark.parametrize("acquired", ["19700101000000", "19800101120000", "nonsense"])
def test_a_date_of_recording_that_is_none_gives_no_age(acquired):
    fields, (remark,) = fields_of(birth="19500101", acquired=acquired)
    assert "Age" not in fields
    assert remark.value == acquired


def test_missing_dates_are_not_told():
    assert fields_of(birth="", acquired="Unknown").remarks == ()


def test_an_age_that_contradicts_the_date_of_birth_is_told():
    fields, (remark,) = fields_of(birth="19500125", age="36")
    assert fields["Age"] == "36"
    assert remark.reason == "age_disagrees"
    assert "its age is '36', and 63 years by its dates of birth ('19500125') and recording" in remark.message
    for consistent in ("63", "62", "64", "89+", "063Y"):
        assert fields_of(birth="19500125", age=consistent).remarks == ()


@pytest.mark.parametrize("age", ["000Y", "0", "999", "?", ""])
def test_the_date_of_birth_goes_before_an_age_that_nobody_entered(age):
    assert fields_of(birth="19500125", age=age).fields["Age"] == "63"


def test_ages_with_units_and_ages_that_are_not_that_simple():
    assert age_text("61", unit="YEARS") == "61"
    assert age_text("18", unit="months") == "1.5"
    assert age_text("89+", unit="years") == "89+ years"
    assert age_text("", unit="years") == ""


@pytest.mark.parametrize(("sex", "stored"), [("M", "male"), ("female", "female"), ("O", "O"), ("UN", "UN"), ("", None)])
def test_sexes_are_passed_on_as_they_are_where_they_are_neither(sex, stored):
    assert fields_of(sex=sex).fields.get("Sex") == stored


def test_a_dicom_file_of_odd_fields_is_stored_and_told(tmp_path):
    dataset = write_dicom(tmp_path / "a.dcm", COUNTS)
    dataset.PatientAge, dataset.PatientSex, dataset.PatientBirthDate = "089+", "O", "19000101"
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    source = FolderSource(tmp_path, labels=None, patient_field=None, name="ours", recipe=RECIPE)
    (result,) = results_of(source)
    assert (result.age_years, result.sex) == (89, -1)
    assert [remark.reason for remark in result.remarks] == ["unknown_date", "age_at_limit", "other_sex"]


def test_a_dicom_age_without_a_unit_is_one_in_years(tmp_path):
    dataset = write_dicom(tmp_path / "a.dcm", COUNTS)
    dataset.PatientAge = "045"
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert read_dicom(tmp_path / "a.dcm").fields["Age"] == "045"


def test_xml_files_of_odd_fields_are_read_and_told(tmp_path):
    muse = muse_xml(counts_of(microvolts=4.88)[:, STORED_COLUMNS])
    texts = {
        read_muse: muse.replace("03-09-1950", "31-12-1950").replace("<PatientAge>61<", "<PatientAge>&gt;89<"),
        read_philips: philips_xml(counts_of(microvolts=5)).replace("1948-03-01", "0001-01-01"),
        read_aecg: aecg_xml(COUNTS).replace('birthTime value="19760101"', 'birthTime value="20760101"'),
    }
    ages, values = [], []
    for read, text in texts.items():
        (tmp_path / "a.xml").write_text(text, encoding="utf-8")
        recording = read(tmp_path / "a.xml")
        assert np.isfinite(recording.signal).all()
        ages.append(recording.field("Age"))
        values.append([(remark.reason, remark.value) for remark in recording.remarks])
    assert ages[0] == ">89 YEARS"
    assert ages[2] is None
    assert values == [[("unread_date", "31-12-1950")], [("unknown_date", "0001-01-01")], [("unknown_date", "20760101")]]
