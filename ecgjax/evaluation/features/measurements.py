"""Measured features that a pretrained encoder has to beat: age and sex, intervals, the median beat."""

from __future__ import annotations

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgjax.data.tasks import BinaryTask, QuantityTask, Task
from ecgjax.evaluation.features.features import SplitFeatures

#: Number of principal components of the median beat.
_COMPONENTS = 40


#: Columns of `demographics`: label of the index, and name in words.
_DEMOGRAPHICS = (("age_years", "age"), ("sex", "sex"))


def demographic_features(of_patients: SplitFeatures, task: Task) -> tuple[SplitFeatures, str]:
    """Leaves out of age and sex the one that the task asks for.

    Args:
        of_patients: Age in years and sex, `f32[n, 2]` in each split.
        task: Task of the probe.

    Returns:
        The remaining columns, and their names in words.
    """
    asked = demographic_columns(task)
    kept = [column for column, known in enumerate(_DEMOGRAPHICS) if known in asked]
    parts = {part: getattr(of_patients, part)[:, kept] for part in ("train", "val", "test")}
    return SplitFeatures(**parts), " and ".join(name for _, name in asked)


def demographic_columns(task: Task) -> list[tuple[str, str]]:
    """Returns label and name of age and sex, without the one that the task asks for."""
    label = task.label if isinstance(task, BinaryTask | QuantityTask) else None
    return [(column, name) for column, name in _DEMOGRAPHICS if column != label]


def median_beat_features(beats: SplitFeatures, intervals: SplitFeatures, *, rr_column: int) -> SplitFeatures:
    """Returns the samples of the median beat and, in the last column, the RR interval.

    Args:
        beats: Median beats, `[n, samples, lead]`, NaN where there is none.
        intervals: Measurements of the same records.
        rr_column: Column of the RR interval in `intervals`.
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
    """Returns a preprocessor that takes 40 principal components of the beat beside the RR interval and scales them.

    A record without a beat gets the median of the training records, and no column marks it as missing.

    Args:
        train_records: Number of records that it will be fitted on, n; at most n − 1 components are taken.
    """
    components = PCA(n_components=max(1, min(_COMPONENTS, train_records - 1)), random_state=0)
    columns = ColumnTransformer([("beat", components, slice(0, -1)), ("rr", "passthrough", [-1])])
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), columns, StandardScaler())
