"""Flags that all kinds of clusters have: variables of the processes, the time to leave in, and restarts."""

from __future__ import annotations

from absl import flags

from .restart_policy import GRACE_S, LEAST_GRACE_S, MOST_RESTARTS


def define_flags(
    values: flags.FlagValues,
    *,
    grace: str = "Seconds between SIGTERM and SIGKILL, in which a run saves and leaves.",
    most_grace_s: int = 3600,
    restarts: str = "Restarts in a row after a hang or a lost process; those after a preemption are not counted.",
) -> None:
    """Defines the flags `env`, `grace_s` and `max_restarts`.

    Args:
        values: Flags that they are added to.
        grace: Help of `grace_s`.
        most_grace_s: Largest number of seconds that `grace_s` takes.
        restarts: Help of `max_restarts`.
    """
    words = "NAME=VALUE: variable of the environment of all processes. Repeat."
    flags.DEFINE_multi_string("env", [], words, flag_values=values)
    flags.DEFINE_integer(
        "grace_s", GRACE_S, grace, lower_bound=LEAST_GRACE_S, upper_bound=most_grace_s, flag_values=values
    )
    flags.DEFINE_integer("max_restarts", MOST_RESTARTS, restarts, lower_bound=0, upper_bound=1000, flag_values=values)
