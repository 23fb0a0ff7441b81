"""What a pretrained encoder has to beat without any network: age and sex, measurements, the median beat."""

from __future__ import annotations

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from ecgjax.evaluation.comparison import Contender
from ecgjax.evaluation.features import SplitFeatures
from ecgjax.evaluation.labels import ProbeData
from ecgjax.evaluation.metrics import auroc, undefined_reason
from ecgjax.evaluation.tasks import BinaryTask, QuantityTask, Task

#: Leaves of the trees to choose from, and how many trees there are to choose from of each.
_LEAVES = (4, 15)
_TREES = 150
_LEARNING_RATE = 0.05

#: Principal components of the median beat.
_COMPONENTS = 40


#: Columns of `demographics`: label of the index, and name in words.
_DEMOGRAPHICS = (("age_years", "age"), ("sex", "sex"))


def boosted_contender(features: SplitFeatures, data: ProbeData, *, title: str, seed: int) -> Contender:
    """Fits gradient-boosted trees, size and number of trees chosen on validation; missing values are a branch.

    Args:
        features: measurements, NaN where missing.
        data: the labelled records.
        title: as in the table.
        seed: of the trees.

    Raises:
        DataError: train or validation lacks a class.
    """
    for split, part in (("train", data.train), ("validation", data.val)):
        if reason := undefined_reason(part.labels):
            raise DataError(f"no trees can be fitted: {reason} in the {split} split")
    best, best_auroc = (0, 0), -np.inf
    scores: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    for leaves in _LEAVES:
        model = HistGradientBoostingClassifier(
            max_leaf_nodes=leaves,
            max_iter=_TREES,
            learning_rate=_LEARNING_RATE,
            early_stopping=False,
            random_state=seed,
        ).fit(features.train, data.train.labels)
        staged = zip(
            model.staged_decision_function(features.val), model.staged_decision_function(features.test), strict=True
        )
        for trees, (val, test) in enumerate(staged, start=1):
            if (value := auroc(data.val.labels, val.ravel())) > best_auroc:
                best, best_auroc = (leaves, trees), value
                scores[best] = (val.ravel().copy(), test.ravel().copy())
    leaves, trees = best
    return Contender(
        title=title,
        scores=scores[best][1],
        val_scores=scores[best][0],
        val_auroc=best_auroc,
        selected=f"{trees} trees of {leaves} leaves",
        num_features=features.train.shape[1],
    )


def demographic_features(of_patients: SplitFeatures, task: Task) -> tuple[SplitFeatures, str]:
    """Leaves out of age and sex what the task asks for.

    Args:
        of_patients: age in years and sex, `f32[n, 2]` of each part.
        task: what is asked.

    Returns:
        The others, and their name.
    """
    label = task.label if isinstance(task, BinaryTask | QuantityTask) else None
    kept = [column for column, (name, _) in enumerate(_DEMOGRAPHICS) if name != label]
    parts = {part: getattr(of_patients, part)[:, kept] for part in ("train", "val", "test")}
    return SplitFeatures(**parts), " and ".join(_DEMOGRAPHICS[column][1] for column in kept)


def median_beat_features(beats: SplitFeatures, intervals: SplitFeatures, *, rr_column: int) -> SplitFeatures:
    """Returns the samples of the median beat and, in the last column, the RR interval.

    Args:
        beats: `[n, samples, lead]`, NaN where there is none.
        intervals: measurements of the same records.
        rr_column: that of the RR interval.
    """
    return SplitFeatures(
        **{
            name: np.c_[
                getattr(beats, name).reshape(len(getattr(beats, name)), -1), getattr(intervals, name)[:, rr_column]
            ]
            for name in ("train", "val", "test")
        }
    )


def median_beat_preprocessor(*, train_records: int) -> Pipeline:
    """Returns 40 principal components of the beat and the RR interval, brought to one scale.

    A record without a beat has the median of all, and nothing that tells.

    Args:
        train_records: that it will be fitted on; fewer than 40 have as many components less one.
    """
    components = PCA(n_components=max(1, min(_COMPONENTS, train_records - 1)), random_state=0)
    columns = ColumnTransformer([("beat", components, slice(0, -1)), ("rr", "passthrough", [-1])])
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), columns, StandardScaler())
