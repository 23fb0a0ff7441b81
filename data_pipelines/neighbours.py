"""Finds the nearest training records of every training record, by whole signals or by median beats.

  python -m data_pipelines.neighbours --dataset=DIR --space=signal|median_beat [--k=5]
  python -m data_pipelines.neighbours --dataset=DIR --space=signal --agreement='wedge_pressure>18' --agreement=sex

They lie in DIR/neighbours_SPACE, for config.relation.name=nearest_in_dataset and config.sampling.name=neighbours. Only
records of --train_folds have neighbours, of other patients and of these folds. Signals are compared at 25 Hz, leads in
their deviation over the training records, as 64 principal components; the search is exact. It takes a core 9 ns for
each pair of records, so 15 minutes for 300,000 and two and a half hours for a million, divided among --num_workers;
median beats take up to 30 ms a record before it. An interrupted run goes on where it stopped. --agreement tells how
often neighbours agree in a label, against pairs of other patients.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines.buckets.addresses import local_path
from data_pipelines.command import MOST_WORKERS, command, given, print_report, progress_bar, run
from data_pipelines.errors import DataError
from data_pipelines.likeness.label_agreement import Agreement, agreement, answers
from data_pipelines.likeness.neighbour_table import (
    NEIGHBOUR_DIRS,
    NeighbourSearch,
    NeighbourTable,
    find_neighbours,
    open_neighbours,
)
from data_pipelines.likeness.spaces import SPACES
from data_pipelines.prepared.copies_of import open_links
from data_pipelines.prepared.dataset import Dataset, open_dataset

_DATASET = flags.DEFINE_string("dataset", None, "Directory of a prepared data set.")
_SPACE = flags.DEFINE_enum("space", None, list(SPACES), "What of the records is compared.")
_K = flags.DEFINE_integer("k", 5, "Neighbours of every record.", lower_bound=1, upper_bound=1000)
_FOLDS = {
    "train": flags.DEFINE_list("train_folds", list("12345678"), "Folds that are trained on."),
    "val": flags.DEFINE_list("val_folds", ["9"], "Folds that choices are made on."),
    "test": flags.DEFINE_list("test_folds", ["10"], "Folds that results are told for."),
}
_LINKS = flags.DEFINE_string("links", None, "File that python -m data_pipelines.link wrote; without, ids alone count.")
_AGREEMENT = flags.DEFINE_multi_string(
    "agreement", [], "Question, such as 'wedge_pressure>18', in which neighbours may agree; it may be given repeatedly."
)
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", os.cpu_count() or 1, "Processes that search.", lower_bound=1, upper_bound=MOST_WORKERS
)


def summary(table: NeighbourTable) -> str:
    """Returns what was found, as text."""
    card = table.card
    distances = ", ".join(f"{each:.3g}" for each in card["median_distance"])
    lines = [
        f"  training records    {card['num_training_records']:,} of {card['num_records']:,}",
        f"  with a place        {card['num_with_a_place']:,}",
        f"  with k neighbours   {card['num_with_all_neighbours']:,} (k={card['k']})",
        f"  components          {card['components']}, of {card['explained']:.1%} of the variance",
        f"  median distances    {distances or 'none'}",
    ]
    return "\n".join(lines)


def agreement_table(found: Sequence[Agreement], *, simulated: bool) -> str:
    """Returns the agreement of neighbours in labels, as text."""
    width = max(len("question"), *(len(each.question) for each in found))
    lines = ["SIMULATED recordings: this says nothing about patients."] if simulated else []
    lines.append(f"  {'question':<{width}} {'pairs':>10} {'neighbours agree':>20} {'by chance':>10}")
    for each in found:
        share = f"{each.share:.3f} ± {each.half_width:.3f}"
        lines.append(f"  {each.question:<{width}} {each.pairs:>10,} {share:>20} {each.chance:>10.3f}")
    return "\n".join(lines)


def _folds(side: str) -> tuple[int, ...]:
    values = _FOLDS[side].value or []
    try:
        return tuple(int(each) for each in values if each != "none")
    except ValueError as error:
        raise DataError(
            f"--{side}_folds={','.join(values)}: folds are whole numbers with commas between, or none"
        ) from error


def _groups(dataset: Dataset, links: Path | None) -> np.ndarray:
    return np.asarray(dataset.index.group if links is None else open_links(links).of(dataset).group)


@command
def main() -> None:
    """Searches the data set that the flags name."""
    dataset, space = open_dataset(given(_DATASET)), given(_SPACE)
    links = None if _LINKS.value is None else local_path(_LINKS.value, flag="links")
    search = NeighbourSearch(
        space=space,
        k=_K.value,
        train_folds=_folds("train"),
        val_folds=_folds("val"),
        test_folds=_folds("test"),
        links=links,
    )
    # A question that cannot be answered is refused before the search.
    classes = {question: answers(question, dataset.index) for question in dict.fromkeys(_AGREEMENT.value)}
    made = find_neighbours(dataset.directory, search, num_workers=_NUM_WORKERS.value, bar=progress_bar)
    table = open_neighbours(dataset, space)
    state = "searched" if made else "searched already, nothing to do"
    print_report(f"{dataset.directory / NEIGHBOUR_DIRS[space]}: {dataset.index.num_records:,} ECGs, {state}")
    print_report(summary(table))
    if classes:
        groups, numbers = _groups(dataset, links), np.asarray(table.numbers)
        found = [agreement(question, own, groups, numbers) for question, own in classes.items()]
        print(agreement_table(found, simulated=dataset.simulated))


if __name__ == "__main__":
    run(main, required=["dataset", "space"])
