"""Parts of the page of a yes-or-no task: curves, decisions at thresholds, calibration and net benefit."""

from __future__ import annotations

from matplotlib.figure import Figure

from ecgjax.data.labels import MIN_EVENTS
from ecgjax.evaluation.metrics.calibration import reliability_curve
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.pages.page import Block, Paragraph, Picture, Section, Table
from ecgjax.studies.one_task.binary import TREAT_ALL, benefit_at, calibrated
from ecgjax.studies.one_task.calibrated import RESAMPLES, SPECIFICITY
from ecgjax.studies.one_task.pipeline import OneTask
from ecgjax.studies.report.embedding_map import EmbeddingMap, map_figure
from ecgjax.studies.report.model_figures import Curve, precision_recall_figure, reliability_figure, roc_figure
from ecgjax.studies.report.parts import CALIBRATION, SLOPE, STRICT, Parts
from ecgjax.studies.report.report_tables import cell, models_table, outputs_of, titles

#: Titles of columns, by metric, in the table on calibration.
_OPERATING = {"F1": "F1", **STRICT, **CALIBRATION, "ECE": "expected calibration error"}


class BinaryParts(Parts):
    """Parts of the page of a yes-or-no task; see `Parts`."""

    of_groups = (
        "One threshold is used for everybody, the one with the best F1 on validation; differences are from all other "
        f"records. For groups with fewer than {MIN_EVENTS} positives or negatives only the counts are given."
    )

    def results(self, one: OneTask) -> list[Block]:
        """Returns ROC and precision-recall curves."""
        test = one.data.test
        counts = f"{test.positives:,} positive of {len(test.records):,} test records"
        if not kind_of(one.data.task).enough_for_curves(test.labels):
            return [Paragraph(f"Curves are not drawn: {counts} are too few of one label for a curve.")]
        return [
            Picture(
                figure=roc_figure(_curves(one, "AUROC"), labels=test.labels),
                alt="ROC curve of every model, with its AUROC as in the table of results.",
                caption=f"ROC curves, {counts}.",
            ),
            Picture(
                figure=precision_recall_figure(_curves(one, "AUPRC"), labels=test.labels),
                alt="Precision–recall curve of every model, with its AUPRC as in the table of results.",
                caption=f"Precision–recall curves, {counts}; the dashed line is their share.",
            ),
        ]

    def sections(self, one: OneTask) -> list[Section]:
        """Returns a list with the section on decisions and calibration."""
        labels = one.data.test.labels
        blocks: list[Block] = [
            models_table(one, _OPERATING),
            Paragraph(
                "Every model is calibrated on validation: its log odds are scaled and shifted (Platt scaling). Two "
                "thresholds are chosen there: the one with the best F1, and the lowest one with a specificity of at "
                f"least {SPECIFICITY:g}; the specificity that the latter reaches on the test records stands beside its "
                f"sensitivity. {SLOPE} Intervals rest on at most {RESAMPLES} resamples."
            ),
            _decisions_table(one),
            Paragraph(
                f"PPV and NPV hold for the test records' own share of positives, {labels.mean():.3g}. Where a column "
                "names a prevalence (config.probe.prevalence), they are computed for it by Bayes's rule from "
                "sensitivity and specificity."
            ),
            *_net_benefits(one),
        ]
        if kind_of(one.data.task).enough_for_curves(labels):
            blocks.append(_reliability(one))
        return [Section("Decisions at a threshold, and calibration", blocks)]

    def map(self, one: OneTask, projected: EmbeddingMap, *, title: str) -> tuple[Figure, str]:
        """Draws a map of embeddings coloured by the two labels; see `Parts.map`."""
        return map_figure(projected, labels=one.data.test.labels, title=title, seed=one.report.seed), "label"


def _curves(one: OneTask, metric: str) -> list[Curve]:
    names = titles(one)
    return [
        Curve(name, names[name], scores, one.value(name, metric).estimate) for name, scores in outputs_of(one).items()
    ]


def _decisions_table(one: OneTask) -> Table:
    names = ["sensitivity", "specificity", "PPV", "NPV"]
    if (prevalence := one.report.prevalence) is not None:
        names += [f"{name} at {prevalence:g}" for name in ("PPV", "NPV")]
    caption = "Decisions at the threshold with the best F1"
    return models_table(one, dict(zip(names, names, strict=True)), caption=caption, thresholds=True)


def _net_benefits(one: OneTask) -> list[Block]:
    """Returns the table of net benefits, with treating everybody and nobody in its last rows, and a paragraph on it."""
    if not one.report.treat_at:
        return []
    header = ["model"]
    for threshold in one.report.treat_at:
        header += [f"treating from probability {threshold:g}", "difference from treating everybody"]
    rows = []
    for name, title in (titles(one) | {TREAT_ALL: "treat everybody"}).items():
        cells = [title]
        for metric in map(benefit_at, one.report.treat_at):
            cells += [cell(one, name, metric), cell(one, name, metric, minus=TREAT_ALL)]
        rows.append(cells)
    # The net benefit of treating nobody is 0 at every probability.
    nobody = ["treat nobody", *["0", ""] * len(one.report.treat_at)]
    return [
        Table(header=header, rows=[*rows, nobody], caption="Net benefit per record"),
        Paragraph(
            "To treat from a probability of .1 on, for example, means to accept nine unnecessary treatments for one "
            "necessary one. Net benefit is the number of true positives per record minus that of false positives, "
            "weighted at the probability's exchange rate, at the test records' own share of positives. A model is "
            "useful where its net benefit is above both 0, that of treating nobody, and that of treating everybody "
            "(config.probe.treat_at sets the probabilities)."
        ),
    ]


def _reliability(one: OneTask) -> Picture:
    names, labels = titles(one), one.data.test.labels
    curves = {
        names[name]: reliability_curve(labels, calibrated(one.models[name], one.data).probabilities)
        for name in outputs_of(one)
    }
    return Picture(
        figure=reliability_figure(curves),
        alt="Reliability curve of every model; a perfectly calibrated model lies on the diagonal.",
        caption="Observed frequency of positives against predicted probability, calibrated on validation; bars are "
        "Wilson's 95 % intervals.",
    )
