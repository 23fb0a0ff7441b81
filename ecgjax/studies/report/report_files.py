"""Files of an evaluation: `report.html`, `report.md` with its figures, `results.json` and `scores.npz`."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgjax.data.labels import LabelledRecords
from ecgjax.data.tasks import file_name
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import write_results
from ecgjax.pages.page import Section
from ecgjax.pages.write import Written, write_page
from ecgjax.settings.sections import Tree
from ecgjax.studies.one_task.pipeline import OneTask
from ecgjax.studies.report.report import Provenance
from ecgjax.studies.report.report_page import evaluation_page
from ecgjax.studies.report.report_tables import outputs_of, titles
from ecgjax.system.environment import describe_environment


def write_report(
    one: OneTask,
    folder: Path,
    *,
    provenance: Provenance,
    default_config: Tree,
    sections: Sequence[Section] = (),
    anonymous: bool = False,
) -> Written:
    """Writes the report to the task's folder in a folder of reports, replacing an earlier one once complete.

    Args:
        one: Results of the models.
        folder: Folder of the reports.
        provenance: Description of what was evaluated.
        default_config: Nested default configuration that the run's configuration is compared with.
        sections: Sections about recordings and training, which stand between the results and their provenance.
        anonymous: Whether traces of machine, user and time, and numbers of records and patients, are left out.

    Returns:
        The paths of the page in HTML and in Markdown.
    """
    page = evaluation_page(one, provenance=provenance, default_config=default_config, sections=sections)
    target = folder / file_name(one.data.task.title)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The report is built beside the earlier one, which stays until the new one is whole.
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        written = write_page(page, building, anonymous=anonymous)
        # An evaluation has one fraction, which its keys leave out and other studies need to tell rows apart.
        results = {key._replace(fraction=one.data.label_fraction): value for key, value in one.results.items()}
        write_results(building, results, anonymous=anonymous, verdict=page.verdict, **about(one, provenance=provenance))
        _write_scores(building, one, anonymous=anonymous)
        building.chmod(0o755)  # mkdtemp lets only the owner in, but colleagues read reports.
        replaced = building.with_name(f"{building.name}.old")  # A question such as lvef<0.5 has a dot of its own.
        if target.exists():
            os.replace(target, replaced)
        os.replace(building, target)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Written(html=target / written.html.name, markdown=target / written.markdown.name)


def _write_scores(folder: Path, one: OneTask, *, anonymous: bool) -> None:
    test = one.data.test
    arrays = {"records": test.records, "patients": test.patients, "labels": test.labels}
    if anonymous:
        # Places in the data set would lead back to its ids; which rows are one patient's is needed for intervals.
        arrays = {"patients": np.unique(test.patients, return_inverse=True)[1], "labels": test.labels}
    arrays |= {f"scores_{name}": values for name, values in outputs_of(one).items()}
    np.savez(folder / "scores.npz", allow_pickle=False, **arrays)


def about(one: OneTask, *, provenance: Provenance) -> dict[str, Any]:
    """Returns the entries of `results.json` other than the table of results, as values that JSON can hold.

    Args:
        one: Results of the models.
        provenance: Description of what was evaluated.
    """
    data, kind = one.data, kind_of(one.data.task)
    splits: dict[str, dict[str, int]] = {}
    for name in ("train", "train_available", "val", "test"):
        side: LabelledRecords = getattr(data, name)
        counts = {"records": len(side.records), "patients": side.num_patients, "unlabelled": side.unlabelled}
        splits[name] = counts | ({"positives": side.positives} if kind.yes_or_no else {})
    return {
        "simulated": provenance.simulated,
        "task": {**dataclasses.asdict(data.task), "kind": data.task.kind, "title": data.task.title},
        "unit": one.report.unit,
        "metric": kind.primary,
        "compared": one.compared,
        "models": {
            name: {"title": title, "selected": one.models[name].selected, "val_metric": one.models[name].val_metric}
            for name, title in titles(one).items()
        },
        "facts": one.facts,
        "groups": one.groups,
        "sought": one.sought,
        "splits": splits,
        "excluded": dict(data.excluded),
        "label_fraction": data.label_fraction,
        "label_seed": data.seed,
        "bootstrap": {"resamples": one.report.resamples, "seed": one.report.seed},
        "measurement_failures": dict(one.measurement_failures),
        "provenance": provenance,
        "environment": describe_environment(),
    }
