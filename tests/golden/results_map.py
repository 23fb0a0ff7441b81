"""The written map from the `results.json` of before there was one table of results to its rows.

Each study had a form of its own:

| study | place of a number before | row of the table now (model, metric, fraction, seed, minus, part) |
|---|---|---|
| a yes or no | `models/M/auroc`, `auprc` | M, AUROC or AUPRC |
| | `models/M/difference` | pretrained, AUROC, minus M |
| | `operating/M/NAME`; `…/at_threshold/NAME` | M, NAME, but `sensitivity` and `specificity` of the former are `sensitivity at 0.9` and `specificity there` |
| | `net_benefits/M/benefits/T`; `over_all/T` | M, `net benefit at T`; minus `treat_all` |
| several classes, a quantity | `models/M/metrics/NAME`, `difference` | M, NAME; pretrained, the compared metric, minus M |
| several classes | `classes/N/aurocs/M`, `difference` | M, AUROC, part: the class; minus random |
| | `operating/models/M/metrics`, `differences` | M, NAME; pretrained, NAME, minus M |
| | `operating/classes/N/metrics` | pretrained, NAME, part: the class |
| all three | `groups/N/metrics`, `gaps` | pretrained, NAME, part: `COLUMN: GROUP`; minus `all other records` |
| | `near/N/metrics` | the encoder, NAME, part: what is a match |
| label efficiency | `summaries/N/patients`, `by_seed` | M, the primary metric, fraction, seed, minus the other model |
| | `cells/N/test` | M, NAME, fraction, seed |
| ablation | `answers/N/of_arm`, `above_random`, `above_first` | the arm, metric, seed, minus the random encoder or the first arm |
| cross-validation | `findings/N/mean`, `by_seed` | the model, fraction, seed, minus the other model |

Thresholds, the control on shuffled labels and limits of agreement are no metrics of the table: they stand under `facts`.
"""  # noqa: E501 - a table

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ecgjax.studies.store import CELL_MODELS

#: Name of a number: task, model, metric, fraction, seed, what is subtracted, part of the records; and the bound.
Name = tuple[str, ...]

#: Largest difference of a statistic: predictions are equal, and sums of theirs may be taken in another order.
TOLERANCE = 1e-9

_BOUNDS = ("estimate", "low", "high")

_OPERATING = {"sensitivity": "sensitivity at 0.9", "specificity": "specificity there"}
_GROUPS = {"auroc": "AUROC"}


