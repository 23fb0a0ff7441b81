"""Report of a label-efficiency study: a page of tables and a figure, and `results.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecgjax.data.recordings import unit_asked, unit_of
from ecgjax.defaults import RunSettings
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import Rows
from ecgjax.pages.digits import asked_in_words, percent
from ecgjax.pages.page import Block, Page, Paragraph, Picture, Section, Table
from ecgjax.pages.provenance import configuration_section
from ecgjax.pages.record_flow import flow_section
from ecgjax.settings.sections import tree_of
from ecgjax.studies.label_efficiency import Study, measure_cells
from ecgjax.studies.readouts import told_of_choices
from ecgjax.studies.report.conclusions import ON_VALIDATION, conclusions, several_seeds, tested_words
from ecgjax.studies.report.label_efficiency_tables import (
    classes_table,
    differences_table,
    figure,
    models_table,
    other_metrics_table,
)
from ecgjax.studies.report.study_page import encoder_rivals, few_of, study_verdicts, write_study
from ecgjax.studies.store import TrainedCell


def write_report(
    study: Study, cells: Sequence[TrainedCell], *, command: str, anonymous: bool = False
) -> tuple[str, Path]:
    """Writes the page and `results.json` of all cells into the study's folder.

    Args:
        study: Study that the cells belong to.
        cells: All trained cells.
        command: Command that made the cells.
        anonymous: Whether the files are written without traces of machine, user and time.

    Returns:
        Tables as text, and the path of the page.
    """
    probe, data, task, kind = study.settings.probe, study.data, study.task, kind_of(study.task)
    results = Rows(measure_cells(cells, data, resamples=probe.bootstrap, seed=probe.seed))
    title = f"{task.title}: labels needed" + (" (SIMULATED DATA)" if study.recordings.simulated else "")
    tables = [table(results, cells, task) for table in (models_table, differences_table)]
    positives = dict(zip(data.classes, data.test.labels.sum(axis=0), strict=True)) if data.classes else {}
    more = [
        other_metrics_table(results, task, unit=unit_of(task.title, study.recordings)),
        classes_table(results, task, positives=positives),
    ]
    lacking = [f"{each.cell.name}: {each.answers.reason}" for each in cells if each.answers.reason]
    curves: Block = Paragraph(f"Curves are not drawn: {kind.few(data.test.labels)}.")
    if kind.enough_for_curves(data.test.labels):
        curves = Picture(
            figure=figure(results, task, title=title),
            alt=f"{kind.primary} and its paired difference against the fraction of labels, as in the tables.",
            caption="Bars are intervals over patients; the dots beside them are single seeds.",
        )
    summary = (
        f"Data set {study.recordings.name}, encoder {study.settings.encoder.name}, checkpoint of step "
        f"{study.pretrained.step:,}. All labels: {len(data.train.records):,} training records of "
        f"{data.train.num_patients:,} patients; every cell is scored once on the same {len(data.test.records):,} test "
        f"records of {data.test.num_patients:,} patients.{_part(study, cells)}"
    )
    fewest = round(min((each.answers.records for each in cells), default=0))
    choices = told_of_choices(
        probe, train=fewest, val=len(data.val.records), models=[each.cell.trained for each in cells]
    )
    intervals = (
        f"Intervals over patients come from {probe.bootstrap:,} resamples of the test patients, the same for all "
        "cells, of the mean over seeds. Intervals over seeds are Student's t-intervals of the mean over draws of "
        "labels, initialisations and trainings, on these test patients. Neither includes the variation between "
        f"pretraining runs.{kind.fewest_positives}"
    )
    blocks = [
        curves,
        *(table for table in tables if table.rows),
        Paragraph(intervals),
        *(table for table in more if table.rows),
        *([Paragraph(words)] if (words := _unlearnt(cells, len(data.classes))) else []),
        *([Paragraph(f"Not trained: {'; '.join(lacking)}.")] if lacking else []),
    ]
    asked = asked_in_words(task, unit_asked(task, study.recordings))
    return write_study(
        Page(
            title=f"{task.title}: how few labels suffice",
            cautions=study.cautions({each.cell.mode for each in cells if each.cell.trained != "supervised"}),
            summary=[Paragraph(summary), Paragraph(" ".join(choices))],
            sections=[Section("Results", blocks)],
        ),
        study.folder,
        results,
        study.recordings,
        command=command,
        settings=[configuration_section(tree_of(study.settings), default=tree_of(RunSettings()))],
        tables=[("", _for_terminal(table)) for table in tables],
        verdicts=study_verdicts(
            results, encoder_rivals(task), questions={task.title: asked}, few=few_of({task.title: data})
        ),
        flow=flow_section(study.recordings, {task.title: data}),
        pretrainings=[study.pretraining],
        concluded=_conclusions(study, cells),
        anonymous=anonymous,
        task=task.title,
        choices=choices,
        metric=kind.primary,
        cells=[_described(each) for each in cells],
    )


def _conclusions(study: Study, cells: Sequence[TrainedCell]) -> Paragraph:
    seeds = len({each.cell.seed for each in cells})
    return conclusions(
        cohort=study.recordings.name,
        simulated=study.recordings.simulated,
        tested=tested_words([study.data.test]),
        seeds=f"{several_seeds(seeds, 'labels, initialisation and training')}; the checkpoint is one",
        chosen=ON_VALIDATION,
    )


def _for_terminal(table: Table) -> Table:
    """Returns the columns of a table that a terminal has room for: what was compared, and the numbers."""
    kept = [at for at, name in enumerate(table.header) if name in ("share of labels", "model", "minus") or "[" in name]
    return Table(header=[table.header[at] for at in kept], rows=[[row[at] for at in kept] for row in table.rows])


def _described(trained: TrainedCell) -> dict[str, Any]:
    of_answers, of_cell = (
        ("records", "positives", "selected", "reason", "val_metric"),
        ("patients", "unlearnt", "seconds"),
    )
    return {
        **dataclasses.asdict(trained.cell),
        "trained": trained.cell.trained,
        **{name: getattr(trained.answers, name) for name in of_answers},
        **{name: getattr(trained, name) for name in of_cell},
    }


def _part(study: Study, cells: Sequence[TrainedCell]) -> str:
    """Returns a sentence on the validation records that networks choose their step by, where not all; else empty."""
    probe, trained = study.settings.probe, {each.cell.trained for each in cells}
    named = {
        "finetuned": ("fine-tuning", probe.finetune),
        "supervised": ("training with labels only", probe.supervised),
    }
    # 0 stands for all validation records.
    few = [
        f"{name} selects its step on {training.eval_records:,} validation records"
        for model, (name, training) in named.items()
        if model in trained and 0 < training.eval_records < len(study.data.val.records)
    ]
    if not few:
        return ""
    words = " and ".join(few)
    return f" {words[0].upper()}{words[1:]}, drawn anew with every seed."


def _unlearnt(cells: Sequence[TrainedCell], classes: int) -> str:
    """Returns a sentence on the fractions at which the training records lack a label of some classes; else empty.

    A model cannot learn such a class and gives all records the same score.
    """
    found: dict[float, list[int]] = {}
    for trained in cells:
        found.setdefault(trained.cell.fraction, []).append(trained.unlearnt)
    some = [(fraction, numbers) for fraction, numbers in sorted(found.items()) if max(numbers)]
    words = [f"{min(numbers)} to {max(numbers)} at {percent(fraction)}" for fraction, numbers in some]
    if not words:
        return ""
    return (
        f"Of {classes} classes the training records lack a label of {', '.join(words)} of the labels: linear probes "
        "count these as AUROC .5, so the curve over fractions also shows how many classes the drawn labels contain."
    )
