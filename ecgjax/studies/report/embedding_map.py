"""Maps of embeddings: projections on their first two principal components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from ecgjax.evaluation.metrics.retrieval import unit_length
from ecgjax.studies.report.forest import alone

#: Largest number of records that are drawn, chosen at random: larger clouds are no easier to read.
MAX_POINTS = 3000


# The markers differ, so that labels can be told apart without colour.
_STYLES: Mapping[int, Mapping[str, Any]] = {
    0: {"marker": "o", "color": "#1f6fb4", "s": 9, "alpha": 0.45, "linewidths": 0},
    1: {"marker": "^", "color": "#b3202c", "s": 16, "alpha": 0.75, "linewidths": 0},
}


class EmbeddingMap(NamedTuple):
    """Embeddings projected on a plane.

    Attributes:
        points: Coordinates of the records, `f64[n, 2]`.
        shares: Shares of the variance along the two axes.
    """

    points: np.ndarray
    shares: tuple[float, float]


def project(embeddings: np.ndarray) -> EmbeddingMap:
    """Projects embeddings on their first two principal components, after scaling each to unit length.

    Distances in the plane never exceed those between the scaled embeddings, whose cosines the rest of the evaluation
    compares. The projection is deterministic.

    Args:
        embeddings: Embeddings of the records, `[n, dim]`.

    Raises:
        DataError: An embedding is not finite, or zero.
    """
    unit = unit_length(embeddings)
    components = min(2, *unit.shape)
    points, shares = np.zeros((len(unit), 2)), np.zeros(2)
    if np.ptp(unit, axis=0).any():  # Embeddings that are all equal have no principal directions.
        fitted = PCA(n_components=components, svd_solver="full")
        points[:, :components] = fitted.fit_transform(unit)
        shares[:components] = fitted.explained_variance_ratio_
    return EmbeddingMap(points=points, shares=(float(shares[0]), float(shares[1])))


def map_figure(projected: EmbeddingMap, *, labels: np.ndarray, title: str, seed: int) -> Figure:
    """Draws a map coloured by label.

    Args:
        projected: Map from `project`.
        labels: Labels of the records, `[n]` of 0 and 1.
        title: Title above the map.
        seed: Seed of the random order in which points are drawn, since positives drawn last would hide the others; and
            of the choice of records if there are more than `MAX_POINTS`.
    """
    order = _order(len(labels), seed)
    figure, axes = _plane(projected, title)
    # The labels take turns, since those drawn last would hide the others.
    for block in np.array_split(order, min(40, len(order))):
        for which, style in _STYLES.items():
            axes.scatter(*projected.points[block[labels[block] == which]].T, **style)
    # Points of the legend are opaque, since there are few of them.
    for which, name in enumerate(("negative", "positive")):
        axes.scatter([], [], label=name, **{**_STYLES[which], "alpha": 1})
    axes.legend(frameon=False, loc="best", fontsize=9)
    return figure


def values_map_figure(projected: EmbeddingMap, *, values: np.ndarray, name: str, title: str, seed: int) -> Figure:
    """Draws a map coloured by a quantity; its lowest and highest 2 % have the colours at the ends of the scale.

    Args:
        projected: Map from `project`.
        values: Values of the quantity, `[n]`.
        name: Name of the quantity, with its unit.
        title: Title above the map.
        seed: Seed of the random order in which records are drawn, and of their choice if there are more than
            `MAX_POINTS`.
    """
    order = _order(len(values), seed)
    figure, axes = _plane(projected, title)
    low, high = np.quantile(values, (0.02, 0.98))
    drawn = projected.points[order]
    points = axes.scatter(
        drawn[:, 0], drawn[:, 1], c=values[order], vmin=low, vmax=high, cmap="viridis", s=9, alpha=0.7, linewidths=0
    )
    if (solids := figure.colorbar(points, ax=axes, label=name, shrink=0.8).solids) is not None:
        solids.set_alpha(1)
    return figure


def _order(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(number)[:MAX_POINTS]


def _plane(projected: EmbeddingMap, title: str) -> tuple[Figure, Axes]:
    figure, axes = alone((5.6, 5.2))
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(f"first component, {projected.shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second component, {projected.shares[1]:.0%}")
    axes.set_aspect("equal", adjustable="datalim")
    return figure, axes
