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
    "Numbers of more than ten different values are cut into quarters of the test records; records without a value are "
    "a group of their own."
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
        Section("At a threshold, and calibration", _operating(evaluation)),
        Section("Groups of patients", _groups(evaluation)),
        Section("What lies near", _near(evaluation)),
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
    note = f"Labels drawn with seed {data.seed}, {drawn}. Data fingerprint {provenance.fingerprint}."
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
    return (
        f"All models saw the same {len(data.train.records):,} labelled training records, were selected on the same "
        f"{len(data.val.records):,} validation records, or on a part where the table says so, and scored once on the "
        f"same {len(data.test.records):,} test records of {data.test.num_patients:,} patients; no patient and no "
        "signal is in two splits. Intervals are "
        f"95 % percentile intervals over {resamples:,} resamples of the test patients, those of an AUROC of at most "
        f"{FEW_PATIENTS} patients by its clustered variance (Obuchowski 1997); differences are paired (same "
        "resamples). They hold for this training run: they do not contain the scatter between "
        "training seeds or draws of labels."
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
            f"{how_compared(data, resamples=comparison.bootstrap)} In the control, labels are dealt out anew among the "
            "patients of all splits; its interval is that of the mean over shuffles."
        ),
    ]
    if not data.enough_for_curves:
        return [*table, Paragraph(f"Curves are not drawn: {counts}, and steps of a few records are no curve.")]
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
            caption=f"Precision over recall, {counts}; dashed, their share.",
        ),
        Picture(
            figure=differences_figure(comparison.rows),
            alt="AUROC of the pretrained encoder's probe less that of every other model, as in the table of results.",
            caption="Paired differences of the pretrained encoder's probe from every other model.",
        ),
    ]


def _operating(evaluation: Evaluation) -> list[Block]:
    labels = evaluation.data.test.labels
    curves = {model.title: reliability_curve(labels, model.probabilities) for model in evaluation.operating}
    return [
        operating_table(evaluation.operating),
        Paragraph(
            "Log odds are scaled and shifted on validation (Platt), and thresholds chosen there: of the best F1, and "
            f"of a specificity of {SPECIFICITY:g}; the one reached on the test records stands beside it. Right are a "
            "slope of 1 (below, predictions are too extreme) and an intercept of 0 (above, they are too low). "
            f"Intervals are of {RESAMPLES} resamples at most."
        ),
        decisions_table(evaluation.operating),
        Paragraph(
            f"PPV and NPV are those at the test records' own share of positives, {labels.mean():.3g}; where a "
            "prevalence stands beside them, they are restated for it by Bayes's rule from sensitivity and specificity "
            "(config.probe.prevalence)."
        ),
        *_net_benefits(evaluation),
        *([_reliability(curves)] if evaluation.data.enough_for_curves else []),
    ]


def _reliability(curves: Mapping[str, ReliabilityCurve]) -> Picture:
    return Picture(
        figure=reliability_figure(curves),
        alt="For every model, how often predictions of a probability come true; right is the diagonal.",
        caption="Frequency of positives over predicted probability, calibrated on validation; bars are Wilson's "
        "intervals.",
    )


def _net_benefits(evaluation: Evaluation) -> list[Block]:
    if not evaluation.net_benefits:
        return []
    return [
        net_benefit_table(evaluation.net_benefits),
        Paragraph(
            "Who treats from a probability of .1 on would treat nine healthy to treat one ill: net benefit is true "
            "positives less false ones at that exchange, a record, at the test records' own share of positives. A "
            "model is of use where it is above both 0, treating nobody, and treating everybody "
            "(config.probe.treat_at)."
        ),
    ]


def _groups(evaluation: Evaluation) -> list[Block]:
    if not evaluation.groups:
        return [Paragraph(NO_GROUPS)]
    return [
        groups_table(evaluation.groups),
        Paragraph(
            "The pretrained encoder's probe at one threshold for all, that of the best F1 on validation; differences "
            f"are from all other patients. Groups with fewer than {MIN_EVENTS} positives or negatives are counted "
            f"only. {GROUPS_MADE}"
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
        Paragraph("Of the test records by cosine. Positives look for positives of other patients."),
        *maps,
    ]


def _record_blocks(data: ProbeData, measurement_failures: Mapping[str, int]) -> list[Block]:
    """Returns the sizes of the splits, and the numbers of records left out or not fully measured."""
    reasons = [(reason, f"{count:,}") for reason, count in data.excluded.items() if count]
    failures = [(reason, f"{count:,}") for reason, count in measurement_failures.items()]
    blocks: list[Block] = [splits_table(data)]
    for rows, caption in (
        (reasons, "Left out of the splits"),
        (failures, "Records without some interval or amplitude (imputed by the training median and marked)"),
    ):
        if rows:
            blocks.append(Table(header=("reason", "records"), rows=rows, caption=caption))
    return blocks
