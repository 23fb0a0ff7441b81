"""A control on shuffled labels: the AUROC of probes of random labels is .5 unless information leaks between splits."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from tqdm import tqdm

from data_pipelines.errors import DataError
from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.ranking import auroc, undefined_reason
from ecgjax.evaluation.models.fitted import Examples
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.models.linear import fit_linear

#: Number of permutations that are tried before the control is given up.
_MAX_DEALS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleControl:
    """Test AUROC of probes whose labels were permuted among the patients.

    Attributes:
        aurocs: AUROC of each shuffle.
        mean: Mean of the AUROCs.
        low: Lower end of the 95 % t-interval of the mean over shuffles.
        high: Upper end of the 95 % t-interval of the mean over shuffles.
    """

    aurocs: tuple[float, ...]
    mean: float
    low: float
    high: float


def shuffle_control(
    features: SplitFeatures, data: ProbeData, *, shuffles: int, seed: int, progress: bool = False
) -> ShuffleControl:
    """Fits and tests the probe on labels that are permuted among the patients of all splits, several times.

    A patient keeps the permuted label in every split, so that a patient in two splits, by whatever mistake, lifts the
    result above .5. The test labels are permuted too: against the true ones, probes of permuted training labels need
    not average .5, since outlying records weigh more in the rarer class, and they are not labelled at random.

    Args:
        features: Features of the labelled records.
        data: Labelled records of a binary task.
        shuffles: Number of permutations, at least 2.
        seed: Seed of the permutations.
        progress: Whether a progress bar is drawn on a terminal.

    Raises:
        DataError: There are fewer than 2 shuffles, or a class has too few patients to be in every split.
    """
    # This is imported here because SciPy's statistics take a second to load and nothing else of the probe needs them.
    from scipy import stats

    if shuffles < 2:
        raise DataError(f"an interval over shuffled labels needs at least 2 shuffles, not {shuffles}")
    rng = np.random.default_rng(seed)
    aurocs = []
    for _ in tqdm(
        range(shuffles), desc="probes on shuffled labels", dynamic_ncols=True, disable=None if progress else True
    ):
        train, val, test = _deal(data, rng)
        probe = fit_linear(
            Examples(kind=kind_of(data.task), train=features.train, targets=train, val=features.val, val_targets=val)
        )
        aurocs.append(auroc(test, probe.predict(features.test)))
    mean = float(np.mean(aurocs))
    half = float(stats.t.ppf(0.975, shuffles - 1) * np.std(aurocs, ddof=1) / math.sqrt(shuffles))
    return ShuffleControl(aurocs=tuple(aurocs), mean=mean, low=mean - half, high=mean + half)


def _deal(data: ProbeData, rng: np.random.Generator) -> list[np.ndarray]:
    """Returns training, validation and test labels, `[…]` each, permuted among patients; every split has both classes.

    The label of a patient is that of the patient's first record.
    """
    parts = (data.train, data.val, data.test)
    patients = np.concatenate([part.patients for part in parts])
    every, first, code = np.unique(patients, return_index=True, return_inverse=True)
    of_patient = np.concatenate([part.labels for part in parts])[first]
    ends = np.cumsum([len(part.records) for part in parts])[:-1]
    for _ in range(_MAX_DEALS):
        dealt = np.split(rng.permutation(of_patient)[code], ends)
        if not any(undefined_reason(part) for part in dealt):
            return dealt
    raise DataError(
        f"labels of {len(every)} patients, {int(of_patient.sum())} of them positive, were shuffled {_MAX_DEALS} times "
        "without both classes in every split: there are too few patients of one class for the control"
    )
