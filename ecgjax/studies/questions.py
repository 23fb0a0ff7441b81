"""Checks whether a data set allows a task, and divides tasks into the binary problems of a cross-validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.fold_labels import SPREAD_LABELS
from ecgjax.data.labels import LabelledIndex, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask, Task, parse_task
from ecgjax.errors import ConfigError
from ecgjax.evaluation.models.kinds import kind_of


def asked(text: str, index: LabelledIndex, *, asked_by: str = "--task") -> Task:
    """Parses a task, and checks that the data set has its labels.

    Args:
        text: Task in the form that `tasks.parse_task` parses, such as `lvef<40`.
        index: Columns of the data set.
        asked_by: Flag or leaf that the text is the value of, for messages.

    Raises:
        ConfigError: The text is empty.
        DataError: The text is no task, or the data set has no such label.
    """
    if not text:
        raise ConfigError(
            f"{asked_by}=QUESTION is needed, such as 'lvef<40', 'superdiagnostic:NORM' or 'age_years'; this data set "
            f"has {', '.join(index.labels)}"
        )
    task = parse_task(text, asked_by=asked_by)
    # Reading the answers refuses labels that the data set does not have.
    task.targets(index)
    return task


def check_answerable(data: ProbeData, index: LabelledIndex) -> tuple[str, ...]:
    """Raises an error if the labels do not allow to measure a task, before anything is trained for it.

    Args:
        data: Labelled records of the task.
        index: Columns of the data set.

    Returns:
        One sentence of warning if there are too few test records of some label; else nothing.

    Raises:
        DataError: The labels of training, validation or test do not define the metric.
    """
    kind = kind_of(data.task)
    help_with = f"{kind.in_folds(data.task.targets(index), np.asarray(index.fold))}{SPREAD_LABELS}"
    for name, part in (("training", data.train), ("validation", data.val), ("test", data.test)):
        if reason := kind.undefined(part.labels):
            raise DataError(f"{data.task.title} cannot be answered: {reason} on the {name} side. {help_with}")
    if not (few := kind.few(data.test.labels)):
        return ()
    return (
        f"{data.task.title}: {few}, which tell little: intervals are wide or not defined, and curves are not drawn. "
        f"{help_with}",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A binary classification problem, with the records whose label is known.

    Attributes:
        task: Task of the problem.
        rows: Positions of the records with a known label among all records of the cross-validation, `int64[m]`.
        labels: Labels of these records, `int64[m]` of 0 and 1.
    """

    task: BinaryTask
    rows: np.ndarray
    labels: np.ndarray

    @property
    def name(self) -> str:
        """Name of the problem, in words."""
        return self.task.title


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """A task of a cross-validation, measured by one binary problem or by the mean over several.

    Attributes:
        title: Text of the task, as the user wrote it.
        problems: Names of the problems.
        left_out: Reason why a class is no problem, such as `"7 positive records"`, by class.
    """

    title: str
    problems: tuple[str, ...]
    left_out: Mapping[str, str]

    @property
    def metric(self) -> str:
        """Name of the metric, `"AUROC"` or `"macro AUROC"`."""
        return "AUROC" if len(self.problems) == 1 and not self.left_out else "macro AUROC"


def ask(
    index: LabelledIndex, records: np.ndarray, tasks: Sequence[str], *, min_positives: int, folds: int
) -> tuple[dict[str, Problem], list[Question]]:
    """Parses tasks and labels records; each class of a multi-label task is a problem unless it is too rare.

    Args:
        index: Columns of the data set.
        records: Record numbers of the cross-validation, `int64[n]`.
        tasks: Tasks in the form that `tasks.parse_task` takes.
        min_positives: Smallest number of positive records, and of negative ones, that a problem needs.
        folds: Smallest number of patients with a positive record, and with a negative one, that a problem needs.

    Returns:
        Problems by name, and the questions in order; questions may share a problem.

    Raises:
        DataError: A line is no task, a quantity is asked for, or all classes of a task are too rare.
    """
    problems: dict[str, Problem] = {}
    questions = []
    for text in tasks:
        names, left_out = [], {}
        for task in _problems(parse_task(text), index):
            name, answers = task.title, task.targets(index)
            known = np.flatnonzero(~np.isnan(answers[records]))
            labels = answers[records[known]].astype(np.int64)
            patients = np.asarray(index.group[records[known]])
            if reason := _too_few(labels, patients, min_positives=min_positives, folds=folds):
                left_out[name] = reason
                continue
            # Questions may share a problem, which is then trained once for all of them.
            problems.setdefault(name, Problem(task=task, rows=known, labels=labels))
            names.append(name)
        if not names:
            why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            needed = f"config.min_positives={min_positives} records, and {folds} patients, of either answer are needed"
            raise DataError(
                f"--task={text!r} cannot be cross-validated on these {len(records)} records: {why}; {needed}: "
                "ask another threshold or class, or label more records"
            )
        questions.append(Question(title=text, problems=tuple(names), left_out=left_out))
    return problems, questions


def _problems(task: Task, index: LabelledIndex) -> list[BinaryTask]:
    """Returns the yes-or-no tasks of a task: itself, or one for each of its classes.

    Raises:
        DataError: The task is a quantity, or of another kind that has no yes-or-no tasks.
    """
    if isinstance(task, MultiLabelTask):
        return [BinaryTask(label=f"{task.task}:{name}", rule="present") for name in task.classes(index)]
    if not isinstance(task, BinaryTask):
        asked = f"--task={task.title!r} is a {task.kind} and no yes or no"
        raise DataError(f"{asked}; ask above or below a value, as in '{getattr(task, 'label', 'LABEL')}>60'")
    return [task]


def _too_few(labels: np.ndarray, patients: np.ndarray, *, min_positives: int, folds: int) -> str:
    for value, name in ((1, "positive"), (0, "negative")):
        number, people = np.count_nonzero(labels == value), len(np.unique(patients[labels == value]))
        if number < min_positives:
            return f"{number} {name} records"
        # With fewer patients some fold would lack the label, and an AUROC within folds would not be defined.
        if people < folds:
            return f"{name} records of {people} patients alone"
    return ""
