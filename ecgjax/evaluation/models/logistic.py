"""Linear probe: L2 logistic regression on frozen features, with its strength chosen on validation patients.

The test records take no part in any choice: they are scored once, by the probe that validation chose.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from data_pipelines.errors import DataError
from data_pipelines.prepared.fold_labels import SPREAD_LABELS
from ecgjax.evaluation.metrics.ranking import auroc, undefined_reason

#: Inverse strengths C to try, strongest regularisation first. At the strong end the direction no longer changes (it is
#: the difference of the class means), at the weak end a few hundred labels with 512 features are fitted perfectly.
STRENGTHS: tuple[float, ...] = tuple(float(c) for c in np.logspace(-5, 1, 13))

_MAX_ITERATIONS = 2000

#: Number of permutations that are tried before a control on shuffled labels is given up.
_MAX_DEALS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One strength of the sweep: its inverse strength C and its AUROC on validation."""

    c: float
    val_auroc: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A fitted probe and how it was chosen.

    Attributes:
        preprocessor: Preprocessor fitted on the training features.
        classifier: Logistic regression of the chosen strength.
        c: Chosen inverse strength C.
        val_auroc: AUROC on validation at that strength, which it was chosen by and which is hence optimistic.
        sweep: Every strength that was tried, strongest regularisation first.
        num_features: Number of columns that the classifier saw, after the preprocessor.
        train_records, train_positives, val_records, val_positives: Numbers of records and of positive records in train
            and validation.
    """

    preprocessor: TransformerMixin
    classifier: LogisticRegression
    c: float
    val_auroc: float
    sweep: tuple[SweepPoint, ...]
    num_features: int
    train_records: int
    train_positives: int
    val_records: int
    val_positives: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns the log odds of the positive class, `f64[n]`.

        Args:
            features: Features, `[n, d]`, with the columns of the training features.
        """
        return self.classifier.decision_function(self.preprocessor.transform(features))


def fit_linear_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    *,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    preprocessor: TransformerMixin | None = None,
) -> LinearProbe:
    """Fits a logistic regression for every strength and keeps the one with the highest validation AUROC.

    Args:
        train_features: Features of the training records, `[n, d]`.
        train_labels: Labels of the training records, `[n]`, 0 or 1.
        val_features: Features of the validation records, `[m, d]`, of patients that train does not have.
        val_labels: Labels of the validation records, `[m]`, 0 or 1.
        strengths: Inverse L2 strengths C, as in scikit-learn. Of equal AUROCs the strongest regularisation is kept.
        preprocessor: Unfitted scikit-learn transformer, fitted here on train alone; by default each feature is scaled
            to zero mean and unit standard deviation.

    Raises:
        DataError: Train or validation lacks a class, or features are not finite and no preprocessor handles them.
    """
    for split, labels in (("train", train_labels), ("validation", val_labels)):
        reason = undefined_reason(labels)
        if reason:
            raise DataError(
                f"no linear probe is possible: {reason} in the {split} split. "
                "Raise config.probe.label_fraction, choose another threshold or give the split more folds. "
                f"{SPREAD_LABELS}."
            )
    if preprocessor is None:
        for split, features in (("train", train_features), ("validation", val_features)):
            bad = np.count_nonzero(~np.isfinite(features).all(axis=1))
            if bad:
                raise DataError(f"{bad} of {len(features)} embeddings of the {split} split are not finite")
        preprocessor = StandardScaler()
    # float64 is affordable, since embeddings are few; in float32 lbfgs stops early on badly scaled directions.
    train = preprocessor.fit_transform(np.asarray(train_features, np.float64))
    val = preprocessor.transform(np.asarray(val_features, np.float64))
    sweep: list[SweepPoint] = []
    best: tuple[SweepPoint, LogisticRegression] | None = None
    # From strong to weak each fit starts at the one before, which reaches the same optima in a fraction of the
    # iterations.
    classifier = LogisticRegression(solver="lbfgs", max_iter=_MAX_ITERATIONS, warm_start=True)
    for c in sorted(strengths):
        classifier.set_params(C=c)
        with warnings.catch_warnings():
            # Fits of separable labels do not converge at weak regularisation, and validation chooses the strength.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(train, train_labels)
        point = SweepPoint(c=c, val_auroc=auroc(val_labels, classifier.decision_function(val)))
        sweep.append(point)
        if best is None or point.val_auroc > best[0].val_auroc:
            best = (point, copy.deepcopy(classifier))
    if best is None:
        raise ValueError("there is no strength to choose from")
    return LinearProbe(
        preprocessor=preprocessor,
        classifier=best[1],
        c=best[0].c,
        val_auroc=best[0].val_auroc,
        sweep=tuple(sweep),
        num_features=train.shape[1],
        train_records=len(train_labels),
        train_positives=int(np.count_nonzero(train_labels)),
        val_records=len(val_labels),
        val_positives=int(np.count_nonzero(val_labels)),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleControl:
    """Test AUROC of probes whose labels were permuted among the patients; it is .5 unless something leaks.

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
    features: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    *,
    patients: Mapping[str, np.ndarray],
    shuffles: int,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
    progress: bool = False,
) -> ShuffleControl:
    """Runs the same probe, including selection and test, on labels permuted among the patients of all splits.

    A patient keeps the permuted label in every split, so that a patient in two splits, by whatever mistake, lifts the
    result above .5. The test labels are permuted too: against the true ones, probes of permuted training labels need
    not average .5, since outlying records weigh more in the rarer class, and they are not labelled at random.

    Args:
        features: Features `[n, d]` by split (`"train"`, `"val"`, `"test"`).
        labels: Labels `[n]` by split, 0 or 1.
        patients: Patient (or group) code of each record, `int[n]`, by split, with the same codes in all splits.
        shuffles: Number of permutations, at least 2.
        seed: Seed of the permutations.
        strengths: Inverse L2 strengths C to choose from, as in `fit_linear_probe`.
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
    for _ in tqdm(range(shuffles), desc="probes on shuffled labels", disable=None if progress else True):
        dealt = _deal(labels, patients, rng)
        probe = fit_linear_probe(
            features["train"],
            dealt["train"],
            val_features=features["val"],
            val_labels=dealt["val"],
            strengths=strengths,
        )
        aurocs.append(auroc(dealt["test"], probe.scores(features["test"])))
    mean = float(np.mean(aurocs))
    half = float(stats.t.ppf(0.975, shuffles - 1) * np.std(aurocs, ddof=1) / math.sqrt(shuffles))
    return ShuffleControl(aurocs=tuple(aurocs), mean=mean, low=mean - half, high=mean + half)


def _deal(
    labels: Mapping[str, np.ndarray], patients: Mapping[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Permutes the patients' labels, each that of the patient's first record, until every split has both classes."""
    every, first, code = np.unique(np.concatenate(list(patients.values())), return_index=True, return_inverse=True)
    of_patient = np.concatenate(list(labels.values()))[first]
    ends = np.cumsum([len(part) for part in patients.values()])[:-1]
    for _ in range(_MAX_DEALS):
        dealt = np.split(rng.permutation(of_patient)[code], ends)
        if not any(undefined_reason(part) for part in dealt):
            return dict(zip(patients, dealt, strict=True))
    raise DataError(
        f"labels of {len(every)} patients, {int(of_patient.sum())} of them positive, were shuffled {_MAX_DEALS} times "
        "without both classes in every split: there are too few patients of one class for the control"
    )
