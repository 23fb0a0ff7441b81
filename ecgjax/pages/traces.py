"""Takes out of a written report what tells who made it, where and when, as double-blind reviews ask.

What is replaced: absolute paths, addresses in buckets and of services, names of host and user, dates, commits and the
release of the kernel. Ids of records and patients are left out where a report would write them; what a caution quotes
as an example is replaced here. Names of data sets and of models stay, since a report is about them.
"""

from __future__ import annotations

import functools
import getpass
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgjax.system.revision import UNKNOWN, code_revision

#: Archives, licences and identifiers whose addresses are citations and say nothing of who cites them.
_PUBLIC = (
    "physionet.org", "www.physionet.org", "doi.org", "dx.doi.org", "zenodo.org", "creativecommons.org",
    "opendatacommons.org", "www.nature.com", "arxiv.org", "ieeexplore.ieee.org", "pubmed.ncbi.nlm.nih.gov",
)  # fmt: skip

#: Names of accounts and machines that are the same everywhere, and words that reports need.
_COMMON_NAMES = frozenset(
    {
        *("root", "user", "users", "admin", "ubuntu", "debian", "centos", "localhost", "home", "host", "nobody"),
        *("runner", "jovyan", "main", "data", "test"),
    }
)

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://(?P<host>[^\s/'\",;()\[\]]*)[^\s'\",;()\[\]]*", re.IGNORECASE)
# A shell quotes a path with spaces, and the quotes say where it ends.
_QUOTED_PATH = re.compile(r"(?<=')(?P<before>[^'/=\s]*=)?(?:~|/)(?=[\w.~])[^'\n]*(?=')|(?<=')~?/[^'\n]+(?=')")
# A path begins where a word could begin, so that units (ECGs/s) and shares (3 / 4) are none.
_PATH = re.compile(r"(?:(?<=^)|(?<=[\s=,:`\"'(\[{]))(?:~[\w.-]*)?/(?=[\w.~])[^\s'\",;:()\[\]{}<>|`]*")
_DATES = re.compile(
    r"""\b(?:
    (?:19|20)\d\d ([-/]) (?:0[1-9]|1[0-2]) \1 (?:0[1-9]|[12]\d|3[01])               # 2026-12-01, 2026/12/01
    (?:[T\ ]\d\d:\d\d (?::\d\d(?:\.\d+)?)? (?:Z|[+-]\d\d:?\d\d)?)?
    | (?:0?[1-9]|[12]\d|3[01])\.(?:0?[1-9]|1[0-2])\.20\d\d                         # 1.12.2026
    )\b""",
    re.VERBOSE,
)
_COMMIT = re.compile(r"\b[0-9a-f]{40}\b|(?<=\+)g[0-9a-f]{7,40}\b")
_KERNEL = re.compile(r"\bLinux-[\w.+-]+")
_EXAMPLE = re.compile(r"'[^']*'|(?<=\brecord )\d+")


def without_traces(text: str) -> str:
    """Returns a text in which paths, addresses, names of host and user, dates and commits are replaced by words."""
    text = _ADDRESS.sub(lambda found: found[0] if found["host"].lower() in _PUBLIC else "ADDRESS", text)
    text = _QUOTED_PATH.sub(lambda found: f"{found['before'] or ''}PATH", text)
    text = _PATH.sub("PATH", text)
    text = _COMMIT.sub("COMMIT", _DATES.sub("DATE", _KERNEL.sub("Linux", text)))
    for pattern, word in _own_names():
        text = pattern.sub(word, text)
    return text


def anonymous_caution(text: str) -> str:
    """Returns a caution without the records that it quotes as examples, and without all other traces."""
    return without_traces(_EXAMPLE.sub("WITHHELD", text))


def anonymous_values(value: Any) -> Any:
    """Returns values of JSON without traces in any text, names of entries included.

    Args:
        value: Value as `json_values.plain` returns it. Texts under `cautions` lose the records that they quote.
    """
    if isinstance(value, str):
        return without_traces(value)
    if isinstance(value, list):
        return [anonymous_values(each) for each in value]
    if isinstance(value, Mapping):
        return {
            without_traces(name): [anonymous_caution(str(each)) for each in inside]
            if name == "cautions" and isinstance(inside, list)
            else anonymous_values(inside)
            for name, inside in value.items()
        }
    return value


@functools.cache
def _own_names() -> list[tuple[re.Pattern[str], str]]:
    """Returns patterns of the names of this machine, of its user and of the code's revision, each with its word."""
    host = socket.gethostname()
    names = {host: "HOST", host.partition(".")[0]: "HOST", Path.home().name: "USER", _user(): "USER"}
    patterns = [
        (re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE), word)
        for name, word in names.items()
        if len(name) > 2 and name.lower() not in _COMMON_NAMES
    ]
    commit = code_revision().commit
    if commit != UNKNOWN:
        patterns.append((re.compile(rf"\b{re.escape(commit[:7])}[0-9a-f]*\b"), "COMMIT"))
    return patterns


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container may run under a number that has no name.
        return ""
