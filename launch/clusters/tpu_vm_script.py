"""Scripts that get TPU virtual machines, run a container on all of their workers, and get them again when they go."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
from collections.abc import Sequence

from absl import flags

from ecgjax.errors import ConfigError

from . import shared_flags
from .checks import check_image, check_local, check_name, check_plain, variables_of
from .restart_policy import COUNTED, GRACE_S, MOST_RESTARTS, UNCOUNTED
from .tpu_slices import Slice, slice_of

_VARIABLES = ("ECGJAX_CLUSTER", "MEGASCALE_NUM_SLICES", "MEGASCALE_COORDINATOR_ADDRESS", "TPU_WORKER_HOSTNAMES")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuJob:
    """What a script asks Google Cloud for, and runs there.

    Attributes:
        name: Name of the queued resource, of its nodes and of the containers.
        tpu: Slice of TPUs.
        slices: Number of slices.
        zone: Zone of the TPUs.
        project: Project that is charged.
        image: Image of the containers.
        runtime: Software of the virtual machines.
        spot: Whether machines are asked for that may be taken away at any time.
        keep: Whether the machines are kept when the run has ended.
        mounts: Folders of a worker that its container sees under the same path.
        setup: Lines of the shell for every worker, before the container starts.
        variables: Variables of the environment as (name, value).
        logs: Folder of this machine for what the workers print.
        grace_s: Seconds between SIGTERM and SIGKILL.
        max_restarts: Number of restarts in a row after a hang or a lost process.
        poll_s: Seconds between two questions about the state of the machines.
    """

    name: str
    tpu: Slice
    zone: str
    project: str
    image: str
    runtime: str
    slices: int = 1
    spot: bool = False
    keep: bool = False
    mounts: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    logs: str = "logs"
    grace_s: int = GRACE_S
    max_restarts: int = MOST_RESTARTS
    poll_s: int = 30

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the slices."""
        return (self.name,) if self.slices == 1 else tuple(f"{self.name}-{place}" for place in range(self.slices))


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of a job."""
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    number = functools.partial(flags.DEFINE_integer, flag_values=values)
    many = functools.partial(flags.DEFINE_multi_string, flag_values=values)
    text("name", "ecgjax", "Name of the machines and containers.")
    text("tpu", "", "Slice of TPUs, e.g. v5e:16x16; it must be given.")
    number("slices", 1, "Slices of TPUs.", lower_bound=1, upper_bound=256)
    text("zone", "", "Zone of the TPUs, e.g. us-west4-a; it must be given.")
    text("project", "", "Project that is charged; it must be given.")
    text("image", "", "Image of the containers, e.g. REGISTRY/ecgjax-tpu:TAG; it must be given.")
    text("runtime", "", "Software of the virtual machines; empty for the usual one of the generation.")
    flags.DEFINE_bool("spot", False, "Takes machines that may be taken away at any time.", flag_values=values)
    flags.DEFINE_bool("keep", False, "Keeps the machines, at their price, when the run has ended.", flag_values=values)
    many("mount", [], "Folder of a worker that its container sees under the same path. Repeat for several.")
    many("setup", [], "Line of the shell for every worker before the start, e.g. a mount. Repeat for several.")
    text("logs", "logs", "Folder of this machine for what the workers print.")
    shared_flags.define_flags(values)
    number("poll_s", 30, "Seconds between two questions about the machines.", lower_bound=1, upper_bound=3600)


def job_of(values: flags.FlagValues) -> TpuJob:
    """Returns the job that parsed flags ask for.

    Raises:
        ConfigError: A value is missing or not possible.
    """
    check_image(values.image)
    for flag in ("tpu", "zone", "project"):
        if not getattr(values, flag):
            raise ConfigError(f"--{flag}=… must be given (--help tells more)")
    for flag in ("zone", "project", "runtime", "logs"):
        if getattr(values, flag):
            check_plain(flag, getattr(values, flag))
    check_local("logs", values.logs)
    if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", values.zone):
        raise ConfigError(f"--zone={values.zone} is no zone; write it as us-west4-a")
    for folder in values.mount:
        if not re.fullmatch(r"/[^:\0\n]+", folder):
            raise ConfigError(f"--mount={folder!r} is no whole path of a folder")
    for line in values.setup:
        if "\0" in line:
            raise ConfigError(f"--setup={line!r} cannot be written into a script")
    tpu = slice_of(values.tpu)
    longest = 63 - len(f"-{values.slices - 1}-w-{tpu.hosts - 1}")
    return TpuJob(
        name=check_name("name", values.name, longest=longest, why="the names of the workers are longer"),
        tpu=tpu,
        runtime=values.runtime or tpu.generation.runtime,
        mounts=tuple(values.mount),
        setup=tuple(values.setup),
        variables=variables_of(values.env, reserved=_VARIABLES),
        **{
            name: getattr(values, name)
            for name in (
                "slices", "zone", "project", "image", "spot", "keep", "logs", "grace_s", "max_restarts", "poll_s",
            )
        },
    )  # fmt: skip


def script(job: TpuJob, command: Sequence[str], *, made_by: str) -> str:
    """Returns the script that runs a command on all workers, until it has ended or cannot go on.

    Args:
        job: What is asked of Google Cloud.
        command: Program and its arguments, which the container of every worker runs.
        made_by: Command that makes this script, for its head.
    """
    told = "".join(f"# {line}\n" for line in made_by.splitlines())
    return f"#!/bin/bash\n{told}{_names(job)}\n{_worker(job, command)}\n{_MACHINES}\n{_WORKERS}\n{_main(job)}"


def _names(job: TpuJob) -> str:
    where = f"--zone={job.zone} --project={job.project}"
    nodes = f"--node-id={job.name}" if job.slices == 1 else f"--node-count={job.slices} --node-prefix={job.name}"
    options = f"{nodes} --accelerator-type={job.tpu.vm_type} --runtime-version={job.runtime}"
    options += " --spot" if job.spot else ""
    return f"""\
