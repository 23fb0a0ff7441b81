"""Columns of metadata, one value a recording, that relations, miners, losses and augmentations use.

Patient and signal are always streamed; these columns come beside them.

A column is read, fitted or streamed only if a chosen method needs it, and fitted on training records alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.buckets.addresses import local_path
from data_pipelines.physiology.paired_embeddings import PairedEmbeddings, open_paired
from data_pipelines.physiology.standardise import Pca, Standardizer
from ecgjax.augmentations import partners
from ecgjax.data.labels import draw_patients
from ecgjax.data.measured_waves import chosen_measurements
from ecgjax.data.neighbours import neighbour_column
from ecgjax.data.recordings import Recordings
from ecgjax.data.settings import TASK_COLUMNS, ColumnSettings, ColumnUse, folders_of
from ecgjax.data.tasks import Task, parse_task
from ecgjax.errors import ConfigError

if TYPE_CHECKING:
    from data_pipelines.physiology.store import Physiology

#: Columns that relations, miners and losses need and that are not always streamed, by the method's name: columns of
#: `objectives.pairs.relations.Rows`, and `paired`.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "similar_physiology": ("physiology",),
    "same_cluster": ("cluster",),
    "same_demographics": ("sex", "age"),
    "same_label": ("label",),
    "label_distance": ("label",),
    "nearest_in_dataset": ("neighbours",),
    "clip": ("paired", "pair_group"),
}

#: Column of the classes that a quantity's labels are for relations and miners.
CLASSES = "label_class"

#: Values over all recordings by column; partners of another modality are read row by row.
Columns = dict[str, np.ndarray | PairedEmbeddings]

#: Leaf that names the question whose answers are the labels.
TASK = "config.columns.task"

#: Measurements that wave-attribute clusters are computed from (Jeong et al. 2024 use 11 such attributes).
CLUSTERED = (
    "rr_mean",
    "pr_mean",
    "qrs_mean",
    "qtc_mean",
    "p_duration_mean",
    "t_duration_mean",
    "r_amplitude_mean",
    "p_amplitude_mean",
    "t_amplitude_mean",
    "qrs_slope_mean",
    "st_mean",
)


def needed_columns(use: ColumnUse) -> set[str]:
    """Returns the names of the columns that relation, miner, loss, task and augmentations need."""
    needed = {column for name in use.methods if name is not None for column in NEEDS.get(name, ())}
    if use.settings.class_width is not None and "label" in needed:
        needed.add(CLASSES)
    return needed | set(partners.needs(use.augment)) | ({TASK_COLUMNS[use.task]} if use.task else set())


def labels_looked_at(use: ColumnUse) -> tuple[str, ...]:
    """Returns the questions (as `config.columns.task` has them) whose answers a pretraining uses, each once.

    The answers are used as labels in its columns, or for balanced batches.
    """
    labels = [use.settings.task] if "label" in needed_columns(use) else []
    return tuple(dict.fromkeys(filter(None, (*labels, use.balance))))


def row_columns(use: ColumnUse, recordings: Recordings, *, seed: int) -> Columns:
    """Returns the columns that relation, miner, loss, task and augmentations need.

    Args:
        use: Settings of the columns, and what uses them.
        recordings: Recordings of the run.
        seed: Seed of the clusters, and of the patients whose labels are used.

    Returns:
        Columns by name, `[n, …]` over all recordings, of the types of `Rows`; `paired`, `f32[n, dim]`, is read row by
        row, and `measured`, `f32[n, measurements]`, has what `measured_waves.chosen_measurements` names, in its unit.

    Raises:
        ConfigError: A setting of `config.columns` that is needed is missing or does not fit the recordings.
        DataError: A data set has no such label, or its physiology was never measured.
    """
    needed, settings = needed_columns(use), use.settings
    labels = functools.cache(lambda: _drawn_labels(settings, recordings, seed=seed))
    makers = {
        "physiology": lambda: _physiology(settings, recordings),
        "cluster": lambda: _cluster(settings, recordings, seed=seed),
        "sex": lambda: _sex(recordings),
        "age": lambda: recordings.index.label("age_years"),
        "label": lambda: labels(),
        CLASSES: lambda: classes_of(labels(), settings.class_width or math.inf),
        "measured": lambda: _columns_named(chosen_measurements(settings), settings.measured_on, recordings),
        "neighbours": lambda: neighbour_column(settings, recordings),
    }
    columns: Columns = {name: make() for name, make in makers.items() if name in needed}
    if partners.needs(use.augment):
        _check_two_labels(_question(settings.task), columns["label"][recordings.split.train])
    if "paired" in needed:
        columns["paired"], columns["pair_group"] = _paired(settings.paired, recordings)
    return columns


def _paired(directories: str, recordings: Recordings) -> tuple[PairedEmbeddings, np.ndarray]:
    parts = folders_of(directories)
    for part in parts:
        local_path(part, flag="config.columns.paired")
    if not all(parts) or len(parts) != len(recordings.datasets):
        raise ConfigError(
            f"config.columns.paired={directories!r} must name a folder of embedding.npy and record_id.npy for each of "
            f"the {len(recordings.datasets)} data sets, with commas between"
        )
    return open_paired(parts, [dataset.index.record_id for dataset in recordings.datasets])


def _sex(recordings: Recordings) -> np.ndarray:
    sex = recordings.index.label("sex")
    return np.where(np.isnan(sex), -1, sex).astype(np.int32)


def label_column(question: str, recordings: Recordings) -> np.ndarray:
    """Returns the answers to a question as labels, `f32[n]` over all recordings, NaN where unknown.

    Args:
        question: Question in the form of `config.columns.task`; a quantity's values are used as they are.
        recordings: Recordings of the run.

    Raises:
        ConfigError: No question is named, or it has several answers a record.
        DataError: A data set has no such label, or the question does not suit it.
    """
    return _question(question).targets(recordings.index).astype(np.float32)


def _drawn_labels(settings: ColumnSettings, recordings: Recordings, *, seed: int) -> np.ndarray:
    """Returns labels, `f32[n]`, without those of training patients that were not drawn."""
    labels = label_column(settings.task, recordings)
    if settings.label_fraction < 1:
        train = recordings.split.train
        known = train[~np.isnan(labels[train])]
        drawn = draw_patients(
            np.asarray(recordings.index.group[known]),
            patient_ids=np.asarray(recordings.index.patient_id[known]),
            fraction=settings.label_fraction,
            seed=seed,
        )
        labels[known[~drawn]] = np.nan
    return labels


def classes_of(values: np.ndarray, width: float) -> np.ndarray:
    """Returns numbers of classes of a width, `f32[n]`: 0 for values from 0 up to it, and so on; NaN where unknown.

    Args:
        values: Values, `f32[n]`, NaN where unknown.
        width: Width of a class.
    """
    return np.floor(values.astype(np.float64) / width).astype(np.float32)


def _question(question: str) -> Task:
    if not question:
        raise ConfigError(
            f"this relation, miner, task or augmentation looks at labels: name a question in {TASK}, such as 'lvef<40'"
        )
    task = parse_task(question, asked_by=TASK)
    if task.kind == "multilabel":
        raise ConfigError(f"{TASK}={question!r} has several answers a record; name one class, as in 'TASK:CLASS'")
    return task


def _check_two_labels(task: Task, labels: np.ndarray) -> None:
    """Raises a `ConfigError` unless training records have both labels, between which `geodesic` moves recordings."""
    if task.kind != "binary":
        raise ConfigError(
            f"config.augment.geodesic moves recordings between two labels, and {TASK}={task.title!r} gives values: ask "
            f"a yes or no, as in {TASK}='{task.title}=1' of labels 0 and 1, or '{task.title}<40'"
        )
    if missing := [value for value in (0, 1) if not (labels == value).any()]:
        raise ConfigError(
            f"config.augment.geodesic moves recordings between two labels, and no training record has the answer "
            f"{missing[0]} to {TASK}={task.title!r}; ask another question"
        )


def _measured(recordings: Recordings) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the physiology vectors of all recordings, `f32[n, measurements]`, and the measurements' names."""
    opened = _opened(recordings, "beats")
    return np.concatenate([physiology.values for physiology in opened]), opened[0].names


