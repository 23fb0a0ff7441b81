"""Streams that say that they are a terminal."""

import io


class Terminal(io.StringIO):
    """Text that was written to a terminal."""

    def isatty(self) -> bool:
        """Whether it is a terminal, which it says it is."""
        return True
