"""Report of a label-efficiency study: a page of tables and a figure, and `results.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from ecgjax.data.recordings import unit_of
from ecgjax.data.tasks import Kind
from ecgjax.defaults import RunSettings
from ecgjax.evaluation.models import selection
from ecgjax.pages.data_card import data_section
from ecgjax.pages.json_values import plain
from ecgjax.pages.markdown import format_table
from ecgjax.pages.page import Block, Page, Paragraph, Picture, Section
from ecgjax.pages.provenance import command_section, configuration_section, environment_section
from ecgjax.pages.write import write_page
from ecgjax.settings.sections import tree_of
from ecgjax.studies.label_efficiency import Study
from ecgjax.studies.label_efficiency_statistics import differences_table, figure, models_table
from ecgjax.studies.report.cell_tables import classes_table, other_metrics_table
from ecgjax.studies.store import CellResult
from ecgjax.system.files import write_atomically

_POSITIVES: Mapping[Kind, str] = {
    "binary": " Fewest positives are the positive training records of the seed that has fewest.",
    "multilabel": " Fewest positives are those of the class with most, in the seed where it has fewest.",
    "quantity": "",
}


def write_report(study: Study, results: list[CellResult], *, command: str) -> tuple[str, Path]:
    """Writes the page and `results.json` of all cells into the study's folder.

    Args:
        study: Study that the cells belong to.
        results: Results of all finished cells.
        command: Command that made the cells.

    Returns:
        Tables as text, and the path of the page.
    """
    resamples = study.settings.probe.bootstrap
    summaries = study.summaries(results, resamples=resamples)
    metric, data = selection.PRIMARY[study.task.kind], study.data
    said = study.cautions({result.cell.mode for result in results})
    title = f"{study.task.title}: labels needed" + (" (SIMULATED DATA)" if study.recordings.simulated else "")
    tables = [table(summaries, metric=metric) for table in (models_table, differences_table)]
    targets, classes = data.test.labels, data.classes
    unit = unit_of(study.task.title, study.recordings) if study.task.kind == "quantity" else ""
    more = [other_metrics_table(results, kind=study.task.kind, targets=targets, classes=classes, unit=unit)]
    if study.task.kind == "multilabel":
        more.append(classes_table(results, targets=targets, classes=classes))
    lacking = [f"{result.cell.name}: {result.reason}" for result in results if result.reason]
    curves: Block = Paragraph("Curves are not drawn: there are too few positive or negative test records.")
    if data.enough_for_curves:
        curves = Picture(
            figure=figure(summaries, metric=metric, title=title),
            alt=f"{metric} and its paired difference against the fraction of labels, as in the tables.",
            caption="Bars are intervals over patients; the dots beside them are single seeds.",
        )
    page = Page(
        title=f"{study.task.title}: how few labels suffice",
        cautions=said,
        summary=[
            Paragraph(
                f"Data set {study.recordings.name}, encoder {study.settings.encoder.name}, checkpoint of step "
                f"{study.pretrained.step:,}. All labels: {len(data.train.records):,} training records of "
                f"{data.train.num_patients:,} patients; every cell is selected on the same {len(data.val.records):,} "
                f"validation records{_part(study)}, which at small fractions are more labels than it is trained with, "
                f"and scored once on the same {len(data.test.records):,} test records of "
                f"{data.test.num_patients:,} patients."
            )
        ],
        sections=[
            Section(
                "Results",
                [
                    curves,
                    *(table for table in tables if table.rows),
                    Paragraph(
                        f"Intervals over patients come from {resamples:,} resamples of the test patients, the same for "
                        "all cells, of the mean over seeds. Intervals over seeds are Student's t-intervals of the mean "
                        "over draws of labels, initialisations and trainings, on these test patients. Neither includes "
                        f"the variation between pretraining runs.{_POSITIVES[study.task.kind]}"
                    ),
                    *(table for table in more if table.rows),
                    *([Paragraph(words)] if (words := _unlearnt(results, len(data.classes))) else []),
                    *([Paragraph(f"Not trained: {'; '.join(lacking)}.")] if lacking else []),
                ],
            ),
            data_section(study.recordings.datasets),
            command_section(command),
            configuration_section(tree_of(study.settings), default=tree_of(RunSettings())),
            environment_section(),
        ],
    )
    values = {
        "simulated": study.recordings.simulated,
        "cautions": said,
        "task": study.task.title,
        "metric": metric,
        "summaries": [dataclasses.asdict(each) | {"over_seeds": each.over_seeds} for each in summaries],
        "cells": [
            {
                **dataclasses.asdict(result.cell),
                "records": result.records,
                "patients": result.patients,
                "positives": result.positives,
                "unlearnt": result.unlearnt,
                "selected": result.selected,
                "seconds": result.seconds,
                "reason": result.reason,
                "val_metric": result.val_metric,
                "test": {}
                if result.scores is None
                else selection.estimates(study.task.kind, data.test.labels, result.scores, classes=data.classes),
            }
            for result in results
        ],
    }
    text = json.dumps(plain(values), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(study.folder / "results.json", text + "\n")
    written = write_page(page, study.folder)
    return "\n\n".join(format_table(table.header, table.rows) for table in tables), written.html


def _part(study: Study) -> str:
    probe = study.settings.probe
    looks = {training.eval_records for training in (probe.supervised, probe.finetune)} - {0}
    if not looks or min(looks) >= len(study.data.val.records):
        return ""
    numbers = " or ".join(f"{number:,}" for number in sorted(looks))
    return f" (fine-tuning selects its step on {numbers} of them, drawn anew with every seed)"


def _unlearnt(results: list[CellResult], classes: int) -> str:
    """Says at which fractions the training records lack classes.

    A model cannot learn such a class and gives all records the same score.
    """
    found: dict[float, list[int]] = {}
    for result in results:
        found.setdefault(result.cell.fraction, []).append(result.unlearnt)
    words = [
        f"{min(numbers)} to {max(numbers)} at {fraction:g}"
        for fraction, numbers in sorted(found.items())
        if max(numbers)
    ]
    if not words:
        return ""
    return (
        f"Of {classes} classes the training records lack a label of {', '.join(words)} of the labels: linear probes "
        "count these as AUROC .5, so the curve over fractions also shows how many classes the drawn labels contain."
    )
