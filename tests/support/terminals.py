"""Terminals: streams that say that they are one, and a true one for a command."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import subprocess
import termios


class Terminal(io.StringIO):
    """Text that was written to a terminal."""

    def isatty(self) -> bool:
        """Whether it is a terminal, which it says it is."""
        return True


def on_terminal(command: list[str], *, columns: int, **how) -> str:
    """Returns what a command prints on a terminal of so many columns; it must leave with status 0.

    Args:
        command: Program and arguments.
        columns: Width of the terminal.
        how: Further arguments of `subprocess.Popen`.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, **how) as process:
        os.close(its)
        printed = b""
        with contextlib.suppress(OSError):  # Linux answers so once the other side has gone.
            while some := os.read(ours, 65536):
                printed += some
    os.close(ours)
    assert process.returncode == 0, printed
    return printed.decode().replace("\r\n", "\n")
