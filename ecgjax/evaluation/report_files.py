"""The files of an evaluation: `report.html`, `report.md` with its figures, `results.json`, `scores.npz`."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgjax.environment import describe_environment
from ecgjax.evaluation.labels import ProbeData
from ecgjax.evaluation.report import Evaluation
from ecgjax.evaluation.report_page import evaluation_page
from ecgjax.evaluation.tables import plain
from ecgjax.pages.page import Section
from ecgjax.pages.write import Written, write_page

#: Folder of the report inside a workdir.
REPORT_DIR = "evaluation"


def write_report(
    evaluation: Evaluation, workdir: Path, *, default_config: Mapping[str, Any], sections: Sequence[Section] = ()
) -> Written:
    """Writes the report into `workdir/evaluation`, replacing an earlier one only when the new one is whole.

    Args:
        evaluation: what to report.
        workdir: folder of the run.
        default_config: that the configuration is compared with, nested.
        sections: about the recordings and the training, which stand between the results and their provenance.
    """

    def write(folder: Path) -> Written:
        written = write_page(evaluation_page(evaluation, default_config=default_config, sections=sections), folder)
        write_results(folder, results_dict(evaluation), data=evaluation.data, scores=evaluation.scores)
        return written

    return replace_report(workdir, write)


def replace_report(workdir: Path, write: Callable[[Path], Written]) -> Written:
    """Replaces `workdir/evaluation` by what `write` makes in an empty folder, once that is whole."""
    target = workdir / REPORT_DIR
    building = Path(tempfile.mkdtemp(prefix=f".{REPORT_DIR}-", dir=workdir))
    try:
        written = write(building)
        building.chmod(0o755)  # mkdtemp's folder is its owner's alone, a report is for colleagues.
        replaced = building.with_suffix(".old")
        if target.exists():
            os.replace(target, replaced)
        os.replace(building, target)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Written(html=target / written.html.name, markdown=target / written.markdown.name)


def write_results(
    folder: Path, results: Mapping[str, Any], *, data: ProbeData, scores: Mapping[str, np.ndarray]
) -> None:
    """Writes `results.json` and `scores.npz`.

    Args:
        folder: where to.
        results: plain values and numbers; undefined ones become null.
        data: of whose test records the scores are.
        scores: model name → `f64[test records, ...]`.
    """
    test = data.test
    text = json.dumps(plain(results), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    np.savez(folder / "scores.npz", records=test.records, patients=test.patients, labels=test.labels,
             **{f"scores_{name}": values for name, values in scores.items()})  # fmt: skip


def results_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Returns everything but the records themselves as plain values, for `results.json`; undefined numbers are null."""
    data = evaluation.data
    splits = {
        name: {"records": len(part.records), "patients": part.num_patients, "positives": part.positives,
               "unlabelled": part.unlabelled}
        for name, part in (("train", data.train), ("train_available", data.train_available), ("val", data.val),
                           ("test", data.test))
    }  # fmt: skip
    return {
        "simulated": evaluation.provenance.simulated,
        "task": {**dataclasses.asdict(data.task), "title": data.task.title},
        "models": {row.name: dataclasses.asdict(row) for row in evaluation.comparison.rows},
        "shuffled_labels": dataclasses.asdict(evaluation.comparison.control),
        "operating": {
            model.name: {"threshold": model.threshold, **{k: dataclasses.asdict(v) for k, v in model.metrics.items()}}
            for model in evaluation.operating
        },
        "groups": [dataclasses.asdict(group) for group in evaluation.groups],
        "near": [dataclasses.asdict(each) for each in evaluation.near],
        "splits": splits,
        "excluded": dict(data.excluded),
        "label_fraction": data.label_fraction,
        "label_seed": data.seed,
        "bootstrap": {"resamples": evaluation.comparison.bootstrap, "seed": evaluation.comparison.seed},
        "measurement_failures": dict(evaluation.measurement_failures),
        "provenance": dataclasses.asdict(evaluation.provenance),
        "environment": describe_environment(),
    }
