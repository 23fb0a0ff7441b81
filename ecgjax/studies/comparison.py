"""The pretrained encoder beside the baselines it has to beat, on the same records, labels and resamples."""

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

#: The model whose difference from every other is given.
REFERENCE = "pretrained"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """A model's scores of the test records and how it was selected.

    Attributes:
        title: as in the table, such as `"random encoder, linear probe"`.
        scores: `f64[test records]`.
        val_scores: `f64[validation records]`.
        val_auroc: AUROC on validation of what was selected there.
        selected: what was selected, in words, such as `"C = 0.001 of 15"`.
        num_features: number of features of a linear probe; `None` for a network trained end to end.
    """

    title: str
    scores: np.ndarray
    val_scores: np.ndarray
    val_auroc: float
    selected: str
    num_features: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One model of the comparison.

    Attributes:
        name: key, such as `"random"`.
        title: as in the table.
        auroc: AUROC on the test records, with its interval over patients.
        auprc: the same of the average precision.
        difference: AUROC of the pretrained encoder minus this model's, paired; `None` for itself.
        val_auroc: of what was selected on validation.
        selected: what was selected there.
        num_features: of a linear probe.
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
        rows: one a model, the pretrained encoder first.
        control: AUROC of the pretrained encoder's probe on permuted labels.
        bootstrap: number of resamples.
        seed: of the resamples and permutations.
    """

    rows: tuple[Row, ...]
    control: ShuffleControl
    bootstrap: int
    seed: int

    def row(self, name: str) -> Row:
        """Returns the row of a model."""
        return next(row for row in self.rows if row.name == name)

    def difference(self, name: str) -> Interval:
        """Returns how far the pretrained encoder is above another model.

        Raises:
            ValueError: The model is the pretrained encoder's own.
        """
        if (difference := self.row(name).difference) is None:
            raise ValueError(f"{name!r} is what the others are compared with")
        return difference


def probe_contender(
    features: SplitFeatures, data: ProbeData, *, title: str, preprocessor: TransformerMixin | None = None
) -> Contender:
    """Fits a linear probe on train, selects it on validation and scores the test records."""
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
    """Scores records by the share of positives among their nearest neighbours in train, as many as validation says."""
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
    """Compares models on the test records, by patient bootstrap with the same resamples for all.

    Args:
        contenders: name → model; one is named `REFERENCE`.
        data: the labelled records.
        control_features: embeddings of the pretrained encoder, for the control on permuted labels.
        bootstrap: number of resamples.
        shuffles: number of label permutations of the control.
        seed: of both.
        progress: whether to draw a progress bar on a terminal.

    Raises:
        DataError: if no contender is named `REFERENCE`, or as `patient_bootstrap` and `shuffle_control`.
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
