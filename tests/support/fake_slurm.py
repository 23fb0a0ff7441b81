"""Stand-ins for Slurm's commands: `srun` starts the processes of a step here, `scontrol` and `squeue` keep notes."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

#: Starts as many processes as it is told, hands SIGTERM on to them, and leaves with the highest status, as srun does.
_SRUN = r"""#!/bin/bash
while [[ $1 == --* ]]; do
  case $1 in
    --ntasks=*) tasks=${1#*=} ;;
    --output=*) output=${1#*=} ;;
  esac
  printf '%s\n' "$1" >> "$FAKE_SLURM/srun_options"
  shift
done
export SLURM_STEP_NODELIST=127.0.0.1 SLURM_STEP_NUM_TASKS=$tasks SLURM_STEP_ID=0 SLURM_NODEID=0
processes=()
trap 'kill -TERM "${processes[@]}" 2> /dev/null' TERM
for ((task = 0; task < tasks; task++)); do
  SLURM_PROCID=$task SLURM_LOCALID=$task "$@" >> "$output" 2>&1 &
  processes+=($!)
  echo $! >> "$FAKE_SLURM/processes"
done
highest=0
for process in "${processes[@]}"; do
  while :; do
    wait "$process"
    status=$?
    kill -0 "$process" 2> /dev/null || break
  done
  wait "$process"
  status=$?
  ((status > highest)) && highest=$status
done
exit $highest
"""

_SCONTROL = """#!/bin/bash
echo "$*" >> "$FAKE_SLURM/scontrol_calls"
exit "${FAKE_SCONTROL_STATUS:-0}"
"""

_SQUEUE = """#!/bin/bash
echo "${FAKE_STATE:-RUNNING}"
"""


class FakeSlurm:
    """A folder with stand-ins for Slurm's commands.

    Attributes:
        folder: Folder of the commands and of what they note.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("srun", _SRUN), ("scontrol", _SCONTROL), ("squeue", _SQUEUE)):
            path = folder / name
            path.write_text(text, encoding="utf-8")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Returns the environment of a batch script, with further variables."""
        given = {**os.environ, **(more or {})}
        ours = ("SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_JOB_ID")
        others = ("SLURM_", "ECGJAX_")
        kept = {name: each for name, each in given.items() if not name.startswith(others) or name in ours}
        return {
            **kept,
            "PATH": f"{self.folder}{os.pathsep}{given['PATH']}",
            "FAKE_SLURM": str(self.folder),
            "SLURM_JOB_ID": "77",
            "SLURM_JOB_NAME": "rehearsal",
        }

    def start(self, script: str, cwd: Path, more: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a batch script in a folder, as Slurm does on the first node of a job."""
        path = self.folder / "script.sh"
        path.write_text(script, encoding="utf-8")
        return subprocess.Popen(
            ["bash", path],
            cwd=cwd,
            env=self.environment(more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, cwd: Path, more: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Runs a batch script to its end, and returns its status and what it printed."""
        process = self.start(script, cwd, more)
        output, _ = process.communicate()
        return process.returncode, output

    def notes(self, name: str) -> list[str]:
        """Returns the lines that a stand-in has noted."""
        path = self.folder / name
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
