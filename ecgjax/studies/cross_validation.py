"""Cross-validation on one data set: pretrained encoders, the same encoders at random initialisation, and baselines.

By default no recording of the data set influences the pretrained encoder of a run or its random twin, the same encoder
at random initialisation: the batch-norm statistics of both are computed on the same unaugmented recordings of the
pretraining (only on real data sets if there were any). The embedding of a tested record therefore does not depend on
that data set's other records. An exported model keeps its stored statistics; those of its twin, which has none, are
computed on the data set.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import file_name
from ecgjax.defaults import RunSettings
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.evaluation.features import digests
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.weighting import check_finite, on_rows
from ecgjax.evaluation.models.answers import Answers, fold_mean_auroc
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.models.nested_cross_validation import (
    AnswerFold,
    chosen_on_a_fold,
    cross_validate,
    nested_logistic,
    patient_folds,
)
from ecgjax.evaluation.results import Key, over_seeds
from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE, between
from ecgjax.settings.leaf import leaf
from ecgjax.settings.probe import READOUTS, ProbeSettings
from ecgjax.settings.sections import read, tree_of
from ecgjax.studies.compared_models import ComparedModel, compared_models
from ecgjax.studies.model_names import BASELINES, ModelName
from ecgjax.studies.models import PREPROCESSORS, StudyModels, check_trainings
from ecgjax.studies.pretrained_runs import PretrainedRun
from ecgjax.studies.questions import Problem, Question, ask
from ecgjax.studies.readouts import MODELS_OF_READOUT, check_readouts, readout_of
from ecgjax.studies.store import begin_study
from ecgjax.system.files import replacing

#: Condition under which a resample defines a fold-averaged AUROC, for messages.
_NEEDS = "positive and negative records in every fold"

#: Models that are chosen on an inner fold; the others are logistic regressions, whose strength all inner folds choose.
_CHOSEN_ON_A_FOLD: tuple[ModelName, ...] = ("boosted", "supervised", "finetuned", *MODELS_OF_READOUT["attention"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """Settings of the cross-validation, with the defaults of `configs/cross_validation.py`."""

    outer_folds: int = leaf(5, "Folds of the patients; a seed is another division.", bound=between(2, 100))
    inner_folds: int = leaf(5, "Folds of the patients that are left, to choose a strength by.", bound=between(2, 100))
    strengths: tuple[float, ...] = leaf(
        (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        "Inverse L2 strengths C of a logistic regression.",
        bound=POSITIVE._replace(fewest=1),
    )
    min_positives: int = leaf(10, "Positive, and negative, records that a yes or no needs.", bound=ONE_OR_MORE)
    layer: str = leaf("features", 'Layer; "features" are pooled activations.', choices=("features", "embedding"))
    readouts: tuple[str, ...] = leaf(
        (), "Further readouts of the encoders, beside the logistic regression on `layer`.", choices=READOUTS
    )
    grid: tuple[str, ...] = leaf(
        (), 'Random encoders of which the best on inner folds is tested, such as ("resnet18:small seed=1",).'
    )
    resamples: int = leaf(2000, "Resamples of the patients for intervals.", bound=ONE_OR_MORE)


class Fitted(NamedTuple):
    """Key of a fitted model in the results: which model predicts which problem, with which share of the labels.

    Attributes:
        model: Title of the model.
        problem: Name of the problem, one yes or no.
        fraction: Fraction of the labelled training patients that was used.
        seed: Seed of the folds, the draw of labels and the random initialisation.
    """

    model: str
    problem: str
    fraction: float
    seed: int


class Study:
    """A cross-validation: a data set, the tasks on it, and the models that are compared.

    Args:
        runs: Pretrained runs.
        recordings: Recordings of the data set, of which `split.train` holds all except copies.
        tasks: Tasks as lines that `tasks.parse_task` reads.
        method: Settings of the cross-validation.
        folder: Folder of the study.
        baselines: Keys of the other models to compare with, as in `model_names.BASELINES`.
        alone: Settings of an encoder without pretraining that is compared where there is no run; None for no encoder.
        progress: Whether progress bars are drawn.

    Raises:
        DataError: The data set does not allow a task.
        ConfigError: The folder holds another study.
    """

    def __init__(
        self,
        runs: Sequence[PretrainedRun],
        recordings: Recordings,
        *,
        tasks: Sequence[str],
        method: Method,
        folder: Path,
        baselines: Sequence[ModelName] = BASELINES,
        alone: RunSettings | None = None,
        progress: bool = True,
    ):
        self.recordings, self.method, self.folder, self._progress = recordings, method, folder, progress
        self.records = recordings.split.train
        self.patients = np.asarray(recordings.index.group[self.records])
        self._patient_ids = recordings.index.patient_id[self.records]
        rare = {"min_positives": method.min_positives, "folds": method.outer_folds}
        self.problems, self.questions = ask(recordings.index, self.records, tasks, **rare)
        trained = {"supervised": "supervised" in baselines, "finetune": "finetuned" in method.readouts}
        names, kinds = (
            [name for name, asked in trained.items() if asked],
            {kind_of(t.task) for t in self.problems.values()},
        )
        for settings in [run.settings for run in runs] or ([] if alone is None else [alone]):
            check_trainings(settings, kinds, names=names)
            probe = ProbeSettings(readouts=method.readouts, grid=method.grid)
            check_readouts(probe, settings.encoder, num_samples=recordings.format.num_samples)
        self.models = compared_models(
            runs, recordings, self.records, layer=method.layer, readouts=method.readouts, grid=method.grid,
            baselines=baselines, alone=alone,
            folder=folder / "features", progress=progress,
        )  # fmt: skip
        # Readouts add models, whose own identities have what decides them.
        of_method = {
            name: value for name, value in dataclasses.asdict(method).items() if name not in ("readouts", "grid")
        }
        identity = {
            "data": list(recordings.fingerprints),
            "records": digests.of_arrays(self.records, self.patients),
            # Intervals are computed anew each time, and so their resamples may change.
            "method": {**of_method, "resamples": None},
        }
        begin_study(folder, identity)
        for model in self.models:
            without = model.identity.get("batch_norm_records", "") is None
            upgrade = functools.partial(_upgraded, without_batch_norm=without)
            begin_study(self._of(model), {"title": model.title, **model.identity}, upgrade=upgrade)

    def run(self, *, fractions: Sequence[float], seeds: int) -> dict[Fitted, Answers]:
        """Fits the models that the folder does not have yet, and returns the predictions of all.

        Args:
            fractions: Fractions of the labelled training patients, in (0, 1].
            seeds: Number of seeds, counted from 0; each seed divides the patients anew.

        Returns:
            The predictions of every model, problem, fraction and seed.
        """
        wanted = {
            Fitted(model.title, problem.name, fraction, seed): (model, problem)
            for seed in range(seeds)
            for model in self.models
            for problem in self.problems.values()
            for fraction in fractions
        }
        found = {}
        with tqdm(
            wanted.items(), desc="models", unit="model", dynamic_ncols=True, disable=None if self._progress else True
        ) as bar:
            for fitted, (model, problem) in bar:
                bar.set_postfix_str(f"{fitted.model}, seed {fitted.seed}")
                found[fitted] = self._answers(fitted, model, problem)
        return found

    def _answers(self, fitted: Fitted, model: ComparedModel, problem: Problem) -> Answers:
        name = f"{file_name(problem.name)}-{fitted.fraction:g}-seed{fitted.seed}"
        # The digest gives other labels under the same name another file.
        path = self._of(model) / "scores" / f"{name}-{digests.of_arrays(problem.rows, problem.labels)[:8]}.npz"
        if path.is_file():
            return Answers.load(path)
        labels, patients, seed = problem.labels, self.patients[problem.rows], fitted.seed
        folds = patient_folds(labels, patients, folds=self.method.outer_folds, seed=seed)
        answer, ids = self._answer_fold(model, problem, seed), self._patient_ids[problem.rows]
        answers = cross_validate(
            answer, labels, patients=patients, patient_ids=ids, folds=folds, fraction=fitted.fraction, seed=seed
        )
        answers.save(path)
        return answers

    def _answer_fold(self, model: ComparedModel, problem: Problem, seed: int) -> AnswerFold:
        labels, patients, models = problem.labels, self.patients[problem.rows], model.models()
        inner: dict[str, Any] = {"patients": patients, "inner_folds": self.method.inner_folds, "seed": seed}
        if model.name in _CHOSEN_ON_A_FOLD:

            def answer(train: np.ndarray, val: np.ndarray, held_out: np.ndarray) -> np.ndarray | None:
                data = self._data(problem, train, val, held_out, seed=seed)
                return models.answers(model.name, data, seed=seed).outputs

            return chosen_on_a_fold(answer, labels, **inner)
        if model.name == "random_grid":
            features = [values[problem.rows] for values in models.grid(seed).values()]
        else:
            features = [self._values(model, models, problem, seed)[problem.rows]]
        scaled = PREPROCESSORS.get(model.name, lambda _: StandardScaler())
        return nested_logistic(features, labels, strengths=self.method.strengths, make_preprocessor=scaled, **inner)

    def _values(self, model: ComparedModel, models: StudyModels, problem: Problem, seed: int) -> np.ndarray:
        """Returns the features of all records, `[n, d]`, which are kept in a file, except age and sex."""
        if model.name == "demographics":
            return models.values(model.name, problem.task, seed)
        path = self._of(model) / (f"features-seed{seed}.npy" if model.name.startswith("random") else "features.npy")
        if not path.is_file():
            values = models.values(model.name, problem.task, seed)
            if model.encoder and readout_of(model.name) != "fusion":  # A measurement may be missing.
                check_finite(values, f"numbers of the embeddings by {model.title}")
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, values)
            models.release()
        return np.load(path, mmap_mode="r")

    def _data(self, problem: Problem, *parts: np.ndarray, seed: int) -> ProbeData:
        """Returns the labelled records of a problem as training, validation and test records.

        Args:
            problem: Problem.
            *parts: Rows of the problem's records to train on, to choose by and to predict, `int64[…]` each.
            seed: Seed of the model.
        """
        records, labels, patients = self.records[problem.rows], problem.labels, self.patients[problem.rows]
        train, val, test = (
            LabelledRecords(records=records[part], labels=labels[part], patients=patients[part], unlabelled=0)
            for part in parts
        )
        # The fraction of the labels was drawn by `cross_validate` before.
        return ProbeData(
            task=problem.task, train=train, val=val, test=test, label_fraction=1.0, seed=seed, train_available=train,
            excluded={},
        )  # fmt: skip

    def _of(self, model: ComparedModel) -> Path:
        return self.folder / "models" / model.folder

    def measure(self, answers: Mapping[Fitted, Answers], *, seed: int = 0) -> dict[Key, Interval]:
        """Computes the metrics of all predictions, on the same bootstrap resamples of the patients.

        Args:
            answers: Predictions of every model, problem, fraction and seed.
            seed: Seed of the resampling.

        Returns:
            The AUROC within folds of every model on every question, and on every problem where a question has several,
            over seeds and seed by seed; and the paired differences of pretrained encoders.
        """
        metrics, missing = {}, {}
        for fitted, each in answers.items():
            problem = self.problems[fitted.problem]
            # The metric is that of the question, of which the problem may be one of several.
            key = Key(fitted.model, "", fitted.problem, fitted.fraction, fitted.seed)
            if each.outputs is None or each.folds is None:
                missing[key] = f"{problem.name}: {each.reason}"
            else:
                metrics[key] = on_rows(fold_mean_auroc(problem.labels, each.outputs, each.folds), problem.rows)
        titles, every = {model.title for model in self.models}, (*self.questions, *self.by_class)
        found = over_seeds(
            metrics,
            missing,
            pairs=[(model.title, other) for model in self.models for other in model.against if other in titles],
            patients=self.patients,
            resamples=self.method.resamples,
            seed=seed,
            needs=_NEEDS,
            questions={each.title: each.problems for each in every},
        )
        metric = {each.title: each.metric for each in every}
        return {key._replace(metric=metric[key.task]): value for key, value in found.items()}

    @property
    def labelled(self) -> np.ndarray:
        """Positions of the records that are tested, those with a label of some problem, `int64[m]`, ascending."""
        rows = [problem.rows for problem in self.problems.values()]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *rows]))

    @property
    def by_class(self) -> list[Question]:
        """Questions about each single class, for the questions that have several classes."""
        several = [question.problems for question in self.questions if len(question.problems) > 1]
        return [Question(title=name, problems=(name,), left_out={}) for names in several for name in names]


def _upgraded(identity: dict[str, Any], *, without_batch_norm: bool) -> dict[str, Any]:
    """Returns a model's identity as an older version of ecgjax stored it, with encoder leaves that were added since.

    Args:
        identity: Identity that was stored.
        without_batch_norm: Whether the encoder has no batch norm, which older versions named records for all the same.
    """
    if without_batch_norm and "batch_norm_records" in identity:
        identity = {**identity, "batch_norm_records": None}
    if "encoder" not in identity:
        return identity
    return {**identity, "encoder": json.loads(json.dumps(tree_of(read(EncoderSettings, identity["encoder"]))))}
