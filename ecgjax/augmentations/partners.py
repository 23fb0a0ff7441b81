"""Choice of each recording's partner, a recording of the other label in the batch, by a plan of optimal transport.

`geodesic` moves a recording towards its partner. Partners are chosen on the host, from columns of the index and the
step alone: float64 and one thread give the same partners for any number of devices and processes, where float32 sums on
a mesh would not.

References:
    Cuturi, Sinkhorn Distances: Lightspeed Computation of Optimal Transport, NeurIPS 2013. Fatras et al., Learning with
    minibatch Wasserstein: asymptotic and gradient properties, AISTATS 2020 (transport between the rows of a batch).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from data_pipelines.streaming.permutation import derive_key
from data_pipelines.streaming.sampler import Sampler
from ecgjax.errors import chosen
from ecgjax.settings.bounds import POSITIVE
from ecgjax.settings.leaf import Arguments, Leaf

#: Name of the column of a batch that holds the global row of each partner, `i32[batch]`, −1 where there is none.
COLUMN = "geodesic_partner"

#: Number of neighbouring rows of the global batch among which partners are chosen: the plan's cost grows with its
#: square, and a process need not know the labels of all rows.
BLOCK = 1024

#: Greatest number of Sinkhorn iterations, and relative error of the sums of all rows at which they end.
_MOST_ITERATIONS, _TOLERANCE = 200, 1e-6

_STREAM = zlib.crc32(b"geodesic partners")

#: `config.augment.geodesic.coupling` → columns over all recordings that it looks at.
COUPLINGS: Mapping[str, tuple[str, ...]] = {"transport": ("label", "physiology"), "independent": ("label",)}

#: Settings of `config.augment.geodesic` that concern the choice.
LEAVES: Mapping[str, Leaf] = {
    "coupling": Leaf(str, None, "transport", False, f"Choice of partners: {', '.join(COUPLINGS)}."),
    "regularisation": Leaf(float, None, 0.05, False, "Entropic regularisation, as a share of the mean cost.", POSITIVE),
}


def needs(augment: Mapping[str, Arguments]) -> tuple[str, ...]:
    """Returns the columns over all recordings that partners are chosen by; none where `geodesic` is disabled.

    A recording's partner is the recording of the other label that `geodesic` moves it towards.

    Args:
        augment: Arguments of every augmentation, by its name.

    Raises:
        ConfigError: The coupling, by which partners are chosen, is unknown.
    """
    geodesic = augment["geodesic"]
    if not geodesic["enabled"]:
        return ()
    return chosen(COUPLINGS, geodesic["coupling"], setting="config.augment.geodesic.coupling")


def transport_plan(source: np.ndarray, target: np.ndarray, *, regularisation: float = 0.05) -> np.ndarray:
    """Couples two sets of points so that near ones come together, by entropic optimal transport (Sinkhorn).

    Args:
        source: Points to couple, `f64[n, features]`, all of the same weight.
        target: Points to couple them with, `f64[m, features]`, all of the same weight.
        regularisation: Entropic regularisation, as a share of the mean cost, which is the squared distance.

    Returns:
        The plan, `f64[n, m]`, whose sum is 1; every column's sum is 1 / m, and every row's is 1 / n up to the
        iteration's error.
    """
    # 1. Take the squared distances for costs, and scale the regularisation by their mean.
    squares = [np.square(points).sum(1) for points in (source, target)]
    product = np.einsum("if,jf->ij", source, target)
    cost = np.maximum(squares[0][:, None] + squares[1][None, :] - 2 * product, 0)
    scale = regularisation * max(cost.mean(), 1e-12)
    # 2. Shift the costs so that each row and each column has a 0, and take the kernel. The shift does not change the
    #    plan, and no row or column of the kernel vanishes, however far away a point is.
    cost -= cost.min(1, keepdims=True)
    cost -= cost.min(0, keepdims=True)
    kernel = np.exp(-cost / scale)
    # 3. Scale rows and columns in turn until the rows' sums are right; the columns' sums are right after each turn.
    rows, columns = np.ones(len(source)), np.ones(len(target))
    for _ in range(_MOST_ITERATIONS):
        # `einsum` does not use BLAS here, whose order of summation depends on the number of threads.
        sums = len(source) * np.einsum("ij,j->i", kernel, columns)
        if np.abs(rows * sums - 1).max() < _TOLERANCE:
            break
        rows = 1 / sums
        columns = 1 / (len(target) * np.einsum("ij,i->j", kernel, rows))
    return rows[:, None] * kernel * columns[None, :]


class Partners:
    """Chooses partners as a pure function of seed, step and global row.

    Args:
        sampler: Sampler that gives the recordings in a step's rows.
        columns: Columns over all recordings: `label`, `f32[n]` of 0 and 1, NaN where unknown, and for `"transport"`
            `physiology`, `f32[n, features]`, standardised, NaN where unknown.
        seed: Seed of the run.
        coupling: Choice of partners: `"transport"` takes those near in physiology, `"independent"` any of the other
            label, with equal chance.
        regularisation: Entropic regularisation of `transport_plan`, as a share of the mean cost.
    """

    def __init__(
        self,
        sampler: Sampler,
        columns: Mapping[str, np.ndarray],
        *,
        seed: int,
        coupling: str = "transport",
        regularisation: float = 0.05,
    ):
        self._sampler, self._columns = sampler, {name: columns[name] for name in COUPLINGS[coupling]}
        self._key, self._regularisation = derive_key(seed, _STREAM), regularisation

    def __call__(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Chooses the partners of some rows of a step's global batch.

        Args:
            step: Number of the training step, from 0.
            rows: Rows of the global batch, `int[n]`.

        Returns:
            Partners as rows of the global batch, `i32[n]`; −1 for rows whose label (or physiology) is unknown, and for
            rows whose block has no row of the other label.
        """
        block_of = np.asarray(rows) // BLOCK
        partner = np.empty(len(block_of), np.int32)
        for block in np.unique(block_of):
            members = np.arange(block * BLOCK, min((block + 1) * BLOCK, self._sampler.batch_size))
            here = block_of == block
            partner[here] = self._of_block(step, members)[np.asarray(rows)[here] - members[0]]
        return partner

    def _of_block(self, step: int, members: np.ndarray) -> np.ndarray:
        records = self._sampler.record_numbers(step, members)
        columns = {name: np.asarray(values[records], np.float64) for name, values in self._columns.items()}
        known = np.all([np.isfinite(values.reshape(len(records), -1)).all(1) for values in columns.values()], axis=0)
        zeros, ones = (np.flatnonzero(known & (columns["label"] == label)) for label in (0, 1))
        partner = np.full(len(members), -1, np.int32)
        if not (len(zeros) and len(ones)):
            return partner
        if "physiology" in columns:
            physiology = columns["physiology"]
            plan = transport_plan(physiology[zeros], physiology[ones], regularisation=self._regularisation)
        else:
            plan = np.ones((len(zeros), len(ones)))
        bits = derive_key(derive_key(self._key, step), members)
        # A float64 holds 53 of the 64 bits; half a step keeps the draw off 0 and 1.
        draw = ((bits >> np.uint64(11)) + 0.5) * 2.0**-53
        partner[zeros] = members[ones[_drawn(plan, draw[zeros])]]
        partner[ones] = members[zeros[_drawn(plan.T, draw[ones])]]
        return partner


def preview_partners(label: np.ndarray, records: np.ndarray, *, among: np.ndarray) -> np.ndarray:
    """Returns a record of the other label for each record, or the record itself where there is none.

    Args:
        label: Label of every recording, `f32[n]`, 0 or 1; NaN where unknown.
        records: Record numbers to find partners for, `int[m]`.
        among: Record numbers among which the partners are looked for, `int[k]`.

    Returns:
        Record number of each partner, `int64[m]`.
    """
    found = {value: among[label[among] == value] for value in (0.0, 1.0)}
    others = [found.get(1 - value, ()) for value in label[records].tolist()]
    return np.array([other[0] if len(other) else record for other, record in zip(others, records, strict=True)])


def _drawn(weights: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """Draws a column of each row in proportion to the row's weights.

    Args:
        weights: Weights of the columns of each row, `f64[n, m]`.
        draw: Numbers of U(0, 1) that decide, `f64[n]`.

    Returns:
        Number of the drawn column of each row, `int64[n]`.
    """
    below = np.cumsum(weights, axis=1)
    return np.minimum((below < draw[:, None] * below[:, -1:]).sum(1), weights.shape[1] - 1)
