r"""How few labels suffice: fractions x seeds x {random, pretrained} x {frozen, fine-tuned}, resumed cell by cell.

  python -m ecgjax.label_efficiency --workdir=runs/simclr --task='lvef<40' --out=runs/simclr/lvef
  python -m ecgjax.label_efficiency --workdir=runs/simclr --task=superdiagnostic --modes=frozen --out=runs/simclr/super

Fractions are drawn by patient, each part of every larger one of the same seed. The command can be interrupted, and
given again with other fractions, seeds or modes: what is there already stays, and report.html, report.md and
results.json in --out show all of it. `--config.probe.supervised.…` (random) and `--config.probe.finetune.…`
(pretrained) say how networks are trained; `….metric.weight=1` of either adds metric learning to the task.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from absl import flags

from configs import base
from data_pipelines.errors import DataError
from ecgjax import configuration, encoders, evaluated_run, inference
from ecgjax.errors import ConfigError
from ecgjax.evaluated_run import STEP, WORKDIR, check_encoder, guarded, parse_flags
from ecgjax.evaluation import scoring
from ecgjax.evaluation.cell_tables import classes_table, other_metrics_table
from ecgjax.evaluation.cells import (
    INITIALISATIONS,
    MODES,
    Cell,
    CellResult,
    Initialisation,
    begin_study,
    read_cells,
    run_cells,
)
from ecgjax.evaluation.features import map_records
from ecgjax.evaluation.frozen import fit_linear
from ecgjax.evaluation.label_efficiency import Summary, differences_table, figure, models_table, summarise
from ecgjax.evaluation.labels import ProbeData, probe_data
from ecgjax.evaluation.report import SIMULATED
from ecgjax.evaluation.tables import plain
from ecgjax.evaluation.tasks import Kind, Task, parse_task
from ecgjax.files import replacing, write_atomically
from ecgjax.finetune import FineTuning
from ecgjax.pages.data_card import data_section
from ecgjax.pages.markdown import format_table
from ecgjax.pages.page import Page, Paragraph, Picture, Section
from ecgjax.pages.provenance import command_section, configuration_section, environment_section
from ecgjax.pages.write import write_page
from ecgjax.recordings import open_recordings, unit_of

#: Records embedded or scored at a time.
_BATCH = 256

#: Leaves of the run that a study's cells depend on, beside all that decided the pretraining.
_LEAVES = ("data.train_folds", "data.val_folds", "data.test_folds", "data.links", "probe.layer", "probe.supervised.",
           "probe.finetune.")  # fmt: skip


class Study:
    """The models of one task and one checkpoint.

    Args:
        config: resolved configuration of the run, `config.probe` perhaps changed.
        workdir: of the run.
        task: what is asked.
        folder: of the study.
        step: of the checkpoint; the latest by default.
        progress: whether to draw progress bars.

    Raises:
        DataError: data set, folds or labels do not allow the task.
        ConfigError: the workdir holds no run, or one of another encoder; or the folder holds another study.
        CheckpointError: there is no finished checkpoint, or a damaged one.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: Path,
        *,
        task: Task,
        folder: Path,
        step: int | None = None,
        progress: bool = True,
    ):
        own = configuration.load_resolved(workdir)
        check_encoder(own, config, workdir=str(workdir))
        configuration.check_ranges(config)
        self.config, self.task, self.folder, self._progress = config, task, folder, progress
        self._trainings: dict[Initialisation, FineTuning] = {}
        self.recordings = open_recordings(config.data)
        self.pretrained = inference.load_encoder(workdir, step=step, layer=config.probe.layer)
        judged = self._data(1.0, 0)
        self.recordings, self.cautions = guarded(
            own,
            config,
            self.recordings,
            encoder=self.pretrained,
            records=np.concatenate([judged.val.records, judged.test.records]),
        )
        self.data = self._data(1.0, 0)  # Without what was dropped.
        if reason := scoring.undefined(task.kind, self.data.test.labels):
            raise DataError(f"{task.title}: nothing can be compared on the test records: {reason}")
        test = self.data.test
        answers = hashlib.blake2b(np.ascontiguousarray(test.records).tobytes(), digest_size=16)
        answers.update(np.ascontiguousarray(test.labels).tobytes())
        begin_study(
            folder,
            {
                "task": dataclasses.asdict(task),
                "checkpoint_step": self.pretrained.step,
                "pretraining": {**own.to_dict(), "probe": None, "checkpoint": None, "data": None},
                "pretrained_on": list(self.pretrained.pretrained_on),
                "data": list(self.recordings.fingerprints),
                "test_records": answers.hexdigest(),
                "config": _deciding(configuration.leaves(config.to_dict())),
            },
        )  # fmt: skip

    def train(self, cell: Cell) -> CellResult:
        """Trains one cell and scores the test records."""
        start = time.monotonic()
        data = self._data(cell.fraction, cell.seed)
        train, kind = data.train, self.task.kind
        counts: dict[str, Any] = {
            "cell": cell,
            "records": len(train.records),
            "patients": train.num_patients,
            "positives": None if kind == "quantity" else int(np.max(train.labels.sum(axis=0))),
        }
        if reason := scoring.undefined(kind, train.labels):
            nothing = {"val_metric": math.nan, "selected": "", "scores": None}
            return CellResult(**counts, **nothing, seconds=time.monotonic() - start, reason=reason)
        fitted = self._frozen(cell, data) if cell.mode == "frozen" else self._finetuned(cell, data)
        return CellResult(**counts, **fitted, seconds=time.monotonic() - start)

    def summaries(self, results: list[CellResult], *, resamples: int) -> list[Summary]:
        """Sums up cells, with intervals over the test patients."""
        test = self.data.test
        return summarise(
            results,
            kind=self.task.kind,
            targets=test.labels,
            patients=test.patients,
            classes=self.data.classes,
            resamples=resamples,
            seed=self.config.probe.seed,
        )

    def _data(self, fraction: float, seed: int) -> ProbeData:
        return probe_data(
            self.recordings.index, self.recordings.split, task=self.task, label_fraction=fraction, seed=seed
        )

    def _frozen(self, cell: Cell, data: ProbeData) -> dict[str, Any]:
        embeddings, row = self._embeddings(cell.initialisation, cell.seed), self._row
        probe = fit_linear(
            self.task.kind,
            embeddings[row[data.train.records]],
            data.train.labels,
            val_features=embeddings[row[data.val.records]],
            val_targets=data.val.labels,
            classes=data.classes,
        )
        scores = probe.predict(embeddings[row[data.test.records]])
        return {"val_metric": probe.val_metric, "selected": probe.selected, "scores": scores.astype(np.float32)}

    def _finetuned(self, cell: Cell, data: ProbeData) -> dict[str, Any]:
        read = self.recordings.store.read
        network = self._training(cell.initialisation).train(
            self._encoder(cell.initialisation, cell.seed),
            read=read,
            train_records=data.train.records,
            train_labels=data.train.labels,
            train_patients=data.train.patients,
            val_records=data.val.records,
            val_labels=data.val.labels,
            seed=cell.seed,
            progress=self._progress,
            title=cell.name,
        )
        scores = map_records(
            network.scores, data.test.records, read=read, batch_size=_BATCH, title="test", progress=False
        )
        selected = f"step {network.step}"
        return {"val_metric": network.val_metric, "selected": selected, "scores": scores.astype(np.float32)}

    def _encoder(self, initialisation: Initialisation, seed: int) -> encoders.Split:
        if initialisation == "pretrained":
            return self.pretrained.split
        return inference.create_split(self.config, seed=seed)

    def _training(self, initialisation: Initialisation) -> FineTuning:
        # Kept: a compilation takes longer than the training of a small cell.
        if initialisation not in self._trainings:
            self._trainings[initialisation] = self._new_training(initialisation)
        return self._trainings[initialisation]

    def _new_training(self, initialisation: Initialisation) -> FineTuning:
        probe = self.config.probe
        return FineTuning(
            probe.finetune if initialisation == "pretrained" else probe.supervised,
            optimizer=self.config.optimizer,
            encoder=self._encoder(initialisation, 0),
            num_leads=self.config.encoder.num_leads,
            kind=self.task.kind,
            num_outputs=max(1, len(self.data.classes)),
        )

    @functools.cached_property
    def _row(self) -> np.ndarray:
        """Row of each record in the embeddings, of those that have one."""
        records = self._embedded
        row = np.full(int(records.max()) + 1, -1, np.int64)
        row[records] = np.arange(len(records))
        return row

    @functools.cached_property
    def _embedded(self) -> np.ndarray:
        parts = (self.data.train_available, self.data.val, self.data.test)
        return np.concatenate([part.records for part in parts])

    def _embeddings(self, initialisation: Initialisation, seed: int) -> np.ndarray:
        """Returns the embeddings of all labelled records, `f32[n, dim]`, kept in a file."""
        name = "pretrained" if initialisation == "pretrained" else f"random-seed{seed}"
        path = self.folder / "embeddings" / f"{name}.npy"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            encoder = (
                self.pretrained if initialisation == "pretrained" else inference.random_encoder(self.config, seed=seed)
            )
            read = self.recordings.store.read
            # Batch norm of both on the same unaugmented training records: else statistics would be compared.
            encoder = inference.recalibrate_batch_norm(
                encoder, read, records=self.recordings.split.train, seed=self.config.probe.seed
            )
            embeddings = map_records(
                encoder.embed, self._embedded, read=read, batch_size=_BATCH, title=f"embeddings, {name}",
                progress=self._progress,
            )  # fmt: skip
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, embeddings)
        return np.load(path, mmap_mode="r")


