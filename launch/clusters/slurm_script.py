"""Batch scripts for Slurm: one task a GPU, SIGTERM before the end, and a place in the queue again after status 75."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from absl import flags

from data_pipelines.command import MOST_WORKERS
from ecgjax.errors import ConfigError

from . import shared_flags
from .checks import check_local, check_name, check_plain, shared_words, variables_of
from .restart_policy import COUNTED, GRACE_S, MOST_RESTARTS, UNCOUNTED

#: Options that the script sets itself, from flags of the launcher.
_OWN = (
    "job-name", "nodes", "ntasks", "ntasks-per-node", "ntasks-per-gpu", "gpus", "gpus-per-node", "gpus-per-task",
    "gres", "tres-per-task", "gpu-bind", "cpus-per-task", "time", "signal", "requeue", "no-requeue", "open-mode",
    "output", "error", "array", "wait", "kill-on-bad-exit", "label",
)  # fmt: skip
_SHORT = {
    "-J": "job-name", "-N": "nodes", "-n": "ntasks", "-G": "gpus", "-c": "cpus-per-task", "-t": "time", "-o": "output",
    "-e": "error", "-a": "array", "-W": "wait", "-K": "kill-on-bad-exit", "-l": "label",
}  # fmt: skip
_SET_BY = {
    "job-name": "name", "output": "logs", "error": "logs", "signal": "grace_s", "gres": "gpus_per_node",
    "gpus": "gpus_per_node", "ntasks-per-node": "processes_per_node", "cpus-per-task": "cpus_per_process",
}  # fmt: skip

#: Variables of the script, which would reach the processes instead of the user's.
_SHELL_VARIABLES = (
    "logs", "restarts", "job", "log", "failures", "command", "own", "step", "stopped", "status", "count",
    "ECGJAX_CLUSTER",
)  # fmt: skip

_TIME = re.compile(r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<m>\d+)(?::(?P<s>\d+))?)?)|(?P<plain>\d+(?::\d+){0,2})")

#: Most tasks of an array that a cluster accepts where its administrators have not changed it (MaxArraySize).
_MOST_TASKS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """What a batch script asks Slurm for.

    Attributes:
        name: Name of the job and of its logs.
        nodes: Number of nodes.
        gpus_per_node: Number of GPUs of a node; 0 for a job on CPUs.
        gpu_type: Type of the GPUs as the cluster calls it; empty for any.
        processes_per_node: Number of processes of a node.
        cpus_per_process: Number of CPUs of a process; 0 for the cluster's own number.
        time: Limit in one of Slurm's forms; empty for the partition's own.
        partition: Partition; empty for the cluster's own.
        account: Account that is charged; empty for the user's own.
        logs: Folder of the logs, which all nodes see.
        grace_s: Seconds before the limit at which the processes get SIGTERM.
        max_restarts: Number of restarts in a row after a hang or a lost process.
        setup: Lines of the shell that come before the command.
        variables: Variables of the environment as (name, value).
        sbatch: Further options of `sbatch`.
        srun: Further options of `srun`.
    """

    name: str
    nodes: int = 1
    gpus_per_node: int = 0
    gpu_type: str = ""
    processes_per_node: int = 1
    cpus_per_process: int = 0
    time: str = ""
    partition: str = ""
    account: str = ""
    logs: str = "logs"
    grace_s: int = GRACE_S
    max_restarts: int = MOST_RESTARTS
    setup: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    sbatch: tuple[str, ...] = ()
    srun: tuple[str, ...] = ()


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of a job."""
    many = functools.partial(flags.DEFINE_multi_string, flag_values=values)
    flags.DEFINE_string("name", "ecgjax", "Name of the job and of its logs.", flag_values=values)
    flags.DEFINE_integer("nodes", 1, "Nodes.", lower_bound=1, upper_bound=100_000, flag_values=values)
    flags.DEFINE_integer("gpus_per_node", 0, "GPUs of a node.", lower_bound=0, upper_bound=64, flag_values=values)
    flags.DEFINE_string("gpu_type", "", "Type of the GPUs as the cluster calls it, e.g. h100.", flag_values=values)
    words = "Processes of a node; by default one a GPU, without GPUs one a node."
    flags.DEFINE_integer("processes_per_node", None, words, lower_bound=1, upper_bound=MOST_WORKERS, flag_values=values)
    words = "CPUs of a process; 0 for the cluster's own number."
    flags.DEFINE_integer("cpus_per_process", 0, words, lower_bound=0, upper_bound=1024, flag_values=values)
    words = "Limit as Slurm writes it, e.g. 24:00:00 or 2-00:00:00; empty for the partition's own."
    flags.DEFINE_string("time", "", words, flag_values=values)
    flags.DEFINE_string("partition", "", "Partition; empty for the cluster's own.", flag_values=values)
    flags.DEFINE_string("account", "", "Account that is charged; empty for your own.", flag_values=values)
    flags.DEFINE_string("logs", "logs", "Folder of the logs; all nodes must see it.", flag_values=values)
    shared_flags.define_flags(
        values,
        grace="Seconds before the limit at which the processes get SIGTERM, save and leave.",
        most_grace_s=65535,
        restarts="Restarts in a row after a hang or a lost process; those after SIGTERM are not counted.",
    )
    many("setup", [], "Line of the shell before the command, e.g. 'module load cuda'. Repeat.")
    many("sbatch", [], "Option of sbatch, e.g. --sbatch=--qos=high. Repeat for several.")
    many("srun", [], "Option of srun, e.g. --srun=--container-image=IMAGE. Repeat.")


