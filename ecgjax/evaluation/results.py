"""The table of results: what every study measures, writes and shows on its page.

A row names the model, metric, task, fraction of the labels and seed (`Key`), and has the number and its 95 % interval
over patients. `results.json` of every study has these rows under `results`; `read_results` reads them back, and
`pandas.DataFrame(json.load(file)["results"])` is the same table.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.bootstrap import Bootstrap, Interval, bootstrap_metrics
from ecgjax.evaluation.metrics.weighting import Metric
from ecgjax.pages.json_values import plain
from ecgjax.pages.traces import anonymous_values
from ecgjax.system.files import write_atomically

#: Name of the file of a study's results, and of the folder of reports inside a run's.
RESULTS_FILE, REPORT_DIR = "results.json", "evaluation"


class Key(NamedTuple):
    """Identity of a number in the table of results.

    Attributes:
        model: Name of the model; for a retrieval, name of the encoder.
        metric: Name of the metric, such as `"AUROC"`.
        task: Task in one line, such as `"lvef<40"`.
        fraction: Fraction of the labelled training patients that the model was trained with.
        seed: Seed of the draw of labels, of initialisation and training; None for a mean over seeds, or where a study
            has one seed only.
        minus: Model, or group of records, whose value is subtracted; empty where the number is no difference.
        part: Part of the test records that is measured, such as `"sex: female"`, or a class; empty for all of them.
    """

    model: str
    metric: str
    task: str = ""
    fraction: float = 1.0
    seed: int | None = None
    minus: str = ""
    part: str = ""


#: Rows of the table, in order.
Results = Mapping[Key, Interval]


def measured(
    metrics: Mapping[Key, Metric],
    *,
    patients: np.ndarray,
    resamples: int,
    seed: int,
    needs: str | Callable[[Key], str],
    differences: Mapping[Key, tuple[Key, Key]] | None = None,
) -> dict[Key, Interval]:
    """Computes metrics of the same records and paired differences between them, on the same resamples of the patients.

    Args:
        metrics: Metrics by their keys.
        patients: Patient (group) code of each record, `int[n]`.
        resamples: Number of resamples.
        seed: Seed of the resampling.
        needs: Description of what a resample must have for a metric to be defined, for all metrics or by key.
        differences: Keys of two metrics, of which the second is subtracted from the first, by the key of the
            difference.

    Returns:
        The number and interval of every metric and difference, by its key.
    """
    found = bootstrap_metrics(metrics, patients=patients, resamples=resamples, seed=seed, needs=needs)
    rows = {key: found.interval(key) for key in metrics}
    return rows | {key: found.difference(one, other) for key, (one, other) in (differences or {}).items()}


def minus(metrics: Collection[Key], model: str, others: Collection[str]) -> dict[Key, tuple[Key, Key]]:
    """Returns the differences of a model from others, in the form of the argument `differences` of `measured`.

    Args:
        metrics: Keys of all metrics.
        model: Model from whose metrics others are subtracted.
        others: Models that are subtracted; those without the metric, and the model itself, are left out.
    """
    return {
        key._replace(minus=other): (key, key._replace(model=other))
        for other in others
        for key in metrics
        if key.model == model and other != model and key._replace(model=other) in metrics
    }


def over_seeds(
    metrics: Mapping[Key, Metric],
    missing: Mapping[Key, str],
    *,
    pairs: Sequence[tuple[str, str]],
    patients: np.ndarray,
    resamples: int,
    seed: int,
    needs: str | Callable[[Key], str],
    questions: Mapping[str, Sequence[str]] | None = None,
) -> dict[Key, Interval]:
    """Computes means over seeds of models and of their paired differences, on the records as they are and on resamples.

    A seed for which a model has no predictions is left out of the mean, and has a row with the reason. The interval is
    over patients; rows of single seeds show how far draws of labels, initialisation and training vary. Neither includes
    the other.

    Args:
        metrics: Metric of every model that was trained, with its seed in the key.
        missing: Reason why a model was not trained, with its seed in the key.
        pairs: Models that are compared, the second subtracted from the first.
        patients: Patient (group) code of each test record, `int[n]`.
        resamples: Number of resamples of the patients.
        seed: Seed of the resampling.
        needs: Description of what a resample must have for a metric to be defined, for all metrics or by key.
        questions: Names of the tasks that are averaged, by the name of the average; by default every task stands for
            itself.

    Returns:
        The means, with no seed in the key, and the values of single seeds.
    """
    # One bootstrap serves all models and seeds, so that differences between them are paired.
    found = bootstrap_metrics(metrics, patients=patients, resamples=resamples, seed=seed, needs=needs)
    every = [*metrics, *missing]
    questions = questions or {key.task: [key.task] for key in every}
    # Models keep the order in which they first come, which is that of the tables.
    models = list(dict.fromkeys(key.model for key in every))
    rows: dict[Key, Interval] = {}
    for question, tasks in questions.items():
        of_question = [key for key in every if key.task in tasks]
        for fraction, metric in dict.fromkeys((key.fraction, key.metric) for key in of_question):
            for model, other in [*((model, "") for model in models), *pairs]:
                seeds = dict.fromkeys(key.seed for key in of_question if (key.model, key.fraction) == (model, fraction))
                terms = {
                    number: [_signed(Key(model, metric, task, fraction, number), other) for task in tasks]
                    for number in seeds
                }
                rows |= _over_seeds(Key(model, metric, question, fraction, minus=other), terms, found, missing)
    return rows


def _signed(key: Key, other: str) -> list[tuple[int, Key]]:
    return [(1, key), *([(-1, key._replace(model=other))] if other else [])]


def _over_seeds(
    key: Key, terms: Mapping[int | None, list[list[tuple[int, Key]]]], found: Bootstrap[Key], missing: Mapping[Key, str]
) -> dict[Key, Interval]:
    """Returns the row of a mean over seeds and the rows of its seeds; empty where no seed has all models.

    Args:
        key: Key of the mean.
        terms: Sums of signed metrics that are averaged, by seed.
        found: Metrics on the records and on resamples.
        missing: Reasons why models were not trained, by the key of their metric.
    """
    rows: dict[Key, Interval] = {}
    defined: list[list[tuple[int, Key]]] = []
    for number, sums in terms.items():
        keys = [each for parts in sums for _, each in parts]
        # Without a row stays what was not asked for with this seed; what could not be trained has one with the reason.
        if any(each not in found.estimates and each not in missing for each in keys):
            continue
        if reason := next((missing[each] for each in keys if each in missing), ""):
            rows[key._replace(seed=number)] = Interval.missing(reason)
        else:
            defined += sums
            rows[key._replace(seed=number)] = found.mean_of(sums)
    if not rows:
        return {}
    # Where no seed has answers, the mean is missing for the reason of the first.
    return {key: found.mean_of(defined) if defined else next(iter(rows.values()))} | rows


class Rows(dict[Key, Interval]):
    """Rows that are not changed any more, in which the seeds of a mean are found without a search through all rows."""

    @functools.cached_property
    def seeds(self) -> Mapping[Key, dict[int, Interval]]:
        """Rows of single seeds by seed, by the key of their mean."""
        found: dict[Key, dict[int, Interval]] = {}
        for key, value in self.items():
            if key.seed is not None:
                found.setdefault(key._replace(seed=None), {})[key.seed] = value
        return found


def seeds_of(results: Results, key: Key) -> Mapping[int, Interval]:
    """Returns the row of every seed, with a value or without, by seed, for the key of a mean over seeds."""
    table = results if isinstance(results, Rows) else Rows(results)
    return table.seeds.get(key, {})


def of_seeds(results: Results, key: Key) -> dict[int, float]:
    """Returns the value of every seed that has one, by seed.

    Args:
        results: Rows of the table of results.
        key: Key of a mean over seeds.
    """
    return {seed: value.estimate for seed, value in seeds_of(results, key).items() if not _is_missing(value)}


def lost_seeds(results: Results, key: Key) -> int:
    """Returns the number of seeds that have no value, with the same arguments as `of_seeds`."""
    return sum(map(_is_missing, seeds_of(results, key).values()))


def _is_missing(value: Interval) -> bool:
    return math.isnan(value.estimate) and not value.resamples


def seed_sd(values: Mapping[int, float]) -> float:
    """Returns the standard deviation over seeds; NaN if there is only one seed."""
    return float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else math.nan


def seeds_interval(values: Mapping[int, float]) -> tuple[float, float]:
    """Returns the 95 % t-interval of the mean over seeds; NaN if there is only one seed."""
    # SciPy's statistics are imported here because they take a second to load and nothing else needs them.
    from scipy import stats

    if len(values) < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1)) * seed_sd(values) / math.sqrt(len(values))
    mean = float(np.mean(list(values.values())))
    return mean - half, mean + half


def write_results(folder: Path, results: Results, *, anonymous: bool = False, **about: Any) -> None:
    """Writes `results.json`: a description of the study, and the rows; undefined numbers become null.

    Args:
        folder: Folder of the study.
        results: Rows of the table.
        anonymous: Whether traces of machine, user and time are taken out of all texts (`pages/traces.py`).
        **about: Description of the study, as values that JSON can hold.
    """
    rows = [
        {**key._asdict(), **{name: getattr(value, name) for name in ("estimate", "low", "high", "resamples", "reason")}}
        for key, value in results.items()
    ]
    content = plain({**about, "results": rows})
    text = json.dumps(
        anonymous_values(content) if anonymous else content, indent=1, ensure_ascii=False, allow_nan=False
    )
    write_atomically(folder / RESULTS_FILE, text + "\n")


def read_results(folder: Path) -> dict[Key, Interval]:
    """Reads the rows that `write_results` wrote, by key.

    Raises:
        DataError: The file is missing or damaged, or was written before studies had this table.
    """
    path = folder / RESULTS_FILE
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["results"]
        return {Key(**{name: row[name] for name in Key._fields}): _interval_of(row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} has no table of results ({error}); the command of the study, given once more, writes it"
        ) from error


def _interval_of(row: Mapping[str, Any]) -> Interval:
    numbers = {name: math.nan if row[name] is None else row[name] for name in ("estimate", "low", "high")}
    return Interval(**numbers, resamples=row["resamples"], reason=row["reason"])
