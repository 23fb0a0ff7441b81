"""Finds exact and near-duplicates within and across prepared data sets, and what belongs together through them.

  python -m data_pipelines.link --dataset=DIR [--dataset=DIR2 …] --out=LINKS.npz

Data sets may differ in rate and length. Patient ids are taken to mean a person within one data set only; give
--patient_namespace once for each --dataset where several number the same patients (equal names, equal patients).

Copies whose age, sex, patient or labels contradict each other are listed in LINKS.contradictions.csv: such a label is
wrong in one of the two, or they are of two people.
"""

from __future__ import annotations

import collections
import contextlib
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from data_pipelines.command import command, given, output_file, print_report, run
from data_pipelines.duplicates.search import link
from data_pipelines.errors import DataError
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.prepared import contradictions
from data_pipelines.prepared.copies_of import Links, save_links
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.system.counted import counted
from data_pipelines.system.visible_text import visible

_DATASETS = flags.DEFINE_multi_string("dataset", [], "Directory of a prepared data set; may be given several times.")
_OUT = flags.DEFINE_string("out", None, "File to write, such as links.npz; replaced where it exists.")
_NAMESPACES = flags.DEFINE_multi_string(
    "patient_namespace", [], "Name of a data set's patient numbering, once for each --dataset in their order."
)

#: Number of pairs that the summary names; the file has all.
_PAIRS_SHOWN = 30


def summary(links: Links, datasets: list[Dataset]) -> str:
    """Returns a summary of the links, as text.

    Args:
        links: Links between `datasets`.
        datasets: Data sets in the order in which they were linked.
    """
    pairs, names = links.pairs, [visible(linked.name) for linked in links.datasets]
    groups = np.concatenate([linked.group for linked in links.datasets])
    copies = np.concatenate([linked.copy for linked in links.datasets])
    kinds = collections.Counter(
        (bool(pair["exact"]), names[pair["first_dataset"]], names[pair["second_dataset"]]) for pair in pairs
    )
    lines = [
        f"  records             {len(groups)} in {counted(len(names), 'data set')}",
        *(f"    {visible(linked.name):<24}{linked.num_records:<10}{linked.directory}" for linked in links.datasets),
        f"  pairs compared      {links.num_candidates}"
        + (
            f"; {counted(links.num_crowded, 'record')} had more candidates than are looked at"
            if links.num_crowded
            else ""
        ),
        f"  exact copies        {int(pairs['exact'].sum())}",
        *_counts(kinds, exact=True),
        f"  near-duplicates     {int((~pairs['exact']).sum())}",
        *_counts(kinds, exact=False),
        f"  recordings          {len(np.unique(copies))}, at most "
        f"{counted(int(np.bincount(copies).max()), 'copy', 'copies')} of one",
        f"  groups              {len(np.unique(groups))}, at most "
        f"{counted(int(np.bincount(groups).max()), 'record')} in one",
        *(_line(pair, datasets) for pair in pairs[:_PAIRS_SHOWN]),
        *([f"    … and {len(pairs) - _PAIRS_SHOWN} more pairs"] if len(pairs) > _PAIRS_SHOWN else []),
    ]
    return "\n".join(lines)


def contradictions_text(found: list[contradictions.Contradiction], path: Path) -> str:
    """Returns the text about copies that contradict each other.

    Args:
        found: All contradictions.
        path: Path of the file that lists them.
    """
    counts = contradictions.counts_in_words(contradictions.counts_by_kind(found))
    told = f" between copies ({counts}), listed in {path}" if found else ""
    lines = [f"  contradictions      {len(found):,}{told}"]
    lines += [f"    {each}" for each in found[:_PAIRS_SHOWN]]
    lines += [f"    … and {len(found) - _PAIRS_SHOWN} more"] if len(found) > _PAIRS_SHOWN else []
    return "\n".join(lines)


def _counts(kinds: collections.Counter, *, exact: bool) -> list[str]:
    return [
        f"    {first if first == second else f'{first} - {second}':<40}{count}"
        for (kind, first, second), count in sorted(kinds.items())
        if kind == exact
    ]


def _line(pair: np.void, datasets: list[Dataset]) -> str:
    sides = []
    for side in ("first", "second"):
        dataset, record = datasets[pair[f"{side}_dataset"]], pair[f"{side}_record"]
        name, index = dataset.card["name"], dataset.index
        record_id, patient_id = (visible(str(ids[record])) for ids in (index.record_id, index.patient_id))
        sides.append(f"{visible(name)} {record_id} (patient {patient_id})")
    if pair["exact"]:
        return f"    {sides[0]} = {sides[1]}"
    return (
        f"    {sides[0]} ~ {sides[1]}: correlation {pair['correlation']:.3f}, agreement {pair['agreement']:.3f}, "
        f"{pair['lag_s']:+.2f} s, x {pair['gain']:.3g}, {pair['overlap_s']:.1f} s compared"
        + (", leads in another order" if pair["reordered"] else "")
    )


class _Progress:
    """Progress bars, each made when its phase begins; a call with phase, number done and total updates one."""

    def __init__(self, bars: contextlib.ExitStack):
        self._bars = bars
        self._of: dict[str, tqdm] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._of:
            self._of[phase] = self._bars.enter_context(
                tqdm(total=total, desc=phase, unit="", dynamic_ncols=True, disable=None)
            )
        self._of[phase].update(done - self._of[phase].n)


@command
def main() -> None:
    """Links the data sets that the flags name."""
    if not _DATASETS.value:
        raise DataError("name at least one data set with --dataset=DIR")
    out = output_file("out", given(_OUT))
    if _NAMESPACES.value and len(_NAMESPACES.value) != len(_DATASETS.value):
        raise DataError(
            f"--patient_namespace is given {len(_NAMESPACES.value)} times and --dataset {len(_DATASETS.value)} times; "
            "give one for each data set, or none"
        )
    datasets = [open_dataset(dataset_folder(each, flag="dataset")) for each in _DATASETS.value]
    with contextlib.ExitStack() as bars:
        links = link(datasets, patient_namespaces=_NAMESPACES.value or None, progress=_Progress(bars))
    # The links are kept before anything is made of them, since finding them is what takes long.
    save_links(links, out)
    found, listed = contradictions.contradictions_of(links, datasets), out.with_suffix(".contradictions.csv")
    contradictions.write_contradictions(found, listed)
    print_report(f"{_OUT.value}:\n{summary(links, datasets)}\n{contradictions_text(found, listed)}")


if __name__ == "__main__":
    run(main, required=["out"])