# bash SCRIPT runs all of it; bash SCRIPT create, start, status, stop, logs or delete one part.
name={job.name}
nodes=({" ".join(job.nodes)})
workers={job.tpu.hosts * job.slices}
where=({where})
create_options=({options})
logs={job.logs}
poll_s={job.poll_s}
"""


def _worker(job: TpuJob, command: Sequence[str]) -> str:
    """Returns the commands for the shells of workers, each as a variable."""
    options = [
        f"--name={job.name}",
        "--privileged",
        "--user=0",
        "--network=host",
        f"--stop-timeout={job.grace_s}",
        *(f"--volume={folder}:{folder}" for folder in job.mounts),
        "--env=ECGJAX_CLUSTER=tpu",
        "--env=PYTHONUNBUFFERED=1",
        *(f"--env={name}={value}" for name, value in job.variables),
    ]
    container = shlex.join(["sudo", "docker", "run", "--detach", *options, job.image, *command])
    lines = [
        "set -e",
        *job.setup,
        f"sudo docker pull --quiet {job.image}",
        f"sudo docker rm --force {job.name} > /dev/null 2>&1 || true",
        container,
    ]
    texts = {
        "start_worker": "\n".join(lines),
        "wait_for_worker": f'echo "status $(sudo docker wait {job.name})"',
        "stop_worker": f"sudo docker stop --time={job.grace_s} {job.name}",
        "log_of_worker": f"sudo docker logs {job.name} 2>&1",
    }
    return "".join(f"{name}={shlex.quote(text)}\n" for name, text in texts.items())


_MACHINES = """\
describe() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)' < /dev/null
}

state() {
  describe 2> /dev/null
}

create() {
  gcloud compute tpus queued-resources create "$name" "${where[@]}" "${create_options[@]}" < /dev/null
}

delete() {
  gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet < /dev/null
}

wait_for_machines() {
  local now before= unknown=0
  while :; do
    now=$(state)
    [[ $now == "$before" ]] || echo "machines: ${now:-unknown}"
    before=$now
    case $now in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDING | SUSPENDED) return 1 ;;
      ACCEPTED | CREATING | WAITING_FOR_RESOURCES | PROVISIONING | ACTIVATING | DELETING) unknown=0 ;;
      *) unknown=$((unknown + 1)) ;;
    esac
    # gcloud itself says why it knows no state.
    if ((unknown >= 10)); then
      describe
      return 1
    fi
    [[ -z $stopped ]] || return 1
    sleep "$poll_s"
  done
}

