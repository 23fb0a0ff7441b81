"""Page of an evaluation on a task of any kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ecgjax.data.tasks import Kind
from ecgjax.evaluation.metrics.clustered_auroc import FEW_PATIENTS
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.pages.digits import asked_in_words, share_in_words
from ecgjax.pages.page import SIMULATED, Block, Page, Paragraph, Picture, Section, Table
from ecgjax.pages.provenance import command_section, configuration_section, environment_section
from ecgjax.settings.sections import Tree
from ecgjax.studies.model_names import INSTEAD, REFERENCE, title_of
from ecgjax.studies.one_task.neighbours import POSITIVE
from ecgjax.studies.one_task.pipeline import OneTask
from ecgjax.studies.report.binary_parts import BinaryParts
from ecgjax.studies.report.class_parts import ClassParts
from ecgjax.studies.report.conclusions import ON_VALIDATION, ONE_SEED, conclusions, tested_words
from ecgjax.studies.report.embedding_map import MAX_POINTS, project
from ecgjax.studies.report.forest import Row, forest
from ecgjax.studies.report.parts import Parts
from ecgjax.studies.report.quantity_parts import QuantityParts
from ecgjax.studies.report.report import Provenance
from ecgjax.studies.report.report_tables import (
    cell,
    groups_table,
    near_table,
    question,
    readouts_table,
    results_table,
    splits_table,
    titles,
)
from ecgjax.studies.report.study_page import few_of
from ecgjax.studies.report.verdict import Asked, Rivals, Verdict, verdict_text, verdicts_of

#: Parts of the page that differ between kinds of questions; kinds without an entry have what all have.
PARTS: Mapping[Kind, Parts] = {"binary": BinaryParts(), "multilabel": ClassParts(), "quantity": QuantityParts()}


def evaluation_page(
    one: OneTask, *, provenance: Provenance, default_config: Tree, sections: Sequence[Section] = ()
) -> Page:
    """Returns the page of an evaluation: results, the given sections, records, command, configuration and environment.

    Args:
        one: Results of the models.
        provenance: Description of what was evaluated.
        default_config: Nested default configuration that the run's configuration is compared with.
        sections: Sections about recordings and training.
    """
    parts, data, seed = PARTS.get(one.data.task.kind, Parts()), one.data, one.report.seed
    shuffled = " and shuffles" if "shuffled_labels" in one.facts else ""
    note = (
        f"Labels were drawn with seed {data.seed}, resamples{shuffled} with seed {seed}. The data set has the "
        f"fingerprint {provenance.fingerprint}."
    )
    return Page(
        title=question(data),
        verdict=verdict_text(verdicts(one, unit=provenance.unit), simulated=provenance.simulated),
        cautions=(*([SIMULATED] if provenance.simulated else []), *provenance.cautions),
        summary=[Paragraph(_summary(one, provenance)), _conclusions(one, provenance)],
        sections=[
            Section("Results", _results(one, parts, provenance)),
            *parts.sections(one),
            Section("Groups of patients", _groups(one, parts)),
            Section("Nearest neighbours in the embedding space", _near(one, parts)),
            *sections,
            Section("Records", _records(one)),
            *([Section("Encoder", [Paragraph(" ".join(provenance.remarks))])] if provenance.remarks else []),
            command_section(provenance.command, before=provenance.steps, note=note),
            configuration_section(provenance.config, default=default_config),
            environment_section(),
        ],
    )


def verdicts(one: OneTask, *, unit: str = "") -> list[Verdict]:
    """Returns the verdict on the question: the pretrained encoder's linear probe beside what needs no pretraining.

    Args:
        one: Results of the models.
        unit: Unit of the label that the question is about; empty if it has none.
    """
    data = one.data
    words = f"{asked_in_words(data.task, unit)}, {share_in_words(data.label_fraction)}"
    # The rows of one evaluation have no fraction of their own.
    asked = Asked(data.task.title, one.compared, 1.0, words, few_of({"": data}).get("", ""))
    rivals = Rivals(
        pretrained=[REFERENCE],
        instead={title_of(name, data.task): {REFERENCE: name} for name in INSTEAD},
        random={REFERENCE: "random"},
        title=lambda name: title_of(name, data.task),
    )
    return verdicts_of({key: value for key, value in one.results.items() if not key.part}, [asked], rivals)


def _conclusions(one: OneTask, provenance: Provenance) -> Paragraph:
    return conclusions(
        cohort=provenance.data,
        simulated=provenance.simulated,
        tested=tested_words([one.data.test]),
        seeds=ONE_SEED,
        chosen=ON_VALIDATION,
    )


def _summary(one: OneTask, provenance: Provenance) -> str:
    text = (
        f"Data set {provenance.data}, encoder {provenance.encoder}, checkpoint of step "
        f"{provenance.checkpoint_step:,}. The {one.compared} of a linear probe on the frozen pretrained encoder is "
        f"{cell(one, REFERENCE, one.compared)} on the test split of {kind_of(one.data.task).counts(one.data.test)}"
    )
    if difference := cell(one, REFERENCE, one.compared, minus="random"):
        text += f"; its difference from the same probe on the encoder at random initialisation is {difference}"
    return f"{text}."


def _results(one: OneTask, parts: Parts, provenance: Provenance) -> list[Block]:
    others = {name: title for name, title in titles(one).items() if cell(one, REFERENCE, one.compared, minus=name)}
    rows = [Row(title, one.value(REFERENCE, one.compared, minus=name)) for name, title in others.items()]
    differences = Picture(
        figure=forest({"": rows}, xlabel=f"{one.compared}: pretrained minus this model"),
        alt=f"{one.compared} of the pretrained encoder's probe minus that of every other model, as in the table of "
        "results.",
        caption="Paired differences of the pretrained encoder's probe from every other model, with 95 % intervals.",
    )
    further = [*parts.results(one), *([differences] if rows else [])]
    of_readouts = readouts_table(one)
    blocks: list[Block] = [results_table(one), Paragraph(" ".join([_how_compared(one), *provenance.choices]))]
    return [*blocks, *([of_readouts] if of_readouts.rows else []), *further]


def _how_compared(one: OneTask) -> str:
    """Returns a paragraph's text on what all models of a table have in common, and what their intervals cover."""
    data, of_few, control = one.data, "", ""
    if any(key.metric == "AUROC" for key in one.results):
        of_few = (
            f"; where at most {FEW_PATIENTS} patients have the rarer label, that of a single AUROC follows from its "
            "clustered variance (Obuchowski 1997)"
        )
    if "shuffled_labels" in one.facts:
        control = (
            " In the control, labels are permuted among the patients of all splits, and the interval is that of the "
            "mean over permutations."
        )
    return (
        f"All models saw the same {len(data.train.records):,} labelled training records and were scored "
        f"once on the same {len(data.test.records):,} test records of {data.test.num_patients:,} patients; no patient "
        "and no signal is in two splits. Intervals are "
        f"95 % percentile intervals over {one.report.resamples:,} resamples of the test patients{of_few}. Differences "
        "are paired (same resamples). The intervals hold for this training run: they do not include the variation "
        f"between training seeds or draws of labels.{control}"
    )


