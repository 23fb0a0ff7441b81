"""Recordings moved towards those of other labels, along the geodesic of optimal transport.

The recordings of a label and those of all others are two empirical distributions. Optimal transport couples their
members so that what is physiologically alike comes together, and the geodesic between the distributions moves each
recording along the straight line to its partner.

References:
    Zhu et al., GeoECG: data augmentation via Wasserstein geodesic perturbation for robust electrocardiogram prediction,
    MLHC 2022 (arXiv 2208.01220). McCann, A convexity principle for interacting gases, 1997 (the geodesic). Cuturi,
    Sinkhorn distances, NeurIPS 2013.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.augmentations.beats import peak_positions, r_peaks


def transport_partners(
    key: Array,
    physiology: Array,
    label: Array,
    *,
    regularisation: float = 0.05,
    iterations: int = 100,
) -> Array:
    """Draws each row's partner of another label from the optimal transport plan between its label and the others.

    The ground metric is the squared distance of standardised physiology: intervals, amplitudes, slopes. By its nature a
    row's partner depends on who else is in the batch.

    Args:
        key: of the step, `key[]`.
        physiology: `f32[batch, features]`, standardised, without NaN.
        label: `i32[batch]`.
        regularisation: entropic, as a share of the mean cost between labels.
        iterations: of Sinkhorn's, each of batch³ multiplications.

    Returns:
        `i32[batch]`, row numbers; a row's own where there is no other label.
    """
    same = label[:, None] == label[None, :]
    squares = jnp.sum(jnp.square(physiology), 1)
    product = jnp.matmul(physiology, physiology.T, precision=jax.lax.Precision.HIGHEST)
    cost = jnp.maximum(squares[:, None] + squares[None, :] - 2 * product, 0)
    others = jnp.maximum(jnp.sum(~same), 1).astype(jnp.float32)
    scale = regularisation * jnp.maximum(jnp.sum(jnp.where(same, 0, cost)) / others, 1e-12)
    # The cheapest partner's kernel is 1, so that no row of the kernel vanishes in float32.
    logits = jnp.where(same, -jnp.inf, -cost / scale)
    alone = same.all(1)
    logits = logits - jnp.where(alone, 0, logits.max(1))[:, None]
    kernel = jnp.exp(logits)
    of_label = same.astype(jnp.float32)
    members = of_label.sum(1)
    # Every recording of a label sends a mass of one; each of the others receives an equal share of them.
    share = members / jnp.maximum(len(label) - members, 1)

    def iterate(columns: Array, _: None) -> tuple[Array, None]:
        rows = 1 / jnp.maximum(jnp.sum(kernel * columns, 1), 1e-30)
        received = jnp.matmul(of_label, kernel * rows[:, None], precision=jax.lax.Precision.HIGHEST)
        return share[:, None] / jnp.maximum(received, 1e-30), None

    columns, _ = jax.lax.scan(iterate, jnp.ones_like(kernel), None, length=iterations)
    drawn = jax.random.categorical(key, jnp.log(jnp.maximum(kernel * columns, 1e-30)) + jnp.where(same, -jnp.inf, 0))
    return jnp.where(alone, jnp.arange(len(label)), drawn)


def wasserstein_geodesic(key: Array, ecg: Array, other: Array, *, rate_hz: float, max_step: float = 0.5) -> Array:
    """Moves a recording a step of U(0, max) of the way towards its partner of another label, beat for beat.

    The partner's beats are laid over those of the recording, R peak on R peak, each with its own half of the intervals
    before and after; where those are shorter, the level at their ends goes on. So rhythm and rate are the recording's,
    and shape moves. The label stays, up to half of the way.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`.
        other: `f32[time, lead]`, the partner.
        rate_hz: samples per second.
        max_step: 0 to .5.

    Returns:
        `f32[time, lead]`; as it was where either has fewer than two R peaks.
    """
    peaks = [peak_positions(r_peaks(one, rate_hz=rate_hz), rate_hz=rate_hz) for one in (ecg, other)]
    step = jax.random.uniform(key, (), jnp.float32, 0.0, max_step)
    position = _overlay(*peaks, num_samples=len(ecg))
    enough = (peaks[0][1] < len(ecg)) & (peaks[1][1] < len(other))
    return jnp.where(enough, ecg + step * (other[position] - ecg), ecg)


def _overlay(peaks: Array, others: Array, *, num_samples: int) -> Array:
    """Which sample of the other recording lies over each sample of the first, `i32[num_samples]`.

    Args:
        peaks: of the first, `i32[peaks]` ascending, `num_samples` where there is none.
        others: of the other recording, likewise.
        num_samples: of each.
    """
    time = jnp.arange(num_samples)
    distance = jnp.abs(time[:, None] - peaks[None, :])
    nearest = jnp.argmin(jnp.where(peaks[None, :] < num_samples, distance, num_samples), 1)
    count = jnp.maximum(jnp.sum(others < num_samples), 1)
    beat = nearest % count
    # Half of the way to the neighbours; beyond the first and the last R peak to the ends.
    before = jnp.where(beat > 0, (others[beat] - others[beat - 1]) // 2, others[beat])
    after = jnp.where(
        beat < count - 1,
        (others[jnp.minimum(beat + 1, len(others) - 1)] - others[beat]) // 2,
        num_samples - 1 - others[beat],
    )
    return others[beat] + jnp.clip(time - peaks[nearest], -before, after)
