r"""Writes a script that runs a command on TPU virtual machines of Google Cloud, and runs it where that is asked for.

  python -m launch.tpu_vm --tpu=v5e:16x16 --slices=2 --zone=us-west4-a --project=PROJECT --spot \
      --image=REGISTRY/ecgjax-tpu:TAG --setup='mountpoint -q /mnt || sudo mount -t nfs SERVER:/share /mnt' \
      --mount=/mnt -- \
      python -m ecgjax.pretrain --config=… --config.data.dir=/mnt/… --workdir=/mnt/…               (prints the script)
  python -m launch.tpu_vm … --submit -- python -m ecgjax.pretrain …                               (runs it)

The script asks for the machines (a queued resource of gcloud) and waits for them, starts a container on every worker of
every slice, and waits for its status. Machines that are taken away are asked for again, and the run goes on, uncounted;
after statuses 76 and 77, and where a process was killed, it starts again --max_restarts times in a row; after any other
status it ends. Then the machines are deleted, unless --keep is given. It runs for as long as the run does, on a machine
that stays on; SIGTERM and Ctrl-C have the run saved and stopped. docs/clusters.md shows more.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from absl import flags

from data_pipelines.command import run

from .clusters import delivery, tpu_vm_script
from .clusters.checked_command import check_command


def launch(command: Sequence[str]) -> int:
    """Prints, writes or runs the script of a command, and returns the exit status."""
    job = tpu_vm_script.job_of(flags.FLAGS)
    made_by = shlex.join(["python", "-m", f"{__package__}.tpu_vm", *sys.argv[1:]])
    text = tpu_vm_script.script(job, check_command(command), made_by=made_by)
    return delivery.deliver(delivery.delivery_of(flags.FLAGS), text, to=["bash"], needs="gcloud")


def main(argv: list[str]) -> int:
    """Launches the command that follows `--`, and returns the exit status."""
    return delivery.run_launcher(launch, argv)


if __name__ == "__main__":
    delivery.define_all(tpu_vm_script.define_flags, to="bash, which runs it here")
    run(main)
