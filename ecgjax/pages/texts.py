"""Texts that may hold anything: record ids, labels, names of files."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def storable(text: str) -> str:
    """Returns a text that any file can hold: control characters and lone surrogates become U+FFFD."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
