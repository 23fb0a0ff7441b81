r"""Writes the batch script of a run on a Slurm cluster, and submits it where that is asked for.

  python -m launch.slurm --nodes=8 --gpus_per_node=8 --time=24:00:00 --partition=gpu -- \
      python -m ecgjax.pretrain --config=… --config.data.dir=… --workdir=…          (prints the script)
  python -m launch.slurm … --submit -- python -m ecgjax.pretrain …                  (gives it to sbatch)

There is one process a GPU, and each sees all GPUs of its node; srun tells the processes their places. --grace_s seconds
before the limit they get SIGTERM, save and leave with status 75; then, and after a preemption, the script puts the job
back into the queue under the same number, as often as it takes. After statuses 76 and 77, and where a process was
killed, it does so --max_restarts times in a row; after any other status the job ends. What the processes print is in
LOGS/NAME-JOB.restartN.txt, what became of them in LOGS/NAME-JOB.out. docs/clusters.md shows more.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from absl import flags

from data_pipelines.command import run

from .clusters import delivery, slurm_script
from .clusters.checked_command import check_command


def launch(command: Sequence[str]) -> int:
    """Prints, writes or submits the script of a command, and returns the exit status."""
    job = slurm_script.job_of(flags.FLAGS)
    made_by = shlex.join(["python", "-m", f"{__package__}.slurm", *sys.argv[1:]])
    text = slurm_script.script(job, check_command(command), made_by=made_by)
    return delivery.deliver(delivery.delivery_of(flags.FLAGS), text, to=["sbatch"], logs=job.logs)


def main(argv: list[str]) -> int:
    """Launches the command that follows `--`, and returns the exit status."""
    return delivery.run_launcher(launch, argv)


if __name__ == "__main__":
    delivery.define_all(slurm_script.define_flags, to="sbatch")
    run(main)
