"""From nothing to a probed encoder: simulated cohort, pretraining, probe, report.

  python -m launch.quickstart --out=runs/quickstart [--seed=0]

Three commands in one process, which can as well be given one by one:

  python -m data_pipelines.build --builder=simulated --num_patients=5600 --target_rate_hz=100 --out=OUT/data
  python -m ecgjax.pretrain --config=quickstart --config.data.dir=OUT/data --workdir=OUT/seed0
  python -m ecgjax.evaluate --workdir=OUT/seed0

An interrupted quickstart goes on where it was.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from data_pipelines.command import command, output_folder, run

#: Number of patients, of whom two of ten folds, at least 1,000 patients, are test patients.
NUM_PATIENTS = 5600

_OUT = flags.DEFINE_string("out", "runs/quickstart", "Folder for the cohort and the run.")
_WORDS = "Seed of initialisation, sampling, views and which labels are drawn."
_SEED = flags.DEFINE_integer("seed", 0, _WORDS, lower_bound=0, upper_bound=2**31 - 1)


def commands(out: Path, seed: int) -> list[list[str]]:
    """Returns the commands of the quickstart, each as the arguments of `python -m`.

    Args:
        out: Folder of the quickstart.
        seed: Seed of the run and of the draw of labels.
    """
    data, workdir = f"{out / 'data'}", f"--workdir={out / f'seed{seed}'}"
    cohort = ["--builder=simulated", f"--num_patients={NUM_PATIENTS}", "--target_rate_hz=100"]
    leaves = [f"--config.data.dir={data}", f"--config.seed={seed}", f"--config.probe.seed={seed}"]
    return [
        ["data_pipelines.build", *cohort, f"--out={data}"],
        ["ecgjax.pretrain", "--config=quickstart", *leaves, workdir],
        ["ecgjax.evaluate", workdir],
    ]


@command
def main() -> None:
    """Runs the commands one after another, and stops with the status of the first that fails."""
    start = time.monotonic()
    for words in commands(output_folder("out", _OUT.value), _SEED.value):
        print("$ python -m " + " ".join(words), flush=True)
        status = subprocess.run([sys.executable, "-m", *words], check=False).returncode
        if status:
            sys.exit(status)
    print(f"quickstart finished in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    run(main)