# Machines that were taken away stay in the list, and must be deleted before others of their name are created.
have_machines() {
  local now
  now=$(state)
  case $now in
    ACTIVE) return 0 ;;
    FAILED | SUSPENDING | SUSPENDED) delete || return ;;
  esac
  if [[ -z $now || $now == FAILED || $now == SUSPEND* ]]; then
    create || return
  fi
  wait_for_machines
}
"""

_WORKERS = """\
# Runs a command of the shell on all workers of all slices at once.
on_workers() {
  local node process status=0 processes=()
  for node in "${nodes[@]}"; do
    gcloud compute tpus tpu-vm ssh "$node" "${where[@]}" --worker=all --quiet --command="$1" < /dev/null &
    processes+=($!)
  done
  for process in "${processes[@]}"; do
    wait "$process" || status=$?
  done
  return "$status"
}

# Prints the highest status of all workers; fails where the machines were taken away.
wait_for_workers() {
  local found
  while :; do
    found=$(on_workers "$wait_for_worker" 2> /dev/null | sed -n 's/^status \\([0-9][0-9]*\\)$/\\1/p')
    if [[ $(wc -w <<< "$found") -eq $workers ]]; then
      sort -n <<< "$found" | tail -n 1
      return 0
    fi
    # A connection that broke is made again.
    [[ $(state) == ACTIVE ]] || return 1
    sleep "$poll_s"
  done
}

keep_logs() {
  on_workers "$log_of_worker" > "$logs/$name.start$starts.txt" 2>&1
}
"""


def _main(job: TpuJob) -> str:
    end = 'echo "the machines are kept; bash SCRIPT delete ends their price"' if job.keep else "delete"
    return f"""\
finish() {{
  {end}
  exit "$1"
}}

stopped=
leave_if_stopped() {{
  if [[ -n $stopped ]]; then
    echo "stopped; machines are kept: the same script goes on, and bash SCRIPT delete ends their price"
    exit {UNCOUNTED[0]}
  fi
}}

run() {{
  local status waiting given
  mkdir -p "$logs"
  starts=0
  failures=0
  trap 'stopped=1; on_workers "$stop_worker"' TERM INT
  while :; do
    leave_if_stopped
    have_machines
    given=$?
    leave_if_stopped
    if ((given)); then
      [[ $(state) == SUSPEND* ]] && continue
      echo "error: the machines were not given; the lines above and bash SCRIPT status say why" >&2
      exit 1
    fi
    starts=$((starts + 1))
    echo "start $starts on $workers workers"
    if ! on_workers "$start_worker"; then
      [[ $(state) == ACTIVE ]] || continue
      echo "error: the containers did not start; the machines are kept, and bash SCRIPT delete ends their price" >&2
      exit 1
    fi
    # Signals are heard while the shell waits for a process behind it, and not for one before it.
    wait_for_workers > "$logs/$name.status" &
    waiting=$!
    while :; do
      wait "$waiting"
      kill -0 "$waiting" 2> /dev/null || break
    done
    if ! wait "$waiting"; then
      echo "the machines were taken away, which is no failure; others are asked for"
      continue
    fi
    status=$(< "$logs/$name.status")
    keep_logs
    echo "status $status; log: $logs/$name.start$starts.txt"
    if [[ -n $stopped ]]; then
      echo "stopped; the machines are kept: the same script goes on, and bash SCRIPT delete ends their price"
      exit "$status"
    fi
    case $status in
      0) finish 0 ;;
      {" | ".join(map(str, UNCOUNTED))}) failures=0 ;;
      {" | ".join(map(str, COUNTED))})
        failures=$((failures + 1))
        if ((failures > {job.max_restarts})); then
          echo "error: the {job.max_restarts} restarts in a row are used up" >&2
          finish "$status"
        fi
        ;;
      *)
        echo "error: another start would not mend this" >&2
        finish "$status"
        ;;
    esac
  done
}}

main() {{
  case "${{1:-run}}" in
    run) run ;;
    create) have_machines ;;
    start) on_workers "$start_worker" ;;
    status) describe ;;
    stop) on_workers "$stop_worker" ;;
    logs) on_workers "$log_of_worker" ;;
    delete) delete ;;
    *)
      echo "error: $1 is none of run, create, start, status, stop, logs, delete" >&2
      exit 2
      ;;
  esac
}}

main "$@"
exit
"""
