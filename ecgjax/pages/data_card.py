"""The section of a page that shows the cards (descriptions) of data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipelines.card.figures import dataset_card
from data_pipelines.card.rows import (
    FLAG_HEADER,
    FOLD_HEADER,
    SCALAR_HEADER,
    count_facts,
    flag_rows,
    fold_rows,
    origin_facts,
    people_sentences,
    percent,
    scalar_rows,
)
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.prepared.fold_labels import fold_table, lacking_folds
from ecgjax.pages.page import Block, Folded, Paragraph, Section, Table


def data_section(datasets: tuple[Dataset, ...]) -> Section:
    """Returns the section on the origin, size, labels and processing of data sets.

    Args:
        datasets: Opened data sets; their signals are not read.
    """
    blocks = []
    for dataset in datasets:
        blocks += card_blocks(dataset_card(dataset, amplitudes={}))
    return Section("Data", blocks)


def card_blocks(card: Mapping[str, Any]) -> list[Block]:
    """Returns the blocks of a page that show a card.

    Args:
        card: Card from `data_pipelines.card.figures.dataset_card`; its amplitudes are not shown.
    """
    name = f"{card['name']} (SIMULATED: no patient was recorded)" if card["simulated"] else card["name"]
    facts = [
        ("data set", name),
        *origin_facts(card),
        *count_facts(card),
        *((f"quarantined: {reason}", f"{count:,}") for reason, count in card["quarantined"].items()),
        *((f"remark: {reason}", f"{told['records']:,}") for reason, told in card["remarks"].items()),
        ("sex and age, by record", "; ".join(people_sentences(card))),
    ]
    notes = [note for note in card["notes"] if note not in card["description"]]
    folded: list[Block] = [Table(header=FOLD_HEADER, rows=fold_rows(card["folds"]), caption="Folds")]
    if card["labels_by_fold"]["labels"]:
        header, *rows = fold_table(card["labels_by_fold"], most=None)
        caption = "Labels by fold, positive/known records, or mean (known)"
        folded.append(Table(header=header, rows=rows, caption=caption))
    for task, counts in card["tasks"].items():
        rows = [
            (label, f"{each['records']:,}", f"{each['patients']:,}", percent(each["prevalence"]))
            for label, each in counts["classes"].items()
        ]
        caption = f"Task {task}, {counts['labelled']:,} of {card['num_records']:,} records labelled"
        folded.append(Table(header=("class", "records", "patients", "prevalence"), rows=rows, caption=caption))
    if card["scalars"]:
        folded.append(Table(header=SCALAR_HEADER, rows=scalar_rows(card["scalars"]), caption="Scalars, by record"))
    folded.append(Table(header=FLAG_HEADER, rows=flag_rows(card), caption="Quality"))
    return [
        Paragraph(card["description"]),
        # The card's own doubts are left out, because they can name patients.
        *(Paragraph(f"Doubt: {doubt}") for doubt in lacking_folds(card["labels_by_fold"])),
        *(Paragraph(f"Note: {note}") for note in notes),
        # The header has the name already, unless it has to say that the data are simulated.
        Table(header=("what", card["name"]), rows=facts[1:] if card["name"] == name else facts),
        Folded(f"Folds, labels and quality of {card['name']}", folded),
    ]
