"""After which statuses a cluster starts a run again, with and without counting it."""

from __future__ import annotations

from data_pipelines.system.exit_status import RESTARTABLE, ExitStatus

_SIGTERM = 128 + 15

#: The cluster took the machines away, or time was up: the run goes on as often as that happens. A process that SIGTERM
#: meets before its first line ends by the signal itself.
UNCOUNTED: tuple[int, ...] = (int(ExitStatus.STOPPED), _SIGTERM)

#: Something hung, or a process was lost, or was ended by SIGABRT, SIGBUS, SIGKILL or SIGSEGV, as those are whose
#: machine or memory fails: the run goes on, a limited number of times.
COUNTED: tuple[int, ...] = (*sorted(set(map(int, RESTARTABLE)) - {*UNCOUNTED}), 134, 135, 137, 139)

#: Restarts of the second kind, in a row, unless another number is asked for.
MOST_RESTARTS = 5

#: Seconds between SIGTERM and SIGKILL, unless another number is asked for: a step, an evaluation and a save.
GRACE_S = 300

#: Fewest seconds that are accepted for them.
LEAST_GRACE_S = 120
