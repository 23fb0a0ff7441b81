"""What is measured of a task beyond the metrics of every model: the base class, the same for all kinds of tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ecgjax.data.labels import MIN_EVENTS, ProbeData
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.needs import needed_for
from ecgjax.evaluation.metrics.subgroups import members
from ecgjax.evaluation.metrics.weighting import Metric, on_rows
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import Key, measured
from ecgjax.studies.model_names import REFERENCE

#: What is subtracted from a group's metric.
REST = "all other records"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Settings of a report.

    Attributes:
        resamples: Number of bootstrap resamples of the patients.
        seed: Seed of resamples and permutations.
        groups: Name of each test record's group, `[n]`, by column; see `groups.group_columns`.
        treat_at: Probability thresholds for treatment, at which net benefit is reported.
        prevalence: Prevalence for which PPV and NPV are reported as well as for that of the test records; None for the
            latter alone.
        shuffles: Number of label permutations of the control.
        unit: Unit of a quantity; empty if it has none.
        progress: Whether progress is reported.
    """

    resamples: int
    seed: int
    groups: Mapping[str, np.ndarray]
    treat_at: Sequence[float] = ()
    prevalence: float | None = None
    shuffles: int = 10
    unit: str = ""
    progress: bool = True


class Group(NamedTuple):
    """A group of patients among the test records.

    Attributes:
        column: Name of the column that defines the groups.
        group: Name of the group.
        records, patients: Numbers of test records and patients.
        counted: Number of positive records, or of classes that are averaged over; None where neither is counted.
        reason: Reason why nothing was measured; empty where it was.
    """

    column: str
    group: str
    records: int
    patients: int
    counted: int | None
    reason: str

    @property
    def part(self) -> str:
        """Value of `Key.part` in the keys of the group's results."""
        return f"{self.column}: {self.group}"


class Measured(NamedTuple):
    """Metrics of a group of records.

    Attributes:
        metrics: Metrics by name, as functions of weights on all test records; empty where there is a reason.
        counted: Number for `Group.counted`.
        reason: Reason why there are no metrics; empty where there are.
    """

    metrics: Mapping[str, Metric]
    counted: int | None = None
    reason: str = ""


class Supplement:
    """Measures a kind of task beyond the metrics of every model; kinds with more to measure have a subclass.

    Attributes:
        gaps: Metrics of groups that are compared with those of all other records.
        counted: Title of what `Group.counted` counts; empty where nothing is counted.
        in_unit: Metrics in the unit of a quantity.
        most_resamples: Largest number of resamples for groups; None for no limit.
    """

    gaps: Sequence[str] = ()
    counted: str = ""
    in_unit: Sequence[str] = ()
    most_resamples: int | None = None

    def measure(
        self, models: Mapping[str, Answers], data: ProbeData, report: Report, *, embeddings: SplitFeatures
    ) -> tuple[dict[Key, Interval], dict[str, Any]]:
        """Returns further results of the models, and facts: named values that are no metrics.

        Args:
            models: Predictions of every model, by its key.
            data: Labelled records of the task.
            report: Settings of the report.
            embeddings: Embeddings of the labelled records by the pretrained encoder.
        """
        del models, data, report, embeddings
        return {}, {}

    def of_group(self, answers: Answers, data: ProbeData, mask: np.ndarray) -> Measured:
        """Returns the metrics of a model on some of the test records.

        Args:
            answers: Predictions of the model.
            data: Labelled records of the task.
            mask: Test records to measure, `bool[n]`.
        """
        kind, rows = kind_of(data.task), np.flatnonzero(mask)
        labels, outputs = data.test.labels[rows], _outputs(answers)[rows]
        if reason := "too few records" if len(rows) < MIN_EVENTS else kind.undefined(labels):
            return Measured({}, reason=reason)
        metrics = kind.metrics(labels, outputs, classes=data.classes)
        return Measured({name: on_rows(metric, rows) for name, metric in metrics.items()})

    def groups(
        self, models: Mapping[str, Answers], data: ProbeData, report: Report
    ) -> tuple[dict[Key, Interval], list[Group]]:
        """Measures the pretrained encoder's probe in every group of patients.

        Args:
            models: Predictions of every model, by its key.
            data: Labelled records of the task.
            report: Settings of the report.

        Returns:
            The results, whose `Key.part` is the group, and the groups in the order of the report.
        """
        test, kind, groups, masks = data.test, kind_of(data.task), [], {}
        metrics: dict[Key, Metric] = {}
        differences: dict[Key, tuple[Key, Key]] = {}
        for (column, name), mask in members(report.groups, number=len(test.records)).items():
            own = self.of_group(models[REFERENCE], data, mask)
            group = Group(column, name, int(mask.sum()), len(np.unique(test.patients[mask])), own.counted, own.reason)
            groups.append(group)
            masks[group.part] = mask
            rest = self.of_group(models[REFERENCE], data, ~mask).metrics if own.metrics and self.gaps else {}
            for metric, function in own.metrics.items():
                key = Key(REFERENCE, metric, data.task.title, part=group.part)
                metrics[key] = function
                if metric in self.gaps and metric in rest:
                    # The other records are measured for the difference alone and are not shown.
                    other = key._replace(part=f"not {group.part}")
                    metrics[other] = rest[metric]
                    differences[key._replace(minus=REST)] = key, other
        resamples = min(report.resamples, self.most_resamples or report.resamples)
        rows = measured(
            metrics, patients=test.patients, resamples=resamples, seed=report.seed,
            differences=differences, needs=lambda key: f"{needed_for(key.metric, kind.needs)} in the group",
        )  # fmt: skip
        shown = {key: value if key.minus else self.of_few(value, key.metric, models, data, masks[key.part])
                 for key, value in rows.items() if key.part in masks}  # fmt: skip
        return shown, groups

    def of_few(
        self, interval: Interval, metric: str, models: Mapping[str, Answers], data: ProbeData, mask: np.ndarray
    ) -> Interval:
        """Returns the interval of a group's metric, which a subclass computes otherwise where patients are few.

        Args:
            interval: Bootstrap interval of the metric.
            metric: Name of the metric.
            models: Predictions of every model, by its key.
            data: Labelled records of the task.
            mask: Test records of the group, `bool[n]`.
        """
        del metric, models, data, mask
        return interval


def _outputs(answers: Answers) -> np.ndarray:
    if answers.outputs is None:
        raise ValueError(f"there are no answers: {answers.reason}")
    return answers.outputs
