"""Models without a network that stand beside an encoder in a comparison."""

from __future__ import annotations

from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.studies.comparison import Contender


def boosted_contender(features: SplitFeatures, data: ProbeData, *, title: str, seed: int) -> Contender:
    """Fits gradient-boosted trees; see `boosted.fit_boosted`.

    Args:
        features: measurements, NaN where missing.
        data: the labelled records.
        title: as in the table.
        seed: of the trees.

    Raises:
        DataError: train or validation lacks a class.
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
