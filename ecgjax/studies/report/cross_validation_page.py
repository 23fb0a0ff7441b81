"""Report of a cross-validation: a page of tables and figures, and `results.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgjax.data.recordings import Recordings
from ecgjax.evaluation.models.out_of_fold import OutOfFold
from ecgjax.pages.data_card import data_section
from ecgjax.pages.json_values import plain
from ecgjax.pages.markdown import format_table
from ecgjax.pages.page import Block, Folded, Page, Paragraph, Picture, Section, Table
from ecgjax.pages.provenance import command_section, environment_section
from ecgjax.pages.write import write_page
from ecgjax.studies.cross_validation import BASELINE, FrozenModel, PretrainedRun
from ecgjax.studies.cross_validation_statistics import Finding, Findings, Fitted, figure, findings_table
from ecgjax.studies.questions import Problem, Question
from ecgjax.system.files import write_atomically


def write_report(
    results: Mapping[Fitted, OutOfFold],
    *,
    runs: Sequence[PretrainedRun],
    models: Sequence[FrozenModel],
    recordings: Recordings,
    questions: Sequence[Question],
    problems: Mapping[str, Problem],
    method: Mapping[str, Any],
    cautions: Sequence[str],
    folder: Path,
    command: str,
) -> tuple[str, Path]:
    """Writes the page and `results.json`; returns the tables for the terminal and the page's path.

    Args:
        results: Out-of-fold scores of every model, problem, fraction and seed.
        runs: Pretraining runs.
        models: Models in the order of the tables.
        recordings: Recordings of the data set; `split.train` holds those in the cross-validation.
        questions: Questions in the order of the tables.
        problems: Problems by name.
        method: Settings of the cross-validation.
        cautions: Sentences that a reader must know first.
        folder: Folder that the report is written to.
        command: Command that repeats all of it.
    """
    patients = np.asarray(recordings.index.group[recordings.split.train])
    findings = Findings(results, problems=problems, patients=patients, resamples=method["resamples"])
    fractions = sorted({fitted.fraction for fitted in results})
    pairs = {
        "Difference from the same encoder at random initialisation": [(m.title, m.twin) for m in models if m.twin],
        "Difference from the median-beat baseline": [(m.title, BASELINE) for m in models if m.kind != "baseline"],
    }

    def find(question: Question, pairs: Sequence[tuple[str, str]]) -> list[Finding]:
        return [
            findings.find(question, fraction=fraction, model=model, other=other)
            for model, other in pairs
            for fraction in fractions
        ]

    alone = [(model.title, "") for model in models]
    own = {question.title: find(question, alone) for question in questions}
    differences = {title: {q.title: find(q, pair) for q in questions} for title, pair in pairs.items()}
    sections = [_section(title, found, picture=True) for title, found in differences.items() if any(found.values())] + [
        _section("Models", own, metrics={question.title: question.metric for question in questions})
    ]
    if classes := _classes(questions):
        tables = [findings_table(find(each, alone), caption=each.title) for each in classes]
        tables += [findings_table(find(each, pair), caption=each.title) for each in classes for pair in pairs.values()]
        sections.append(Section("Results by class", [Folded("AUROC and its differences by class", tables)]))
    page = Page(
        title=f"Frozen encoders on {recordings.name}, cross-validated"
        + (" (SIMULATED DATA)" if recordings.simulated else ""),
        cautions=cautions,
        summary=[Paragraph(_words(recordings, patients, results, method))],
        sections=[
            *sections,
            Section("Tasks", [_problems_table(questions, problems, patients), *_left_out(questions)]),
            Section("Pretraining runs", [_runs_table(runs), Paragraph(_NORM)]),
            Section("Selection of the probes", [_probes_table(results), *_untrained(results)]),
            data_section(recordings.datasets),
            command_section(command),
            Section("Method", [Table(header=("setting", "value"), rows=[(k, repr(v)) for k, v in method.items()])]),
            environment_section(),
        ],
    )
    written = write_page(page, folder)
    _write_results(own, differences, results, recordings, cautions=cautions, method=method, folder=folder)
    texts = [
        f"{question}, {title}\n{format_table(table.header, table.rows)}"
        for title, found in {"": own, **differences}.items()
        for question, each in found.items()
        if (table := findings_table(each)).rows
    ]
    return "\n\n".join(texts).replace(", \n", "\n"), written.html


_NORM = (
    "Batch norm of an encoder and of its random twin is set by the same unaugmented recordings of the pretraining, of "
    "its real data sets alone where it had any. No recording of the tested data set influences an encoder. A run is "
    "one pretraining: no interval here includes the variation between pretraining runs."
)


def _words(
    recordings: Recordings, patients: np.ndarray, results: Mapping[Fitted, OutOfFold], method: Mapping[str, Any]
) -> str:
    seeds = len({fitted.seed for fitted in results})
    return (
        f"{len(patients):,} records of {len(np.unique(patients)):,} patients of {recordings.name}, none of which is a "
        f"copy of another. Every record is tested in one of {method['outer_folds']} folds of patients, by a logistic "
        f"regression on frozen features whose strength is chosen by {method['inner_folds']} inner folds of the other "
        "patients; labels are drawn among these, smaller fractions being parts of larger. Values are the AUROC within "
        f"each fold, averaged over folds, classes and {seeds} seeds, which change folds, labels and random "
        f"initialisation, [95 % interval over {method['resamples']:,} resamples of the patients], ± standard deviation "
        "over seeds. "
        "Differences are paired: both sides have the same folds, labels and resamples."
    )


def _section(
    title: str,
    found: Mapping[str, Sequence[Finding]],
    *,
    picture: bool = False,
    metrics: Mapping[str, str] | None = None,
) -> Section:
    blocks: list[Block] = [
        findings_table(each, caption=f"{question}: {metrics[question]}" if metrics else question)
        for question, each in found.items()
    ]
    if picture:
        drawn = figure([each for own in found.values() for each in own], xlabel="difference in AUROC")
        alt = "Paired difference with its interval, for every model, task and fraction, as in the tables."
        blocks.insert(
            0,
            Picture(
                figure=drawn, alt=alt, caption="Bars are intervals over patients; small grey dots are single seeds."
            ),
        )
    return Section(title, blocks)


def _classes(questions: Sequence[Question]) -> list[Question]:
    return [
        Question(title=name, problems=(name,), left_out={})
        for question in questions
        if len(question.problems) > 1
        for name in question.problems
    ]


def _problems_table(questions: Sequence[Question], problems: Mapping[str, Problem], patients: np.ndarray) -> Table:
    rows = []
    for question in questions:
        for name in question.problems:
            problem = problems[name]
            positive = problem.labels == 1
            rows.append(
                (
                    name,
                    question.title,
                    f"{len(problem.rows):,}",
                    f"{positive.sum():,}",
                    f"{len(np.unique(patients[problem.rows[positive]])):,}",
                )
            )
    return Table(header=("problem", "task", "records", "positive", "patients with a positive record"), rows=rows)


def _left_out(questions: Sequence[Question]) -> list[Paragraph]:
    return [
        Paragraph(f"{question.title}, left out: {'; '.join(f'{n} ({why})' for n, why in question.left_out.items())}.")
        for question in questions
        if question.left_out
    ]


def _runs_table(runs: Sequence[PretrainedRun]) -> Table:
    rows = []
    for run in runs:
        parts = [f"{number:,} of {name}{' (SIMULATED)' if made else ''}" for name, number, made in run.pretrained_on]
        rows.append((run.title, str(run.settings.encoder.name), str(run.settings.objective.name),
                     f"{run.encoder.step:,}", f"{run.settings.batch_size:,}", "; ".join(parts)))  # fmt: skip
    return Table(header=("run", "encoder", "objective", "steps", "batch", "training records"), rows=rows)


def _probes_table(results: Mapping[Fitted, OutOfFold]) -> Table:
    rows: dict[tuple[str, float], list[OutOfFold]] = {}
    for fitted, result in results.items():
        rows.setdefault((fitted.model, fitted.fraction), []).append(result)
    told = []
    for (model, fraction), found in rows.items():
        chosen = [c for result in found for c in result.chosen]
        told.append(
            (
                model,
                f"{100 * fraction:g} %",
                f"{np.mean([result.records for result in found]):,.0f}",
                f"{min(result.positives for result in found):,}",
                f"{np.median(chosen):.2g} [{min(chosen):.2g}, {max(chosen):.2g}]" if chosen else "",
                f"{sum(result.unchosen for result in found):,} of {len(chosen):,}",
            )
        )
    header = (
        "model", "fraction of labels", "mean training records", "fewest positives", "median C [range]",
        "folds with too few labels to choose C",
    )  # fmt: skip
    return Table(header=header, rows=told)


def _untrained(results: Mapping[Fitted, OutOfFold]) -> list[Paragraph]:
    reasons = dict.fromkeys(
        f"{fitted.problem} at {100 * fitted.fraction:g} %, seed {fitted.seed}: {result.reason}"
        for fitted, result in results.items()
        if result.reason
    )
    return [Paragraph(f"Not trained for any model: {'; '.join(reasons)}.")] if reasons else []


def _write_results(
    own: Mapping[str, Sequence[Finding]],
    differences: Mapping[str, Mapping[str, Sequence[Finding]]],
    results: Mapping[Fitted, OutOfFold],
    recordings: Recordings,
    *,
    cautions: Sequence[str],
    method: Mapping[str, Any],
    folder: Path,
) -> None:
    every = [each for found in (own, *differences.values()) for findings in found.values() for each in findings]
    values = {
        "simulated": recordings.simulated,
        "cautions": list(cautions),
        "method": method,
        "findings": [
            {
                "question": each.question,
                "fraction": each.fraction,
                "model": each.model,
                "other": each.other,
                "mean": vars(each.answer.mean) if each.answer else None,
                "by_seed": each.answer.by_seed if each.answer else {},
                "seed_sd": each.answer.seed_sd if each.answer else None,
                "without": each.without,
            }
            for each in every
        ],
        "probes": [
            {**fitted._asdict(), "chosen": result.chosen, "unchosen": result.unchosen, "records": result.records,
             "positives": result.positives, "reason": result.reason}
            for fitted, result in results.items()
        ],
    }  # fmt: skip
    text = json.dumps(plain(values), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "results.json", text + "\n")
