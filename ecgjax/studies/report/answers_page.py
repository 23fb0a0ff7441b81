"""Report of a quantity or of several classes: its page and its files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgjax.data.labels import MIN_EVENTS, ProbeData, common_classes
from ecgjax.evaluation.models import selection
from ecgjax.pages.page import Block, Folded, Page, Paragraph, Picture, Section, Table
from ecgjax.pages.write import Written
from ecgjax.settings.sections import Tree
from ecgjax.studies.answers import BY_CLASS, Answers, ClassesOperating, one_a_patient
from ecgjax.studies.comparison import REFERENCE
from ecgjax.studies.report.answer_figures import bland_altman_figure, classes_figure, panels_figure, scatter_figure
from ecgjax.studies.report.class_section import class_section
from ecgjax.studies.report.embedding_map import map_figure, project, values_map_figure
from ecgjax.studies.report.model_figures import differences_figure
from ecgjax.studies.report.report import Provenance
from ecgjax.studies.report.report_files import common_results, replace_report
from ecgjax.studies.report.report_page import GROUPS_MADE, NO_GROUPS, embedding_picture, framed, how_compared
from ecgjax.studies.report.report_tables import near_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswersEvaluation:
    """A finished evaluation of a quantity or of several classes.

    Attributes:
        answers: Results of the models.
        data: Labelled records that the results rest on.
        unit: Unit of the quantity; empty if it has none, and for classes.
        provenance: Description of what was evaluated.
    """

    answers: Answers
    data: ProbeData
    unit: str
    provenance: Provenance

    @property
    def embeddings(self) -> Mapping[str, np.ndarray]:
        """Embeddings of the test records, `f32[test records, dim]`, by encoder."""
        return self.answers.embeddings

    @property
    def quantity(self) -> str:
        """Name of what is predicted, with its unit."""
        return f"{self.data.task.title} ({self.unit})" if self.unit else self.data.task.title


def write_answers_report(
    evaluation: AnswersEvaluation,
    workdir: Path,
    *,
    default_config: Tree,
    sections: Sequence[Section] = (),
) -> Written:
    """Writes the report of a task that is not binary, as `report_files.write_report` does for a binary one.

    Args:
        evaluation: Evaluation to report.
        workdir: Folder of the run.
        default_config: Nested default configuration that the run's configuration is compared with.
        sections: Sections about recordings and training, which stand between the results and their provenance.
    """
    page = answers_page(evaluation, default_config=default_config, sections=sections)
    return replace_report(
        workdir, page, results_dict(evaluation), data=evaluation.data, scores=evaluation.answers.outputs
    )


def answers_page(evaluation: AnswersEvaluation, *, default_config: Tree, sections: Sequence[Section] = ()) -> Page:
    """Lays out an evaluation as a page.

    Args:
        evaluation: Evaluation to report.
        default_config: Nested default configuration that the run's configuration is compared with.
        sections: Sections about recordings and training, which stand between the results and their provenance.
    """
    data, answers = evaluation.data, evaluation.answers
    if answers.operating is None:
        own = [Section("Predicted and true values", _agreement(evaluation))]
    else:
        own = [Section("Results by class", _classes(evaluation)), class_section(answers.operating)]
    results = [
        Section("Results", _results(evaluation)),
        *own,
        Section("Groups of patients", _groups(evaluation)),
        Section("Nearest neighbours in the embedding space", _near(evaluation)),
    ]
    return framed(
        [*results, *sections],
        summary=_summary(evaluation),
        data=data,
        provenance=evaluation.provenance,
        measurement_failures=answers.measurement_failures,
        drawn=f"resamples with seed {answers.seed}",
        default_config=default_config,
    )


def answers_table(evaluation: AnswersEvaluation) -> Table:
    """Returns the table of models."""
    rows, unit = evaluation.answers.rows, f", {evaluation.unit}" if evaluation.unit else ""
    primary, *others = rows[0].metrics
    header = (
        "model",
        f"{primary} [95 % interval]",
        "pretrained minus this model"
        if (compared := evaluation.answers.compared) == primary
        else f"{compared}: pretrained minus this model",
        *(f"{name}{unit}" if name in ("RMSE", "MAE") else name for name in others),
        "selected on validation",
    )
    cells = [
        (
            row.title,
            str(row.metrics[primary]),
            "" if row.difference is None else row.difference.signed(),
            *("n/a" if math.isnan(row.metrics[name].estimate) else str(row.metrics[name]) for name in others),
            f"{row.val_metric:.3f} ({row.selected})" if row.selected else "",
        )
        for row in rows
    ]
    return Table(header=header, rows=cells)


def _summary(evaluation: AnswersEvaluation) -> str:
    answers, data, provenance = evaluation.answers, evaluation.data, evaluation.provenance
    return (
        f"Data set {provenance.data}, encoder {provenance.encoder}, checkpoint of step "
        f"{provenance.checkpoint_step:,}. The {answers.compared} of a linear probe on the frozen pretrained encoder is "
        f"{answers.row(REFERENCE).metrics[answers.compared]} on {len(data.test.records):,} test records of "
        f"{data.test.num_patients:,} patients; its difference from the same probe on the encoder at random "
        f"initialisation is {answers.difference('random').signed()}."
    )


def _results(evaluation: AnswersEvaluation) -> list[Block]:
    answers, data = evaluation.answers, evaluation.data
    words = [how_compared(data, resamples=answers.bootstrap)]
    if data.task.kind == "multilabel":
        words.append(_left_out(evaluation))
    else:
        words.append(
            "A constant prediction has no correlation (n/a). R² is below 0 where predictions are farther from the "
            "truth than the test records' own mean."
        )
    return [
        answers_table(evaluation),
        *map(Paragraph, words),
        Picture(
            figure=differences_figure(answers.rows, metric=answers.compared),
            alt=f"{answers.compared} of the pretrained encoder's probe minus that of every other model, as tabulated.",
            caption="Paired differences of the pretrained encoder's probe from every other model.",
        ),
    ]


def _left_out(evaluation: AnswersEvaluation) -> str:
    classes, labels = evaluation.answers.classes, evaluation.data.test.labels
    without = [f"{each.name} ({each.reason})" for each in classes if each.reason]
    common = common_classes(labels)
    rare = [each.name for column, each in enumerate(classes) if not each.reason and column not in common]
    measured = len(classes) - len(without)
    text = f"Macro metrics are plain means over the {measured} of {len(classes)} classes that have both labels in the "
    text += "test records."
    if without:
        text += f" Left out: {'; '.join(without)}."
    if rare:
        text += f" Fewer than {MIN_EVENTS} positive or negative test records: {', '.join(rare)}"
        text += f"; models are compared by the macro AUROC of the other {len(common)} classes." if common else "."
    return text


def _agreement(evaluation: AnswersEvaluation) -> list[Block]:
    answers, test, name = evaluation.answers, evaluation.data.test, evaluation.quantity
    title, predicted = answers.row(REFERENCE).title, answers.outputs[REFERENCE]
    blocks: list[Block] = [
        Picture(
            figure=scatter_figure(test.labels, predicted, name=name, title=title),
            alt=f"Predicted against true {name} of the test records, pretrained encoder's probe.",
            caption=f"{len(test.records):,} test records; both values are equal on the dashed line.",
            vector=False,
        )
    ]
    if answers.agreement:
        rows = one_a_patient(test.patients)
        blocks += [
            Picture(
                figure=bland_altman_figure(
                    test.labels[rows],
                    predicted[rows],
                    agreement=answers.agreement[title],
                    name=name,
                    unit=evaluation.unit,
                    title=title,
                ),
                alt=f"Predicted minus true {name} against the mean of both, with bias and limits of agreement.",
                caption=f"Bland–Altman plot of the first test record of each of {len(rows):,} patients; bands are 95 % "
                "intervals.",
                vector=False,
            ),
            _agreement_table(evaluation),
            Paragraph(
                "Bias is the mean of predicted minus true values; 95 % of the differences lie within the limits if "
                "they are normally distributed. Only the first record of each patient is used, since the intervals "
                "(Student's t) take records as independent. A sloping cloud means that predictions vary less than the "
                "truth."
            ),
        ]
    panels = {row.title: answers.outputs[row.name] for row in answers.rows}
    blocks.append(
        Picture(
            figure=panels_figure(test.labels, panels, name=name),
            alt=f"Predicted against true {name} of the test records, with one panel per model.",
            caption="All models; predicted and true values are equal on the dashed line.",
            vector=False,
        )
    )
    return blocks


def _agreement_table(evaluation: AnswersEvaluation) -> Table:
    unit = f", {evaluation.unit}" if evaluation.unit else ""
    rows = [
        (
            title,
            *(
                f"{value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"
                for value, interval in (
                    (each.bias, each.bias_interval),
                    (each.lower, each.lower_interval),
                    (each.upper, each.upper_interval),
                )
            ),
            f"{each.number:,}",
        )
        for title, each in evaluation.answers.agreement.items()
    ]
    header = ("model", f"bias{unit}", f"lower limit{unit}", f"upper limit{unit}", "patients")
    return Table(header=header, rows=rows, caption="Limits of agreement")


def _classes(evaluation: AnswersEvaluation) -> list[Block]:
    answers = evaluation.answers
    titles = {name: answers.row(name).title for name in BY_CLASS}
    header = (
        "class", "positive in training", "positive in test (patients)", *titles.values(), "pretrained minus random",
    )  # fmt: skip
    rows = []
    for each in answers.classes:
        counts = (f"{each.train_positives:,}", f"{each.positives:,} ({each.patients:,})")
        cells = [f"n/a ({each.reason})", "", "", ""]
        if each.aurocs and each.difference is not None:
            cells = [*(str(each.aurocs[name]) for name in BY_CLASS), each.difference.signed()]
        rows.append((each.name, *counts, *cells))
    blocks: list[Block] = [Table(header=header, rows=rows, caption="AUROC of every class")]
    if few := [each.name for each in answers.classes if each.aurocs and each.positives < MIN_EVENTS]:
        blocks.append(Paragraph(f"Fewer than {MIN_EVENTS} positive test records, which tell little: {', '.join(few)}."))
    if unlearned := [each.name for each in answers.classes if not each.train_positives]:
        blocks.append(Paragraph(f"Without a positive training record, hence not learned: {', '.join(unlearned)}."))
    picture = Picture(
        figure=classes_figure(answers.classes),
        alt="AUROC of every class, pretrained and random encoder, as in the table.",
        caption="Linear probes on the pretrained and on the random encoder; brackets count positive test records.",
    )
    long = len(rows) > 30
    return [*blocks, Folded("Figure: AUROC of every class", [picture]) if long else picture]


def _groups(evaluation: AnswersEvaluation) -> list[Block]:
    groups, unit = evaluation.answers.groups, f", {evaluation.unit}" if evaluation.unit else ""
    if not groups:
        return [Paragraph(NO_GROUPS)]
    quantity = evaluation.data.task.kind == "quantity"
    rows = []
    for group in groups:
        counts = (group.column, group.group, f"{group.records:,}", f"{group.patients:,}")
        if quantity:
            cells: list[str] = []
            for name in ("MAE", "bias"):
                cells.append(str(group.metrics[name]) if name in group.metrics else "n/a (too few records)")
                cells.append(group.gaps[name].signed() if name in group.gaps else "")
        else:
            cells = [str(group.metrics.get("macro AUROC", "n/a (too few records)")), f"{group.classes:,}"]
        rows.append((*counts, *cells))
    header: tuple[str, ...]
    if quantity:
        gap = "difference from all other records"
        header = ("grouped by", "group", "records", "patients", f"MAE{unit}", gap, f"bias{unit}", gap)
        words = "Bias is the mean of predicted minus true values."
    else:
        header = ("grouped by", "group", "records", "patients", "macro AUROC", "classes")
        words = (
            f"The macro AUROC is the mean over the classes with at least {MIN_EVENTS} positive and negative test "
            "records in the group. These classes differ between groups: do not compare the means without a look at "
            "the number of classes."
        )
    return [
        Table(header=header, rows=rows),
        Paragraph(f"All values are of the pretrained encoder's probe. {words} {GROUPS_MADE}"),
    ]


def _near(evaluation: AnswersEvaluation) -> list[Block]:
    answers, data = evaluation.answers, evaluation.data
    blocks: list[Block] = [
        near_table(answers.near),
        Paragraph(
            "Each test record is a query for its nearest neighbours among the test records, by the cosine of their "
            "embeddings. recall@k is the share of queries with a match among the k nearest, and MRR is the mean "
            "reciprocal rank of the first match."
        ),
    ]
    for encoder, embeddings in answers.embeddings.items():
        projected, title = project(embeddings), f"{encoder} encoder"
        if data.task.kind == "quantity":
            figure = values_map_figure(
                projected, values=data.test.labels, name=evaluation.quantity, title=title, seed=answers.seed
            )
            colour = data.task.title
        else:
            column = int(np.argmax(data.test.labels.sum(axis=0)))
            colour = f"{data.classes[column]}, the class with the most positive test records"
            figure = map_figure(projected, labels=data.test.labels[:, column], title=title, seed=answers.seed)
        blocks.append(embedding_picture(figure, encoder=encoder, colour=colour, more=f", coloured by {colour}."))
    return blocks


def results_dict(evaluation: AnswersEvaluation) -> dict[str, Any]:
    """Returns all results except the records as plain values for `results.json`; undefined numbers become null."""
    answers, kind = evaluation.answers, evaluation.data.task.kind
    common = common_results(
        evaluation.data,
        evaluation.provenance,
        near=answers.near,
        resamples=answers.bootstrap,
        seed=answers.seed,
        measurement_failures=answers.measurement_failures,
    )
    return common | {
        "task": {**common["task"], "kind": kind},
        "unit": evaluation.unit,
        "metric": selection.PRIMARY[kind],
        "models": {row.name: dataclasses.asdict(row) for row in answers.rows},
        "classes": [dataclasses.asdict(each) for each in answers.classes],
        "operating": _operating_results(answers.operating),
        "agreement": {title: dataclasses.asdict(each) for title, each in answers.agreement.items()},
        "groups": [dataclasses.asdict(each) for each in answers.groups],
    }


def _operating_results(operating: ClassesOperating | None) -> dict[str, Any]:
    if operating is None:
        return {}
    return {
        "models": {model.name: dataclasses.asdict(model) for model in operating.models},
        "classes": [dataclasses.asdict(each) for each in operating.classes],
        "unscored": operating.unscored,
    }
