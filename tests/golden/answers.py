"""Answers on a disk: how they are written and read, and in what two of them differ."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.golden.commands import GoldenError

FOLDER = "answers"
WORDS, NUMBERS = ("helps", "leaves"), ("data", "results", "steps")
MACHINE = "machine"

_AGREED = Path(__file__).with_name("agreed.txt")
_LINE = 100


def write(folder: Path, answers: Mapping[str, Any]) -> None:
    """Writes each kind of answer to a file of its own."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for kind, value in answers.items():
        (folder / FOLDER / f"{kind}.json").write_text(f"{_text(value)}\n", encoding="utf-8")


def read(folder: Path, *kinds: str) -> dict[str, Any]:
    """Reads answers.

    Args:
        folder: Folder that `write` was given.
        *kinds: Kinds of answers; all by default.

    Raises:
        GoldenError: A file is missing.
    """
    try:
        return {
            kind: json.loads((folder / FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
            for kind in kinds or (*WORDS, *NUMBERS, MACHINE)
        }
    except FileNotFoundError as error:
        raise GoldenError(f"{folder} has no answers: {error.filename} is missing") from error


def differences(old: Any, new: Any) -> list[str]:
    """Returns a line for every value that differs, which begins with its name."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        f"{name}: {_shown(before, name)} -> {_shown(after, name)}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def agreed_on(lines: list[str]) -> tuple[list[str], list[str]]:
    """Divides differences into those that no pattern of `agreed.txt` fits, and those that are meant."""
    patterns = [line.partition(" # ")[0].strip() for line in _AGREED.read_text(encoding="utf-8").splitlines()]
    patterns = [pattern for pattern in patterns if pattern and not pattern.startswith("#")]
    meant = [line for line in lines if any(fnmatch.fnmatchcase(line.partition(": ")[0], each) for each in patterns)]
    return [line for line in lines if line not in meant], meant


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list) and value:
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(each, f"{name}/{key}" if name else str(key))
    else:
        yield name, json.dumps(value, ensure_ascii=False)


def _shown(values: Mapping[str, str], name: str) -> str:
    return values.get(name, "absent")


def _text(value: Any, indent: int = 0) -> str:
    """Returns JSON with a line an entry, but for short entries and tables by step, which have one together."""
    if not isinstance(value, dict | list) or not value or _is_row(value):
        return json.dumps(value, ensure_ascii=False)
    begin, end = "{}" if isinstance(value, dict) else "[]"
    named = value.items() if isinstance(value, dict) else (("", each) for each in value)
    parts = [
        (f"{json.dumps(key, ensure_ascii=False)}: " if isinstance(value, dict) else "") + _text(each, indent + 1)
        for key, each in named
    ]
    margin = "\n" + " " * (indent + 1)
    return f"{begin}{margin}{f',{margin}'.join(parts)}\n{' ' * indent}{end}"


def _is_row(value: dict | list) -> bool:
    inner = list(value.values()) if isinstance(value, dict) else value
    if any(isinstance(each, dict | list) for each in inner):
        return False
    by_step = isinstance(value, dict) and all(key.isdecimal() for key in value)
    return by_step or len(json.dumps(value, ensure_ascii=False)) < _LINE