def _deciding(leaves: dict[str, Any]) -> dict[str, Any]:
    """Returns the leaves that cells depend on."""

    def idle(name: str) -> bool:
        # Without a weight nothing of metric learning matters, and studies from before there was any go on.
        training, found, _ = name.partition(".metric.")
        return bool(found) and not leaves[f"{training}.metric.weight"]

    return {name: value for name, value in leaves.items() if name.startswith(_LEAVES) and not idle(name)}


def cells_of(fractions: list[float], *, seeds: int, modes: list[str]) -> list[Cell]:
    """Returns the cells of a study, the cheap ones first.

    Raises:
        ConfigError: an unknown mode, or a fraction outside (0, 1].
    """
    if unknown := sorted(set(modes) - set(MODES)):
        raise ConfigError(f"--modes={','.join(modes)}: {unknown[0]!r} is unknown; there are: {', '.join(MODES)}")
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise ConfigError(f"--fractions={','.join(map(str, fractions))} must be above 0 and at most 1")
    return [
        Cell(fraction=fraction, seed=seed, initialisation=initialisation, mode=mode)
        for mode in MODES
        if mode in modes
        for fraction in sorted(set(fractions))
        for seed in range(seeds)
        for initialisation in INITIALISATIONS
    ]


_POSITIVES: Mapping[Kind, str] = {
    "binary": " Positives: the fewest of a seed.",
    "multilabel": " Positives: of the class that has the most, the fewest of a seed.",
    "quantity": "",
}


