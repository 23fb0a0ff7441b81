"""What the evaluations of a run found of an exported checkpoint, for its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.errors import DataError
from ecgjax.evaluation.results import REPORT_DIR, RESULTS_FILE, Key, Results, read_results
from ecgjax.export.trained_run import TrainedRun


class Evaluation(NamedTuple):
    """An evaluation of the checkpoint.

    Attributes:
        question: Question that was answered.
        data: Name of the data set.
        simulated: Whether it was simulated.
        records: Number of test records.
        patients: Number of their patients.
        cautions: Number of sentences that a reader of the report must know.
        same_statistics: Whether batch norm was recalibrated on the records of the training, as it is for the export.
        rows: Title of the model, metric and value with its interval, of all test records.
    """

    question: str
    data: str
    simulated: bool
    records: int
    patients: int
    cautions: int
    same_statistics: bool
    rows: list[tuple[str, str, str]]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, each once."""
        return list(dict.fromkeys(metric for _, metric, _ in self.rows))


class Evaluations(NamedTuple):
    """The evaluations in the folder of a run.

    Attributes:
        shown: Those of the checkpoint and layer that are exported.
        of_others: Number of those of other steps, or of another layer.
        unreadable: Number of those that cannot be read.
    """

    shown: Sequence[Evaluation]
    of_others: int
    unreadable: int


def evaluations_of(workdir: str | Path, run: TrainedRun) -> Evaluations:
    """Reads the evaluations of a run.

    Args:
        workdir: Folder of the run.
        run: Checkpoint and layer that are exported.
    """
    shown: list[Evaluation] = []
    of_others = unreadable = 0
    for path in sorted((Path(workdir) / REPORT_DIR).glob(f"[!.]*/{RESULTS_FILE}")):
        try:
            about, results = json.loads(path.read_text(encoding="utf-8")), read_results(path.parent)
            provenance = about["provenance"]
            of = provenance["checkpoint_step"], provenance["config"]["probe"]["layer"]
            if of != (run.encoder.step, run.encoder.layer):
                of_others += 1
                continue
            shown.append(_evaluation(about, results, run))
        except (DataError, OSError, ValueError, KeyError, TypeError):
            unreadable += 1
    return Evaluations(shown, of_others, unreadable)


def _evaluation(about: dict[str, Any], results: Results, run: TrainedRun) -> Evaluation:
    provenance, test = about["provenance"], about["splits"]["test"]
    titles = {name: model["title"] for name, model in about["models"].items()}
    return Evaluation(
        question=about["task"]["title"],
        data=provenance["data"],
        simulated=about["simulated"],
        records=test["records"],
        patients=test["patients"],
        cautions=len(provenance["cautions"]),
        same_statistics=run.statistics == "none" or _recalibrated_alike(provenance, run),
        rows=[
            (titles[key.model], key.metric, str(interval))
            for key, interval in results.items()
            if _is_shown(key, about["metric"]) and key.model in titles
        ],
    )


def _recalibrated_alike(provenance: dict[str, Any], run: TrainedRun) -> bool:
    """Returns whether an evaluation drew the same records for the batch-norm statistics as an export does."""
    evaluated, settings = provenance["config"], run.settings
    fingerprints = ", ".join(dataset["fingerprint"] for dataset in run.about["data"])
    return (
        provenance.get("statistics", "evaluation") == "evaluation"
        and provenance["fingerprint"] == fingerprints
        and evaluated["probe"]["seed"] == settings.probe.seed
        and tuple(evaluated["data"]["train_folds"]) == settings.data.train_folds
    )


def _is_shown(key: Key, primary: str) -> bool:
    """Returns whether a row is of all test records, and of the metric by which models are compared."""
    return not key.minus and not key.part and key.seed is None and key.metric == primary
