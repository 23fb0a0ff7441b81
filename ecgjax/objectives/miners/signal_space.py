"""Search for the recordings that are nearest and farthest in signal space, over the global batch.

Signals are compared as they are given: downsample them first, and take the view that is to be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.miners.search import candidates
from ecgjax.objectives.miners.winners import Winners
from ecgjax.objectives.pairs.distances import centred, safe_sqrt, squared_euclidean_matrix
from ecgjax.objectives.pairs.relations import Rows
from ecgjax.objectives.pairs.tiles import Exchanged, Tiling, exchange, fold, positions, take
from ecgjax.placement.target import for_cpu

#: Elements of running sums that a block of anchors may hold at a time: few on CPUs, where they should stay in the
#: cache, and many on accelerators, which need enough to do.
_CPU_BLOCK, _ACCELERATOR_BLOCK = 2**15, 2**24

#: `(f32[anchors, time, lead], f32[keys, time, lead]) → f32[anchors, keys]`.
SignalDistance = Callable[[Array, Array], Array]


class Neighbours(NamedTuple):
    """Nearest and farthest rows in signal space, by row numbers; −1 where there is none.

    Attributes:
        nearest: Nearest row of another recording, `i32[rows]`.
        nearest_record: Record of the nearest row, `i32[rows]`.
        farthest: Farthest rows of other patients, the farthest first, `i32[rows, num]`.
    """

    nearest: Array
    nearest_record: Array
    farthest: Array


def downsample(signals: Array, factor: int) -> Array:
    """Downsamples signals to the means of blocks of samples.

    Args:
        signals: Signals, `f32[rows, time, lead]`.
        factor: Number of samples in a block; samples left over at the end are left out.

    Returns:
        Downsampled signals, `f32[rows, time // factor, lead]`.

    Raises:
        ConfigError: A block would be longer than the signal.
    """
    rows, time, leads = signals.shape
    if not 1 <= factor <= time:
        raise ConfigError(f"signals of {time} samples cannot be downsampled by {factor}")
    whole = time // factor * factor
    return signals[:, :whole].reshape(rows, time // factor, factor, leads).mean(2)


def l1(anchors: Array, keys: Array) -> Array:
    """Returns the mean absolute difference over time and leads, in the unit of the signals.

    Args:
        anchors: Signals of the anchors, `f32[anchors, time, lead]`.
        keys: Signals of the keys, `f32[keys, time, lead]`.

    Returns:
        Distances, `f32[anchors, keys]`.
    """
    num_keys, samples = keys.shape[0], keys.shape[1] * keys.shape[2]
    # The keys form the last axis, so that the sums over the other axis are vectorised.
    others = keys.reshape(num_keys, samples).T

    def row(anchor: Array) -> Array:
        return jnp.abs(anchor.reshape(samples)[:, None] - others).sum(0)

    return _by_anchors(row, anchors, state=num_keys) / samples


def l2(anchors: Array, keys: Array) -> Array:
    """Returns the root of the mean squared difference over time and leads, in the unit of the signals.

    It is computed by inner products, which lose digits between signals much nearer to each other than to zero.
    Therefore `nearest_and_farthest` first subtracts a common signal (`distances.centred`).

    Args:
        anchors: Signals of the anchors, `f32[anchors, time, lead]`.
        keys: Signals of the keys, `f32[keys, time, lead]`.

    Returns:
        Distances, `f32[anchors, keys]`.
    """
    samples = keys.shape[1] * keys.shape[2]
    squared = squared_euclidean_matrix(anchors.reshape(-1, samples), keys.reshape(-1, samples))
    return safe_sqrt(squared / samples)


def dtw(anchors: Array, keys: Array, *, radius: int) -> Array:
    """Returns distances by dynamic time warping within a Sakoe-Chiba band; all leads are warped together.

    The cost of matching sample i of one signal to sample j of the other is the mean over leads of their absolute
    difference. The distance is the least sum along a path of steps (1, 0), (0, 1) and (1, 1) from the first samples to
    the last with |i − j| ≤ radius, divided by the number of samples. With radius 0 it is `l1`.

    Its cost grows with samples × (2 radius + 1) × leads. Measured on two shared CPU cores with 8 leads, all pairs of a
    batch (at 250 samples and 1,024 rows `l1` took .6 and `l2` .06 µs a pair):

    | samples | radius | µs a pair | 64 rows | 256 rows | 1,024 rows |
    |---|---|---|---|---|---|
    | 100 | 5 | 8–10 | .03 s | .7 s | 9 s |
    | 100 | 10 | 14–20 | .08 s | 1.2 s | 15 s |
    | 250 | 12 | 54–69 | .2 s | 4.5 s | not run |
    | 250 | 25 | 95–142 | .6 s | 6.2 s | not run |

    Args:
        anchors: Signals of the anchors, `f32[anchors, time, lead]`.
        keys: Signals of the keys, `f32[keys, time, lead]`.
        radius: Radius of the band, in samples.

    Returns:
        Distances, `f32[anchors, keys]`, in the unit of the signals.

    Raises:
        ConfigError: The radius is negative.

    References:
        Sakoe and Chiba, Dynamic programming algorithm optimization for spoken word recognition, IEEE TASSP 1978.
    """
    if radius < 0:
        raise ConfigError(f"radius={radius} of a Sakoe-Chiba band must not be negative")
    num_keys, time, leads = keys.shape
    radius = min(radius, time - 1)
    # The cells of one anti-diagonal do not depend on each other, so that a whole one is computed at a time.
    #
    # 1. Lay out the band. Cell (i, j) lies on the anti-diagonal i + j and has the offset i − j. An even anti-diagonal
    #    2t has only even offsets 2m, m from −even to even, at i = t + m and j = t − m. The odd one after it has the
    #    offsets 2m + 1, m from −odd to odd − 1, at i = t + m + 1 and j = t − m. Each offset keeps its latest cell. For
    #    the next cell on an offset, that is the diagonal predecessor, and the latest cells of the two neighbouring
    #    offsets are the predecessors to the left and above. Padding lets slices reach beyond the signals.
    even, odd = radius // 2, (radius + 1) // 2
    pad = radius + 1
    transposed = jnp.pad(jnp.transpose(keys, (1, 2, 0)), ((pad, pad), (0, 0), (0, 0)))[::-1]

    # 2. Match samples: the cost of a cell is their absolute difference, summed over leads.
    def costs(anchor: Array, first_i: Array, first_j: Array, width: int) -> Array:
        """Returns the costs of a run of cells, `f32[width, keys]`, ∞ outside the signals.

        Along the run i rises from `first_i` and j falls from `first_j`.

        Args:
            anchor: Signal of the anchor, padded on both sides, `f32[pad + time + pad, lead]`.
            first_i: Position of the first cell in the anchor's signal.
            first_j: Position of the first cell in the keys' signals.
            width: Number of cells.
        """
        i, j = first_i + jnp.arange(width, dtype=jnp.int32), first_j - jnp.arange(width, dtype=jnp.int32)
        of_anchor = jax.lax.dynamic_slice_in_dim(anchor, first_i + pad, width)
        of_keys = jax.lax.dynamic_slice_in_dim(transposed, time - 1 + pad - first_j, width)
        total = jnp.zeros((width, num_keys), jnp.float32)
        for lead in range(leads):  # Leads are added one by one, so that the sum is the same in any program.
            total += jnp.abs(of_anchor[:, lead, None] - of_keys[:, lead, :])
        inside = (i >= 0) & (i < time) & (j >= 0) & (j < time)
        return jnp.where(inside[:, None], total, jnp.inf)

    # 3. Extend the cheapest of the three paths that lead to a cell by its cost.
    def advance(cells: Array, beside: Array, cost: Array) -> Array:
        """Returns the next cell of each offset, `f32[offsets, keys]`; where the cost is ∞ the cell stays."""
        if beside.shape[0] < cells.shape[0]:  # The band ends with these offsets on both sides.
            beside = jnp.pad(beside, ((1, 1), (0, 0)), constant_values=jnp.inf)
        best = jnp.minimum(jnp.minimum(beside[:-1], beside[1:]), cells)
        return jnp.where(jnp.isfinite(cost), cost + best, cells)

    # 4. Go through all anti-diagonals from the first samples to the last, where the path ends on offset 0.
    def row(anchor: Array) -> Array:
        anchor = jnp.pad(anchor, ((pad, pad), (0, 0)))

        def step(state: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
            on_even, on_odd = state
            on_even = advance(on_even, on_odd, costs(anchor, t - even, t + even, 2 * even + 1))
            if odd:
                on_odd = advance(on_odd, on_even, costs(anchor, t - odd + 1, t + odd, 2 * odd))
            return (on_even, on_odd), None

        start = jnp.full((2 * even + 1, num_keys), jnp.inf, jnp.float32).at[even].set(0)
        nothing = jnp.full((2 * odd, num_keys), jnp.inf, jnp.float32)
        (on_even, _), _ = jax.lax.scan(step, (start, nothing), jnp.arange(time, dtype=jnp.int32))
        return on_even[even]

    # 5. Map over the anchors, and divide by the number of samples, and by the leads for their mean.
    return _by_anchors(row, anchors, state=num_keys * (2 * radius + 1)) * jnp.float32(1 / (time * leads))


#: Name in a config → distance; `dtw` has its radius bound by `functools.partial`.
SIGNAL_DISTANCES: Mapping[str, Callable[..., Array]] = {"l1": l1, "l2": l2, "dtw": dtw}


def nearest_and_farthest(
    signals: Array, rows: Rows, *, distance: SignalDistance, tiling: Tiling, num_farthest: int = 2
) -> Neighbours:
    """Finds the nearest row of another recording, and the farthest rows of other patients, in one pass.

    Args:
        signals: Signals, `f32[rows, time, lead]`, one for each row.
        rows: Metadata of the embedding rows.
        distance: Distance between signals, such as `l1`.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        num_farthest: Number of farthest rows to find.

    References:
        Jeong, Stultz and Ghassemi, 2023 (arXiv 2308.04650).
    """

    def init(anchors: int) -> tuple[Winners, Winners]:
        return Winners.empty(anchors, 1), Winners.empty(anchors, num_farthest)

    def update(carry: tuple[Winners, Winners], anchors: Any, keys: Any) -> tuple[Winners, Winners]:
        near, far = carry
        apart = distance(anchors["signals"], keys["signals"])
        a, b = anchors["rows"], keys["rows"]
        both = a.valid[:, None] & b.valid[None, :]
        other_record = both & (a.record[:, None] != b.record[None, :])
        other_patient = both & (a.patient[:, None] != b.patient[None, :])
        return (
            near.add(candidates(other_record, -apart), b.row, keys["position"]),
            far.add(candidates(other_patient, apart), b.row, keys["position"]),
        )

    signals = jax.lax.stop_gradient(signals.astype(jnp.float32))
    if distance is l2:  # The others take differences, which lose no digits; and warping would see the shift.
        signals = centred(signals.reshape(len(signals), -1), rows.valid).reshape(signals.shape)
    batch = {"signals": signals, "rows": rows}
    keys = exchange(batch, tiling=tiling).arrays | {"position": positions(len(signals), tiling=tiling).arrays}
    near, far = fold(init, update, batch, Exchanged(keys), tiling=tiling)
    record_of_nearest = take(Exchanged(keys["rows"].record), near.position, tiling=tiling)
    nearest_record = jnp.where(near.found, record_of_nearest, -1)
    return Neighbours(_row_or_none(near)[:, 0], nearest_record[:, 0], _row_or_none(far))


def _row_or_none(winners: Winners) -> Array:
    return jnp.where(winners.found, winners.row, -1)


def _by_anchors(row: Callable[[Array], Array], anchors: Array, *, state: int) -> Array:
    """Maps `row` over the anchors, at a time as many as fit a block with `state` elements of running sums each."""
    limit = _CPU_BLOCK if for_cpu() else _ACCELERATOR_BLOCK
    return jax.lax.map(row, anchors, batch_size=min(max(limit // state, 1), anchors.shape[0]))
