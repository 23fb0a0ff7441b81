"""Preprocessing of measured features for a model, and the choice of age and sex as features for a task.

Measured features of a record stand in this order where a model has several blocks of them: intervals and amplitudes,
then the median beat with the RR interval, then an embedding (`measured_preprocessor`).
"""

from __future__ import annotations

from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.physiology import median_beat
from data_pipelines.records import STORED_LEADS
from ecgjax.data.tasks import Task

#: Number of principal components of the median beat.
_COMPONENTS = 40

#: Label of age and of sex in an index, and its name in words.
_DEMOGRAPHICS = (("age_years", "age"), ("sex", "sex"))


def demographic_columns(task: Task) -> list[tuple[str, str]]:
    """Returns column and name of age and of sex, without the one that the task predicts."""
    label = getattr(task, "label", None)
    return [(column, name) for column, name in _DEMOGRAPHICS if column != label]


def interval_preprocessor() -> Pipeline:
    """Returns a preprocessor that imputes medians, adds columns that mark missing values, and standardises."""
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )


def median_beat_preprocessor(*, train_records: int) -> Pipeline:
    """Returns a preprocessor that reduces the median beat to 40 principal components and standardises them with RR.

    A record without a beat gets the median of the training records, and no column marks it as missing.

    Args:
        train_records: Number of records that it will be fitted on, n; at most n − 1 components are taken.
    """
    components = PCA(n_components=max(1, min(_COMPONENTS, train_records - 1)), random_state=0)
    columns = ColumnTransformer([("beat", components, slice(0, -1)), ("rr", "passthrough", [-1])])
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), columns, StandardScaler())


def measured_preprocessor(*, train_records: int, embedding: bool) -> ColumnTransformer:
    """Returns a preprocessor of intervals, median beat and an embedding side by side, each block standardised.

    Intervals and median beat are preprocessed as for the models of their own.

    Args:
        train_records: Number of records that it will be fitted on.
        embedding: Whether an embedding stands behind the median beat.
    """
    intervals = len(median_beat.NAMES)
    beat = intervals + median_beat.BEAT_SAMPLES * len(STORED_LEADS) + 1
    return ColumnTransformer(
        [
            ("intervals", interval_preprocessor(), slice(0, intervals)),
            ("beat", median_beat_preprocessor(train_records=train_records), slice(intervals, beat)),
            *([("embedding", StandardScaler(), slice(beat, None))] if embedding else []),
        ]
    )
