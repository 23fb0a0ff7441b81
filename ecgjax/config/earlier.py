"""Leaves of earlier configs: which leaves replace them, and which cannot be set any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from data_pipelines.errors import DataError
from ecgjax.data.tasks import earlier_task
from ecgjax.errors import ConfigError
from ecgjax.settings.leaf import Value
from ecgjax.settings.sections import Tree

_IN_ONE_LINE = "a question is written in one line"

#: Reasons why leaves, or sections, of earlier configs cannot be set, by path.
RETIRED: Mapping[str, str] = {
    "gradient_accumulation": (
        "negatives come from the batch, and parts whose gradients are added know no negatives but their own, which is "
        "another loss. For large batches in little memory set config.micro_batch.parts, whose gradient is exact"
    ),
    **{
        f"{section}.{leaf}": f"{_IN_ONE_LINE}, as in --config.{now}='lvef<40', 'superdiagnostic:NORM' or 'age_years'"
        for section, now in (
            ("probe", "probe.task"),
            ("columns", "columns.task"),
            ("sampling.balance", "sampling.balance"),
        )
        for leaf in ("label", "rule", "threshold")
    },
}


def check_retired(names: Iterable[str]) -> None:
    """Refuses leaves that configs no longer have.

    Args:
        names: Paths of leaves, with or without `config.` in front.

    Raises:
        ConfigError: One of them is in `RETIRED`; the message says what to do instead.
    """
    for name in names:
        if reason := RETIRED.get(name.removeprefix("config.")):
            raise ConfigError(f"config.{name.removeprefix('config.')} cannot be set: {reason}")


def translated(tree: Tree) -> dict[str, Value | Tree]:
    """Returns a config in which today's leaves replace earlier ones.

    Earlier configs asked a question in three leaves (label, rule and threshold), which become one line. Where they are
    incomplete, such as a rule whose threshold each evaluation gave, the line is empty: no pretraining used such a
    question, because it would have ended before its first step.

    Args:
        tree: Values of a config that a run was trained with, nested.

    Returns:
        Values of a config with today's leaves, nested; leaves of `RETIRED` at the top level are left out.
    """
    now = {name: value for name, value in tree.items() if name not in RETIRED}
    for section in ("probe", "columns"):
        values = now.get(section)
        if isinstance(values, Mapping) and "label" in values:
            now[section] = {"task": _question(values), **_without_question(values)}
    sampling = now.get("sampling")
    if isinstance(sampling, Mapping) and isinstance(balance := sampling.get("balance"), Mapping):
        now["sampling"] = {**sampling, "balance": _question(balance)}
    return now


def _question(values: Tree) -> str:
    threshold = values.get("threshold")
    try:
        return earlier_task(
            label=str(values["label"]),
            rule=str(values.get("rule", "present")),
            threshold=float(threshold) if isinstance(threshold, int | float) else None,
        )
    except DataError:
        return ""


def _without_question(values: Tree) -> Tree:
    return {name: value for name, value in values.items() if name not in ("label", "rule", "threshold")}
