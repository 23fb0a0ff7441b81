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
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from data_pipelines.physiology import median_beat
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import file_name
from ecgjax.defaults import RunSettings
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.evaluation.features import digests, frozen_encoder
from ecgjax.evaluation.features.labelled_features import LabelledFeatures, NormRecords
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
from ecgjax.finetuning import trainer
from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE, between
from ecgjax.settings.leaf import leaf
from ecgjax.settings.sections import read, tree_of
from ecgjax.studies.model_names import BASELINES, PLAIN, ModelName, labels_only_titles, short_title
from ecgjax.studies.models import PREPROCESSORS, StudyModels, check_trainings
from ecgjax.studies.pretrained_runs import PretrainedRun
from ecgjax.studies.questions import Problem, Question, ask
from ecgjax.studies.store import begin_study
from ecgjax.system.files import replacing

#: Condition under which a resample defines a fold-averaged AUROC, for messages.
_NEEDS = "both labels in every fold"

#: Models that are chosen on an inner fold; the others are logistic regressions, whose strength all inner folds choose.
_CHOSEN_ON_A_FOLD: tuple[ModelName, ...] = ("boosted", "supervised")


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
    resamples: int = leaf(2000, "Resamples of the patients for intervals.", bound=ONE_OR_MORE)


class ComparedModel(NamedTuple):
    """A model that is cross-validated.

    Attributes:
        name: Key of the model, see `models`.
        title: Title in tables.
        encoder: Title of the model's encoder; empty for models without one.
        labels_only: Title of the same encoder trained with labels alone; empty for models without an encoder.
        identity: Values that determine the model's predictions, besides data set and method, as JSON can hold them.
        models: Function that returns the object that fits the model.
    """

    name: ModelName
    title: str
    encoder: str
    labels_only: str
    identity: Mapping[str, Any]
    models: Callable[[], StudyModels]

    @property
    def folder(self) -> str:
        """Name of the folder that holds the model's files."""
        return re.sub("[#()]", "", re.sub("[ /]", "-", self.title).replace(":", "_"))

    @property
    def against(self) -> tuple[str, ...]:
        """Titles of the models that this one is compared with, if these are in the study; empty without encoder."""
        plain_titles = tuple(short_title(name, "") for name in PLAIN)
        twin = short_title("random", self.encoder)
        others = {"pretrained": (twin, self.labels_only, *plain_titles), "random": plain_titles}
        return others.get(self.name, ())


