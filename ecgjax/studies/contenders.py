"""Models without a network that an encoder is compared with."""

from __future__ import annotations

from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.studies.comparison import Contender


def boosted_contender(features: SplitFeatures, data: ProbeData, *, title: str, seed: int) -> Contender:
    """Fits gradient-boosted trees with `boosted.fit_boosted`.

    Args:
        features: Measurements of each split, NaN where missing.
        data: Labelled records of the task.
        title: Title of the model in tables.
        seed: Seed of the trees.

    Raises:
        DataError: The training or validation records lack one of the two labels.
    """
    probe = fit_boosted(
        data.task.kind,
        features.train,
        data.train.labels,
        val_features=features.val,
        val_targets=data.val.labels,
        classes=data.classes,
        seed=seed,
    )
    return Contender(
        title=title,
        scores=probe.predict(features.test),
        val_scores=probe.predict(features.val),
        val_auroc=probe.val_metric,
        selected=probe.selected,
        num_features=features.train.shape[1],
    )