def job_of(values: flags.FlagValues) -> SlurmJob:
    """Returns the job that parsed flags ask for.

    Raises:
        ConfigError: A value is not possible.
    """
    gpus = values.gpus_per_node
    processes = values.processes_per_node or gpus or 1
    if gpus and gpus % processes:
        raise ConfigError(
            f"--processes_per_node={processes} cannot share --gpus_per_node={gpus} equally; give a number that "
            "divides it"
        )
    if values.gpu_type and not gpus:
        raise ConfigError(f"--gpu_type={values.gpu_type}, but --gpus_per_node is 0; say how many")
    for flag in ("gpu_type", "partition", "account", "logs"):
        if getattr(values, flag):
            check_plain(flag, getattr(values, flag))
    check_local("logs", values.logs)
    _check_time(values.time, values.grace_s)
    job = SlurmJob(
        name=check_name("name", values.name, of="the names of a job and its logs"),
        processes_per_node=processes,
        setup=tuple(values.setup),
        variables=variables_of(values.env, reserved=_SHELL_VARIABLES),
        sbatch=tuple(_option("sbatch", each) for each in values.sbatch),
        srun=tuple(_option("srun", each) for each in values.srun),
        **{
            name: getattr(values, name)
            for name in (
                "nodes", "gpus_per_node", "gpu_type", "cpus_per_process", "time", "partition", "account", "logs",
                "grace_s", "max_restarts",
            )
        },
    )  # fmt: skip
    _check_setup(job.setup)
    return job


def _option(flag: str, text: str) -> str:
    """Returns a further option of sbatch or srun, after checking that it is one and is not set by the script."""
    name = text.partition("=")[0]
    known = name[2:] if name.startswith("--") else _SHORT.get(name[:2], "")
    if known in _OWN:
        own = _SET_BY.get(known, known.replace("-", "_"))
        given = f"; give --{own} of this command" if own in _FLAGS else ""
        raise ConfigError(f"--{flag}={text}: the script sets {name} itself, so that every GPU is used{given}")
    if not re.fullmatch("--[a-z][a-z0-9-]*", name) or "\0" in text:
        raise ConfigError(f"--{flag}={text!r} is no option in its long form, such as --{flag}=--qos=high")
    return check_plain(flag, text) if flag == "sbatch" else text


_FLAGS = {field.name for field in dataclasses.fields(SlurmJob)}


