"""Records of the health metric: the training records that vote, and the validation records that are voted on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.system.visible_text import visible
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import BinaryTask, QuantityTask, Task, parse_task
from ecgjax.errors import ConfigError
from ecgjax.settings.health import HealthSettings

#: Full names of the health metrics: of a quantity, and of all other questions. More is better.
R2, AUROC = METRICS = ("eval/knn_r2", "eval/knn_auroc")

# Runs of all seeds ask the same records, so that their curves can be compared.
_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labelled records of one side of the split.

    Attributes:
        records: Record numbers, `int64[n]`, ascending.
        labels: Labels, `f64[n]`, or `f64[n, classes]` for a multi-label question.
        patients: Patient (group) of each record, `int[n]`.
        available: Number of labelled records that they were drawn from.
    """

    records: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    available: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedRecords:
    """Records of the health metric, the same at every evaluation.

    Attributes:
        task: Question.
        bank: Training records that vote.
        queries: Validation records that are voted on.
        neighbours: Number of votes for each.
        left_out: Classes of a multi-label question that are not asked, since one side lacks one of their answers.
    """

    task: Task
    bank: Labelled
    queries: Labelled
    neighbours: int
    left_out: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """Full name of the health metric."""
        return R2 if isinstance(self.task, QuantityTask) else AUROC

    @property
    def records(self) -> np.ndarray:
        """Numbers of all records, `int64[n]`: those of the bank, then those of the queries."""
        return np.concatenate([self.bank.records, self.queries.records])

    @property
    def digest(self) -> str:
        """Digest of records and labels, in hexadecimal."""
        digest = hashlib.blake2b(digest_size=16)
        for side in (self.bank, self.queries):
            digest.update(side.records.tobytes() + side.labels.tobytes())
        return digest.hexdigest()

    def describe(self) -> str:
        """Returns a printable line on what each evaluation costs and looks at."""
        bank, queries = self.bank, self.queries
        out = f"; not asked, for lack of both answers: {', '.join(self.left_out)}" if self.left_out else ""
        return visible(
            f"health: every evaluation embeds {len(bank.records):,} of {bank.available:,} labelled training records "
            f"and {len(queries.records):,} of {queries.available:,} labelled validation records; the {self.neighbours} "
            f"nearest vote on {self.task.title!r}. It trains no weight{out}"
        )

    def about(self, *, chooses: bool) -> dict[str, object]:
        """Returns what a run says of the labels that were looked at.

        Args:
            chooses: Whether the best checkpoint is chosen by the health metric.
        """
        return {
            "question": self.task.title,
            "labels_looked_at": {"training": len(self.bank.records), "validation": len(self.queries.records)},
            "use": "a metric of evaluations, which trains no weight",
            "chooses_best_checkpoint": chooses,
        }


def asked_records(settings: HealthSettings, recordings: Recordings) -> AskedRecords | None:
    """Chooses the records of the health metric; no test record is among them.

    Args:
        settings: Settings of the health metric.
        recordings: Recordings of the run, divided.

    Returns:
        The records, or None where the settings ask nothing.

    Raises:
        ConfigError: More neighbours are to vote than there are records.
        DataError: The question is none, no data set has its label, or the labelled records cannot answer it.
    """
    if not settings.task:
        return None
    task = parse_task(settings.task, asked_by="config.health.task")
    try:
        labels = task.targets(recordings.index)
        classes = task.classes(recordings.index)
    except DataError as error:
        raise DataError(f"config.health.task={settings.task!r}: {error}") from error
    groups = recordings.index.group
    bank = _drawn(recordings.split.train, labels, groups, settings, side="train")
    queries = _drawn(recordings.split.val, labels, groups, settings, side="val")
    if np.isin(queries.patients, bank.patients).any():
        raise ValueError("a patient lies on two sides of the split")
    if settings.neighbours > len(bank.records):
        raise ConfigError(
            f"config.health.neighbours={settings.neighbours} are more than the {len(bank.records)} training records "
            f"that vote on {settings.task!r} (config.health.records={settings.records}, {bank.available} labelled): "
            f"give {len(bank.records)} or fewer"
        )
    asked = AskedRecords(task=task, bank=bank, queries=queries, neighbours=settings.neighbours)
    return _answerable(asked, classes, settings)


def _drawn(
    records: np.ndarray, labels: np.ndarray, groups: np.ndarray, settings: HealthSettings, *, side: str
) -> Labelled:
    """Returns labelled records of a side, drawn at random where there are more than the settings allow.

    Args:
        records: Numbers of the side's records, `int64[n]`.
        labels: Labels of all recordings, `f64[…]`, NaN where unknown.
        groups: Patients of all recordings.
        settings: Settings of the health metric.
        side: Beginning of the leaf of the side's folds.
    """
    known = ~np.isnan(labels).reshape(len(labels), -1).any(axis=1)
    labelled = np.sort(np.asarray(records, np.int64)[known[records]])
    if len(labelled) > settings.records:
        drawn = np.random.default_rng(_SEED).choice(len(labelled), settings.records, replace=False)
        chosen = labelled[np.sort(drawn)]
    else:
        chosen = labelled
    patients = np.asarray(groups[chosen])
    if (number := len(np.unique(patients))) < 2:
        raise DataError(
            f"config.health.task={settings.task!r}: of the {len(records)} records of config.data.{side}_folds, "
            f"{len(labelled)} have the label, of {number} patient{'s' if number != 1 else ''}, and two patients are "
            "needed: ask another question, or choose other folds"
        )
    return Labelled(records=chosen, labels=labels[chosen], patients=patients, available=len(labelled))


def _answerable(asked: AskedRecords, classes: Sequence[str], settings: HealthSettings) -> AskedRecords:
    """Returns the records with the labels of the classes that both sides have both answers of."""
    sides = {"train": asked.bank, "val": asked.queries}
    varies = {name: (side.labels != side.labels[:1]).any(axis=0) for name, side in sides.items()}
    if not classes:
        for name, side in sides.items():
            if not varies[name]:
                raise DataError(_same_answer(asked.task, side, settings, side_name=name))
        return asked
    both = varies["train"] & varies["val"]
    if not both.any():
        raise DataError(
            f"config.health.task={settings.task!r}: no class has a positive and a negative record among both the "
            f"{len(asked.bank.records)} training and the {len(asked.queries.records)} validation records: raise "
            f"config.health.records={settings.records}, ask another question, or choose other folds"
        )
    bank, queries = (dataclasses.replace(side, labels=side.labels[:, both]) for side in sides.values())
    left_out = tuple(name for name, kept in zip(classes, both, strict=True) if not kept)
    return dataclasses.replace(asked, bank=bank, queries=queries, left_out=left_out)


def _same_answer(task: Task, side: Labelled, settings: HealthSettings, *, side_name: str) -> str:
    number, value = len(side.records), side.labels[0]
    if isinstance(task, BinaryTask):
        found = f"{'all' if value else 'none'} of the {number} records of config.data.{side_name}_folds are positive"
    else:
        found = f"all {number} records of config.data.{side_name}_folds have the value {value:g}"
    more = f"raise config.health.records={settings.records} ({side.available} are labelled), " * (
        side.available > number
    )
    return f"config.health.task={settings.task!r}: {found}: {more}ask another question, or choose other folds"
