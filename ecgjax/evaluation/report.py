"""The report of an evaluation: `report.md` with its figures, `results.json`, `scores.npz`, and the terminal's table."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ecgjax.evaluation.calibration import reliability_curve
from ecgjax.evaluation.comparison import Comparison
from ecgjax.evaluation.figures import comparison_figure, reliability_figure
from ecgjax.evaluation.labels import ProbeData
from ecgjax.evaluation.neighbourhood import Neighbourhood
from ecgjax.evaluation.operating import SPECIFICITY, Operating
from ecgjax.evaluation.report_tables import groups_table, near_table, operating_table, results_table, splits_table
from ecgjax.evaluation.subgroups import MIN_EVENTS, Subgroup
from ecgjax.evaluation.tables import format_table, plain

#: Folder of the report inside a workdir, and the report itself.
REPORT_DIR = "evaluation"
REPORT_FILE = "report.md"

SIMULATED = "SIMULATED DATA: these numbers describe a simulator, not patients."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """What was evaluated, so that the numbers can be made again.

    Attributes:
        data: name of the data set.
        fingerprint: of the data set.
        simulated: whether it was simulated.
        encoder: its name.
        checkpoint_step: step of the checkpoint.
        config: the whole resolved configuration.
        versions: software, name → version.
        command: how to run it again.
        cautions: what a reader must know before believing the table, one sentence each.
    """

    data: str
    fingerprint: str
    simulated: bool
    encoder: str
    checkpoint_step: int
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    cautions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        comparison: the table.
        data: the records it rests on.
        scores: model name → `f64[test records]`.
        measurement_failures: records of all splits by reason why intervals or amplitudes are missing.
        operating: every model calibrated and with a threshold.
        groups: the pretrained encoder's probe by sex and age band.
        near: what lies near in both encoders' embeddings.
        provenance: what was evaluated.
    """

    comparison: Comparison
    data: ProbeData
    scores: Mapping[str, np.ndarray]
    measurement_failures: Mapping[str, int]
    operating: tuple[Operating, ...]
    groups: tuple[Subgroup, ...]
    near: tuple[Neighbourhood, ...]
    provenance: Provenance


def write_report(evaluation: Evaluation, workdir: Path, *, figures: Mapping[str, Figure]) -> Path:
    """Writes the report into `workdir/evaluation`, replacing an earlier one only when the new one is whole.

    Args:
        evaluation: what to report.
        workdir: folder of the run.
        figures: caption → figure, in order; the comparison's own figure comes before them.

    Returns:
        Path of `report.md`.
    """
    target = workdir / REPORT_DIR
    building = Path(tempfile.mkdtemp(prefix=f".{REPORT_DIR}-", dir=workdir))
    try:
        _write_files(evaluation, building, figures=figures)
        building.chmod(0o755)  # mkdtemp's folder is its owner's alone, a report is for colleagues.
        replaced = building.with_suffix(".old")
        if target.exists():
            os.replace(target, replaced)
        os.replace(building, target)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target / REPORT_FILE


def _write_files(evaluation: Evaluation, folder: Path, *, figures: Mapping[str, Figure]) -> None:
    data = evaluation.data
    own = comparison_figure(evaluation.comparison, labels=data.test.labels, scores=evaluation.scores)
    drawn = {
        "ROC curves on the test records, and paired differences": own,
        "Frequency of positives over predicted probability, calibrated on validation; bars are Wilson's intervals":
            reliability_figure(
                {m.title: reliability_curve(data.test.labels, m.probabilities) for m in evaluation.operating}
            ),
        **figures,
    }  # fmt: skip
    files = {}
    for number, (caption, figure) in enumerate(drawn.items(), start=1):
        files[caption] = f"figure_{number}.png"
        figure.savefig(folder / files[caption], dpi=110)
    results = json.dumps(plain(results_dict(evaluation)), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(results + "\n", encoding="utf-8")
    np.savez(folder / "scores.npz", records=data.test.records, patients=data.test.patients, labels=data.test.labels,
             **{f"scores_{name}": values for name, values in evaluation.scores.items()})  # fmt: skip
    (folder / REPORT_FILE).write_text(_markdown(evaluation, files), encoding="utf-8")


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
    }


def _markdown(evaluation: Evaluation, figures: Mapping[str, str]) -> str:
    comparison, data, provenance = evaluation.comparison, evaluation.data, evaluation.provenance
    cautions = (*([SIMULATED] if provenance.simulated else []), *provenance.cautions)
    reasons = [(reason, f"{count:,}") for reason, count in data.excluded.items() if count]
    failures = [(reason, f"{count:,}") for reason, count in evaluation.measurement_failures.items()]
    lines = [
        f"# {data.task.title}, {data.label_fraction:.3g} of the training labels",
        "",
        *(line for caution in cautions for line in (f"> **{caution}**", "")),
        f"Data set `{provenance.data}`, encoder `{provenance.encoder}`, checkpoint of step "
        f"{provenance.checkpoint_step:,}.",
        "",
        results_table(comparison),
        "",
        f"All models saw the same {len(data.train.records):,} labelled training records, were selected on the same "
        f"{len(data.val.records):,} validation records and scored once on the same {len(data.test.records):,} test "
        f"records of {data.test.num_patients:,} patients; no patient and no signal is in two splits. Intervals are "
        f"95 % percentile intervals over {comparison.bootstrap:,} resamples of the test patients; differences are "
        "paired (same resamples). They hold for this training run: they do not contain the scatter between training "
        "seeds or draws of labels. In the control, labels are dealt out anew among the "
        "patients of all splits; its interval is that of the mean over shuffles.",
        "",
        "## At a threshold, and calibration",
        "",
        operating_table(evaluation.operating),
        "",
        "Log odds are scaled and shifted on validation (Platt), and thresholds chosen there: of the best F1, and of a "
        f"specificity of {SPECIFICITY:g}; the one reached on the test records stands beside it. Right are a slope of 1 "
        "(below, predictions are too extreme) and an intercept of 0 (above, they are too low). Intervals are of 500 "
        "resamples at most.",
        "",
        "## Groups of patients",
        "",
        groups_table(evaluation.groups),
        "",
        "The pretrained encoder's probe at one threshold for all, that of the best F1 on validation; differences are "
        f"from all other patients. Groups with fewer than {MIN_EVENTS} positives or negatives are counted only.",
        "",
        "## What lies near",
        "",
        near_table(evaluation.near),
        "",
        "Of the test records by cosine. Positives look for positives of other patients.",
        "",
        "## Records",
        "",
        splits_table(data),
        "",
        *(["Left out of the splits:", "", format_table(("reason", "records"), reasons), ""] if reasons else []),
        *(["Records without some interval or amplitude (imputed by the training median and marked):", "",
           format_table(("reason", "records"), failures), ""] if failures else []),
        "## Figures",
        "",
        *(line for caption, file in figures.items() for line in (f"![{caption}]({file})", "", f"*{caption}*", "")),
        "## How to make it again",
        "",
        f"    {provenance.command}",
        "",
        f"Labels drawn with seed {data.seed}, resamples and shuffles with seed {comparison.seed}. Data fingerprint "
        f"`{provenance.fingerprint}`. "
        + ", ".join(f"{name} {version}" for name, version in provenance.versions.items()) + ".",
        "",
        "<details><summary>Configuration</summary>",
        "",
        "```json",
        json.dumps(plain(provenance.config), indent=1, ensure_ascii=False),
        "```",
        "",
        "</details>",
        "",
    ]  # fmt: skip
    return "\n".join(lines)
