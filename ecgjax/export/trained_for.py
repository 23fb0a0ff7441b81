"""What a pretraining trained its encoder for, in words: only what had a weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecgjax.data.measured_waves import chosen_measurements
from ecgjax.data.settings import ColumnSettings
from ecgjax.errors import ConfigError

_MEASURED_ON = {"beats": "the beats of lead II", "median_beat": "the median beat"}


def trained_for(leaves: Mapping[str, Any]) -> str:
    """Returns what a pretraining trained for: its objective where that has a weight, and what was predicted beside it.

    Args:
        leaves: Settings by their paths in the config, such as `objective.name`. Those that are missing have their
            defaults.
    """
    parts = [objective_words(leaves)] if _weight(leaves, "objective.weight") else []
    if leaves.get("second.objective.name") and _weight(leaves, "second.objective.weight"):
        parts.append(f"as a second objective {objective_words(leaves, 'second.')}")
    if leaves.get("task.name") and _weight(leaves, "task.weight"):
        parts.append(_predicted(leaves))
    if any(_weight(leaves, f"reconstruction.{name}", 0.0) for name in ("weight", "peak_weight")):
        parts.append("reconstructs the views before masking")
    return "; ".join(filter(None, parts)) or "nothing, for every weight was 0"


def objective_words(leaves: Mapping[str, Any], section: str = "") -> str:
    """Returns the names of loss, relation and miner, whatever the objective's weight.

    Args:
        leaves: Settings by their paths in the config.
        section: Path of the section that holds them, such as `"second."`; empty for the first objective.
    """
    paths = {"loss": "objective", "relation": "relation", "miner": "miner"}
    names = {part: leaves.get(f"{section}{path}.name") for part, path in paths.items()}
    return ", ".join(f"{part} {name}" for part, name in names.items() if name)


def _weight(leaves: Mapping[str, Any], path: str, default: float = 1.0) -> bool:
    return leaves.get(path, default) != 0


def _predicted(leaves: Mapping[str, Any]) -> str:
    name = leaves["task.name"]
    if name == "measurements":
        on = leaves.get("columns.measured_on", "beats")
        return f"predicts {_number(leaves)}measurements of {_MEASURED_ON.get(on, on)}"
    question = leaves.get("columns.task") or "a label"
    if name == "binary":
        return f"predicts the label {question} (yes or no)"
    return f"predicts the value of {question}"


def _number(leaves: Mapping[str, Any]) -> str:
    names = ("measured_on", "measurements", "without_measurements")
    given = {name: leaves[path] for name in names if (path := f"columns.{name}") in leaves}
    given = {name: value if isinstance(value, str) else tuple(value) for name, value in given.items()}
    try:
        return f"{len(chosen_measurements(ColumnSettings(**given)))} "
    except (ConfigError, KeyError, TypeError):
        return ""  # A model of another version may name groups that this one lacks.
