"""Tables and figure of a label-efficiency study."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ecgjax.data.tasks import Task
from ecgjax.evaluation.results import Key, Results, of_seeds, seed_sd, seeds_interval, seeds_of
from ecgjax.pages.digits import decimals_in, percent
from ecgjax.pages.page import Table
from ecgjax.studies.model_names import title_of
from ecgjax.studies.report.forest import plain_axes, share_axis
from ecgjax.studies.report.seed_tables import seeds_column, spread
from ecgjax.studies.store import TrainedCell

#: Number of positive training records below which a cell is marked as having too few.
MIN_POSITIVES = 10

#: Colour and line of each model; differences have the line of their first model.
_STYLES: Mapping[str, tuple[str, str]] = {
    "finetuned": ("#b3202c", "-"),
    "pretrained": ("#b3202c", "--"),
    "supervised": ("#5f5f5f", "-"),
    "random": ("#5f5f5f", "--"),
    "demographics": ("#8f7a1c", ":"),
    "intervals": ("#2f7d4f", "-."),
    "boosted": ("#2f7d4f", ":"),
    "median_beat": ("#6a3d9a", ":"),
    "pretrained_mean": ("#e08214", "--"),
    "pretrained_mean_deviation": ("#c51b7d", "--"),
    "pretrained_lead_mean": ("#8c510a", "--"),
    "pretrained_attention": ("#1b7837", "--"),
    "pretrained_fusion": ("#2166ac", "--"),
    "measured": ("#2166ac", ":"),
    "random_grid": ("#1a1a1a", "--"),
}
_DIFFERENCE = "#1f6fb4"

#: Metrics in the unit of a quantity.
_IN_UNIT = ("RMSE", "MAE")

#: Comparisons that the figure draws: with encoders that were not pretrained, and what an embedding adds.
_DRAWN = (("finetuned", "supervised"), ("pretrained", "random"), ("pretrained_fusion", "measured"))

#: Number of lines beyond which the legend stands below the axes.
_LEGEND_INSIDE = 8


def _means(results: Results) -> list[Key]:
    """Returns the keys of the means over seeds, of the metric that has intervals."""
    return [key for key in results if key.seed is None]


class _Labels:
    """Looks up numbers of training records, and of positive ones, by the model and fraction of a key."""

    def __init__(self, cells: Sequence[TrainedCell]):
        self._of: dict[tuple[str, float], list[TrainedCell]] = {}
        for each in cells:
            self._of.setdefault((each.cell.trained, each.cell.fraction), []).append(each)

    def records(self, key: Key) -> str:
        """Returns the mean number of training records over seeds, as text."""
        return f"{np.mean([each.answers.records for each in self._of[key.model, key.fraction]]):,.0f}"

    def fewest_positives(self, key: Key) -> str:
        """Returns the smallest number of positive training records of any seed, as text; empty for a quantity."""
        every = [each.answers.positives for each in self._of[key.model, key.fraction]]
        positives = [number for number in every if number is not None]
        return f"{min(positives):,}{' (too few)' if min(positives) < MIN_POSITIVES else ''}" if positives else ""


def models_table(results: Results, cells: Sequence[TrainedCell], task: Task) -> Table:
    """Returns the table of models.

    Args:
        results: Results of the cells.
        cells: Trained cells.
        task: Task of the study.
    """
    keys, labels = [key for key in _means(results) if not key.minus], _Labels(cells)
    columns: dict[str, Callable[[Key], str]] = {
        "share of labels": lambda key: percent(key.fraction),
        "training records": labels.records,
        "fewest positives": labels.fewest_positives,
        "model": lambda key: title_of(key.model, task),
        f"{keys[0].metric if keys else ''} [95 % interval over patients]": lambda key: str(results[key]),
        "SD over seeds": lambda key: _number(seed_sd(of_seeds(results, key))),
        "seeds": lambda key: seeds_column(results, key),
    }
    return Table.of(_filled(columns, keys), keys)


def differences_table(results: Results, cells: Sequence[TrainedCell], task: Task) -> Table:
    """Returns the table of paired differences; its arguments are those of `models_table`."""
    keys, labels = [key for key in _means(results) if key.minus], _Labels(cells)
    metric = keys[0].metric if keys else ""
    columns: dict[str, Callable[[Key], str]] = {
        "share of labels": lambda key: percent(key.fraction),
        "fewest positives": labels.fewest_positives,
        "model": lambda key: title_of(key.model, task),
        "minus": lambda key: title_of(key.minus, task),
        f"difference in {metric} [95 % interval over patients]": lambda key: results[key].signed(),
        "95 % interval over seeds": lambda key: _between(*seeds_interval(of_seeds(results, key))),
        "seeds": lambda key: seeds_column(results, key),
    }
    return Table.of(_filled(columns, keys), keys)


def other_metrics_table(results: Results, task: Task, *, unit: str = "") -> Table:
    """Returns the table of the metrics other than the primary one, as mean ± standard deviation over seeds.

    Args:
        results: Results of the cells.
        task: Task of the study.
        unit: Unit of a quantity; empty if it has none.
    """
    own = {key.metric for key in _means(results)}
    others = [key for key in results if key.metric not in own and not key.part]
    names = list(dict.fromkeys(key.metric for key in others))
    groups = dict.fromkeys(key._replace(metric="", seed=None) for key in others)
    rows = []
    for group in groups:
        cells = [_of_seeds(_values(results, group._replace(metric=name)), name, unit) for name in names]
        rows.append((percent(group.fraction), title_of(group.model, task), *cells))
    titles = [f"{name}, {unit}" if unit and name in _IN_UNIT else name for name in names]
    header = ("share of labels", "model", *titles)
    return Table(header=header, rows=rows, caption="Other metrics: mean ± SD over seeds")


def _of_seeds(values: Sequence[float], metric: str, unit: str) -> str:
    in_unit = bool(unit) and metric in _IN_UNIT
    return spread(values, decimals=decimals_in(unit, size=float(np.mean(values))) if in_unit else 3)


def classes_table(results: Results, task: Task, *, positives: Mapping[str, int]) -> Table:
    """Returns the table of every class's AUROC at the largest fraction, as mean ± standard deviation over seeds.

    Args:
        results: Results of the cells.
        task: Task of the study.
        positives: Number of positive test records of each class.
    """
    of_classes = [key for key in results if key.part]
    largest = max((key.fraction for key in of_classes), default=1.0)
    groups = dict.fromkeys(key._replace(part="", seed=None) for key in of_classes if key.fraction == largest)
    rows = []
    for name, number in positives.items():
        every = [_values(results, group._replace(part=name)) for group in groups]
        missing = next((v.reason for k, v in results.items() if k.part == name and math.isnan(v.estimate)), "")
        cells = [f"n/a ({missing})", *[""] * (len(every) - 1)] if missing else [spread(values) for values in every]
        rows.append((name, f"{number:,}", *cells))
    caption = f"AUROC of every class at {percent(largest)} of the labels: mean ± SD over seeds"
    header = ("class", "positive in test", *(title_of(group.model, task) for group in groups))
    return Table(header=header, rows=rows if groups else [], caption=caption)


def figure(results: Results, task: Task, *, title: str) -> Figure:
    """Draws the metric (left) and paired differences of pretrained encoders from random ones (right) over fractions.

    Bars are intervals over patients, and the dots beside them are single seeds.

    Args:
        results: Results of the cells.
        task: Task of the study.
        title: Title above both panels.
    """
    lines: dict[tuple[str, str], list[Key]] = {}
    for key in _means(results):
        # Further readouts of random encoders, and most comparisons of readouts, stand in the tables alone.
        if key.model in _STYLES and (not key.minus or (key.model, key.minus) in _DRAWN):
            lines.setdefault((key.model, key.minus), []).append(key)
    crowded = len(lines) > _LEGEND_INSIDE
    drawn = Figure(figsize=(11, 7 if crowded else 4.6), layout="constrained")
    drawn.suptitle(title, fontsize=11, parse_math=False)
    left, right = drawn.subplots(1, 2)
    for number, ((model, minus), keys) in enumerate(lines.items()):
        axes, (color, line) = (right if minus else left), _STYLES[model]
        color = _DIFFERENCE if minus else color
        # Lines are shifted a little, so that their intervals do not hide each other.
        x = np.array([key.fraction for key in keys]) * 1.04 ** (number - len(lines) / 2)
        mean, low, high = (
            np.array([getattr(results[key], name) for key in keys]) for name in ("estimate", "low", "high")
        )
        # Markers of frozen models are hollow because dashes are too short to recognise in the legend.
        fill = "white" if line == "--" else color
        axes.errorbar(x, mean, [mean - low, high - mean], color=color, linestyle=line, marker="o",
                      markersize=5, markerfacecolor=fill, capsize=3, linewidth=1.5,
                      label=title_of(model, task) if minus != "measured" else "what the embedding adds to measurements",
                      )  # fmt: skip
        for at, key in zip(x, keys, strict=True):
            values = list(of_seeds(results, key).values())
            axes.plot([1.03 * at] * len(values), values, ".", color=color, alpha=0.7, ms=5)
    metric = next((key.metric for key in _means(results)), "")
    right.axhline(0, color="#888888", linewidth=0.8)
    left.set_ylabel(metric)
    right.set_ylabel(f"{metric}: pretrained minus not pretrained, paired")
    fractions = sorted({key.fraction for key in results})
    for axes in (left, right):
        share_axis(axes, fractions)
        axes.set_xlabel("labelled training patients")
        plain_axes(axes)
        if axes.get_legend_handles_labels()[0]:
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12)} if crowded else {}
            axes.legend(frameon=False, fontsize=8, **below)
    return drawn


def _values(results: Results, key: Key) -> list[float]:
    """Returns the values of all seeds, NaN included, for the key of a mean over seeds."""
    return [value.estimate for value in seeds_of(results, key).values()]


def _filled(columns: dict[str, Callable[[Key], str]], keys: Sequence[Key]) -> dict[str, Callable[[Key], str]]:
    """Returns the columns without that of positives if it is empty in every row, as for quantities; edits `columns`."""
    if keys and not any(map(columns["fewest positives"], keys)):
        del columns["fewest positives"]
    return columns


def _between(low: float, high: float) -> str:
    return "n/a" if math.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"
