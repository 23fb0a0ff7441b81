"""Files of an evaluation: `report.html`, `report.md` with its figures, `results.json` and `scores.npz`."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import file_name
from ecgjax.pages.json_values import plain
from ecgjax.pages.page import Page, Section
from ecgjax.pages.write import Written, write_page
from ecgjax.settings.sections import Tree
from ecgjax.studies.neighbourhood import Neighbourhood
from ecgjax.studies.report.report import Evaluation, Provenance
from ecgjax.studies.report.report_page import evaluation_page
from ecgjax.system.environment import describe_environment

#: Name of the folder of reports inside a workdir.
REPORT_DIR = "evaluation"


def write_report(
    evaluation: Evaluation, workdir: Path, *, default_config: Tree, sections: Sequence[Section] = ()
) -> Written:
    """Writes the report into a folder of `workdir/evaluation`; once complete, it replaces an earlier one.

    Args:
        evaluation: Evaluation to report.
        workdir: Folder of the run.
        default_config: Nested default configuration that the run's configuration is compared with.
        sections: Sections about recordings and training, which stand between the results and their provenance.
    """
    page = evaluation_page(evaluation, default_config=default_config, sections=sections)
    return replace_report(workdir, page, results_dict(evaluation), data=evaluation.data, scores=evaluation.scores)


def replace_report(
    workdir: Path, page: Page, results: Mapping[str, Any], *, data: ProbeData, scores: Mapping[str, np.ndarray]
) -> Written:
    """Fills the question's folder of `workdir/evaluation` with a page, `results.json` and `scores.npz`, all or nothing.

    Args:
        workdir: Folder of the run.
        page: Page of the report.
        results: Plain values and numbers; undefined ones become null.
        data: Labelled records of the task.
        scores: Scores of the test records, `f64[test records, ...]`, by the model's name.
    """
    target = workdir / REPORT_DIR / file_name(data.task.title)
    target.parent.mkdir(exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        written = write_page(page, building)
        _write_results(building, results, data=data, scores=scores)
        building.chmod(0o755)  # mkdtemp lets only the owner in, but colleagues read reports.
        replaced = building.with_name(f"{building.name}.old")  # A question such as lvef<0.5 has a dot of its own.
        if target.exists():
            os.replace(target, replaced)
        os.replace(building, target)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Written(html=target / written.html.name, markdown=target / written.markdown.name)


def _write_results(
    folder: Path, results: Mapping[str, Any], *, data: ProbeData, scores: Mapping[str, np.ndarray]
) -> None:
    test = data.test
    text = json.dumps(plain(results), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    arrays = {"records": test.records, "patients": test.patients, "labels": test.labels}
    arrays |= {f"scores_{name}": values for name, values in scores.items()}
    np.savez(folder / "scores.npz", allow_pickle=False, **arrays)


def results_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Returns all results except the records as plain values for `results.json`; undefined numbers become null."""
    data, comparison = evaluation.data, evaluation.comparison
    common = common_results(
        data,
        evaluation.provenance,
        near=evaluation.near,
        resamples=comparison.bootstrap,
        seed=comparison.seed,
        measurement_failures=evaluation.measurement_failures,
    )
    positives = {name: {"positives": part.positives} for name, part in _parts(data).items()}
    return common | {
        "models": {row.name: dataclasses.asdict(row) for row in comparison.rows},
        "shuffled_labels": dataclasses.asdict(comparison.control),
        "operating": {
            model.name: {
                "threshold": model.threshold,
                **{k: dataclasses.asdict(v) for k, v in model.metrics.items()},
                "at_threshold": {k: dataclasses.asdict(v) for k, v in model.decisions.items()},
            }
            for model in evaluation.operating
        },
        "net_benefits": {each.name: dataclasses.asdict(each) for each in evaluation.net_benefits},
        "groups": [dataclasses.asdict(group) for group in evaluation.groups],
        "splits": {name: counts | positives[name] for name, counts in common["splits"].items()},
    }


def common_results(
    data: ProbeData,
    provenance: Provenance,
    *,
    near: Sequence[Neighbourhood],
    resamples: int,
    seed: int,
    measurement_failures: Mapping[str, int],
) -> dict[str, Any]:
    """Returns the part of `results.json` that all kinds of tasks share.

    It holds the question, the sizes of the splits, the retrieval metrics, and how the results were made.

    Args:
        data: Labelled records of the task.
        provenance: Description of what was evaluated.
        near: Retrieval among nearest neighbours in the encoders' embeddings.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.
        measurement_failures: Number of records that lack an interval or amplitude, by reason.
    """
    return {
        "simulated": provenance.simulated,
        "task": {**dataclasses.asdict(data.task), "title": data.task.title},
        "near": [dataclasses.asdict(each) for each in near],
        "splits": {
            name: {"records": len(part.records), "patients": part.num_patients, "unlabelled": part.unlabelled}
            for name, part in _parts(data).items()
        },
        "excluded": dict(data.excluded),
        "label_fraction": data.label_fraction,
        "label_seed": data.seed,
        "bootstrap": {"resamples": resamples, "seed": seed},
        "measurement_failures": dict(measurement_failures),
        "provenance": dataclasses.asdict(provenance),
        "environment": describe_environment(),
    }


def _parts(data: ProbeData) -> dict[str, LabelledRecords]:
    return {"train": data.train, "train_available": data.train_available, "val": data.val, "test": data.test}