def _check_time(text: str, grace_s: int) -> None:
    if not text:
        return
    match = _TIME.fullmatch(text)
    if match is None:
        raise ConfigError(f"--time={text!r} is no limit as Slurm writes it; write HOURS:MINUTES:SECONDS or DAYS-HOURS")
    if match["plain"]:
        parts = [int(part) for part in match["plain"].split(":")]
        # A number alone is minutes, two are minutes and seconds.
        weights = {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}[len(parts)]
        seconds = sum(part * weight for part, weight in zip(parts, weights, strict=True))
    else:
        days, hours, minutes, rest = (int(match[name] or 0) for name in ("days", "hours", "m", "s"))
        seconds = 86400 * days + 3600 * hours + 60 * minutes + rest
    if seconds <= 2 * grace_s:
        raise ConfigError(
            f"--time={text} is {seconds} s, of which the last --grace_s={grace_s} are for saving; ask for more than "
            f"{2 * grace_s} s"
        )


def _check_setup(lines: Sequence[str]) -> None:
    bash = shutil.which("bash")
    for line in lines:
        if "\0" in line:
            raise ConfigError(f"--setup={line!r} cannot be written into a script")
        if bash is not None:
            done = subprocess.run([bash, "-n"], input=f"{line}\n", text=True, capture_output=True, check=False)
            # A document that is not ended is a warning of bash only, and would take in the rest of the script.
            if done.returncode or done.stderr:
                told = done.stderr.strip().partition("\n")[0].partition(": ")[2]
                raise ConfigError(f"--setup={line!r}: bash cannot read it ({told}); check its quotes and brackets")


def script(job: SlurmJob, command: Sequence[str], *, made_by: str) -> str:
    """Returns the batch script of a run.

    Args:
        job: What is asked of Slurm.
        command: Program and its arguments, which every process runs.
        made_by: Command that makes this script, for its head.
    """
    return _whole(job, _array("command", command), made_by=made_by)


def array_script(job: SlurmJob, commands: Sequence[Sequence[str]], *, made_by: str, at_once: int = 0) -> str:
    """Returns the batch script of an array of independent jobs, a command each.

    Args:
        job: What is asked of Slurm for each of them.
        commands: Programs with their arguments.
        made_by: Command that makes this script, for its head.
        at_once: Greatest number of jobs that run at once; 0 for no limit.

    Raises:
        ConfigError: There are more commands than arrays have jobs.
    """
    if len(commands) > _MOST_TASKS:
        raise ConfigError(
            f"{len(commands)} jobs are more than an array of Slurm has ({_MOST_TASKS}); make several arrays, of fewer "
            "seeds or arms each"
        )
    common, own = shared_words(commands)
    cases = "".join(f"  {number}) own=({shlex.join(words)}) ;;\n" for number, words in enumerate(own))
    choose = (
        f'case "$SLURM_ARRAY_TASK_ID" in\n{cases}'
        '  *)\n    echo "error: this array has no job $SLURM_ARRAY_TASK_ID" >&2\n    exit 2\n    ;;\nesac\n'
        + _array("command", common, more='"${own[@]}"')
    )
    limit = f"%{at_once}" if at_once else ""
    return _whole(job, choose, made_by=made_by, array=f"0-{len(commands) - 1}{limit}")


def _array(name: str, words: Sequence[str], *, more: str = "") -> str:
    lines = "".join(f"  {line}\n" for line in (*map(shlex.quote, words), *filter(None, [more])))
    return f"{name}=(\n{lines})\n"


def _whole(job: SlurmJob, command: str, *, made_by: str, array: str = "") -> str:
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in job.variables)
    setup = "".join(f"{line}\n" for line in job.setup)
    return "\n".join(
        part
        for part in (
            _head(job, made_by=made_by, array=array),
            f"# srun says the place of every process, and nothing else does.\nexport ECGJAX_CLUSTER=slurm\n{exports}",
            f"logs={shlex.quote(job.logs)}\n{_PLACES}",
            setup,
            command,
            _start(job),
            _end(job),
        )
        if part
    )


