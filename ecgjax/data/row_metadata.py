"""What relations, miners and augmentations look at of a recording beside patient and signal: columns over all of them.

Only what is chosen and needs it is read, fitted or streamed, and fitted on training records alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections
import numpy as np

from data_pipelines.physiology.paired_embeddings import PairedEmbeddings, open_paired
from data_pipelines.physiology.standardise import Pca, Standardizer
from ecgjax.augmentations import partners
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import BinaryTask
from ecgjax.errors import ConfigError

#: Relation, miner or loss → columns that it looks at and that are not streamed in any case: of
#: `objectives.relations.Rows`, and `paired`.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "similar_physiology": ("physiology",),
    "same_cluster": ("cluster",),
    "same_demographics": ("sex", "age"),
    "same_label": ("label",),
    "label_distance": ("label",),
    "clip": ("paired", "pair_group"),
}

#: Column → values over all recordings; partners of another modality are read row by row.
Columns = dict[str, np.ndarray | PairedEmbeddings]

#: Rule of `config.columns` that takes a label's values as they are: classes, or for regression.
VALUES = "values"

#: Measurements that wave-attribute clusters are made of (Jeong et al. 2024 take 11 such).
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


def needed_columns(config: ml_collections.ConfigDict) -> set[str]:
    """Returns names of the columns that the config's relation, miner, loss, task and augmentations look at."""
    chosen = (config.relation.name, config.miner.name, config.objective.name)
    needed = {column for name in chosen for column in NEEDS.get(name, ())} | set(partners.needs(config.augment))
    return needed | ({"label"} if config.task.name else set())


def labels_looked_at(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the labels of recordings that a pretraining knows: by its columns, and by balanced batches."""
    labels = [config.columns.label] if "label" in needed_columns(config) else []
    return tuple(dict.fromkeys(filter(None, (*labels, config.sampling.balance.label))))


def row_columns(config: ml_collections.ConfigDict, recordings: Recordings) -> Columns:
    """Returns the columns that the config's relation, miner, loss, task and augmentations look at.

    Args:
        config: with `objective.name`, `relation.name`, `miner.name`, `task.name` and the sections `columns` and
            `augment`.
        recordings: opened by it.

    Returns:
        Name → `[n, …]` over all recordings, of the types of `Rows`; `paired`, `f32[n, dim]`, is read row by row.

    Raises:
        ConfigError: the section says nothing of what is needed.
        DataError: a data set has no such label, or its physiology was never measured.
    """
    needed = needed_columns(config)
    makers = {
        "physiology": lambda: _physiology(config.columns, recordings),
        "cluster": lambda: _cluster(config.columns, recordings, seed=config.seed),
        "sex": lambda: _sex(recordings),
        "age": lambda: recordings.index.label("age_years"),
        "label": lambda: label_column(config.columns, recordings),
    }
    columns: Columns = {name: make() for name, make in makers.items() if name in needed}
    if partners.needs(config.augment):
        _check_two_labels(config.columns, columns["label"][recordings.split.train])
    if "paired" in needed:
        columns["paired"], columns["pair_group"] = _paired(config.columns.paired, recordings)
    return columns


def _paired(directories: str, recordings: Recordings) -> tuple[PairedEmbeddings, np.ndarray]:
    parts = [part.strip() for part in directories.split(",")]
    if not all(parts) or len(parts) != len(recordings.datasets):
        raise ConfigError(
            f"config.columns.paired={directories!r} must name a folder of embedding.npy and record_id.npy for each of "
            f"the {len(recordings.datasets)} data sets, with commas between"
        )
    return open_paired(parts, [dataset.index.record_id for dataset in recordings.datasets])


def _sex(recordings: Recordings) -> np.ndarray:
    sex = recordings.index.label("sex")
    return np.where(np.isnan(sex), -1, sex).astype(np.int32)


def label_column(columns: ml_collections.ConfigDict, recordings: Recordings) -> np.ndarray:
    """Returns the labels that `config.columns` names, `f32[n]` over all recordings, NaN where unknown.

    Raises:
        ConfigError: no label is named, or a threshold stands beside a rule that takes none.
        DataError: a data set has no such label, or the rule does not suit it.
    """
    if not columns.label:
        raise ConfigError(
            "this relation, miner, task or augmentation looks at labels: name one in config.columns.label, such as "
            "'lvef'"
        )
    values = recordings.index.label(columns.label)
    if columns.rule == VALUES:
        if columns.threshold is not None:
            raise ConfigError(f"config.columns.rule={VALUES!r} takes no threshold")
        return values
    task = BinaryTask(label=columns.label, rule=columns.rule, threshold=columns.threshold, section="config.columns")
    return task.answer(values).astype(np.float32)


def _check_two_labels(columns: ml_collections.ConfigDict, labels: np.ndarray) -> None:
    """Refuses labels between which no recording can be moved."""
    if columns.rule == VALUES:
        raise ConfigError(
            f"config.augment.geodesic moves recordings between two labels; config.columns.rule={VALUES!r} gives "
            "values: set it to 'present', or to 'below' or 'above' and a config.columns.threshold"
        )
    if missing := [value for value in (0, 1) if not (labels == value).any()]:
        raise ConfigError(
            f"config.augment.geodesic moves recordings between two labels, and no training record has the label "
            f"{missing[0]} of config.columns.label={columns.label!r}, rule={columns.rule!r}, "
            f"threshold={columns.threshold}; choose others"
        )


def _measured(recordings: Recordings) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the physiology vectors of all recordings, `f32[n, measurements]`, and the measurements' names."""
    # Here, because it loads signal processing, a second that runs without it should not wait.
    from data_pipelines.physiology.store import open_physiology

    opened = [open_physiology(dataset) for dataset in recordings.datasets]
    return np.concatenate([physiology.values for physiology in opened]), opened[0].names


def _physiology(columns: ml_collections.ConfigDict, recordings: Recordings) -> np.ndarray:
    """Returns standardised vectors, reduced to principal components; NaN for recordings without any measurement."""
    values, names = _measured(recordings)
    train = recordings.split.train
    standardizer = Standardizer.fit(values, train, names=names)
    standard = standardizer.transform(values)
    measured = standardizer.mask(values).any(axis=1)
    if columns.components:
        standard = Pca.fit(standard[train[measured[train]]], num_components=columns.components).transform(standard)
    return np.where(measured[:, None], standard, np.float32(np.nan))


def _cluster(columns: ml_collections.ConfigDict, recordings: Recordings, *, seed: int) -> np.ndarray:
    """Returns the k-means cluster of every recording's wave attributes, −1 where one of them is missing."""
    from sklearn.cluster import MiniBatchKMeans  # A second to import, which no other run should wait.

    values, names = _measured(recordings)
    chosen = values[:, [names.index(name) for name in CLUSTERED]]
    train, complete = recordings.split.train, np.isfinite(chosen).all(axis=1)
    standard = Standardizer.fit(chosen, train, names=CLUSTERED).transform(chosen)
    fitted = train[complete[train]]
    if len(fitted) < columns.clusters:
        raise ConfigError(
            f"config.columns.clusters={columns.clusters} are more than the {len(fitted)} training records with all of "
            f"{', '.join(CLUSTERED)}"
        )
    kmeans = MiniBatchKMeans(columns.clusters, random_state=seed, n_init=3).fit(standard[fitted])
    return np.where(complete, kmeans.predict(standard), -1).astype(np.int32)
