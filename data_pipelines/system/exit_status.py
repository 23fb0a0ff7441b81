"""The exit statuses of all commands, in one place."""

from __future__ import annotations

import enum


class ExitStatus(enum.IntEnum):
    """The status that a command leaves with.

    A launcher starts the same command again after `STOPPED`, `HUNG` and `LOST`, and after no other.
    """

    DONE = 0
    #: A fault of the program itself, with its stack trace; of `verify`, damage that it found.
    FAULT = 1
    #: Something in the command, config, data or checkpoint is wrong.
    USER_ERROR = 2
    #: A loss or a parameter is no longer finite, or too many updates were skipped because they were not.
    DIVERGED = 3
    #: SIGTERM or SIGUSR1 asked the command to stop.
    STOPPED = 75
    #: A read, a step, an evaluation, a save or the start took longer than `config.watchdog` allows.
    HUNG = 76
    #: Another process of the same run was killed, crashed or fell silent.
    LOST = 77
    #: Ctrl-C (SIGINT) asked the command to stop.
    INTERRUPTED = 130


#: Statuses after which the same command, given again, goes on by itself.
RESTARTABLE = (ExitStatus.STOPPED, ExitStatus.HUNG, ExitStatus.LOST)
