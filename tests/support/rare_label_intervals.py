"""Counts how often 95 % intervals of rare labels' metrics hold the true value, by method.

python -m tests.support.rare_label_intervals                       # 144 cells of 1,000 test sets, 12 minutes of a core
python -m tests.support.rare_label_intervals --metric=AUROC --cells # every cell, not the extremes over the correlations
python -m tests.support.rare_label_intervals --runs=0 --confirm=4000 --aurocs=0.9    # the chosen method, more test sets
python -m tests.support.rare_label_intervals --runs=0 --other=1000 # scores of other distributions, the chosen method

A test set has a fixed number of patients with the label, one to four records a patient, and scores of a patient's
share and a record's own. The true AUROC is that of two records of different patients, Φ(μ/√2); the true average
precision is the integral at the cell's expected share of positive records; the true sensitivity is at the threshold
that 90 % of all negative records are below, which is given and not chosen on the test set.

Of patient labels all records of a patient are positive. Of record labels a positive patient has two to four records,
the first positive, the second negative, any other positive with probability one half.
"""

import argparse
import collections
import json
import math
import time

import numpy as np
from scipy import special, stats

from ecgjax.evaluation.metrics.clustered_auroc import clustered_auroc_interval, clustered_variance

PATIENTS, CORRELATIONS, AUROCS, POSITIVES, KINDS = (300, 2000), (0.0, 0.3, 0.7), (0.6, 0.75, 0.9), (5, 10, 15, 25), "pr"
RECORDS = 4
SPECIFICITY = 0.9
#: Test sets that share the drawn patients: a set's own draws would cost more than all the rest.
SHARE_DRAWS = 50


def shift(auroc):
    return math.sqrt(2) * stats.norm.ppf(auroc)


def truths(kind, auroc, *, patients, positives):
    """Returns the true value of each metric."""
    mu = shift(auroc)
    # Records of a patient: 1 to 4, mean 2.5; of a patient with both labels 2 to 4, mean 3, half of them positive.
    share = positives * 2.5 if kind == "p" else positives * 1.5
    share /= patients * 2.5 if kind == "p" else (patients - positives) * 2.5 + positives * 3
    recall = (np.arange(200_000) + 0.5) / 200_000
    false = stats.norm.sf(stats.norm.isf(recall) + mu)
    precision = share * recall / (share * recall + (1 - share) * false)
    return {
        "AUROC": auroc,
        "AUPRC": float(precision.mean()),
        "sensitivity": float(stats.norm.sf(stats.norm.ppf(SPECIFICITY) - mu)),
    }


def draw(rng, kind, auroc, *, patients, positives, correlation):
    """Returns which records there are, labels and scores, `[patients, 4]`; positive patients come first."""
    number = rng.integers(1, RECORDS + 1, patients)
    if kind == "r":
        number[:positives] = rng.integers(2, RECORDS + 1, positives)
    there = np.arange(RECORDS) < number[:, None]
    label = np.zeros((patients, RECORDS), bool)
    if kind == "p":
        label[:positives] = True
    else:
        label[:positives] = rng.random((positives, RECORDS)) < 0.5
        label[:positives, :2] = (True, False)
    label &= there
    own, new = rng.standard_normal((patients, 1)), rng.standard_normal((patients, RECORDS))
    return there, label, shift(auroc) * label + math.sqrt(correlation) * own + math.sqrt(1 - correlation) * new


