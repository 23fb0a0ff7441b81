r"""Writes the manifest of a run for Kubernetes (a JobSet), and submits it where that is asked for.

  python -m launch.jobset --image=REGISTRY/ecgjax-cuda:TAG --nodes=8 --gpus_per_node=8 \
      --accelerator=nvidia-h100-80gb --volume=CLAIM:/data -- \
      python -m ecgjax.pretrain --config=… --config.data.dir=/data/… --workdir=/data/…   (prints the manifest)
  python -m launch.jobset --image=REGISTRY/ecgjax-tpu:TAG --tpu=v5e:16x16 --slices=2 … --submit -- python -m …

There is one process a machine, and it takes all of its GPUs or TPU chips. The processes find each other by the names
that JobSet gives pods; no right to read pods is needed. Before a machine is taken away they get SIGTERM, have --grace_s
seconds to save, and leave with status 75: then all start again, and that is not counted. After statuses 76 and 77, and
where a process was killed, they start again --max_restarts times; after any other status the set has failed. It needs
JobSet 0.10 or later. docs/clusters.md shows more.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from absl import flags

from data_pipelines.command import run

from .clusters import delivery, jobset_manifest
from .clusters.checked_command import check_command


def launch(command: Sequence[str]) -> int:
    """Prints, writes or submits the manifest of a command, and returns the exit status."""
    job = jobset_manifest.jobset_of(flags.FLAGS)
    made_by = shlex.join(["python", "-m", f"{__package__}.jobset", *sys.argv[1:]])
    checked = check_command(command)
    for caution in jobset_manifest.check_folders(job, checked):
        print(f"warning: {caution}", file=sys.stderr)
    text = jobset_manifest.manifest(job, checked, made_by=made_by)
    return delivery.deliver(delivery.delivery_of(flags.FLAGS), text, to=["kubectl", "create", "-f", "-"])


def main(argv: list[str]) -> int:
    """Launches the command that follows `--`, and returns the exit status."""
    return delivery.run_launcher(launch, argv)


if __name__ == "__main__":
    delivery.define_all(jobset_manifest.define_flags, to="kubectl create")
    run(main)
