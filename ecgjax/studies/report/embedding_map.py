"""Embeddings in the plane: the two directions in which they vary most."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from ecgjax.evaluation.metrics.retrieval import unit_length

#: Records that are drawn; of more, so many at random. Clouds of more are no easier to read.
MAX_POINTS = 3000

# Told apart without colour, too.
_NEGATIVE = {"marker": "o", "color": "#1f6fb4", "s": 9, "alpha": 0.45, "linewidths": 0}
_POSITIVE = {"marker": "^", "color": "#b3202c", "s": 16, "alpha": 0.75, "linewidths": 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingMap:
    """Embeddings projected.

    Attributes:
        points: `f64[n, 2]`.
        shares: of the variance, along the two axes.
    """

    points: np.ndarray
    shares: tuple[float, float]


def project(embeddings: np.ndarray) -> EmbeddingMap:
    """Projects embeddings of unit length on their first two principal components.

    Distances in the plane are never larger than those between the embeddings, of which the rest of this evaluation
    takes the cosine; without a seed or a setting, the same embeddings give the same map.

    Args:
        embeddings: `[n, dim]`.

    Raises:
        DataError: an embedding is not finite, or zero.
    """
    unit = unit_length(embeddings)
    components = min(2, *unit.shape)
    points, shares = np.zeros((len(unit), 2)), np.zeros(2)
    if np.ptp(unit, axis=0).any():  # Embeddings that are all the same have no directions.
        fitted = PCA(n_components=components, svd_solver="full")
        points[:, :components] = fitted.fit_transform(unit)
        shares[:components] = fitted.explained_variance_ratio_
    return EmbeddingMap(points=points, shares=(float(shares[0]), float(shares[1])))


def map_figure(projected: EmbeddingMap, *, labels: np.ndarray, title: str, seed: int) -> Figure:
    """Draws a map coloured by label.

    Args:
        projected: from `project`.
        labels: `[n]` of 0 and 1.
        title: above it.
        seed: of which records are drawn where there are more than `MAX_POINTS`, and in which order: positives drawn
            last would hide the others.
    """
    order = _order(len(labels), seed)
    figure, axes = _plane(projected, title)
    blocks = np.array_split(order, min(40, len(order)))
    for block in blocks:
        for which, style in ((0, _NEGATIVE), (1, _POSITIVE)):
            chosen = block[labels[block] == which]
            axes.scatter(*projected.points[chosen].T, **style)
    for style, name in ((_NEGATIVE, "negative"), (_POSITIVE, "positive")):
        axes.scatter([], [], label=name, **{**style, "alpha": 1.0})
    axes.legend(frameon=False, loc="best", fontsize=9)
    return figure


def values_map_figure(projected: EmbeddingMap, *, values: np.ndarray, name: str, title: str, seed: int) -> Figure:
    """Draws a map coloured by a quantity, its lowest and highest fiftieth in the colours of the ends.

    Args:
        projected: from `project`.
        values: `[n]`.
        name: of the quantity, with its unit.
        title: above it.
        seed: as of `map_figure`.
    """
    order = _order(len(values), seed)
    figure, axes = _plane(projected, title)
    low, high = np.quantile(values, (0.02, 0.98))
    points = axes.scatter(
        *projected.points[order].T, c=values[order], vmin=low, vmax=high, cmap="viridis", s=9, alpha=0.7, linewidths=0
    )
    figure.colorbar(points, ax=axes, label=name, shrink=0.8).solids.set_alpha(1)
    return figure


def _order(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(number)[:MAX_POINTS]


def _plane(projected: EmbeddingMap, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(f"first component, {projected.shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second component, {projected.shares[1]:.0%}")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
