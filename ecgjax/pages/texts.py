"""Makes texts from data, such as record ids, labels and names of files, fit to be stored and read."""

from __future__ import annotations

import re

#: Words on the flag `--anonymous` of every command that writes a report.
ANONYMOUS_WORDS = "Writes the report without host, user, absolute paths, dates, commits and ids, for blind review."

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

# Characters that reverse the direction of writing, so that a text reads as another, or end a line in some programs
# only.
_DIRECTION = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def storable(text: str) -> str:
    """Returns a text in which characters that cannot be seen are replaced by U+FFFD.

    These are control characters, lone surrogates and marks of direction.
    """
    return _DIRECTION.sub("\N{REPLACEMENT CHARACTER}", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))