def _columns_named(names: Sequence[str], on: str, recordings: Recordings) -> np.ndarray:
    """Returns some measurements of all recordings, `f32[n, len(names)]`, in their units; NaN where missing."""
    # They are chosen before the data sets are joined, because most of the columns are of single beats.
    opened = _opened(recordings, on)
    return np.concatenate([each.values[:, [each.names.index(name) for name in names]] for each in opened])


def _opened(recordings: Recordings, on: str) -> list[Physiology]:
    # This is imported here because it loads signal processing for a second, which runs without it should not wait for.
    from data_pipelines.physiology.definitions import DEFINITIONS
    from data_pipelines.physiology.store import open_physiology

    return [open_physiology(dataset, DEFINITIONS[on]) for dataset in recordings.datasets]


def _physiology(settings: ColumnSettings, recordings: Recordings) -> np.ndarray:
    """Returns standardised physiology or its principal components, `f32[n, features]`; NaN where nothing is known."""
    values, names = _measured(recordings)
    train = recordings.split.train
    # Mean and deviation are those of the training side, so that the other sides tell nothing.
    standardizer = Standardizer.fit(values, train, names=names)
    standard = standardizer.transform(values)
    measured = np.asarray(standardizer.mask(values).any(axis=1))
    if settings.components:
        standard = Pca.fit(standard[train[measured[train]]], num_components=settings.components).transform(standard)
    return np.where(measured[:, None], standard, np.float32(np.nan))


def _cluster(settings: ColumnSettings, recordings: Recordings, *, seed: int) -> np.ndarray:
    """Returns the k-means cluster of every recording's wave attributes, `i32[n]`, −1 where an attribute is missing."""
    from sklearn.cluster import MiniBatchKMeans  # The import takes a second, which other runs should not wait for.

    values, names = _measured(recordings)
    chosen = values[:, [names.index(name) for name in CLUSTERED]]
    train, complete = recordings.split.train, np.isfinite(chosen).all(axis=1)
    standard = Standardizer.fit(chosen, train, names=CLUSTERED).transform(chosen)
    fitted = train[complete[train]]
    if len(fitted) < settings.clusters:
        raise ConfigError(
            f"config.columns.clusters={settings.clusters} are more than the {len(fitted)} training records with all of "
            f"{', '.join(CLUSTERED)}"
        )
    # scikit-learn takes seeds of 32 bits only.
    kmeans = MiniBatchKMeans(settings.clusters, random_state=seed % 2**32, n_init=3).fit(standard[fitted])
    return np.where(complete, kmeans.predict(standard), -1).astype(np.int32)