class Resampled:
    """A test set's metrics under weights on patients; no two scores are equal."""

    def __init__(self, there, label, score, *, positives, threshold):
        who, column = np.nonzero(label)
        order = np.argsort(-score[who, column])
        self.who = who[order]
        x = score[who, column][order].astype(np.float32)
        negative = np.where(there & ~label, score, np.inf).astype(np.float32)
        # Of each patient: negatives in all, and those above each positive.
        below = sum((negative[:, r, None] < x).astype(np.float32) for r in range(RECORDS))
        self.negatives = (there & ~label).sum(axis=1).astype(np.float32)
        self.above = np.c_[self.negatives[:, None] - below, self.negatives]
        self.hit = np.bincount(self.who, x >= threshold, positives)
        self.number = np.bincount(self.who, minlength=positives).astype(float)

    def of(self, weights, above):
        """Returns each metric `[weightings]` from weights `[weightings, patients]` and weighted counts `above`."""
        own = weights[:, self.who]
        total = own.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = 1 - (own * above[:, :-1]).sum(axis=1) / (total * above[:, -1])
            true = np.cumsum(own, axis=1)
            called = true + above[:, :-1]
            precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
            k = len(self.number)
            return {
                "AUROC": auroc,
                "AUPRC": (own * precision).sum(axis=1) / total,
                "sensitivity": (weights[:, :k] @ self.hit) / (weights[:, :k] @ self.number),
            }

    def all_of(self, weights):
        return {name: each.astype(float) for name, each in self.of(weights, weights @ self.above).items()}

    def without_each(self):
        """Returns each metric without each patient, `[patients]`."""
        weights = 1 - np.eye(len(self.negatives), len(self.number), dtype=np.float32)
        return {n: v.astype(float) for n, v in self.of(weights, self.above.sum(axis=0) - self.above).items()}


def weights_of(rng, sizes, resamples):
    """Draws patients with replacement within strata: `f32[resamples, patients]`."""
    parts = []
    for size in sizes:
        drawn = rng.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
        parts.append(np.bincount(drawn.ravel(), minlength=size * resamples).reshape(resamples, size))
    return np.concatenate(parts, axis=1).astype(np.float32)


NOTHING = (math.nan, math.nan)


def percentile(values):
    defined = values[np.isfinite(values)]
    # As `metrics.bootstrap` has it: no interval of less than nine tenths of the resamples.
    return tuple(np.quantile(defined, (0.025, 0.975))) if len(defined) >= 0.9 * len(values) else NOTHING


def bca(estimate, values, without, positives):
    """Efron 1987, the acceleration of two strata (Davison and Hinkley 1997, §5.3)."""
    below = (np.mean(values < estimate) + np.mean(values <= estimate)) / 2
    if not 0 < below < 1:
        return NOTHING
    parts = [without[:positives], without[positives:]]
    moved = np.concatenate([(part.mean() - part) * (len(part) - 1) / len(part) for part in parts])
    squares = (moved**2).sum()
    a = (moved**3).sum() / (6 * squares**1.5) if squares > 0 else 0.0
    z0, z = float(special.ndtri(below)), np.array([-1.959964, 1.959964])
    return tuple(np.quantile(values, special.ndtr(z0 + (z0 + z) / (1 - a * (z0 + z)))))


def logit(estimate, deviation, quantile):
    if not (0 < estimate < 1 and deviation > 0):
        return NOTHING
    step = quantile * deviation / (estimate * (1 - estimate))
    return tuple(special.expit(special.logit(estimate) + np.array([-step, step])))


def share_intervals(hit, number):
    """Wilson's and Clopper and Pearson's interval of a share, of effectively as many records.

    Korn and Graubard, Survey Methodology 24 (1998) 193, have the latter.
    """
    k, records = len(number), number.sum()
    share = hit.sum() / records
    variance = k / (k - 1) * (((hit - share * number) / records) ** 2).sum()
    # Nothing or all is found: as many as there are patients, which no correlation can undercut.
    effective = share * (1 - share) / variance if variance > 0 else k
    effective = min(effective * (special.stdtrit(records - 1, 0.975) / special.stdtrit(k - 1, 0.975)) ** 2, records)
    z = 1.959964
    middle, width = (
        share + z**2 / (2 * effective),
        z * math.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2)),
    )
    wilson = tuple((middle + side * width) / (1 + z**2 / effective) for side in (-1, 1))
    x = share * effective
    exact = (
        special.betaincinv(x, effective - x + 1, 0.025) if x > 0 else 0.0,
        special.betaincinv(x + 1, effective - x, 0.975) if x < effective else 1.0,
    )
    return {"effective Wilson": wilson, "effective Clopper-Pearson": exact}


