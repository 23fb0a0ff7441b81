"""Names data sets that are built from folders, so that their patients are not confused with those of other data sets.

A patient is an id within data sets of one name (`ecgjax/leakage/trained_on.py`). Two sources that share a name would
share their patients, and a source under two names would have its patients twice.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Name that every folder had before names were made of the source; patients of such a data set are recognised in no
#: other.
NO_NAME = "folder"

_MOST_LETTERS = 40
_DIGEST_LETTERS = 6


def name_of_source(source: Path) -> str:
    """Returns a name for the data set of a folder: the folder's own name and a digest of its path.

    A folder has the same name whenever it is built, and no two folders have the same name.

    Args:
        source: Path of the folder.
    """
    path = source.resolve()
    plain = unicodedata.normalize("NFKD", path.name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_MOST_LETTERS].rstrip("_")
    if not words[:1].isalpha():
        words = f"ecgs_{words}".rstrip("_")
    digest = hashlib.blake2b(str(path).encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return f"{words}_{digest[:_DIGEST_LETTERS]}"


def name_notes(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns a note if the data set has no name of its own, on what this means for its patients; empty otherwise.

    Args:
        card: Card of the data set.
    """
    if card["name"] != NO_NAME:
        return ()
    return (
        f"this data set has no name of its own ('{NO_NAME}'): its patients are known again in no other data set, nor "
        "in this one built again; build it again with --name=NAME --overwrite",
    )
