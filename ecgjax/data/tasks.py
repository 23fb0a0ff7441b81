"""What can be asked of a record: a yes or no, several at once, or a quantity; from any column of an index.

A task is written in one line, as the command line takes it:

    lvef<40   potassium>5                a scalar below or above a threshold, both strictly
    af=1   superdiagnostic:NORM=1        a label that is 0 or 1
    superdiagnostic:*                    all classes of a task of the index
    age_years                            a quantity, in its own unit
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol

import numpy as np

from data_pipelines.errors import DataError

RULES = ("below", "above", "present")

#: Rule of a quantity, whose values are asked for as they are.
_VALUES = "values"

Kind = Literal["binary", "multilabel", "quantity"]

#: Short name → task. The six of PTB-XL go by their own names, such as `superdiagnostic`.
PRESETS: Mapping[str, str] = {
    "NORM": "superdiagnostic:NORM=1",
    "AF": "rhythm:AFIB=1",
    **{name: f"{name}:*" for name in ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")},
    "physionet26": "scored:*",
    "age": "age_years",
    "female": "sex=1",
}

_SYMBOLS = {"<": "below", ">": "above"}


class LabelColumns(Protocol):
    """What a task needs of an index."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Every name that `label` takes."""

    def label(self, name: str) -> np.ndarray:
        """Returns `f32[records]`, NaN where missing; an unknown name is a `DataError` that lists the known ones."""


