"""Tasks on any column of an index: a question with the answer yes or no, several such at once, or a quantity.

A question is written in one line, on the command line, in configs and in reports alike:

    lvef<40   potassium>5            a scalar below or above a threshold, both strictly
    superdiagnostic:NORM             a class of a task of the index, yes or no
    af=1   BNP>100=1                 a scalar that is 0 or 1, yes or no; its name may have any signs
    superdiagnostic:*                all classes of a task of the index
    age_years                        a quantity, in its own unit
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol

import numpy as np

from data_pipelines.errors import DataError

RULES = ("below", "above", "present")

Kind = Literal["binary", "multilabel", "quantity"]

#: Tasks by short name. The six of PTB-XL have their own names, such as `superdiagnostic`.
PRESETS: Mapping[str, str] = {
    "NORM": "superdiagnostic:NORM",
    "AF": "rhythm:AFIB",
    **{name: f"{name}:*" for name in ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")},
    "physionet26": "scored:*",
    "age": "age_years",
    "female": "sex=1",
}

_PLAIN_CLASS = re.compile(r"[^<>=*:]+:[^<>=*]+")
_SYMBOLS = {"<": "below", ">": "above"}
_OF_RULES = {rule: symbol for symbol, rule in _SYMBOLS.items()}


class LabelColumns(Protocol):
    """Label columns of an index, which a task needs."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Every name that `label` accepts."""

    def label(self, name: str) -> np.ndarray:
        """Returns a label, `f32[records]`, NaN where missing.

        Raises:
            DataError: The name is unknown; the message lists the known names.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryTask:
    """A question with the answer yes or no.

    Attributes:
        label: Name of a scalar of the data set, such as `"lvef"`, or of a class of a task, such as
            `"superdiagnostic:NORM"`.
        rule: `"below"` or `"above"` the threshold, both strictly; or `"present"` for labels that are 0 or 1.
        threshold: Threshold in the label's unit; None for `"present"`.
        section: Flag or leaf that asks the question, for messages.
    """

    kind: ClassVar[Kind] = "binary"
    label: str
    rule: str
    threshold: float | None = None
    section: str = "--task"

    def __post_init__(self) -> None:
        """Checks rule and threshold.

        Raises:
            DataError: The rule is unknown, or its threshold is no finite number.
        """
        if self.rule not in RULES:
            raise DataError(f"{self.section}: a rule of {self.label!r} is {self.rule!r}; there are: {', '.join(RULES)}")
        if self.rule != "present" and not (self.threshold is not None and math.isfinite(self.threshold)):
            asked = f"{self.label}{_OF_RULES[self.rule]}{self.threshold}"
            raise DataError(f"{self.section}={asked!r}: the threshold must be a finite number")

    @property
    def title(self) -> str:
        """The question in one line, such as `"lvef<40"`."""
        if self.rule == "present":
            return self.label if _PLAIN_CLASS.fullmatch(self.label) else f"{self.label}=1"
        short = f"{self.threshold:g}"
        # All digits are written where six are too few, because the line is parsed as a question again.
        return f"{self.label}{_OF_RULES[self.rule]}{short if float(short) == self.threshold else self.threshold}"

    def classes(self, index: LabelColumns) -> tuple[str, ...]:
        """Returns no names, since there is one value a record."""
        del index
        return ()

    def targets(self, index: LabelColumns) -> np.ndarray:
        """Returns the answers, `f64[records]` of 0 and 1, NaN where unknown."""
        return self.answer(index.label(self.label))

    def answer(self, values: np.ndarray) -> np.ndarray:
        """Returns the answers, `f64[n]` of 0 and 1, NaN where the value is missing.

        Args:
            values: Label of each record, `f32[n]`, NaN where missing.

        Raises:
            DataError: The rule is `"present"` and a value is neither 0 nor 1.
        """
        missing = np.isnan(values)
        if self.rule == "present":
            if not np.isin(values[~missing], (0, 1)).all():
                raise DataError(
                    f"label {self.label!r} has values other than 0 and 1: ask below or above a value, as in "
                    f"{self.section}='{self.label}<40'"
                )
            answers = values
        else:
            answers = values < self.threshold if self.rule == "below" else values > self.threshold
        return np.where(missing, math.nan, answers.astype(np.float64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabelTask:
    """All classes of a task of the index at once; records without a label of the task are left out.

    Attributes:
        task: Name of the task, such as `"superdiagnostic"`.
    """

    kind: ClassVar[Kind] = "multilabel"
    task: str

    @property
    def title(self) -> str:
        """The question in one line, such as `"superdiagnostic:*"`."""
        return f"{self.task}:*"

    def classes(self, index: LabelColumns) -> tuple[str, ...]:
        """Returns the names of the classes.

        Raises:
            DataError: The index has no such task; the message names those it has.
        """
        of_tasks = [name.partition(":") for name in index.labels if ":" in name]
        if found := tuple(name for task, _, name in of_tasks if task == self.task):
            return found
        known = ", ".join(dict.fromkeys(task for task, _, _ in of_tasks)) or "none"
        raise DataError(f"no task {self.task!r} with classes in this data set; it has {known}")

    def targets(self, index: LabelColumns) -> np.ndarray:
        """Returns the answers, `f64[records, classes]` of 0 and 1; a record with an unknown answer has NaN in all
        columns.
        """
        columns = [index.label(f"{self.task}:{name}") for name in self.classes(index)]
        values = np.stack(columns, axis=1).astype(np.float64)
        values[np.isnan(values).any(axis=1)] = math.nan
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantityTask:
    """A quantity, to be predicted in its own unit.

    Attributes:
        label: Name of a scalar of the data set, such as `"wedge_pressure"`, or `"age_years"`.
    """

    kind: ClassVar[Kind] = "quantity"
    label: str

    @property
    def title(self) -> str:
        """The question in one line, which is the label's name."""
        return self.label

    def classes(self, index: LabelColumns) -> tuple[str, ...]:
        """Returns no names, since there is one value a record."""
        del index
        return ()

    def targets(self, index: LabelColumns) -> np.ndarray:
        """Returns the values, `f64[records]`, NaN where unknown."""
        return index.label(self.label).astype(np.float64)