def _groups(one: OneTask, parts: Parts) -> list[Block]:
    if not one.groups:
        return [Paragraph("No groups were asked for (config.probe.groups).")]
    sentences = (
        "All values are of the pretrained encoder's probe.",
        parts.of_groups,
        "A numeric column with more than ten different values is cut into quarters of the test records; records "
        "without a value form a group of their own.",
    )
    return [groups_table(one), Paragraph(" ".join(filter(None, sentences)))]


def _near(one: OneTask, parts: Parts) -> list[Block]:
    number, seed = len(one.data.test.records), one.report.seed
    drawn = f"{MAX_POINTS:,} of the {number:,}" if number > MAX_POINTS else f"all {number:,}"
    pictures = []
    for encoder, embeddings in one.embeddings.items():
        figure, colour = parts.map(one, project(embeddings), title=f"{encoder} encoder")
        caption = (
            f"Embeddings of the {encoder} encoder at unit length on their first two principal components (PCA, fitted "
            f"on the test records), coloured by {colour}; {drawn} are drawn, in an order drawn with seed {seed}."
        )
        alt = f"The {encoder} encoder's embeddings of the test records in the plane, coloured by {colour}."
        pictures.append(Picture(figure=figure, alt=alt, caption=caption, vector=False))
    words = (
        "Each test record is a query for its nearest neighbours among the test records, by the cosine of their "
        "embeddings. recall@k is the share of queries with a match among the k nearest, and MRR is the mean reciprocal "
        "rank of the first match."
    )
    if any(each.match == POSITIVE for each in one.sought):
        words += " For a positive record, only positive records of other patients can be matches."
    return [near_table(one), Paragraph(words), *pictures]


def _records(one: OneTask) -> list[Block]:
    """Returns the sizes of the splits, and the numbers of records left out or not fully measured."""
    reasons = [(reason, f"{count:,}") for reason, count in one.data.excluded.items() if count]
    failures = [(reason, f"{count:,}") for reason, count in one.measurement_failures.items()]
    tables = (
        (reasons, "Records left out of the splits"),
        (failures, "Records that lack an interval or amplitude (imputed by the training median and marked)"),
    )
    found = [Table(header=("reason", "records"), rows=rows, caption=caption) for rows, caption in tables if rows]
    return [splits_table(one.data), *found]
