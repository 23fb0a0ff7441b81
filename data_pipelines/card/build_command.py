"""The command that built a data set, with words in the place of paths."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.physiology.definitions import BEATS, MEDIAN_BEAT
from data_pipelines.signals.recipe import RECIPES

# Entries of a request that are paths on the machine of the build, and the words that stand for them.
_PATHS = {"source": "SOURCE", "labels": "LABELS"}

# Entries of a request that are no flags: they follow from the others.
_NO_FLAGS = frozenset({"builder", "recipe", "source_fingerprint", "labels_digest"})

#: Field of a recipe → flag of `data_pipelines.build` that changes it, where their names differ.
_FLAGS = {"sampling_rate_hz": "target_rate_hz"}

#: Folder of measurements → flag of `data_pipelines.build` that makes it.
_MEASURED = {BEATS.folder: "physiology", MEDIAN_BEAT.folder: "median_beat"}


def build_command(card: Mapping[str, Any], directory: Path | None = None) -> str:
    """Returns the command that builds a data set again where its source lies, or an empty text where its card does not
    tell.

    Args:
        card: Card of the data set, whose `request` has the flags that decided what is stored.
        directory: Directory of the data set, where measurements lie that are made again too; None for none.
    """
    request = card.get("request") or {}
    if "builder" not in request:
        return ""
    given = {"builder": request["builder"], **_recipe_flags(request.get("recipe") or {})}
    given |= {name: value for name, value in request.items() if name not in _NO_FLAGS}
    given |= {name: word for name, word in _PATHS.items() if request.get(name)}
    words = [f"--{name}={_text(value)}" for name, value in given.items() if value not in (None, "", [], ())]
    # What the build or `data_pipelines.measure` measured stands beside the records and not in the card.
    words += [f"--{flag}" for folder, flag in _MEASURED.items() if directory and (directory / folder).is_dir()]
    return shlex.join(["python", "-m", "data_pipelines.build", *words, "--out=OUT"])


def _recipe_flags(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags of a recipe: its name, and the steps that differ from what the name stands for."""
    name = str(recipe.get("name", "")).partition("(")[0]
    if name not in RECIPES:
        return {}
    named = RECIPES[name].to_json()
    changed = {
        _FLAGS.get(field, field): value
        for field, value in recipe.items()
        if field not in ("name", "version") and value != named.get(field)
    }
    return ({} if name == "plain" else {"recipe": name}) | changed


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)
