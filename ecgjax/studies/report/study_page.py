"""Parts of the pages of studies over several models and seeds, and the files of such a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgjax.data.recordings import Recordings
from ecgjax.evaluation.results import Results, write_results
from ecgjax.pages.data_card import data_section
from ecgjax.pages.markdown import format_table
from ecgjax.pages.page import Page, Picture, Section, Table
from ecgjax.pages.provenance import command_section, environment_section
from ecgjax.pages.write import write_page
from ecgjax.studies.report.forest import Row, forest
from ecgjax.studies.report.seed_tables import row_of


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
            row = row_of(results, key, title=key.model, group=f"{100 * key.fraction:g} % of labels")
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
        **about: Description of the study in `results.json`, as values that JSON can hold.

    Returns:
        The tables as text for the terminal, and the path of the page.
    """
    origin = [data_section(recordings.datasets), command_section(command), *settings, environment_section()]
    written = write_page(dataclasses.replace(page, sections=[*page.sections, *origin]), folder)
    write_results(folder, results, simulated=recordings.simulated, cautions=list(page.cautions), **about)
    # A table without a title begins with its header.
    texts = [f"{name}\n{format_table(table.header, table.rows)}".lstrip("\n") for name, table in tables]
    return "\n\n".join(texts), written.html
