"""What is wrong with the folder of a checkpoint, in words: empty, foreign, cut short, parts missing or unreadable."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from data_pipelines.system.visible_text import visible
from ecgjax.system.machine_faults import cause_of

#: File in which Orbax keeps what is stored beside the arrays.
METADATA_FILE = "_CHECKPOINT_METADATA"

_SHOWN = 3


def fault_of(folder: Path, *, parts: Collection[str] = ()) -> str:
    """Returns what is wrong with a checkpoint as far as its files show, or nothing.

    Values of arrays are not read: their digests are compared when they are restored.

    Args:
        folder: Folder of the checkpoint.
        parts: Names of the parts that are needed.
    """
    try:
        if not folder.is_dir():
            return "it is no folder"
        names = sorted(os.listdir(folder))
        if not names:
            return "its folder is empty"
        if METADATA_FILE not in names:
            return _without_metadata(names)
        return _fault_of_parts(folder, _stored(folder / METADATA_FILE), parts)
    except OSError as error:
        return f"{visible(str(error.filename or folder))} cannot be read: {cause_of(error)}"
    except ValueError as error:
        return f"its {METADATA_FILE} is cut short or overwritten: {error}"


def _fault_of_parts(folder: Path, stored: dict[str, Any], parts: Collection[str]) -> str:
    leaves = stored.get("leaves")
    if not isinstance(stored.get("metadata"), dict) or not isinstance(leaves, dict):
        return "another program wrote it: it has no digests of ecgjax"
    needed = [part for part in parts if part in leaves]
    missing = [part for part in needed if not (folder / part).is_dir()]
    if missing:
        return f"{', '.join(missing)} of it {'are' if len(missing) > 1 else 'is'} missing"
    _read_a_byte_of_each(folder / part for part in needed)
    return ""


def _without_metadata(names: Collection[str]) -> str:
    shown = ", ".join(visible(name) for name in list(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{METADATA_FILE} is missing, beside {shown}"


def _stored(path: Path) -> dict[str, Any]:
    text = path.read_bytes()
    if not text:
        raise ValueError("it is empty")
    whole = json.loads(text)
    if not isinstance(whole, dict):
        raise ValueError("it is no table of names")
    stored = whole.get("custom_metadata")
    return stored if isinstance(stored, dict) else {}


def _read_a_byte_of_each(folders: Iterable[Path]) -> None:
    """Raises the system's error for the first file in folders that cannot be read."""
    for folder in folders:
        for place, _, names in os.walk(folder, onerror=_raise):
            for name in names:
                with open(os.path.join(place, name), "rb") as file:
                    file.read(1)


def _raise(error: OSError) -> None:
    raise error
