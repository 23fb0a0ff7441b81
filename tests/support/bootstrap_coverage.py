"""Counts how often 95 % bootstrap intervals of an AUROC hold the true value, by patient and by record.

python -m tests.support.bootstrap_coverage    # 2,000 runs of 200 patients with five correlated records, minutes

The suite does the same with fewer, smaller runs and wide bounds. Prints a line of JSON.
"""

import argparse
import json

import numpy as np
from tqdm import tqdm

from tests.ecgjax.evaluation.metrics.test_bootstrap import covers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--records", type=int, default=5, help="of each patient")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--shared", type=float, default=0.9, help="share of the scores' variance that is the patient's")
    asked = parser.parse_args()
    covered = {"patient": 0, "record": 0}
    for run in tqdm(range(asked.runs), unit="run", disable=None):
        rng = np.random.default_rng([20, run])
        cohort = {"patients": asked.patients, "visits": asked.records, "shared": asked.shared}
        for unit, holds in covers(rng, **cohort, resamples=asked.resamples, seed=run).items():
            covered[unit] += holds
    print(json.dumps({**vars(asked), **{f"covered, by {unit}": n / asked.runs for unit, n in covered.items()}}))


if __name__ == "__main__":
    main()
