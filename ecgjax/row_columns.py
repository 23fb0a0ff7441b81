"""What relations and miners look at of a recording: columns over all recordings, beside patient and signal.

Only what the chosen relation or miner needs is read, fitted or streamed, and fitted on training records alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections
import numpy as np

from data_pipelines.physiology_standard import Pca, Standardizer
from ecgjax.errors import ConfigError
from ecgjax.evaluation.labels import ProbeTask
from ecgjax.recordings import Recordings

#: Relation or miner → columns of `objectives.relations.Rows` that it looks at and that are not streamed in any case.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "similar_physiology": ("physiology",),
    "same_cluster": ("cluster",),
    "same_demographics": ("sex", "age"),
    "same_label": ("label",),
    "label_distance": ("label",),
}

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


def row_columns(config: ml_collections.ConfigDict, recordings: Recordings) -> dict[str, np.ndarray]:
    """Returns the columns that the config's relation and miner look at.

    Args:
        config: with `relation.name`, `miner.name` and the section `columns`.
        recordings: opened by it.

    Returns:
        Name → `[n, …]` over all recordings, of the types of `Rows`.

    Raises:
        ConfigError: the section says nothing of what is needed.
        DataError: a data set has no such label, or its physiology was never measured.
    """
    needed = {column for name in (config.relation.name, config.miner.name) for column in NEEDS.get(name, ())}
    makers = {
        "physiology": lambda: _physiology(config.columns, recordings),
        "cluster": lambda: _cluster(config.columns, recordings, seed=config.seed),
        "sex": lambda: _sex(recordings),
        "age": lambda: recordings.index.label("age_years"),
        "label": lambda: _label(config.columns, recordings),
    }
    return {name: makers[name]() for name in sorted(needed)}


def _sex(recordings: Recordings) -> np.ndarray:
    sex = recordings.index.label("sex")
    return np.where(np.isnan(sex), -1, sex).astype(np.int32)


def _label(columns: ml_collections.ConfigDict, recordings: Recordings) -> np.ndarray:
    if not columns.label:
        raise ConfigError("this relation or miner looks at labels: name one in config.columns.label, such as 'lvef'")
    values = recordings.index.label(columns.label)
    if columns.rule == VALUES:
        if columns.threshold is not None:
            raise ConfigError(f"config.columns.rule={VALUES!r} takes no threshold")
        return values
    task = ProbeTask(label=columns.label, rule=columns.rule, threshold=columns.threshold, section="config.columns")
    return task.answer(values).astype(np.float32)


def _measured(recordings: Recordings) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the physiology vectors of all recordings, `f32[n, measurements]`, and the measurements' names."""
    # Here, because it loads signal processing, a second that runs without it should not wait.
    from data_pipelines.physiology_store import open_physiology

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
