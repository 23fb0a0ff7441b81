"""A label-efficiency study of one task and one checkpoint; a cell is a model trained on a fraction of the labels."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from ecgjax import defaults
from ecgjax.config import earlier
from ecgjax.data.labels import ProbeData, of_common_classes, probe_data
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import digests
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.metrics.weighting import Metric, estimate
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import NO_MODEL, kind_of
from ecgjax.evaluation.results import Key, over_seeds
from ecgjax.finetuning import trainer
from ecgjax.leakage import guard
from ecgjax.pages.page import SIMULATED
from ecgjax.pretrained.fit import check_fits, other_data
from ecgjax.pretrained.source import open_source, settings_of_source
from ecgjax.settings.leaf import Value
from ecgjax.settings.probe import ProbeSettings
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies.batch_norm import batch_norm
from ecgjax.studies.finished_run import check_encoder, guarded, open_judged
from ecgjax.studies.model_names import ModelName
from ecgjax.studies.models import StudyModels, check_trainings, with_float32
from ecgjax.studies.pretrained_runs import step_of
from ecgjax.studies.questions import asked, check_answerable
from ecgjax.studies.readouts import changed_choices, check_readouts, pairs_of
from ecgjax.studies.store import CELL_MODELS, Cell, Mode, TrainedCell, begin_study

#: Leaves of the run that a study's cells depend on, besides those that decided the pretraining.
_LEAVES = ("data.train_folds", "data.val_folds", "data.test_folds", "data.links", "probe.layer", "probe.seed",
           "probe.supervised.", "probe.finetune.", *(f"optimizer.{name}" for name in trainer.SHARED))  # fmt: skip

# Leaves of a training with labels that older studies lack, with the values that describe what those studies did.
_AS_BEFORE = {"eval_records": 0, "head_start": "zeros"}


#: Models that are compared: the second is subtracted from the first.
_PAIRS: Sequence[tuple[ModelName, ModelName]] = (
    ("finetuned", "supervised"),
    ("pretrained", "random"),
    ("pretrained", "supervised"),
    *((encoder, plain) for encoder in ("finetuned", "pretrained") for plain in CELL_MODELS["plain"].values()),
)


class Study:
    """A label-efficiency study: models of one task and one checkpoint.

    Args:
        settings: Settings from `pretrained.source.settings_of_source`; `data` and `probe` may be changed.
        place: Folder of the run, or of an exported model.
        question: Task in one line, such as `lvef<40`.
        folder: Folder of the study.
        step: Step of the checkpoint; the latest by default.
        features: Folder in which embeddings and measurements are kept, and which studies may share; inside `folder` by
            default.
        statistics: What sets batch norm, of `batch_norm.STATISTICS`; by default the training records here, and for an
            exported model what it has stored.
        pretraining_data: Folders in which data sets of the pretraining may lie, beside those of the run.
        progress: Whether progress bars are drawn.

    Raises:
        DataError: The data set, the folds or the labels do not allow the task.
        ConfigError: The place holds no run or model, or one of another encoder, or the folder holds another study.
        CheckpointError: There is no finished checkpoint, or the checkpoint is damaged.
    """

    def __init__(
        self,
        settings: RunSettings,
        place: Path,
        *,
        question: str,
        folder: Path,
        step: int | None = None,
        features: Path | None = None,
        statistics: str | None = None,
        pretraining_data: Sequence[str] = (),
        progress: bool = True,
    ):
        own, probe = settings_of_source(place), settings.probe
        if features is not None and features.exists() and not features.is_dir():
            raise ConfigError(f"--features={features} is no folder; name another, or leave the flag out")
        check_encoder(own.encoder, settings.encoder, workdir=str(place))
        self.recordings = open_judged(settings.data, own.data, place)
        task = asked(question, self.recordings.index)
        # Settings are checked before anything is trained and before the folder is claimed for this study.
        check_trainings(settings, [kind_of(task)], names=["supervised", "finetune"])
        check_readouts(probe, settings.encoder, num_samples=self.recordings.format.num_samples)
        for name, training in (("supervised", probe.supervised), ("finetune", probe.finetune)):
            if training.head_start == "probe" and probe.layer != "features":
                raise ConfigError(
                    f"config.probe.{name}.head_start='probe' needs probes of what the head sees: set "
                    "config.probe.layer=features"
                )
        self.settings, self.task, self.folder = settings, task, folder
        source = open_source(place, step=step, layer=probe.layer)
        check_fits(source, self.recordings)
        judged, _ = self._data(1.0, 0)
        self.recordings, self._cautions = guarded(
            source.recorded,
            self.recordings,
            overlaps=probe.overlaps,
            encoder=source.encoder,
            records=np.concatenate([judged.val.records, judged.test.records]),
            trained_folds=source.trained_folds,
            not_listed=source.not_listed("the encoder", among="the validation and test records"),
            pretraining_data=pretraining_data,
        )
        if source.run is not None and settings.data.dir == own.data.dir:
            self._cautions += other_data(source, self.recordings)
        self._cautions = (*guard.simulated_before(source.simulated, self.recordings), *self._cautions)
        # The data are made again because the guard may have dropped records.
        self.data, rare = self._data(1.0, 0)
        self._cautions += (*rare, *check_answerable(self.data, self.recordings.index))
        judged_words = f"{len(self.recordings.split.train):,} training records of {self.recordings.name}"
        of_batch_norm = batch_norm(
            source,
            statistics,
            default="evaluation",
            judged=f"{judged_words}, without their labels",
            pretraining_data=pretraining_data,
        )
        self.pretrained, self.batch_norm = of_batch_norm.encoder, of_batch_norm
        parts = (self.data.train_available, self.data.val, self.data.test)
        records, kept = np.concatenate([part.records for part in parts]), features or folder / "features"
        labelled = LabelledFeatures(
            self.recordings, records, folder=kept, norm=of_batch_norm.norm, seed=probe.seed, progress=progress
        )
        self._models = StudyModels(
            labelled, settings=settings, pretrained=self.pretrained, validated=False, progress=progress
        )
        self.pretraining = step_of(source)
        identity = {
            "task": dataclasses.asdict(task),
            "checkpoint_step": self.pretrained.step,
            "weights": digests.of_weights(self.pretrained.split),
            "pretraining": _pretraining(own) if source.run is not None else {},
            "pretrained_on": list(self.pretrained.pretrained_on),
            "data": list(self.recordings.fingerprints),
            # The records that are trained, selected and tested on identify the study.
            "records": [digests.of_arrays(*part.arrays) for part in parts],
            "config": _deciding(flat(tree_of(settings))) | changed_choices(settings),
        }
        if of_batch_norm.statistics not in ("evaluation", "none"):
            # Studies of the default, which older ones are, say nothing of it.
            identity["statistics"] = [of_batch_norm.statistics, source.weights_digest]
        begin_study(folder, identity, upgrade=_upgraded)

    def cautions(self, modes: Collection[Mode]) -> tuple[str, ...]:
        """Returns the warnings, a sentence each, that must be shown with cells of some modes.

        Args:
            modes: Modes of the cells that are shown.
        """
        simulated = (SIMULATED,) if self.recordings.simulated else ()
        unlike = _unlike(self.settings.probe) if "finetuned" in modes else ()
        return tuple(guard.by_weight((*simulated, *self._cautions, *unlike)))

    def train(self, cell: Cell) -> TrainedCell:
        """Trains the model of one cell on its fraction of the labels, and predicts the test records.

        Args:
            cell: Model, fraction of the labels and seed.

        Returns:
            The cell with its predictions, the number of training patients and the seconds that it took. Where the
            labels allow no model, the predictions have the reason and no outputs.
        """
        start = time.monotonic()
        data, _ = self._data(cell.fraction, cell.seed)
        answers, train = self._answers(cell, data), data.train
        unlearnt = sum(bool(undefined_reason(labels)) for labels in train.labels.T) if data.classes else 0
        return TrainedCell(cell, answers, train.num_patients, time.monotonic() - start, unlearnt)

    def _answers(self, cell: Cell, data: ProbeData) -> Answers:
        kind, labels = kind_of(self.task), data.train.labels
        if not (reason := kind.undefined(labels)):
            try:
                return with_float32(self._models.answers(cell.trained, data, seed=cell.seed))
            except DataError as error:
                # That labels allow no model is a result of the study; that data are damaged is none.
                if error.reason != NO_MODEL:
                    raise
                reason = str(error)
        return Answers(outputs=None, reason=reason, records=len(labels), positives=kind.positives(labels))

    def _data(self, fraction: float, seed: int) -> tuple[ProbeData, tuple[str, ...]]:
        return of_common_classes(
            probe_data(self.recordings.index, self.recordings.split, task=self.task, label_fraction=fraction, seed=seed)
        )


def measure_cells(cells: Sequence[TrainedCell], data: ProbeData, *, resamples: int, seed: int) -> dict[Key, Interval]:
    """Computes the metrics of cells on the test records.

    Spread over patients and over seeds are kept apart. Over patients: the same test patients are drawn with replacement
    for all cells, and the mean over seeds is taken on every resample. It shows what another test set would have given.
    Over seeds: how far draws of labels, initialisation and training vary on this test set. Neither includes the other,
    nor the variation between pretraining runs.

    Args:
        cells: Trained cells.
        data: Labelled records of the study.
        resamples: Number of bootstrap resamples of the test patients.
        seed: Seed of the resampling.

    Returns:
        The primary metric of every model and fraction, over seeds and of each seed, and the paired differences of
        pretrained models from others of the same seeds, with intervals over the test patients; and without intervals
        the other metrics of each seed, and the metric of each class.
    """
    labels, kind = data.test.labels, kind_of(data.task)
    primary: dict[Key, Metric] = {}
    missing: dict[Key, str] = {}
    others: dict[Key, Interval] = {}
    # The rows of the tables come in this order.
    for cell, answers, *_ in sorted(cells, key=lambda each: (each.cell.fraction, each.cell.mode, each.cell.model)):
        key = Key(cell.trained, kind.primary, data.task.title, cell.fraction, cell.seed)
        if answers.outputs is None:
            missing[key] = answers.reason
            continue
        metrics = kind.metrics(labels, answers.outputs, classes=data.classes)
        primary[key] = metrics.pop(kind.primary)
        for name, metric in metrics.items():
            others[key._replace(metric=name)] = Interval.alone(estimate(metric, len(labels)))
        for name, value in kind.of_classes(labels, answers.outputs, classes=data.classes).items():
            others[key._replace(metric="AUROC", part=name)] = value
    # A study without readouts has none of their pairs; what stands in both is compared once.
    pairs = list(dict.fromkeys([*_PAIRS, *pairs_of([each.cell.trained for each in cells])]))
    rows = over_seeds(
        primary, missing, pairs=pairs, patients=data.test.patients, resamples=resamples, seed=seed,
        needs=kind.needs,
    )  # fmt: skip
    return rows | others


def _upgraded(identity: dict[str, Any]) -> dict[str, Any]:
    """Returns an older study's identity with all configuration leaves that ecgjax has now.

    Leaves of the pretraining that were added since have their defaults.
    """
    # The folder may hold a study of another command, or of an exported model.
    if not identity.get("pretraining"):
        return identity
    given = {name: value for name, value in identity["pretraining"].items() if value is not None}
    return {**identity, "pretraining": _pretraining(defaults.settings_of(earlier.translated(given)))}


def _pretraining(settings: RunSettings) -> dict[str, Any]:
    """Returns leaves that determined a pretraining, as JSON reads them; `probe`, `checkpoint` and `data` are None."""
    tree: dict[str, Any] = json.loads(json.dumps(tree_of(settings)))
    return {**tree, "probe": None, "checkpoint": None, "data": None}


def _unlike(probe: ProbeSettings) -> tuple[str, ...]:
    """Returns a sentence on where settings of fine-tuning and of training with labels alone differ; empty if nowhere.

    If they do, a comparison of the two measures more than the effect of pretraining.
    """
    ours, theirs = (flat(tree_of(training)) for training in (probe.finetune, probe.supervised))
    for leaves in (ours, theirs):
        # A head without a rate of its own has that of the encoder, which is no difference if the other names it.
        if leaves["head_learning_rate"] is None:
            leaves["head_learning_rate"] = leaves["learning_rate"]

    def matters(name: str) -> bool:
        if name.startswith("metric.") and name != "metric.weight":
            return bool(ours["metric.weight"] and theirs["metric.weight"])
        return name not in ("hidden", "head_dropout") or "mlp" in (ours["head"], theirs["head"])

    differing = [
        f"{name} {value} and {theirs[name]}" for name, value in ours.items() if value != theirs[name] and matters(name)
    ]
    if not differing:
        return ()
    return (
        "Fine-tuned cells: the pretrained encoder and the random one were trained with other settings "
        f"(config.probe.finetune and config.probe.supervised): {'; '.join(differing)}. Unless each was chosen on "
        "validation, their difference is not pretraining's alone.",
    )


def _deciding(leaves: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the leaves that the results of cells depend on.

    Args:
        leaves: Values of the run's leaves, by dotted name.
    """

    def idle(name: str) -> bool:
        # Metric learning without a weight has no effect, and neither has a newer leaf at its value in `_AS_BEFORE`.
        training, found, _ = name.partition(".metric.")
        if found:
            return not leaves[f"{training}.metric.weight"]
        leaf = name.rpartition(".")[2]
        return leaf in _AS_BEFORE and leaves[name] == _AS_BEFORE[leaf]

    return {name: value for name, value in leaves.items() if name.startswith(_LEAVES) and not idle(name)}
