"""Page of an evaluation on a binary task, and parts that the pages of other tasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ecgjax.data.labels import MIN_EVENTS, ProbeData
from ecgjax.evaluation.metrics.calibration import ReliabilityCurve, reliability_curve
from ecgjax.evaluation.metrics.clustered_auroc import FEW_PATIENTS
from ecgjax.pages.page import SIMULATED, Block, Page, Paragraph, Picture, Section, Table
from ecgjax.pages.provenance import command_section, configuration_section, environment_section
from ecgjax.settings.sections import Tree
from ecgjax.studies.comparison import REFERENCE
from ecgjax.studies.operating import RESAMPLES, SPECIFICITY
from ecgjax.studies.report.embedding_map import MAX_POINTS, map_figure, project
from ecgjax.studies.report.model_figures import (
    differences_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from ecgjax.studies.report.report import Evaluation, Provenance
from ecgjax.studies.report.report_tables import (
    decisions_table,
    groups_table,
    near_table,
    net_benefit_table,
    operating_table,
    question,
    results_table,
    splits_table,
)

#: Text of the section on groups if there are none.
NO_GROUPS = "No groups were asked for (config.probe.groups)."

#: Explanation of how groups are formed.
GROUPS_MADE = (
    "A numeric column with more than ten different values is cut into quarters of the test records; records without a "
    "value form a group of their own."
)


def evaluation_page(evaluation: Evaluation, *, default_config: Tree, sections: Sequence[Section] = ()) -> Page:
    """Lays out an evaluation as a page.

    Args:
        evaluation: Evaluation to report.
        default_config: Nested default configuration that the run's configuration is compared with.
        sections: Sections about recordings and training, which stand between the results and their provenance.
    """
    results = [
        Section("Results", _results(evaluation)),
        Section("Decisions at a threshold, and calibration", _operating(evaluation)),
        Section("Groups of patients", _groups(evaluation)),
        Section("Nearest neighbours in the embedding space", _near(evaluation)),
    ]
    return framed(
        [*results, *sections],
        summary=_summary(evaluation),
        data=evaluation.data,
        provenance=evaluation.provenance,
        measurement_failures=evaluation.measurement_failures,
        drawn=f"resamples and shuffles with seed {evaluation.comparison.seed}",
        default_config=default_config,
    )


def framed(
    sections: Sequence[Section],
    *,
    summary: str,
    data: ProbeData,
    provenance: Provenance,
    measurement_failures: Mapping[str, int],
    drawn: str,
    default_config: Tree,
) -> Page:
    """Makes a page: the question, the given sections, then records, command, configuration and environment.

    Args:
        sections: Sections with the results.
        summary: Summary of the results in a few sentences.
        data: Labelled records of the task.
        provenance: Description of what was evaluated.
        measurement_failures: Number of records that lack an interval or amplitude, by reason.
        drawn: Words on what besides the labels was drawn at random, and with which seed.
        default_config: Nested default configuration that the run's configuration is compared with.
    """
    note = (
        f"Labels were drawn with seed {data.seed}, {drawn}. The data set has the fingerprint {provenance.fingerprint}."
    )
    return Page(
        title=question(data),
        cautions=(*([SIMULATED] if provenance.simulated else []), *provenance.cautions),
        summary=[Paragraph(summary)],
        sections=[
            *sections,
            Section("Records", _record_blocks(data, measurement_failures)),
            command_section(provenance.command, note=note),
            configuration_section(provenance.config, default=default_config),
            environment_section(),
        ],
    )


def how_compared(data: ProbeData, *, resamples: int) -> str:
    """Says what all models of a table have in common, and what their intervals cover."""
    of_few = (
        f"; where at most {FEW_PATIENTS} patients have the rarer label, that of a single AUROC follows from its "
        "clustered variance (Obuchowski 1997)"
    )
    return (
        f"All models saw the same {len(data.train.records):,} labelled training records, were selected on the same "
        f"{len(data.val.records):,} validation records (or on a part of them where the table says so), and were scored "
        f"once on the same {len(data.test.records):,} test records of {data.test.num_patients:,} patients; no patient "
        "and no signal is in two splits. Intervals are "
        f"95 % percentile intervals over {resamples:,} resamples of the test "
        f"patients{'' if data.task.kind == 'quantity' else of_few}. Differences are paired (same resamples). The "
        "intervals hold for this training run: they do not include the variation between training seeds or "
        "draws of labels."
    )


def embedding_picture(figure: Figure, *, encoder: str, colour: str, more: str) -> Picture:
    """Returns the picture of an embedding map of the test records, with alternative text and caption.

    Args:
        figure: Figure of the map.
        encoder: Name of the encoder.
        colour: Words on what the points are coloured by.
        more: End of the caption, from its punctuation on.
    """
    return Picture(
        figure=figure,
        alt=f"The {encoder} encoder's embeddings of the test records in the plane, coloured by {colour}.",
        caption=f"Embeddings of the {encoder} encoder at unit length on their first two principal components (PCA, "
        f"fitted on the test records){more}",
        vector=False,
    )


def _summary(evaluation: Evaluation) -> str:
    comparison, provenance, test = evaluation.comparison, evaluation.provenance, evaluation.data.test
    return (
        f"Data set {provenance.data}, encoder {provenance.encoder}, checkpoint of step "
        f"{provenance.checkpoint_step:,}. A linear probe on the frozen pretrained encoder has an AUROC of "
        f"{comparison.row(REFERENCE).auroc} on {len(test.records):,} test records ({test.positives:,} positive) of "
        f"{test.num_patients:,} patients; its difference from the same probe on the encoder at random initialisation "
        f"is {comparison.difference('random').signed()}."
    )


def _results(evaluation: Evaluation) -> list[Block]:
    comparison, data = evaluation.comparison, evaluation.data
    labels, scores = data.test.labels, evaluation.scores
    counts = f"{data.test.positives:,} positive of {len(data.test.records):,} test records"
    table: list[Block] = [
        results_table(comparison),
        Paragraph(
            f"{how_compared(data, resamples=comparison.bootstrap)} In the control, labels are permuted among the "
            "patients of all splits, and the interval is that of the mean over permutations."
        ),
    ]
    if not data.enough_for_curves:
        return [*table, Paragraph(f"Curves are not drawn: {counts} are too few of one label for a curve.")]
    return [
        *table,
        Picture(
            figure=roc_figure(comparison, labels=labels, scores=scores),
            alt="ROC curve of every model, with its AUROC as in the table of results.",
            caption=f"ROC curves, {counts}.",
        ),
        Picture(
            figure=precision_recall_figure(comparison, labels=labels, scores=scores),
            alt="Precision–recall curve of every model, with its AUPRC as in the table of results.",
            caption=f"Precision–recall curves, {counts}; the dashed line is their share.",
        ),
        Picture(
            figure=differences_figure(comparison.rows),
            alt="AUROC of the pretrained encoder's probe minus that of every other model, as in the table of results.",
            caption="Paired differences of the pretrained encoder's probe from every other model.",
        ),
    ]


def _operating(evaluation: Evaluation) -> list[Block]:
    labels = evaluation.data.test.labels
    curves = {model.title: reliability_curve(labels, model.probabilities) for model in evaluation.operating}
    return [
        operating_table(evaluation.operating),
        Paragraph(
            "Every model is calibrated on validation: its log odds are scaled and shifted (Platt scaling). Two "
            "thresholds are chosen there: the one with the best F1, and the lowest one with a specificity of at least "
            f"{SPECIFICITY:g}; the specificity that the latter reaches on the test records stands beside its "
            "sensitivity. A calibrated model has a slope of 1 (below 1, predictions are too extreme) and an intercept "
            f"of 0 (above 0, predictions are too low). Intervals rest on at most {RESAMPLES} resamples."
        ),
        decisions_table(evaluation.operating),
        Paragraph(
            f"PPV and NPV hold for the test records' own share of positives, {labels.mean():.3g}. Where a column "
            "names a prevalence (config.probe.prevalence), they are computed for it by Bayes's rule from sensitivity "
            "and specificity."
        ),
        *_net_benefits(evaluation),
        *([_reliability(curves)] if evaluation.data.enough_for_curves else []),
    ]


def _reliability(curves: Mapping[str, ReliabilityCurve]) -> Picture:
    return Picture(
        figure=reliability_figure(curves),
        alt="Reliability curve of every model; a perfectly calibrated model lies on the diagonal.",
        caption="Observed frequency of positives against predicted probability, calibrated on validation; bars are "
        "Wilson's 95 % intervals.",
    )


def _net_benefits(evaluation: Evaluation) -> list[Block]:
    if not evaluation.net_benefits:
        return []
    return [
        net_benefit_table(evaluation.net_benefits),
        Paragraph(
            "To treat from a probability of .1 on, for example, means to accept nine unnecessary treatments for one "
            "necessary one. Net benefit is the number of true positives per record minus that of false positives, "
            "weighted at the probability's exchange rate, at the test records' own share of positives. A model is "
            "useful where its net benefit is above both 0, that of treating nobody, and that of treating everybody "
            "(config.probe.treat_at sets the probabilities)."
        ),
    ]


def _groups(evaluation: Evaluation) -> list[Block]:
    if not evaluation.groups:
        return [Paragraph(NO_GROUPS)]
    return [
        groups_table(evaluation.groups),
        Paragraph(
            "All groups are judged with the pretrained encoder's probe at one threshold, the one with the best F1 on "
            "validation; differences are from all other records. For groups with fewer than "
            f"{MIN_EVENTS} positives or negatives only the counts are given. {GROUPS_MADE}"
        ),
    ]


def _near(evaluation: Evaluation) -> list[Block]:
    labels, seed = evaluation.data.test.labels, evaluation.comparison.seed
    drawn = f"{MAX_POINTS:,} of the {len(labels):,}" if len(labels) > MAX_POINTS else f"all {len(labels):,}"
    maps = [
        embedding_picture(
            map_figure(project(embeddings), labels=labels, title=f"{encoder} encoder", seed=seed),
            encoder=encoder,
            colour="label",
            more=f"; {drawn} are drawn, in an order drawn with seed {seed}.",
        )
        for encoder, embeddings in evaluation.embeddings.items()
    ]
    return [
        near_table(evaluation.near),
        Paragraph(
            "Each test record is a query for its nearest neighbours among the test records, by the cosine of their "
            "embeddings. recall@k is the share of queries with a match among the k nearest, and MRR is the mean "
            "reciprocal rank of the first match. For a positive record, only positive records of other patients "
            "can be matches."
        ),
        *maps,
    ]


def _record_blocks(data: ProbeData, measurement_failures: Mapping[str, int]) -> list[Block]:
    """Returns the sizes of the splits, and the numbers of records left out or not fully measured."""
    reasons = [(reason, f"{count:,}") for reason, count in data.excluded.items() if count]
    failures = [(reason, f"{count:,}") for reason, count in measurement_failures.items()]
    blocks: list[Block] = [splits_table(data)]
    for rows, caption in (
        (reasons, "Records left out of the splits"),
        (failures, "Records that lack an interval or amplitude (imputed by the training median and marked)"),
    ):
        if rows:
            blocks.append(Table(header=("reason", "records"), rows=rows, caption=caption))
    return blocks