def intervals(there, label, score, *, positives, threshold, plain, strata):
    """Returns metric → method → `(low, high)` of a test set."""
    made = Resampled(there, label, score, positives=positives, threshold=threshold)
    ones = np.ones((1, len(there)), np.float32)
    estimates = {name: float(values[0]) for name, values in made.all_of(ones).items()}
    by_patient, by_label, without = made.all_of(plain), made.all_of(strata), made.without_each()
    effective = made.number.sum() ** 2 / (made.number**2).sum()
    t = float(special.stdtrit(effective - 1, 0.975))
    found = {}
    for name, estimate in estimates.items():
        deviation = float(by_label[name].std(ddof=1))
        found[name] = {
            "patients, percentile (now)": percentile(by_patient[name]),
            "stratified, percentile": percentile(by_label[name]),
            "stratified, BCa": bca(estimate, by_label[name], without[name], positives),
            "stratified, logit z": logit(estimate, deviation, 1.959964),
            "stratified, logit t": logit(estimate, deviation * math.sqrt(positives / (positives - 1)), t),
        }
    patient = np.broadcast_to(np.arange(len(there))[:, None], there.shape)[there]
    records = {"labels": label[there].astype(int), "scores": score[there], "patients": patient}
    auroc, variance, freedom = clustered_variance(**records)
    made_of_ranks = clustered_auroc_interval(**records)
    found["AUROC"] |= {
        "Obuchowski, logit z": logit(auroc, math.sqrt(variance), 1.959964),
        "Obuchowski, logit t": logit(auroc, math.sqrt(variance), float(special.stdtrit(freedom, 0.975))),
        "Obuchowski, score t": (made_of_ranks.low, made_of_ranks.high),
    }
    found["sensitivity"] |= share_intervals(made.hit, made.number)
    return found


def cell(kind, auroc, *, patients, positives, correlation, runs, resamples):
    """Returns (metric, method) → `[coverage, mean width, share of test sets with an interval]`."""
    # The same cell has the same test sets whatever else is asked.
    rng = np.random.default_rng([KINDS.index(kind), int(100 * auroc), patients, positives, int(10 * correlation)])
    true = truths(kind, auroc, patients=patients, positives=positives)
    threshold = stats.norm.ppf(SPECIFICITY)
    sums = collections.defaultdict(lambda: np.zeros(3))
    for run in range(runs):
        if run % SHARE_DRAWS == 0:
            plain = weights_of(rng, (patients,), resamples)
            strata = weights_of(rng, (positives, patients - positives), resamples)
        records = draw(rng, kind, auroc, patients=patients, positives=positives, correlation=correlation)
        found = intervals(*records, positives=positives, threshold=threshold, plain=plain, strata=strata)
        for metric, methods in found.items():
            for method, (low, high) in methods.items():
                if math.isfinite(low):
                    sums[metric, method] += (low <= true[metric] <= high, high - low, 1)
                else:
                    sums[metric, method] += 0
    with np.errstate(invalid="ignore"):
        return {key: (each[0] / each[2], each[1] / each[2], each[2] / runs) for key, each in sums.items()}


def confirm(aurocs, patients, positives, runs):
    """Prints the chosen method's coverage in the cells asked for, with more test sets, and others than `cell` drew."""
    for number in patients:
        for kind in KINDS:
            for auroc in aurocs:
                for few in positives:
                    row = {"labels of": kind, "patients": number, "AUROC": auroc, "positive patients": few}
                    for correlation in CORRELATIONS:
                        of = {"patients": number, "positives": few, "correlation": correlation}
                        rng = np.random.default_rng(
                            [1, KINDS.index(kind), int(100 * auroc), number, few, int(10 * correlation)]
                        )
                        hold = given = 0
                        for _ in range(runs):
                            there, label, score = draw(rng, kind, auroc, **of)
                            interval = clustered_auroc_interval(
                                label[there].astype(int), score[there], patients=np.nonzero(there)[0]
                            )
                            given += not interval.reason
                            hold += interval.low <= auroc <= interval.high
                        row[f"correlation {correlation}"] = round(100 * hold / given, 1)
                    print(json.dumps(row), flush=True)


