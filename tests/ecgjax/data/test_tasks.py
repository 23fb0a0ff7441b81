"""Tasks: what a line means, and what an index answers."""

import types

import numpy as np
import pytest

from data_pipelines.errors import DataError
from ecgjax.data.labels import probe_data
from ecgjax.data.tasks import PRESETS, BinaryTask, MultiLabelTask, QuantityTask, earlier_task, file_name, parse_task

NAN = np.nan
COLUMNS = {
    "age_years": [30, 40, NAN, 60, 70, 80],
    "lvef": [35, 40, 45, NAN, 20, 60],
    "superdiagnostic:NORM": [1, 0, NAN, 1, 0, 0],
    "superdiagnostic:MI": [0, 1, NAN, 0, NAN, 1],
}


def _index():
    return types.SimpleNamespace(
        labels=tuple(COLUMNS), label=lambda name: np.array(COLUMNS[name], np.float32),
        group=np.arange(6), patient_id=np.array(list("abcdef")),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("lvef<40", BinaryTask(label="lvef", rule="below", threshold=40.0, section="--task")),
        (" potassium > 5.5", BinaryTask(label="potassium", rule="above", threshold=5.5, section="--task")),
        ("wedge_pressure>18", BinaryTask(label="wedge_pressure", rule="above", threshold=18.0, section="--task")),
        ("superdiagnostic:MI=1", BinaryTask(label="superdiagnostic:MI", rule="present", section="--task")),
        ("BNP>100=1", BinaryTask(label="BNP>100", rule="present", section="--task")),
        ("rhythm:PR>200=1", BinaryTask(label="rhythm:PR>200", rule="present", section="--task")),
        ("sex = 1", BinaryTask(label="sex", rule="present", section="--task")),
        ("scored:*", MultiLabelTask(task="scored")),
        ("wedge_pressure", QuantityTask(label="wedge_pressure")),
        ("superdiagnostic:NORM", BinaryTask(label="superdiagnostic:NORM", rule="present", section="--task")),
        ("NORM", BinaryTask(label="superdiagnostic:NORM", rule="present", section="--task")),
        ("physionet26", MultiLabelTask(task="scored")),
        ("age", QuantityTask(label="age_years")),
    ],
)
def test_a_line_means_a_task(text, task):
    assert parse_task(text) == task


@pytest.mark.parametrize("text", ["", "lvef<", "lvef<4.0.0", "lvef=2", "*", "superdiagnostic:", "lvef<40>20"])
def test_other_lines_are_refused(text):
    with pytest.raises(DataError, match=r"--task=.* is no question; write LABEL<NUMBER.*physionet26"):
        parse_task(text)


@pytest.mark.parametrize(
    ("task", "title"),
    [
        (BinaryTask(label="lvef", rule="below", threshold=40.0), "lvef<40"),
        (BinaryTask(label="qtc", rule="above", threshold=-0.5), "qtc>-0.5"),
        (BinaryTask(label="qtc", rule="above", threshold=123456.789), "qtc>123456.789"),
        (BinaryTask(label="qtc", rule="below", threshold=1.23456789e-7), "qtc<1.23456789e-07"),
        (BinaryTask(label="sex", rule="present"), "sex=1"),
        (BinaryTask(label="superdiagnostic:NORM", rule="present"), "superdiagnostic:NORM"),
        (BinaryTask(label="BNP>100", rule="present"), "BNP>100=1"),
        (BinaryTask(label="rhythm:PR>200", rule="present"), "rhythm:PR>200=1"),
        (MultiLabelTask(task="superdiagnostic"), "superdiagnostic:*"),
        (QuantityTask(label="age_years"), "age_years"),
    ],
)
def test_the_title_of_a_task_is_the_line_that_asks_it(task, title):
    assert task.title == title
    assert parse_task(title) == task


@pytest.mark.parametrize(
    ("label", "rule", "threshold", "line"),
    [
        ("lvef", "below", 40.0, "lvef<40"),
        ("potassium", "above", 5.5, "potassium>5.5"),
        ("sex", "present", None, "sex=1"),
        ("superdiagnostic:NORM", "present", None, "superdiagnostic:NORM"),
        ("superdiagnostic:*", "present", None, "superdiagnostic:*"),
        ("wedge_pressure", "values", None, "wedge_pressure"),
        ("hyperkalaemia_grade", "classes", None, "hyperkalaemia_grade"),
        ("", "below", None, ""),
    ],
)
def test_a_question_in_three_leaves_is_a_line(label, rule, threshold, line):
    assert earlier_task(label=label, rule=rule, threshold=threshold) == line


def test_a_threshold_that_is_no_finite_number_is_refused():
    with pytest.raises(DataError, match=r"--task='lvef<inf': the threshold must be a finite number"):
        parse_task("lvef<1e999")


def test_every_preset_is_a_task():
    assert all(parse_task(name) == parse_task(line) for name, line in PRESETS.items())


def test_answers():
    np.testing.assert_array_equal(parse_task("lvef<40").targets(_index()), [1, 0, 0, NAN, 1, 0])
    np.testing.assert_array_equal(parse_task("age").targets(_index()), COLUMNS["age_years"])
    several = parse_task("superdiagnostic")
    assert several.classes(_index()) == ("NORM", "MI")
    # A record that one class is unknown of has no label of the task.
    np.testing.assert_array_equal(several.targets(_index()), [[1, 0], [0, 1], [NAN, NAN], [1, 0], [NAN, NAN], [0, 1]])


def test_unknown_tasks_name_the_known_ones():
    with pytest.raises(DataError, match="no task 'rhythm' with classes in this data set; it has superdiagnostic"):
        parse_task("rhythm").targets(_index())


@pytest.mark.parametrize(
    ("line", "labels", "dtype"),
    [("superdiagnostic", [[1, 0], [0, 1]], np.int64), ("age", [30, 40], np.float64), ("lvef<40", [1, 0, 0], np.int64)],
)
def test_records_without_a_label_are_left_out_for_every_kind(line, labels, dtype):
    split = types.SimpleNamespace(train=np.arange(3), val=np.array([3, 5]), test=np.array([4, 5]), excluded={})
    data = probe_data(_index(), split, task=parse_task(line), label_fraction=1.0, seed=0)
    np.testing.assert_array_equal(data.train.labels, labels)
    assert data.train.labels.dtype == dtype
    assert data.train.unlabelled == 3 - len(labels)
    assert data.classes == (("NORM", "MI") if line == "superdiagnostic" else ())


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("lvef<40", "lvef_below_40"),
        ("sex=1", "sex_is_1"),
        ("superdiagnostic:NORM", "superdiagnostic_NORM"),
        ("superdiagnostic:*", "superdiagnostic_all"),
        ("NYHA class>2", "NYHA_class_above_2"),
    ],
)
def test_a_question_is_the_name_of_its_folder(title, name):
    assert file_name(title) == name


def test_questions_in_other_letters_and_long_ones_have_folders_of_their_own():
    titles = ["诊断:正常", "诊断:异常", "rhythm:AF (paroxysmal)", "rhythm:AF [paroxysmal]", "..", "a" * 300, "a" * 301]
    names = {file_name(title) for title in titles}
    assert len(names) == len(titles)
    assert all(len(name) < 120 and not name.startswith(".") and name.isascii() for name in names)