class Task(Protocol):
    """A question about a record.

    Attributes:
        kind: of the answers.
        title: the question in words.
    """

    kind: ClassVar[Kind]

    @property
    def title(self) -> str:
        """The question in words."""

    def classes(self, index: LabelColumns) -> tuple[str, ...]:
        """Returns the names of the columns of `targets`; none where it has one value a record."""

    def targets(self, index: LabelColumns) -> np.ndarray:
        """Returns `f64[records]`, or `f64[records, classes]` of a multi-label task; NaN where unknown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryTask:
    """A yes or no.

    Attributes:
        label: name of a scalar of the data set, such as `"lvef"`, or of a class of a task, such as
            `"superdiagnostic:NORM"`.
        rule: `"below"` or `"above"` the threshold, both strictly; or `"present"` for labels that are 0 or 1.
        threshold: in the label's unit; `None` for `"present"`.
        section: of the config that asks it, which messages name.
    """

    kind: ClassVar[Kind] = "binary"
    label: str
    rule: str
    threshold: float | None = None
    section: str = "config.probe"

    def __post_init__(self):
        if self.rule not in RULES:
            raise DataError(f"{self.section}.rule is {self.rule!r}; choose one of {', '.join(RULES)}")
        known = self.threshold is not None and math.isfinite(self.threshold)
        if known != (self.rule != "present"):
            need = "takes no" if self.rule == "present" else "needs a finite"
            raise DataError(
                f"{self.section}.rule={self.rule!r} {need} {self.section}.threshold, it is {self.threshold}"
            )

    @property
    def title(self) -> str:
        """The question in words, such as `"lvef below 40"`."""
        return self.label if self.rule == "present" else f"{self.label} {self.rule} {self.threshold:g}"

    def classes(self, index: LabelColumns) -> tuple[str, ...]:
        """None: one value a record."""
        del index
        return ()

    def targets(self, index: LabelColumns) -> np.ndarray:
        """Returns `f64[records]` of 0 and 1, NaN where unknown."""
        return self.answer(index.label(self.label))

    def answer(self, values: np.ndarray) -> np.ndarray:
        """Returns `f64[n]` of 0 and 1, NaN where the value is missing.

        Args:
            values: `f32[n]`, the label of each record, NaN where missing.

        Raises:
            DataError: if the rule is `"present"` and a value is neither 0 nor 1.
        """
        missing = np.isnan(values)
        if self.rule == "present":
            if not np.isin(values[~missing], (0, 1)).all():
                raise DataError(
                    f"label {self.label!r} has values other than 0 and 1: "
                    f"set {self.section}.rule to 'below' or 'above' and a {self.section}.threshold"
                )
            answers = values
        else:
            answers = values < self.threshold if self.rule == "below" else values > self.threshold
        return np.where(missing, math.nan, answers.astype(np.float64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabelTask:
    """All classes of a task of the index at once; records without a label of the task are no part of it.

    Attributes:
        task: its name, such as `"superdiagnostic"`.
    """

    kind: ClassVar[Kind] = "multilabel"
    task: str

    @property
    def title(self) -> str:
        """The question in words."""
        return f"{self.task}, all classes"

    def classes(self, index: LabelColumns) -> tuple[str, ...]:
        """Returns the names of the classes.

        Raises:
            DataError: the index has no such task, naming those it has.
        """
        of_tasks = [name.partition(":") for name in index.labels if ":" in name]
        if found := tuple(name for task, _, name in of_tasks if task == self.task):
            return found
        known = ", ".join(dict.fromkeys(task for task, _, _ in of_tasks)) or "none"
        raise DataError(f"no task {self.task!r} with classes in this data set; it has {known}")

    def targets(self, index: LabelColumns) -> np.ndarray:
        """Returns `f64[records, classes]` of 0 and 1; NaN in all columns of a record where one is unknown."""
        columns = [index.label(f"{self.task}:{name}") for name in self.classes(index)]
        values = np.stack(columns, axis=1).astype(np.float64)
        values[np.isnan(values).any(axis=1)] = math.nan
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantityTask:
    """A quantity, to be predicted in its own unit.

    Attributes:
        label: name of a scalar of the data set, such as `"wedge_pressure"`, or `"age_years"`.
    """

    kind: ClassVar[Kind] = "quantity"
    label: str

    @property
    def title(self) -> str:
        """The question in words."""
        return self.label

    def classes(self, index: LabelColumns) -> tuple[str, ...]:
        """None: one value a record."""
        del index
        return ()

    def targets(self, index: LabelColumns) -> np.ndarray:
        """Returns `f64[records]`, NaN where unknown."""
        return index.label(self.label).astype(np.float64)


def takes_no_threshold(label: str, rule: str) -> bool:
    """Whether `config.probe.label` and `rule` ask what has no threshold: values, a label of 0 or 1, or all classes."""
    return rule in (_VALUES, "present") or label.endswith(":*")


def configured_task(*, label: str, rule: str, threshold: float | None) -> Task:
    """Returns the task that `config.probe` asks.

    Args:
        label: a scalar or a class; or `TASK:*`, all classes of a task of the index.
        rule: `"values"` for a quantity; else as of `BinaryTask`, `"present"` for all classes.
        threshold: likewise.

    Raises:
        DataError: they do not go together.
    """
    if rule not in (*RULES, _VALUES):
        raise DataError(f"config.probe.rule is {rule!r}; choose one of {', '.join((*RULES, _VALUES))}")
    all_classes = label.endswith(":*")
    if threshold is not None and (rule == _VALUES or all_classes):
        raise DataError(
            f"config.probe.threshold={threshold} is of a yes or no; a quantity and all classes of a task have none: "
            "leave it out, or give config.probe.rule 'below' or 'above' with a single label"
        )
    if all_classes:
        if rule != "present":
            raise DataError(f"config.probe.label={label!r} asks for classes: config.probe.rule must be 'present'")
        return MultiLabelTask(task=label.removesuffix(":*"))
    if rule == _VALUES:
        return QuantityTask(label=label)
    return BinaryTask(label=label, rule=rule, threshold=threshold)


def parse_task(text: str) -> Task:
    """Returns the task that a line or the name of a preset means.

    Args:
        text: see above.

    Raises:
        DataError: it means none.
    """
    line = PRESETS.get(text.strip(), text.strip())
    if found := re.fullmatch(r"([^<>=*]+)([<>])\s*([-+.\deE]+)", line):
        label, symbol, number = found.groups()
        try:
            return BinaryTask(label=label.strip(), rule=_SYMBOLS[symbol], threshold=float(number), section="--task")
        except ValueError as error:
            raise _unreadable(text) from error
    if found := re.fullmatch(r"([^<>=*]+)=1", line):
        return BinaryTask(label=found[1].strip(), rule="present", section="--task")
    if found := re.fullmatch(r"([^<>=*:]+):\*", line):
        return MultiLabelTask(task=found[1].strip())
    if re.fullmatch(r"[^<>=*:]+", line):
        return QuantityTask(label=line)
    raise _unreadable(text)


def _unreadable(text: str) -> DataError:
    return DataError(
        f"--task={text!r} is no task; write LABEL<NUMBER, LABEL>NUMBER, LABEL=1, TASK:* or, for a quantity, LABEL; "
        f"or one of {', '.join(PRESETS)}"
    )