def compared_models(
    runs: Sequence[PretrainedRun],
    recordings: Recordings,
    records: np.ndarray,
    *,
    layer: str,
    baselines: Sequence[ModelName] = BASELINES,
    alone: RunSettings | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> list[ComparedModel]:
    """Returns all models: those without an encoder, then every encoder after the models that it is compared with.

    The latter are the same encoder at random initialisation and trained with labels alone. Encoders with equal settings
    share these models.

    Args:
        runs: Pretrained encoders.
        recordings: Recordings of the data set.
        records: Record numbers to represent, `int64[n]`.
        layer: Layer whose activations are the embeddings, see `frozen_encoder.Encoder`.
        baselines: Keys of the other models to compare with, as in `model_names.BASELINES`.
        alone: Settings of an encoder without pretraining that is compared where there is no run; None for no encoder.
        folder: Folder in which measurements of the ECG are kept; None to keep them in memory alone.
        progress: Whether progress bars are drawn.
    """

    def study_models(
        settings: RunSettings,
        norm: NormRecords | None = None,
        encoder: frozen_encoder.Encoder | None = None,
        folder: Path | None = None,
    ) -> StudyModels:
        features = LabelledFeatures(recordings, records, folder=folder, norm=norm, progress=progress)
        settings = dataclasses.replace(settings, probe=dataclasses.replace(settings.probe, layer=layer))
        return StudyModels(features, settings=settings, pretrained=encoder, validated=False, progress=progress)

    def beside(
        settings: RunSettings, title: str, labels_only: str, norm: NormRecords, digest: str | None
    ) -> list[ComparedModel]:
        """Returns an encoder at random initialisation, and the same encoder trained with labels alone, if new."""
        encoder = {"encoder": tree_of(settings.encoder), "batch_norm_records": digest, "layer": layer}
        optimizer = trainer.shared_settings(settings.optimizer)
        trained = encoder | {"training": tree_of(settings.probe.supervised), "optimizer": optimizer}
        # Made once, because compiling a training takes longer than a small training.
        once = functools.cache(functools.partial(study_models, settings, norm))
        found = [ComparedModel("random", short_title("random", title), title, labels_only, encoder, once)]
        if "supervised" in baselines:
            found.append(ComparedModel("supervised", labels_only, title, labels_only, trained, once))
        return [model for model in found if model.title not in {other.title for other in models}]

    rate_hz, measured = recordings.format.sampling_rate_hz, study_models(RunSettings(), folder=folder)
    plain: Mapping[ModelName, Any] = {
        "intervals": [median_beat.VERSION, rate_hz],
        "boosted": [median_beat.VERSION, rate_hz],
        "median_beat": [median_beat.MEDIAN_BEAT_RATE_HZ, rate_hz],
        "demographics": ["age_years", "sex"],
    }
    asked = [name for name in PLAIN if name in baselines]
    models = [
        ComparedModel(name, short_title(name, ""), "", "", {name: plain[name]}, lambda: measured) for name in asked
    ]
    # Without recordings of a pretraining those of the data set set batch norm.
    here = NormRecords(recordings.store.read, records, title="records of this data set")
    if alone is not None and not runs:
        title = str(alone.encoder.name)
        models += beside(alone, title, short_title("supervised", title), here, digests.of_arrays(records))
    titles: dict[str, str] = {}
    encoders = []
    for run in runs:
        digest = _norm_digest(run, records)
        settings = json.dumps([tree_of(run.settings.encoder), digest, layer], sort_keys=True, default=str)
        name = str(run.settings.encoder.name)
        if settings not in titles:
            # Encoders of one name that are not alike are told apart by a number.
            same = sum(title.split(" #")[0] == name for title in titles.values())
            titles[settings] = name + (f" #{same + 1}" if same else "")
        encoders.append(titles[settings])
    for run, title, labels_only in zip(
        runs, encoders, labels_only_titles([run.settings for run in runs], encoders), strict=True
    ):
        digest, norm = _norm_digest(run, records), run.norm or here
        models += beside(run.settings, title, labels_only, norm, digest)
        if run.encoder.keeps_statistics:
            digest = f"stored {digests.of_arrays(*map(np.asarray, jax.tree.leaves(run.encoder.split.stats)))}"
        identity = {"weights": digests.of_weights(run.encoder.split), "batch_norm_records": digest, "layer": layer}
        of_run = functools.partial(study_models, run.settings, norm, run.encoder)
        models.append(ComparedModel("pretrained", run.title, title, labels_only, identity, of_run))
    return models


def _norm_digest(run: PretrainedRun, records: np.ndarray) -> str | None:
    """Returns a digest of the records that set batch norm of a run's random twin; None for one without batch norm.

    Args:
        run: Pretrained encoder.
        records: Numbers of the records of the study, `int64[n]`.
    """
    if not run.encoder.has_batch_norm:
        return None
    return run.norm_digest or digests.of_arrays(records)


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
        if "supervised" in baselines:
            for settings in [run.settings for run in runs] or ([] if alone is None else [alone]):
                check_trainings(settings, {kind_of(each.task) for each in self.problems.values()}, names=["supervised"])
        self.models = compared_models(
            runs, recordings, self.records, layer=method.layer, baselines=baselines, alone=alone,
            folder=folder / "features", progress=progress,
        )  # fmt: skip
        identity = {
            "data": list(recordings.fingerprints),
            "records": digests.of_arrays(self.records, self.patients),
            # Intervals are computed anew each time, and so their resamples may change.
            "method": {**dataclasses.asdict(method), "resamples": None},
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
        with tqdm(wanted.items(), desc="models", unit="model", disable=None if self._progress else True) as bar:
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
        features = self._values(model, models, problem, seed)[problem.rows]
        scaled = PREPROCESSORS.get(model.name, lambda _: StandardScaler())
        return nested_logistic(features, labels, strengths=self.method.strengths, make_preprocessor=scaled, **inner)

    def _values(self, model: ComparedModel, models: StudyModels, problem: Problem, seed: int) -> np.ndarray:
        """Returns the features of all records, `[n, d]`, which are kept in a file, except age and sex."""
        if model.name == "demographics":
            return models.values(model.name, problem.task, seed)
        path = self._of(model) / (f"features-seed{seed}.npy" if model.name == "random" else "features.npy")
        if not path.is_file():
            values = models.values(model.name, problem.task, seed)
            if model.encoder:
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
