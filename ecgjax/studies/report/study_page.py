"""Parts of the pages of studies over several models and seeds, and the files of such a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import Task
from ecgjax.evaluation.metrics.few_patients import too_few_to_rank
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import Results, write_results
from ecgjax.pages.data_card import data_section
from ecgjax.pages.digits import percent, share_in_words
from ecgjax.pages.page import Page, Paragraph, Picture, Section, Table
from ecgjax.pages.provenance import Step, command_section, environment_section
from ecgjax.pages.steps_before import build_steps
from ecgjax.pages.terminal import terminal_table, wrapped
from ecgjax.pages.write import write_page
from ecgjax.studies.model_names import INSTEAD, title_of
from ecgjax.studies.report.forest import Row, forest
from ecgjax.studies.report.seed_tables import reasons_without_bounds, row_of
from ecgjax.studies.report.verdict import Asked, Rivals, Verdict, verdict_table, verdict_text, verdicts_of


def not_pretrained(twins: Mapping[str, str], labels_only: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """Returns the models to compare pretrained encoders with: for a description, a title by the encoder's title.

    Args:
        twins: Title of the same encoder at random initialisation, by the title of each pretrained encoder.
        labels_only: Title of the same encoder trained with labels alone, likewise.
    """
    return {
        "the same encoder at random initialisation": twins,
        "the same encoder trained with labels alone": labels_only,
    }


def encoder_rivals(task: Task) -> Rivals:
    """Returns the models of a study of one encoder: the pretrained one, frozen and fine-tuned, and its rivals.

    Args:
        task: Question of the study.
    """
    encoders = ("finetuned", "pretrained")
    return Rivals(
        pretrained=encoders,
        instead={title_of(name, task): dict.fromkeys(encoders, name) for name in INSTEAD},
        # Fine-tuned, the random encoder is the one that is trained with labels only.
        random={"pretrained": "random"},
        title=lambda name: title_of(name, task),
    )


def study_verdicts(
    results: Results,
    rivals: Rivals,
    *,
    questions: Mapping[str, str],
    few: Mapping[str, str] | None = None,
    every: bool = False,
) -> list[Verdict]:
    """Returns the verdict on every question at its smallest and at its largest fraction of the labels.

    Args:
        results: Rows of the table of results.
        rivals: Models that the verdicts are about.
        questions: Words for each question, by its task in the keys of the results.
        few: Words for the patients of a question where they are too few to rank models by, likewise.
        every: Whether there are verdicts on the fractions between too.
    """
    means = [key for key in results if key.seed is None and not key.minus and not key.part]
    asked = []
    for task, words in questions.items():
        of_task = [key for key in means if key.task == task]
        fractions = sorted({key.fraction for key in of_task})
        for fraction in fractions if every else dict.fromkeys(fractions[:1] + fractions[-1:]):
            metric = next(key.metric for key in of_task if key.fraction == fraction)
            whole = f"{words}, {share_in_words(fraction)}"
            asked.append(Asked(task, metric, fraction, whole, (few or {}).get(task, "")))
    return verdicts_of(results, asked, rivals)


def few_of(asked: Mapping[str, ProbeData]) -> dict[str, str]:
    """Returns words for the patients of every yes or no where they are too few to rank models by, by the question.

    Args:
        asked: Labelled records of each question.
    """
    return {
        name: few
        for name, data in asked.items()
        if kind_of(data.task).yes_or_no
        if (few := too_few_to_rank(data.test.labels, patients=data.test.patients))
    }


def gains_section(results: Results, twins: Mapping[str, str], *, labels: Mapping[str, str], alt: str) -> list[Section]:
    """Returns the section with the figure of what pretraining adds; empty where no encoder has its random counterpart.

    Args:
        results: Rows of the table of results.
        twins: Title of the same encoder at random initialisation, by the title of each pretrained encoder.
        labels: Label of the axis of every task's panel, by the task.
        alt: Description of the figure for readers who cannot see it.
    """
    drawn = [key for key in results if key.seed is None and key.minus and key.minus == twins.get(key.model)]
    if not drawn:
        return []
    rows: dict[str, list[Row]] = {question: [] for question in labels}
    for key in drawn:
        if key.task in rows:  # Others are of single classes.
            row = row_of(results, key, title=key.model, group=f"{percent(key.fraction)} of labels")
            rows[key.task].append(row)
    caption = "Bars are intervals over patients; small grey dots are single seeds."
    picture = Picture(figure=forest(rows, xlabel=list(labels.values())), alt=alt, caption=caption)
    return [Section("What pretraining adds to random initialisation", [picture])]


def write_study(
    page: Page,
    folder: Path,
    results: Results,
    recordings: Recordings,
    *,
    command: str,
    settings: Sequence[Section] = (),
    tables: Sequence[tuple[str, Table]],
    verdicts: Sequence[Verdict],
    flow: Section,
    concluded: Paragraph,
    pretrainings: Sequence[Step] = (),
    anonymous: bool = False,
    **about: Any,
) -> tuple[str, Path]:
    """Writes the page and `results.json` into the study's folder.

    Args:
        page: Page without its last sections, which are about the data, the command, the settings and the software.
        folder: Folder of the study.
        results: Rows of the table of results.
        recordings: Recordings that the study is about.
        command: Command line that repeats the study.
        settings: Sections about settings.
        tables: Tables for the terminal with their titles, which may be empty.
        verdicts: Verdict on every question, for the first line of the page and a table of several.
        flow: Section on the flow of records.
        concluded: Paragraph on what may be concluded.
        pretrainings: Steps of the pretrainings, between the builds of the data sets and the study's own command.
        anonymous: Whether the files are written without traces of machine, user and time.
        **about: Description of the study in `results.json`, as values that JSON can hold.

    Returns:
        The tables and the verdict as text for the terminal, and the path of the page.
    """
    steps = [*build_steps(recordings.datasets), *pretrainings]
    origin = [
        flow,
        data_section(recordings.datasets),
        command_section(command, before=steps),
        *settings,
        environment_section(),
    ]
    verdict = verdict_text(verdicts, simulated=recordings.simulated)
    by_question = [verdict_table(verdicts)] if len(verdicts) > 1 else []
    page = dataclasses.replace(
        page, verdict=verdict, summary=[concluded, *by_question, *page.summary], sections=[*page.sections, *origin]
    )
    written = write_page(page, folder, anonymous=anonymous)
    write_results(
        folder,
        results,
        anonymous=anonymous,
        simulated=recordings.simulated,
        verdict=verdict,
        concluded=concluded.text,
        cautions=list(page.cautions),
        **about,
    )
    # A table without a title begins with its header.
    texts = [f"{wrapped(name)}\n{terminal_table(table.header, table.rows)}".lstrip("\n") for name, table in tables]
    legend = wrapped(_legend(results, tables)) if tables else ""
    return "\n\n".join(filter(None, (*texts, legend, wrapped(verdict)))), written.html


def _legend(results: Results, tables: Sequence[tuple[str, Table]]) -> str:
    """Returns what the signs in tables of means over seeds stand for."""
    cells = [cell for _, table in tables for row in table.rows for cell in row]
    signs = {
        "[low, high]": any("[" in cell and "[n/a]" not in cell for cell in cells),
        "±": any("±" in cell for cell in cells),
    }
    words = {"[low, high]": "95 % interval over patients", "±": "standard deviation over seeds"}
    told = [f"{sign}: {words[sign]}" for sign, shown in signs.items() if shown]
    if any("[n/a]" in cell for cell in cells):
        means = [key for key in results if key.seed is None]
        told += [f"[n/a]: {reason}" for reason in reasons_without_bounds(results, means)]
    return f"{'; '.join(told)}." if told else ""
