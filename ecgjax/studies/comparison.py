"""Comparison of the pretrained encoder with its baselines, on the same records, labels and resamples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from sklearn.base import TransformerMixin

from data_pipelines.errors import DataError
from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.bootstrap import Interval, patient_bootstrap
from ecgjax.evaluation.metrics.clustered_auroc import interval_of_few
from ecgjax.evaluation.metrics.ranking import auroc
from ecgjax.evaluation.models.linear import fit_nearest
from ecgjax.evaluation.models.logistic import LinearProbe, ShuffleControl, fit_linear_probe, shuffle_control

#: Name of the model whose difference from every other model is reported.
REFERENCE = "pretrained"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """A model's scores and how it was selected.

    Attributes:
        title: Title of the model in tables, such as `"random initialisation, linear probe"`.
        scores: Scores of the test records, `f64[test records]`.
        val_scores: Scores of the validation records, `f64[validation records]`.
        val_auroc: AUROC of the selected model on the validation records.
        selected: Description of what was selected on validation, such as `"C = 0.001 of 15"`.
        num_features: Number of features of the model; None for a network trained end to end.
    """

    title: str
    scores: np.ndarray
    val_scores: np.ndarray
    val_auroc: float
    selected: str
    num_features: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Results of one model in the comparison.

    Attributes:
        name: Key of the model, such as `"random"`.
        title: Title of the model in tables.
        auroc: AUROC on the test records, with its interval over patients.
        auprc: Average precision on the test records, with its interval over patients.
        difference: Paired difference in AUROC, the pretrained encoder's minus this model's; None for the pretrained
            encoder itself.
        val_auroc: AUROC of the selected model on the validation records.
        selected: Description of what was selected on validation.
        num_features: Number of features of the model; None for a network trained end to end.
    """

    name: str
    title: str
    auroc: Interval
    auprc: Interval
    difference: Interval | None
    val_auroc: float
    selected: str
    num_features: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result of comparing models on one task.

    Attributes:
        rows: Results of each model; the pretrained encoder comes first.
        control: AUROC of the pretrained encoder's probe on permuted labels.
        bootstrap: Number of bootstrap resamples.
        seed: Seed of the resamples and permutations.
    """

    rows: tuple[Row, ...]
    control: ShuffleControl
    bootstrap: int
    seed: int

    def row(self, name: str) -> Row:
        """Returns the row of a model."""
        return next(row for row in self.rows if row.name == name)

    def difference(self, name: str) -> Interval:
        """Returns the paired difference of the pretrained encoder from another model.

        Raises:
            ValueError: The model is the pretrained encoder's own.
        """
        if (difference := self.row(name).difference) is None:
            raise ValueError(f"{name!r} is what the others are compared with")
        return difference


def probe_contender(
    features: SplitFeatures, data: ProbeData, *, title: str, preprocessor: TransformerMixin | None = None
) -> Contender:
    """Fits a linear probe on the training records, selects it on validation and scores the test records."""
    probe = fit_linear_probe(
        features.train,
        data.train.labels,
        val_features=features.val,
        val_labels=data.val.labels,
        preprocessor=preprocessor,
    )
    return Contender(
        title=title,
        scores=probe.scores(features.test),
        val_scores=probe.scores(features.val),
        val_auroc=probe.val_auroc,
        selected=_selected(probe),
        num_features=probe.num_features,
    )


def nearest_contender(features: SplitFeatures, data: ProbeData, *, title: str) -> Contender:
    """Scores records by the share of positives among their nearest training records.

    The number of neighbours is selected on validation.

    Args:
        features: Features of the records of each split.
        data: Labelled records of a binary task.
        title: Title of the model in tables.
    """
    probe = fit_nearest(
        "binary",
        features.train,
        data.train.labels,
        val_features=features.val,
        val_targets=data.val.labels,
    )
    return Contender(
        title=title,
        scores=probe.predict(features.test),
        val_scores=probe.predict(features.val),
        val_auroc=probe.val_metric,
        selected=probe.selected,
        num_features=features.train.shape[1],
    )


def network_contender(
    *, val_scores: np.ndarray, test_scores: np.ndarray, data: ProbeData, title: str, selected: str
) -> Contender:
    """Wraps the scores of a network that was trained end to end and selected on validation."""
    return Contender(
        title=title,
        scores=test_scores,
        val_scores=val_scores,
        val_auroc=auroc(data.val.labels, val_scores),
        selected=selected,
    )


def compare(
    contenders: Mapping[str, Contender],
    data: ProbeData,
    *,
    control_features: SplitFeatures,
    bootstrap: int,
    shuffles: int,
    seed: int,
    progress: bool = False,
) -> Comparison:
    """Compares models on the test records by a patient bootstrap with the same resamples for all of them.

    Args:
        contenders: Models by name; one of them is named `REFERENCE`.
        data: Labelled records of the task.
        control_features: Embeddings by the pretrained encoder, for the control on permuted labels.
        bootstrap: Number of bootstrap resamples.
        shuffles: Number of label permutations in the control.
        seed: Seed of the resamples and of the permutations.
        progress: Whether a progress bar is drawn on a terminal.

    Raises:
        DataError: No model is named `REFERENCE`, or `patient_bootstrap` or `shuffle_control` refuses the records.
    """
    if REFERENCE not in contenders:
        raise DataError(f"the comparison needs a model named {REFERENCE!r}, got {', '.join(contenders)}")
    scores = {name: contender.scores for name, contender in contenders.items()}
    aurocs, auprcs = (
        patient_bootstrap(
            data.test.labels, scores, patients=data.test.patients, metric=metric, resamples=bootstrap, seed=seed
        )
        for metric in ("auroc", "auprc")
    )
    rows = tuple(
        Row(
            name=name,
            title=contender.title,
            auroc=interval_of_few(
                aurocs.interval(name), data.test.labels, contender.scores, patients=data.test.patients
            ),
            auprc=auprcs.interval(name),
            difference=None if name == REFERENCE else aurocs.difference(REFERENCE, name),
            val_auroc=contender.val_auroc,
            selected=contender.selected,
            num_features=contender.num_features,
        )
        for name, contender in contenders.items()
    )
    parts = {"train": data.train, "val": data.val, "test": data.test}
    control = shuffle_control(
        {name: getattr(control_features, name) for name in parts},
        {name: part.labels for name, part in parts.items()},
        patients={name: part.patients for name, part in parts.items()},
        shuffles=shuffles,
        seed=seed,
        progress=progress,
    )
    return Comparison(rows=rows, control=control, bootstrap=bootstrap, seed=seed)


def _selected(probe: LinearProbe) -> str:
    edge = "" if probe.sweep[0].c < probe.c < probe.sweep[-1].c else ", at the edge of the sweep"
    return f"C = {probe.c:.2g} of {len(probe.sweep)}{edge}"
