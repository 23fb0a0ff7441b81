"""VICReg, a loss without negatives: views of a recording shall agree, and the batch shall keep its variance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.objectives.pairs import outputs
from ecgjax.objectives.pairs.outputs import LossOutput, Reducer, mean_where
from ecgjax.objectives.pairs.relations import Rows

#: Added to a variance before its square root is taken.
_EPSILON = 1e-4


def vicreg(
    embeddings: Array,
    rows: Rows,
    *,
    views: int = 2,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    target_std: float = 1.0,
    reducer: Reducer = outputs.mean_of_counted,
) -> LossOutput:
    """Evaluates VICReg: invariance, variance and covariance over the valid recordings of the global batch.

    Of two views Z, Z' of n recordings in d dimensions, with C(Z) the covariance matrix over n − 1,

        λ/(n d) Σ_i ‖z_i − z'_i‖² + μ [v(Z) + v(Z')] + ν [c(Z) + c(Z')],
        v(Z) = 1/d Σ_j max(0, γ − √(C_jj + 10⁻⁴)),    c(Z) = 1/d Σ_{j ≠ k} C_jk².

    The invariance is a mean over dimensions too, as in the paper's algorithm 1 (its eq. 5 sums over them): the
    published weights belong to that. (The authors' code halves v, the paper does not.) With more views it is the mean
    over view pairs. Statistics are sums over rows, which compile to reductions over the mesh: no pair of rows is ever
    formed, so there are no tiles and no relation.

    Args:
        embeddings: Embeddings, `[recordings · views, dim]`, with the views of a recording next to each other; taken as
            they are, not normalised.
        rows: Metadata of the embedding rows. A recording counts if all its views are valid and no two of them are the
            same, which would agree whatever the encoder does.
        views: Number of views of each recording.
        invariance_weight: Weight λ of the invariance term, the squared distance between views of a recording.
        variance_weight: Weight μ of the variance term, which keeps every dimension's deviation at `target_std` or
            above.
        covariance_weight: Weight ν of the covariance term, which decorrelates the dimensions.
        target_std: Standard deviation γ below which a dimension costs something.
        reducer: Reduction of the losses of the rows to one number. A row's loss is its recording's invariance plus the
            batch's variance and covariance terms, which are 0 as long as there are fewer than two recordings.

    Returns:
        The loss, the loss of each row, and statistics for telemetry (`outputs.LossOutput`).

    Raises:
        ConfigError: `views` is below 2, or rows do not come in whole recordings.

    References:
        Bardes, Ponce and LeCun, VICReg, ICLR 2022 (arXiv 2105.04906), eq. 1-6 and algorithm 1.
    """
    if views < 2:
        raise ConfigError("VICReg compares rows of a recording: config.views or config.encoder.lead_wise must give two")
    if embeddings.shape[0] % views:
        raise ConfigError(f"VICReg takes whole recordings of {views} views; {embeddings.shape[0]} rows are not")
    z = embeddings.astype(jnp.float32).reshape(-1, views, embeddings.shape[-1])
    dim = z.shape[-1]
    given = rows.valid.reshape(-1, views).all(1)
    valid = given & ~_repeats_a_view(rows, views)
    z = jnp.where(valid[:, None, None], z, 0.0)
    count = valid.sum(dtype=jnp.float32)

    # The mean over pairs of ‖z_v − z_w‖² is 2/(V − 1) Σ_v ‖z_v − mean‖²: linear in the number of views.
    spread = z - z.mean(1, keepdims=True)
    invariance = 2 / (views - 1) / dim * (spread**2).sum((1, 2))

    mean = z.sum(0, keepdims=True) / jnp.maximum(count, 1.0)
    centred = jnp.where(valid[:, None, None], z - mean, 0.0)
    # Accelerators multiply with some three digits by default: too few for values that are to become 0.
    covariance = jnp.einsum("nvj,nvk->vjk", centred, centred, precision=jax.lax.Precision.HIGHEST)
    covariance = covariance / jnp.maximum(count - 1, 1.0)
    diagonal = jnp.diagonal(covariance, axis1=1, axis2=2)
    std = jnp.sqrt(diagonal + _EPSILON)
    # A view pair has the terms of both its views; the mean over pairs is twice the mean over views.
    hinge = 2 * jax.nn.relu(target_std - std).mean()
    # The diagonal is masked. Subtracting its squares from the sum of all squares would leave little but rounding once
    # the dimensions are decorrelated.
    between = jnp.where(jnp.eye(dim, dtype=bool)[None], jnp.float32(0), covariance)
    off_diagonal = 2 * (between**2).sum() / (views * dim)
    enough = count > 1
    hinge, off_diagonal = jnp.where(enough, hinge, 0.0), jnp.where(enough, off_diagonal, 0.0)

    cost = invariance_weight * invariance + variance_weight * hinge + covariance_weight * off_diagonal
    stats = {
        "invariance": mean_where(invariance, valid),
        "variance": hinge,
        "covariance": off_diagonal,
        "mean_std": std.mean(),
        outputs.ANCHORS_WITHOUT_POSITIVE: views * (given & ~valid).sum(dtype=jnp.float32),
    }
    return outputs.output(jnp.repeat(cost, views), jnp.repeat(valid, views), stats, reducer=reducer)


def _repeats_a_view(rows: Rows, views: int) -> Array:
    """Returns which recordings have two views of the same signal, `bool[recordings]`, or `bool[]` where none can.

    Segments of a recording that is mostly padding may show the same samples.
    """
    if rows.shown is None:
        return jnp.zeros((), bool)
    shown = jnp.sort(rows.shown.reshape(-1, views), axis=1)
    return ((shown[:, 1:] == shown[:, :-1]) & (shown[:, 1:] >= 0)).any(1)