def other_scores(rng, shape, *, patients, positives, mu):
    """Returns labels, scores and patients whose scores are not binormal of equal variance; correlation .5."""
    many = shape == "many records of some"
    number = np.minimum(rng.geometric(0.35, patients), 20) if many else rng.integers(1, RECORDS + 1, patients)
    patient = np.repeat(np.arange(patients), number)
    label = patient < positives
    score = math.sqrt(0.5) * (rng.standard_normal(patients)[patient] + rng.standard_normal(len(patient)))
    if shape == "positives vary more":
        score = score * np.where(label, 1.6, 1) + mu * label
    elif shape == "positives vary less":
        score = score * np.where(label, 0.6, 1) + mu * label
    elif shape == "some positives unseen":
        score = score + mu * (label & (rng.random(patients) < 0.7)[patient])
    elif shape == "heavy tails":
        score = score * np.sqrt(3 / rng.chisquare(3, patients))[patient] + mu * label
    elif shape == "exponential":
        score = -stats.norm.logsf(score) * np.where(label, 1 + mu, 1)
    else:
        score = score + mu * label
    return label.astype(int), score, patient


SHAPES = (
    "positives vary more", "positives vary less", "some positives unseen", "heavy tails", "exponential",
    "many records of some",
)  # fmt: skip


def others(runs):
    """Prints the chosen method's coverage for scores of other distributions, 300 patients."""
    for shape in SHAPES:
        for mu in (0.5, 1.8):
            label, score, _ = other_scores(np.random.default_rng(0), shape, patients=400_000, positives=200_000, mu=mu)
            ranks, positive = stats.rankdata(score), label == 1
            m, n = positive.sum(), (~positive).sum()
            true = float((ranks[positive].sum() - m * (m + 1) / 2) / m / n)
            row = {"scores": shape, "AUROC": round(true, 3)}
            for positives in POSITIVES:
                rng = np.random.default_rng([SHAPES.index(shape), int(10 * mu), positives])
                hold = given = 0
                for _ in range(runs):
                    label, score, patient = other_scores(rng, shape, patients=300, positives=positives, mu=mu)
                    interval = clustered_auroc_interval(label, score, patients=patient)
                    given += not interval.reason
                    hold += interval.low <= true <= interval.high
                row[f"{positives} patients"] = round(100 * hold / given, 1)
            print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="test sets a cell; 0 leaves the cells out")
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--patients", type=int, nargs="+", default=PATIENTS)
    parser.add_argument("--confirm", type=int, default=0, help="more test sets a cell, for the chosen method alone")
    parser.add_argument("--aurocs", type=float, nargs="+", default=AUROCS, help="of --confirm")
    parser.add_argument("--positives", type=int, nargs="+", default=POSITIVES, help="of --confirm")
    parser.add_argument("--other", type=int, default=0, help="test sets of each other distribution of scores")
    parser.add_argument("--metric", help="only this one is printed")
    parser.add_argument("--cells", action="store_true", help="print every cell")
    asked = parser.parse_args()
    start = time.process_time()
    if asked.confirm:
        confirm(asked.aurocs, asked.patients, asked.positives, asked.confirm)
    if asked.other:
        others(asked.other)
    rows = collections.defaultdict(list)
    for patients in asked.patients if asked.runs else ():
        for kind in KINDS:
            for auroc in AUROCS:
                for positives in POSITIVES:
                    for correlation in CORRELATIONS:
                        of = {"patients": patients, "positives": positives, "correlation": correlation}
                        found = cell(kind, auroc, **of, runs=asked.runs, resamples=asked.resamples)
                        for (metric, method), values in found.items():
                            if asked.metric not in (None, metric):
                                continue
                            rows[metric, method, positives, auroc].append(values)
                            rows[metric, method, positives, "all"].append(values)
                            if asked.cells:
                                words = {"metric": metric, "method": method, "labels of": kind, "AUROC": auroc, **of}
                                numbers = dict(zip(("coverage", "width", "given"), np.round(values, 3), strict=True))
                                print(json.dumps(words | numbers), flush=True)
    for (metric, method, positives, auroc), values in sorted(rows.items(), key=str):
        table = np.array(values)
        words = {"metric": metric, "method": method, "positive patients": positives, "AUROC": auroc}
        # A cell where no test set has an interval has no coverage.
        numbers = {
            "lowest": np.nanmin(table[:, 0]), "mean": np.nanmean(table[:, 0]), "highest": np.nanmax(table[:, 0]),
            "width": np.nanmean(table[:, 1]), "given": table[:, 2].mean(),
        }  # fmt: skip
        print(json.dumps(words | {name: round(float(value), 3) for name, value in numbers.items()}))
    print(json.dumps({"seconds of processor": round(time.process_time() - start)}))


if __name__ == "__main__":
    main()