def write_report(study: Study, results: list[CellResult], *, command: str) -> tuple[str, Path]:
    """Writes the page and `results.json` of all cells into the study's folder; returns tables as text, and the page."""
    resamples = study.config.probe.bootstrap
    summaries = study.summaries(results, resamples=resamples)
    metric, data = scoring.PRIMARY[study.task.kind], study.data
    said = (*([SIMULATED] if study.recordings.simulated else []), *study.cautions)
    title = f"{study.task.title}: labels needed" + (" (SIMULATED DATA)" if study.recordings.simulated else "")
    tables = [table(summaries, metric=metric) for table in (models_table, differences_table)]
    asked = {"targets": data.test.labels, "classes": data.classes}
    unit = unit_of(study.task.title, study.recordings) if study.task.kind == "quantity" else ""
    more = [other_metrics_table(results, kind=study.task.kind, unit=unit, **asked)]
    if study.task.kind == "multilabel":
        more.append(classes_table(results, **asked))
    lacking = [f"{result.cell.name}: {result.reason}" for result in results if result.reason]
    picture = Picture(
        figure=figure(summaries, metric=metric, title=title),
        alt=f"{metric} and its paired difference over the fraction of labels, as in the tables.",
        caption="Bars: intervals over patients. Dots beside them: single seeds.",
    )
    page = Page(
        title=f"{study.task.title}: how few labels suffice",
        cautions=said,
        summary=[
            Paragraph(
                f"Data set {study.recordings.name}, encoder {study.config.encoder.name}, checkpoint of step "
                f"{study.pretrained.step:,}. All labels: {len(data.train.records):,} training records of "
                f"{data.train.num_patients:,} patients; every cell is selected on the same {len(data.val.records):,} "
                "validation records, which at small fractions are more labels than it is trained with, and scored once "
                f"on the same {len(data.test.records):,} test records of {data.test.num_patients:,} patients."
            )
        ],
        sections=[
            Section(
                "Results",
                [
                    picture,
                    *(table for table in tables if table.rows),
                    Paragraph(
                        f"Intervals over patients: {resamples:,} resamples of the test patients, the same for all "
                        "cells, of the mean over seeds. Over seeds: Student's t for the mean over draws of labels, "
                        "initialisations and trainings, on these test patients. Neither holds what another "
                        f"pretraining would give.{_POSITIVES[study.task.kind]}"
                    ),
                    *(table for table in more if table.rows),
                    *([Paragraph(f"Not trained: {'; '.join(lacking)}.")] if lacking else []),
                ],
            ),
            data_section(study.recordings.datasets),
            command_section(command),
            configuration_section(study.config.to_dict(), default=base.get_config().to_dict()),
            environment_section(),
        ],
    )
    values = {
        "simulated": study.recordings.simulated,
        "cautions": said,
        "task": study.task.title,
        "metric": metric,
        "summaries": [dataclasses.asdict(each) | {"over_seeds": each.over_seeds} for each in summaries],
        "cells": [
            {
                **dataclasses.asdict(result.cell),
                "records": result.records,
                "patients": result.patients,
                "positives": result.positives,
                "selected": result.selected,
                "seconds": result.seconds,
                "reason": result.reason,
                "val_metric": result.val_metric,
                "test": {}
                if result.scores is None
                else scoring.estimates(study.task.kind, data.test.labels, result.scores, classes=data.classes),
            }
            for result in results
        ],
    }
    text = json.dumps(plain(values), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(study.folder / "results.json", text + "\n")
    written = write_page(page, study.folder)
    return "\n\n".join(format_table(table.header, table.rows) for table in tables), written.html


def main(argv: list[str]) -> None:
    """Runs the study the flags ask for and prints its tables."""
    del argv  # checked by `configuration.run`
    chosen = flags.FLAGS
    for name in ("task", "out"):
        if chosen[name].value is None:
            raise ConfigError(f"--{name} is needed (--help tells more)")
    try:
        fractions = [float(each) for each in chosen.fractions]
    except ValueError as error:
        raise ConfigError(f"--fractions={','.join(chosen.fractions)} are no numbers") from error
    cells = cells_of(fractions, seeds=chosen.seeds, modes=chosen.modes)
    folder = Path(chosen.out)
    with configuration.exclusive(folder):
        study = Study(chosen.config, Path(WORKDIR.value), task=parse_task(chosen.task), folder=folder, step=STEP.value)
        for caution in (*([SIMULATED] if study.recordings.simulated else []), *study.cautions):
            print(caution)
        run_cells(cells, folder, study.train)
        command = shlex.join(["python", "-m", "ecgjax.label_efficiency", *sys.argv[1:]])
        tables, report = write_report(study, read_cells(folder), command=command)
    print(f"\n{study.task.title}\n{tables}\n\nreport: {report}")


def define_flags() -> None:
    """Defines the command's own flags: here, because other commands have some of the same names."""
    flags.DEFINE_string("task", None, "Such as 'lvef<40', NORM, superdiagnostic, age; see docs/evaluation.md.")
    flags.DEFINE_string("out", None, "Folder of the study.")
    flags.DEFINE_list("fractions", [".01", ".05", ".1", ".5", "1"], "Shares of the labelled patients.")
    flags.DEFINE_integer("seeds", 5, "Draws of labels, random initialisations and trainings.", lower_bound=1)
    flags.DEFINE_list("modes", list(MODES), "Of training: frozen, finetuned, or both.")
    flags.adopt_module_key_flags(evaluated_run)


if __name__ == "__main__":
    define_flags()
    configuration.run(main, flags_parser=parse_flags)
