"""The bootstrap over patients by brute force: records drawn by hand, metrics computed anew on each draw."""

import numpy as np


def drawn_records(patients, *, resamples=200, seed=0):
    """Returns the rows of each resample of the patients, all records of a patient as often as it is drawn."""
    rows = [np.flatnonzero(patients == code) for code in np.unique(patients)]
    drawn = np.random.default_rng(seed).integers(len(rows), size=(resamples, len(rows)))
    return [np.concatenate([rows[number] for number in draw]) for draw in drawn]


def bounds(patients, metric, *, resamples=200, seed=0):
    """Returns the 2.5th and 97.5th percentile over resamples of a metric, a function of rows, leaving out NaN."""
    values = [metric(rows) for rows in drawn_records(patients, resamples=resamples, seed=seed)]
    return tuple(np.nanquantile(values, [0.025, 0.975]))


def auroc_of_pairs(labels, scores):
    """Returns the share of pairs that are ranked rightly, a tie being half a pair; NaN where a label is missing."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not len(positive) or not len(negative):
        return np.nan
    apart = positive[:, None] - negative
    return np.mean((apart > 0) + 0.5 * (apart == 0))