def _head(job: SlurmJob, *, made_by: str, array: str) -> str:
    kind = f"{job.gpu_type}:" if job.gpu_type else ""
    options = {
        "job-name": job.name,
        "array": array,
        "nodes": job.nodes,
        "ntasks-per-node": job.processes_per_node,
        "gpus-per-node": f"{kind}{job.gpus_per_node}" if job.gpus_per_node else "",
        "cpus-per-task": job.cpus_per_process or "",
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        # Without B: the signal reaches the processes, and not this script.
        "signal": f"TERM@{job.grace_s}",
        "requeue": None,
        "open-mode": "append",
        "output": f"{job.logs}/%x-{'%A_%a' if array else '%j'}.out",
    }
    lines = [f"--{name}" if value is None else f"--{name}={value}" for name, value in options.items() if value != ""]
    told = "".join(f"# {line}\n" for line in made_by.splitlines())
    directives = "".join(f"#SBATCH {line}\n" for line in (*lines, *job.sbatch))
    return f"#!/bin/bash\n{told}# The folder {job.logs} must exist when this is submitted.\n{directives}"


_PLACES = """\
restarts=${SLURM_RESTART_COUNT:-0}
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
mkdir -p "$logs"
logs=$(cd "$logs" && pwd)
log="$logs/$SLURM_JOB_NAME-$job.restart$restarts.txt"
failures="$logs/$SLURM_JOB_NAME-$job.failures"
"""


def _start(job: SlurmJob) -> str:
    options = [
        f"--nodes={job.nodes}",
        f"--ntasks={job.nodes * job.processes_per_node}",
        f"--ntasks-per-node={job.processes_per_node}",
        # srun does not take this over from the job.
        *([f"--cpus-per-task={job.cpus_per_process}"] if job.cpus_per_process else []),
        *(["--gpu-bind=none"] if job.gpus_per_node else []),
        "--kill-on-bad-exit=0",
        f"--wait={job.grace_s}",
        "--label",
        "--open-mode=append",
    ]
    lines = "".join(f"  {shlex.quote(option)} \\\n" for option in (*options, *job.srun))
    return f"""\
step=
stopped=
trap 'stopped=1; [[ -z $step ]] || kill -TERM "$step" 2> /dev/null' TERM
# All GPUs of a node are seen by all processes of the node, which divide them among themselves.
srun \\
{lines}  --output="${{log//%/%%}}" \\
  "${{command[@]}}" &
step=$!
[[ -z $stopped ]] || kill -TERM "$step"
while :; do
  stopped=
  wait "$step"
  status=$?
  # A signal ends the waiting before the processes have ended.
  [[ -n $stopped ]] || break
done
"""


def _used_up(job: SlurmJob) -> str:
    return f"the {job.max_restarts} restarts in a row are used up"


def _end(job: SlurmJob) -> str:
    return f"""\
again() {{
  # Somebody has cancelled the job, or Slurm itself has put it into the queue.
  case "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2> /dev/null)" in
    CANCELLED | COMPLETING)
      echo "status $status: job $job is cancelled or queued already; log: $log"
      exit "$status"
      ;;
  esac
  echo "status $status: $1; job $job waits for its restart $((restarts + 1)); log: $log"
  scontrol requeue "$SLURM_JOB_ID" || echo "error: job $job cannot be queued again; submit the same script" >&2
  exit "$status"
}}

case $status in
  0)
    rm -f "$failures"
    ;;
  {" | ".join(map(str, UNCOUNTED))})
    rm -f "$failures"
    again "stopped, which is no failure"
    ;;
  {" | ".join(map(str, COUNTED))})
    count=$(( $(cat "$failures" 2> /dev/null || echo 0) + 1 ))
    echo "$count" > "$failures"
    if ((count > {job.max_restarts})); then
      echo "error: status $status, and {_used_up(job)}; job $job ends; log: $log" >&2
      exit "$status"
    fi
    again "hung or lost a process, restart $count of {job.max_restarts} in a row"
    ;;
  *)
    echo "error: status $status, which another start would not mend; job $job ends; log: $log" >&2
    ;;
esac
exit "$status"
"""
