"""What a fine-tuned network is worth: calibration and thresholds from validation, and its metrics on the test records.

Calibration and thresholds are chosen on validation alone, by the rules of every evaluation; test records are scored
once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from data_pipelines.errors import DataError
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.evaluation.metrics.operating_points import best_f1_threshold
from ecgjax.evaluation.models.answers import Answers, save_archive
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import Key, Results
from ecgjax.finetuning.answering_head import MOST_OF_CALIBRATION, AnsweringHead, HeadOutput
from ecgjax.pages.page import Table
from ecgjax.studies.model_names import REFERENCE
from ecgjax.studies.one_task.binary import decisions_of
from ecgjax.studies.one_task.calibrated import platt
from ecgjax.studies.one_task.multilabel import decisions_of_classes
from ecgjax.studies.one_task.pipeline import metrics_of, supplement_of
from ecgjax.studies.one_task.supplement import Group, Report

#: Name of the network in the table of results.
MODEL = "finetuned"

#: File of a run's folder with the outputs and probabilities of the validation and test records.
PREDICTIONS_FILE = "predictions.npz"

#: Names of the calibration and of the rule of the thresholds.
CALIBRATION, THRESHOLD_RULE = "Platt scaling", "highest F1"

#: Least number of positive, and of negative, training records with which a yes or no is trained.
MIN_TRAINING = 2

#: Least slope of a calibration: scores that rank no better than chance all become the prevalence.
_LEAST_SLOPE = 1e-9

#: Number of positive, and of negative, validation records below which readers are told how few there are.
_FEW = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetuned:
    """Measurements of a fine-tuned network.

    Attributes:
        head: Question of its head, with calibration and thresholds.
        answers: Scores of the test and of the validation records.
        results: Every number that was measured, with its interval over patients.
        groups: Groups of test patients.
    """

    head: AnsweringHead
    answers: Answers
    results: Results
    groups: list[Group]


def check_trainable(data: ProbeData, *, batch_size: int) -> tuple[ProbeData, tuple[str, ...]]:
    """Refuses labels with which nothing can be trained or chosen, and leaves out classes of which that is so.

    Args:
        data: Labelled records of the task.
        batch_size: Number of recordings of a batch.

    Returns:
        The data, of a task of several classes without those that cannot be trained or calibrated, and a sentence on
        these, if there are any.

    Raises:
        DataError: A batch is larger than the training side, or there are too few positive or negative records.
    """
    number = len(data.train.records)
    if batch_size > number:
        raise DataError(
            f"config.training.batch_size={batch_size} is more than the {number:,} labelled training records of "
            f"{data.task.title!r}, so that every batch would repeat some: give {number} or fewer"
            + (", or raise config.label_fraction" if data.label_fraction < 1 else "")
        )
    kind = kind_of(data.task)
    if not kind.log_odds:
        return data, ()
    if not data.classes:
        if reason := _untrainable(data.train.labels, data.val.labels):
            raise DataError(
                f"{data.task.title} cannot be trained: {reason}. Ask another question, raise config.label_fraction, or "
                "give other config.data.train_folds and val_folds"
            )
        return data, ()
    reasons = {
        name: _untrainable(data.train.labels[:, column], data.val.labels[:, column])
        for column, name in enumerate(data.classes)
    }
    kept = [column for column, name in enumerate(data.classes) if not reasons[name]]
    if not kept:
        told = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:5])
        raise DataError(
            f"{data.task.title}: no class can be trained ({told}); ask another question, or give more folds"
        )
    if len(kept) == len(data.classes):
        return data, ()
    left_out = "; ".join(f"{name} ({reason})" for name, reason in reasons.items() if reason)
    return data.of_columns(kept), (f"{data.task.title}: classes that cannot be trained are left out: {left_out}.",)


def _untrainable(train: np.ndarray, val: np.ndarray) -> str:
    """Returns the reason why a yes or no cannot be trained or chosen by validation; empty where it can."""
    for side, labels, least in (("training", train, MIN_TRAINING), ("validation", val, 1)):
        for label, name in ((1, "positive"), (0, "negative")):
            if (count := int(np.count_nonzero(labels == label))) < least:
                return f"{count} {name} {side} record{'' if count == 1 else 's'}, and {least} are needed"
    return ""


def answering_head(
    data: ProbeData,
    val_outputs: np.ndarray,
    *,
    offset: np.ndarray,
    selected: str,
    unit: str = "",
    folds: Sequence[int] = (),
    datasets: Sequence[Mapping[str, Any]] = (),
    training: Mapping[str, Any] | None = None,
) -> AnsweringHead:
    """Returns the description of a head, whose calibration and thresholds are fitted on validation.

    Args:
        data: Labelled records of the task.
        val_outputs: Outputs of the head for the validation records, `f64[n, outputs]`, offsets not yet subtracted.
        offset: What weights or balanced batches added to the log odds, `f64[outputs]`.
        selected: Description of the weights that were chosen.
        unit: Unit of a quantity.
        folds: Folds of the validation records.
        datasets: Data sets of the labels, as `about.json` describes them.
        training: Settings of the training, without paths.
    """
    kind, names = kind_of(data.task), data.classes or (data.task.title,)
    about: dict[str, Any] = {"unit": unit}
    outputs = tuple(HeadOutput(name=name) for name in names)
    labels = data.val.labels.reshape(len(val_outputs), -1)
    if kind.log_odds:
        about = {"calibration": CALIBRATION, "threshold_rule": THRESHOLD_RULE, "chosen_on": _chosen_on(data, folds)}
        outputs = tuple(
            _calibrated(output, labels[:, column], val_outputs[:, column], offset=float(offset[column]))
            for column, output in enumerate(outputs)
        )
    head = AnsweringHead(
        question=data.task.title,
        kind=data.task.kind,
        outputs=outputs,
        selected=selected,
        data=tuple(datasets),
        training=dict(training or {}),
        **about,
    )
    return _with_thresholds(head, labels, val_outputs) if kind.log_odds else head


def _calibrated(output: HeadOutput, labels: np.ndarray, outputs: np.ndarray, *, offset: float) -> HeadOutput:
    slope, intercept = platt(labels, outputs - offset).of_scores
    if slope > MOST_OF_CALIBRATION["slope"]:  # Outputs that differ by rounding alone tell nothing.
        slope, intercept = 0.0, float(special.logit(np.mean(labels)))
    return dataclasses.replace(
        output,
        offset=offset,
        slope=max(slope, _LEAST_SLOPE),
        intercept=intercept,
        records=len(labels),
        positives=int(labels.sum()),
    )


def _with_thresholds(head: AnsweringHead, labels: np.ndarray, outputs: np.ndarray) -> AnsweringHead:
    """Returns a head whose thresholds are chosen on the probabilities that it gives for validation."""
    probabilities = head.answers(outputs).reshape(labels.shape)
    chosen = tuple(
        output
        if _is_flat(output)
        else dataclasses.replace(output, threshold=best_f1_threshold(labels[:, column], probabilities[:, column]))
        for column, output in enumerate(head.outputs)
    )
    return dataclasses.replace(head, outputs=chosen)


def _is_flat(output: HeadOutput) -> bool:
    """Returns whether an output gives every recording the same answer, but for rounding."""
    return output.slope <= _LEAST_SLOPE


def cautions_of(head: AnsweringHead) -> tuple[str, ...]:
    """Returns sentences on outputs whose calibration and threshold a reader must not rely on.

    Args:
        head: Head whose calibration and thresholds were fitted on validation.
    """
    if not head.log_odds:
        return ()
    flat = tuple(
        f"THE MODEL DOES NOT ANSWER {output.name}: on the {output.records} validation records the scores of the "
        f"{output.positives} positive ones are no higher than those of the others, so that every recording gets the "
        "prevalence for an answer, and no threshold was chosen. Give it more labels, or another encoder."
        for output in head.outputs
        if _is_flat(output)
    )
    few = tuple(
        f"{output.name}: step, calibration and threshold rest on {output.positives} positive and "
        f"{output.records - output.positives} negative validation records."
        for output in head.outputs
        if output.positives is not None
        and min(output.positives, output.records - output.positives) < _FEW
        and not _is_flat(output)
    )
    return (*flat, *few)


def _chosen_on(data: ProbeData, folds: Sequence[int]) -> str:
    where = f", fold{'' if len(folds) == 1 else 's'} {', '.join(map(str, folds))}" if folds else ""
    return f"the {len(data.val.records):,} validation records{where}"


def measure(answers: Answers, data: ProbeData, report: Report, *, head: AnsweringHead) -> Finetuned:
    """Measures the network on the test records, as every evaluation does.

    Args:
        answers: Scores of the test and of the validation records.
        data: Labelled records of the task.
        report: Settings of the resampling, and groups of the test records.
        head: Question of the head.

    Raises:
        DataError: The labels of the test records do not define the metrics.
    """
    models: dict[str, Answers] = {REFERENCE: answers}
    rows: dict[Key, Any] = dict(metrics_of(models, data, report))
    # A flat output decides nothing that could be measured.
    flat = {output.name for output in head.outputs if head.log_odds and _is_flat(output)}
    if data.task.kind == "binary" and not flat:
        rows |= decisions_of(models, data, report)[0]
    elif data.classes:
        of_classes = decisions_of_classes(models, data, report)[0]
        rows |= {key: value for key, value in of_classes.items() if key.metric == "AUROC" or key.part not in flat}
    of_groups, groups = supplement_of(data).groups(models, data, report)
    results = {
        key._replace(model=MODEL if key.model == REFERENCE else key.model, fraction=data.label_fraction): value
        for key, value in (rows | of_groups).items()
    }
    return Finetuned(head=head, answers=answers, results=results, groups=groups)


def counts(data: ProbeData) -> dict[str, dict[str, Any]]:
    """Returns numbers of records, patients and positives, and the prevalence, of training, validation and test."""
    return {
        name: {"records": len(part.records), "patients": part.num_patients, **_prevalence(data, part)}
        for name, part in (("train", data.train), ("validation", data.val), ("test", data.test))
    }


def _prevalence(data: ProbeData, part: LabelledRecords) -> dict[str, Any]:
    if not kind_of(data.task).log_odds:
        return {"mean": float(part.labels.mean()), "standard_deviation": float(part.labels.std())}
    if not data.classes:
        return {"positives": part.positives, "prevalence": part.positives / len(part.records)}
    positives = dict(zip(data.classes, part.labels.sum(axis=0).tolist(), strict=True))
    return {
        "positives": positives,
        "prevalence": {name: number / len(part.records) for name, number in positives.items()},
    }


def results_table(found: Finetuned, data: ProbeData) -> Table:
    """Returns the table of the metrics on all test records, each with what it would be by chance where that is known.

    Args:
        found: Measurements of the network.
        data: Labelled records of the task.
    """
    by_chance = _by_chance(data)
    rows = [
        (key.metric, str(value), by_chance.get(key.metric, ""))
        for key, value in found.results.items()
        if key.model == MODEL and not key.minus and not key.part
    ]
    return Table(header=("metric", "test [95 % interval over patients]", "by chance"), rows=rows)


def _by_chance(data: ProbeData) -> dict[str, str]:
    """Returns what metrics are without any knowledge of the recordings, by name."""
    if not kind_of(data.task).log_odds:
        return {"R²": "0", "MAE": f"{np.abs(data.test.labels - np.median(data.train.labels)).mean():.3f}"}
    prevalence = float(data.test.labels.mean(axis=0).mean())
    return {
        "AUROC": "0.500",
        "macro AUROC": "0.500",
        "AUPRC": f"{prevalence:.3f} (prevalence)",
        "macro AUPRC": f"{prevalence:.3f} (mean prevalence)",
        "PPV": f"{prevalence:.3f} (prevalence)",
        "NPV": f"{1 - prevalence:.3f} (1 − prevalence)",
    }


def write_predictions(
    folder: Path,
    head: AnsweringHead,
    data: ProbeData,
    *,
    val_outputs: np.ndarray,
    test_outputs: np.ndarray,
    record_ids: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Writes outputs, answers and labels of the validation and test records as one NumPy archive.

    Args:
        folder: Folder of the run.
        head: Question of the head.
        data: Labelled records of the task.
        val_outputs: Outputs of the head for the validation records, `f64[n, outputs]`, offsets not yet subtracted.
        test_outputs: Outputs of the head for the test records.
        record_ids: Function from record numbers to the ids of the records.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, part, outputs in (("val", data.val, val_outputs), ("test", data.test, test_outputs)):
        arrays |= {
            f"{name}_records": np.asarray(record_ids(part.records), str),
            f"{name}_outputs": outputs,
            f"{name}_answers": head.answers(outputs),
            f"{name}_labels": part.labels,
        }
    words = {"question": data.task.title, "classes": list(data.classes), "selected": head.selected}
    save_archive(folder / PREDICTIONS_FILE, words, arrays)
