"""The experiment on a quantity or on several classes: a pretrained encoder and its baselines.

The models are those of `one_task_binary`, on the same records, labels and resamples: linear probes (ridge regression,
or logistic regression for each class) on the pretrained and on the random encoder, nearest neighbours, the network
trained with the labels alone, and models without a network; for a quantity also the mean of the training labels. There
is no control on shuffled labels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.fold_labels import SPREAD_LABELS
from ecgjax.data.labels import MIN_EVENTS, ProbeData, common_classes
from ecgjax.data.tasks import Kind
from ecgjax.evaluation.features.features import Read, SplitFeatures, interval_preprocessor, preprocessed
from ecgjax.evaluation.features.measurements import median_beat_preprocessor
from ecgjax.evaluation.features.model_inputs import (
    Classifier,
    FrozenEncoder,
    embedded,
    plain_features,
    supervised_scores,
)
from ecgjax.evaluation.metrics.bootstrap import bootstrap_metrics
from ecgjax.evaluation.metrics.clustered_auroc import interval_of_few
from ecgjax.evaluation.metrics.multilabel import auroc_of, by_class
from ecgjax.evaluation.metrics.regression import BlandAltman, bland_altman
from ecgjax.evaluation.metrics.subgroups import in_order
from ecgjax.evaluation.metrics.weighting import Metric, ratio
from ecgjax.evaluation.models import selection
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.evaluation.models.linear import fit_linear, fit_nearest
from ecgjax.studies.answers import (
    BY_CLASS,
    AnswerGroup,
    AnswerRow,
    Answers,
    ClassRow,
    Contestant,
    common_is_fewer,
    one_a_patient,
)
from ecgjax.studies.class_operating import operate_classes
from ecgjax.studies.comparison import REFERENCE
from ecgjax.studies.neighbourhood import neighbourhoods

_NEEDS: Mapping[Kind, str] = {
    "multilabel": "both labels of every class",
    "quantity": "predictions that differ",
}


def answer(
    data: ProbeData,
    *,
    read: Read,
    sampling_rate_hz: int,
    demographics: np.ndarray,
    pretrained: FrozenEncoder,
    random: FrozenEncoder,
    train_supervised: Callable[..., Classifier],
    bootstrap: int,
    seed: int,
    groups: Mapping[str, np.ndarray],
    progress: bool = True,
) -> Answers:
    """Runs the models on the same records and compares them; arguments are those of `one_task_binary.run_experiment`.

    Raises:
        DataError: The training, validation or test labels do not define the metric, or a probe refuses the records.
    """
    kind, test = data.task.kind, data.test
    for name, part in (("train", data.train), ("validation", data.val), ("test", test)):
        if reason := selection.undefined(kind, part.labels):
            raise DataError(
                f"{data.task.title}: {reason} in the {name} split; give it more labels or more folds. {SPREAD_LABELS}"
            )
    features = embedded({REFERENCE: pretrained, "random": random}, data, read=read, progress=progress)
    contestants = {
        REFERENCE: _probe(features[REFERENCE], data, title="pretrained, linear probe"),
        "nearest": _probe(features[REFERENCE], data, title="pretrained, nearest neighbours", fit=fit_nearest),
        "random": _probe(features["random"], data, title="random initialisation, linear probe"),
    }
    train = functools.partial(train_supervised, kind=kind)
    of_labels = supervised_scores(train, data, read=read, seed=seed, progress=progress)
    contestants["supervised"] = _network(data, *of_labels)
    plain = plain_features(
        data, read=read, sampling_rate_hz=sampling_rate_hz, demographics=demographics, progress=progress
    )
    linear = "ridge" if kind == "quantity" else "logistic"
    linearly = {
        "intervals": (plain.intervals, interval_preprocessor(), "intervals and amplitudes"),
        "median_beat": (
            plain.median_beat,
            median_beat_preprocessor(train_records=len(data.train.records)),
            "median beat and heart rate",
        ),
        "demographics": (plain.demographics, interval_preprocessor(), plain.demographics_name),
    }
    for name, (values, preprocessor, title) in linearly.items():
        contestants[name] = _probe(preprocessed(values, preprocessor), data, title=f"{title}, {linear}")
    contestants["boosted"] = _probe(
        plain.intervals, data, title="intervals and amplitudes, boosted trees",
        fit=functools.partial(fit_boosted, seed=seed),
    )  # fmt: skip
    if kind == "quantity":
        mean = float(data.train.labels.mean())
        contestants["mean"] = Contestant(
            title="mean of the training labels", val_outputs=np.full(len(data.val.records), mean),
            outputs=np.full(len(test.records), mean),
            val_metric=selection.primary(kind, data.val.labels, np.full(len(data.val.records), mean)), selected="",
        )  # fmt: skip
    draws = {"resamples": bootstrap, "seed": seed}
    of_test = {name: each.test for name, each in features.items()}
    outputs = {name: contestant.outputs for name, contestant in contestants.items()}
    compared = _compared(data)
    return Answers(
        rows=_rows(contestants, data, compared=compared, **draws),
        compared=compared,
        outputs=outputs,
        embeddings=of_test,
        classes=_classes(outputs, data, **draws),
        operating=operate_classes(contestants, data, **draws) if kind == "multilabel" else None,
        agreement=_agreement(contestants, data) if kind == "quantity" else {},
        groups=_groups(outputs[REFERENCE], data, groups=groups, **draws),
        near=neighbourhoods(of_test, labels=None, patients=test.patients, **draws),
        measurement_failures=plain.failures,
        bootstrap=bootstrap,
        seed=seed,
    )


def _probe(features: SplitFeatures, data: ProbeData, *, title: str, fit: Callable[..., Any] = fit_linear) -> Contestant:
    probe = fit(
        data.task.kind, features.train, data.train.labels, val_features=features.val, val_targets=data.val.labels,
        classes=data.classes,
    )  # fmt: skip
    return Contestant(
        title=title,
        val_outputs=probe.predict(features.val),
        outputs=probe.predict(features.test),
        val_metric=probe.val_metric,
        selected=probe.selected,
    )


def _network(data: ProbeData, val: np.ndarray, test: np.ndarray, selected: str) -> Contestant:
    return Contestant(
        title="labels only, end to end",
        val_outputs=val,
        outputs=test,
        val_metric=selection.primary(data.task.kind, data.val.labels, val, classes=data.classes),
        selected=selected,
    )


def _compared(data: ProbeData) -> str:
    """Returns the metric that models are compared by: rare classes leave the mean over all without an interval."""
    labels = data.test.labels
    if data.task.kind == "multilabel" and common_is_fewer(labels) and (common := common_classes(labels)):
        return f"macro AUROC of {len(common)} classes"
    return selection.PRIMARY[data.task.kind]


def _rows(
    contestants: Mapping[str, Contestant], data: ProbeData, *, compared: str, resamples: int, seed: int
) -> tuple[AnswerRow, ...]:
    kind, test = data.task.kind, data.test
    metrics: dict[tuple[str, str], Metric] = {}
    for name, contestant in contestants.items():
        own = selection.metrics(kind, test.labels, contestant.outputs, classes=data.classes)
        if compared not in own:
            common = common_classes(test.labels)
            chosen = by_class(
                test.labels[:, common], contestant.outputs[:, common], classes=[data.classes[c] for c in common],
                metric=auroc_of,
            )  # fmt: skip
            own[compared] = chosen.macro
        metrics |= {(name, metric): function for metric, function in own.items()}
    found = bootstrap_metrics(
        {"\t".join(key): function for key, function in metrics.items()},
        patients=test.patients, resamples=resamples, seed=seed, needs=_NEEDS[kind],
    )  # fmt: skip
    return tuple(
        AnswerRow(
            name=name,
            title=contestant.title,
            metrics={metric: found.interval(f"{name}\t{metric}") for model, metric in metrics if model == name},
            difference=None
            if name == REFERENCE
            else found.difference(f"{REFERENCE}\t{compared}", f"{name}\t{compared}"),
            val_metric=contestant.val_metric,
            selected=contestant.selected,
        )
        for name, contestant in contestants.items()
    )


def _classes(outputs: Mapping[str, np.ndarray], data: ProbeData, *, resamples: int, seed: int) -> tuple[ClassRow, ...]:
    if data.task.kind != "multilabel":
        return ()
    labels, patients = data.test.labels, data.test.patients
    by_model = {model: by_class(labels, outputs[model], classes=data.classes) for model in BY_CLASS}
    metrics = {f"{model}\t{name}": each for model, found in by_model.items() for name, each in found.metrics.items()}
    found = bootstrap_metrics(
        metrics, patients=patients, resamples=resamples, seed=seed, needs="both labels of the class"
    )
    left_out = by_model[REFERENCE].left_out
    return tuple(
        ClassRow(
            name=name,
            train_positives=int(data.train.labels[:, column].sum()),
            positives=int(labels[:, column].sum()),
            patients=len(np.unique(patients[labels[:, column] == 1])),
            aurocs={}
            if name in left_out
            else {
                model: interval_of_few(
                    found.interval(f"{model}\t{name}"), labels[:, column], outputs[model][:, column], patients=patients
                )
                for model in BY_CLASS
            },
            difference=None if name in left_out else found.difference(f"{REFERENCE}\t{name}", f"random\t{name}"),
            reason=left_out.get(name, ""),
        )
        for column, name in enumerate(data.classes)
    )


def _agreement(contestants: Mapping[str, Contestant], data: ProbeData) -> dict[str, BlandAltman]:
    rows = one_a_patient(data.test.patients)
    if len(rows) < 3:
        return {}
    return {each.title: bland_altman(data.test.labels[rows], each.outputs[rows]) for each in contestants.values()}


def _groups(
    outputs: np.ndarray, data: ProbeData, *, groups: Mapping[str, np.ndarray], resamples: int, seed: int
) -> tuple[AnswerGroup, ...]:
    labels, patients = data.test.labels, data.test.patients
    members = {
        (column, group): values == group
        for column, values in groups.items()
        for group in sorted(set(values), key=in_order)
    }

    def named(key: tuple[str, str], name: str, part: str) -> str:
        return "\t".join((*key, name, part))

    metrics: dict[str, Metric] = {}
    classes = {}
    for key, mask in members.items():
        own, classes[key] = _of_group(labels, outputs, mask, data)
        metrics |= {named(key, name, "group"): metric for name, metric in own.items()}
        if own and data.task.kind == "quantity":
            rest, _ = _of_group(labels, outputs, ~mask, data)
            metrics |= {named(key, name, "rest"): metric for name, metric in rest.items()}
    found = bootstrap_metrics(
        metrics, patients=patients, resamples=resamples, seed=seed, needs="the group, and both labels of its classes"
    )

    names = ("MAE", "bias") if data.task.kind == "quantity" else ("macro AUROC",)
    return tuple(
        AnswerGroup(
            column=key[0],
            group=key[1],
            records=int(mask.sum()),
            patients=len(np.unique(patients[mask])),
            classes=classes[key],
            metrics={name: found.interval(named(key, name, "group")) for name in names
                     if named(key, name, "group") in metrics},
            gaps={name: found.difference(named(key, name, "group"), named(key, name, "rest")) for name in names
                  if named(key, name, "rest") in metrics},
        )
        for key, mask in members.items()
    )  # fmt: skip


def _of_group(
    labels: np.ndarray, outputs: np.ndarray, mask: np.ndarray, data: ProbeData
) -> tuple[dict[str, Metric], int]:
    """Returns some records' metrics as functions of all records' weights, and the number of classes they cover."""
    if data.task.kind == "quantity":
        if mask.sum() < MIN_EVENTS:
            return {}, 0
        error = outputs - labels
        return {"MAE": ratio(mask * np.abs(error), mask), "bias": ratio(mask * error, mask)}, 0
    columns, records = common_classes(labels[mask]), np.flatnonzero(mask)
    if not columns:
        return {}, 0
    of_group = np.ix_(records, np.array(columns))
    macro = by_class(labels[of_group], outputs[of_group], classes=[data.classes[c] for c in columns]).macro
    return {"macro AUROC": lambda weights: macro(np.asarray(weights)[:, records])}, len(columns)