#: A question about a record. Every task has `kind`, the kind of its answers; `title`, the question in one line as
#: `parse_task` reads it; `classes(index)`, the names of the columns of `targets`, empty where it has one value a
#: record; and `targets(index)`, `f64[records]`, or `f64[records, classes]` for a multi-label task, NaN where unknown.
Task = BinaryTask | MultiLabelTask | QuantityTask


def parse_task(text: str, *, asked_by: str = "--task") -> Task:
    """Returns the task of a line or of the name of a preset.

    Args:
        text: Line in the form that this module describes, or a key of `PRESETS`.
        asked_by: Flag or leaf that the line was given to, for messages.

    Raises:
        DataError: The line is no task.
    """
    line = PRESETS.get(text.strip(), text.strip())
    if comparison := re.fullmatch(r"([^<>=*]+)([<>])\s*([-+.\deE]+)", line):
        label, symbol, number = comparison.groups()
        try:
            threshold = float(number)
        except ValueError as error:
            raise _unreadable(text, asked_by) from error
        return BinaryTask(label=label.strip(), rule=_SYMBOLS[symbol], threshold=threshold, section=asked_by)
    if named := re.fullmatch(r"(.*[^<>=\s])\s*=\s*1", line) or re.fullmatch(f"({_PLAIN_CLASS.pattern})", line):
        return BinaryTask(label=named[1].strip(), rule="present", section=asked_by)
    if classes := re.fullmatch(r"([^<>=*:]+):\*", line):
        return MultiLabelTask(task=classes[1].strip())
    if re.fullmatch(r"[^<>=*:]+", line):
        return QuantityTask(label=line)
    raise _unreadable(text, asked_by)


def file_name(title: str) -> str:
    """Returns a file name for a question, in characters that every file system accepts, such as `"lvef_below_40"`.

    Args:
        title: Title of a task, such as `"lvef<40"`. Where other characters than `:`, `_` and blanks are lost, or the
            name would be very long, a digest tells questions apart.
    """
    whole = title
    for symbol, word in {"<": "_below_", ">": "_above_", "=": "_is_", ":*": "_all"}.items():
        title = title.replace(symbol, word)
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", title)
    if len(name) <= 100 and not name.startswith(".") and re.fullmatch(r"[A-Za-z0-9.+:_ -]+", title):
        return name
    # Titles that differ in replaced or cut characters alone must not share a file.
    digest = hashlib.blake2b(whole.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return f"{name[:100].lstrip('.')}-{digest}"


def earlier_task(*, label: str, rule: str, threshold: float | None) -> str:
    """Returns the line of a question that an older config asks in three leaves.

    Args:
        label: Name of a scalar or class; or `TASK:*` for all classes of a task of the index.
        rule: `"values"` for a quantity, `"classes"` for whole numbers as classes, or a rule of `BinaryTask`.
        threshold: Threshold in the label's unit; None for a rule without one.
    """
    if not label or rule in ("values", "classes") or label.endswith(":*"):
        return label
    return BinaryTask(label=label, rule=rule, threshold=threshold).title


def _unreadable(text: str, asked_by: str) -> DataError:
    return DataError(
        f"{asked_by}={text!r} is no question; write LABEL<NUMBER, LABEL>NUMBER, LABEL=1, TASK:CLASS, TASK:* or, for a "
        f"quantity, LABEL; or one of {', '.join(PRESETS)}"
    )