def differences(study: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a line for every number of the old form that the table lacks or has otherwise.

    Args:
        study: Name of the study, as `studies.study_jobs` has it.
        old: Content of `results.json` of before, with its floats in hexadecimal.
        new: Content of today's `results.json`, likewise.
    """
    rows = dict(_of_table(new["results"], with_task=study in ("ablation", "cross_validation")))
    lines = []
    for name, value in _MAPS[study](old, new):
        words = "/".join((study, *name))
        if name not in rows:
            lines.append(f"{words}: absent")
        elif not _equal(value, rows[name]):
            lines.append(f"{words}: {value!r} -> {rows[name]!r}")
    return lines


def _equal(old: float, new: float) -> bool:
    return (math.isnan(old) and math.isnan(new)) or abs(old - new) <= TOLERANCE


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    return float.fromhex(value) if isinstance(value, str) else float(value)


def _name(
    model: str, metric: str, *, fraction: Any = 1, seed: Any = None, minus: str = "", part: str = "", task: str = ""
) -> Name:
    told = "" if seed is None else str(seed)
    return (task, model, metric, f"{_number(fraction):g}", told, minus, part)


def _of_table(rows: list[dict[str, Any]], *, with_task: bool) -> Iterator[tuple[Name, float]]:
    for row in rows:
        name = _name(
            row["model"], row["metric"], fraction=row["fraction"], seed=row["seed"], minus=row["minus"],
            part=row["part"], task=row["task"] if with_task else "",
        )  # fmt: skip
        for bound in _BOUNDS:
            yield (*name, bound), _number(row[bound])


def _bounds(name: Name, interval: Mapping[str, Any] | None) -> Iterator[tuple[Name, float]]:
    for bound in _BOUNDS if interval else ():
        yield (*name, bound), _number(interval[bound])


def _seeds(name: Name, by_seed: Mapping[str, Any]) -> Iterator[tuple[Name, float]]:
    for seed, value in by_seed.items():
        yield (*name[:4], seed, *name[5:], "estimate"), _number(value)


def _binary(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[Name, float]]:
    del new
    for model, row in old["models"].items():
        yield from _bounds(_name(model, "AUROC"), row["auroc"])
        yield from _bounds(_name(model, "AUPRC"), row["auprc"])
        yield from _bounds(_name("pretrained", "AUROC", minus=model), row["difference"])
    for model, row in old["operating"].items():
        for name in row.keys() - {"threshold", "at_threshold"}:
            yield from _bounds(_name(model, _OPERATING.get(name, name)), row[name])
        for name, interval in row["at_threshold"].items():
            yield from _bounds(_name(model, name), interval)
    for model, row in old["net_benefits"].items():
        for which, minus in (("benefits", ""), ("over_all", "treat_all")):
            for threshold, interval in row[which].items():
                yield from _bounds(_name(model, f"net benefit at {float(threshold):g}", minus=minus), interval)
    yield from _groups_and_near(old)


def _several(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[Name, float]]:
    for model, row in old["models"].items():
        for name, interval in row["metrics"].items():
            yield from _bounds(_name(model, name), interval)
        yield from _bounds(_name("pretrained", new["compared"], minus=model), row["difference"])
    for row in old["classes"]:
        for model, interval in row["aurocs"].items():
            yield from _bounds(_name(model, "AUROC", part=row["name"]), interval)
        yield from _bounds(_name("pretrained", "AUROC", minus="random", part=row["name"]), row["difference"])
    for model, row in old["operating"].get("models", {}).items():
        for name, interval in row["metrics"].items():
            yield from _bounds(_name(model, name), interval)
        for name, interval in row["differences"].items():
            yield from _bounds(_name("pretrained", name, minus=model), interval)
    for row in old["operating"].get("classes", []):
        for name, interval in row["metrics"].items():
            yield from _bounds(_name("pretrained", name, part=row["name"]), interval)
    yield from _groups_and_near(old)


def _groups_and_near(old: Mapping[str, Any]) -> Iterator[tuple[Name, float]]:
    for row in old["groups"]:
        part = f"{row['column']}: {row['group']}"
        for name, interval in row["metrics"].items():
            yield from _bounds(_name("pretrained", _GROUPS.get(name, name), part=part), interval)
        for name, interval in row.get("gaps", {}).items():
            yield from _bounds(_name("pretrained", name, minus="all other records", part=part), interval)
    for row in old["near"]:
        for name, interval in row["metrics"].items():
            yield from _bounds(_name(row["encoder"], name, part=row["sought"]), interval)


def _label_efficiency(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[Name, float]]:
    del new
    for row in old["summaries"]:
        models, other = CELL_MODELS[row["mode"]], row["against"]
        minus = {**CELL_MODELS["plain"], "random": models.get("random", ""), "": ""}[other]
        name = _name(models[row["model"]], old["metric"], fraction=row["fraction"], minus=minus)
        yield from _bounds(name, row["patients"])
        yield from _seeds(name, row["by_seed"])
    for row in old["cells"]:
        for name, value in row["test"].items():
            model = CELL_MODELS[row["mode"]][row["model"]]
            yield (*_name(model, name, fraction=row["fraction"], seed=row["seed"]), "estimate"), _number(value)


def _ablation(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[Name, float]]:
    random = {row["model"]: row["minus"] for row in new["results"] if row["minus"].startswith("random ")}
    first = next(iter(old["answers"][0]["above_random"]))
    for row in old["answers"]:
        for which, others in (
            ("of_arm", {}),
            ("above_random", random),
            ("above_first", dict.fromkeys(random, first)),
        ):
            for arm, answer in row[which].items():
                name = _name(arm, row["metric"], minus=others.get(arm, ""), task=row["task"])
                yield from _bounds(name, answer["mean"])
                yield from _seeds(name, answer["by_seed"])


def _cross_validation(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[Name, float]]:
    metrics = {row["task"]: row["metric"] for row in new["results"]}
    for row in old["findings"]:
        task = row["question"]
        name = _name(row["model"], metrics[task], fraction=row["fraction"], minus=row["other"], task=task)
        yield from _bounds(name, row["mean"])
        yield from _seeds(name, row["by_seed"])


_MAPS = {
    "binary": _binary,
    "classes": _several,
    "quantity": _several,
    "label_efficiency": _label_efficiency,
    "ablation": _ablation,
    "cross_validation": _cross_validation,
}
