"""Statistics of a label-efficiency study: gains by labels and by pretraining, with two kinds of spread kept apart.

Spread over patients: the same test patients are drawn with replacement for all cells, and the mean over seeds is taken
on every resample. It shows what another test set would have given. Spread over seeds: it shows how far draws of labels,
initialisation and training vary on this test set. Neither includes the other, nor the variation between pretraining
runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from data_pipelines.errors import DataError
from ecgjax.data.tasks import Kind
from ecgjax.evaluation.metrics.bootstrap import Bootstrap, Interval, bootstrap_metrics
from ecgjax.evaluation.models import selection
from ecgjax.evaluation.models.plain_models import Plain
from ecgjax.pages.page import Table
from ecgjax.studies.store import CellResult, Initialisation, Mode

#: Number of positive training records below which a cell is marked as having too few.
MIN_POSITIVES = 10

#: Name of each (model, mode) in tables.
TITLES: Mapping[tuple[Initialisation | Plain, Mode], str] = {
    ("pretrained", "finetuned"): "pretrained, fine-tuned",
    ("pretrained", "frozen"): "pretrained, frozen",
    ("random", "finetuned"): "random, trained end to end",
    ("random", "frozen"): "random, frozen",
    ("age_sex", "plain"): "age and sex",
    ("intervals", "plain"): "intervals, boosted trees",
    ("median_beat", "plain"): "median beat",
}

_COLORS = {
    "pretrained": "#b3202c",
    "random": "#5f5f5f",
    "age_sex": "#8f7a1c",
    "intervals": "#2f7d4f",
    "median_beat": "#6a3d9a",
}
_MODES = {"finetuned": "fine-tuned", "frozen": "frozen"}
_LINES = {"finetuned": "-", "frozen": "--", "plain": ":"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of the cells of one fraction, mode and model, or of the difference between two models.

    Attributes:
        fraction: Fraction of the labelled training patients that was used.
        mode: Mode of training, `"frozen"`, `"finetuned"` or `"plain"`, as in `Cell`.
        model: Initialisation of the encoder, `"pretrained"` or `"random"`, or plain model, such as `"age_sex"`.
        against: Model that is subtracted, named like `model`, of the same mode or plain; empty if the summary is no
            difference.
        by_seed: Metric on the test records, or its paired difference, by seed.
        patients: Mean over seeds, with its interval over test patients.
        seed_sd: Standard deviation over seeds; NaN if there is only one seed.
        records: Mean number of training records over seeds.
        positives: Smallest number of positive training records of any seed; None for a quantity.
        without: Reason why a seed has no model, by seed.
    """

    fraction: float
    mode: Mode
    model: Initialisation | Plain
    against: Initialisation | Plain | Literal[""]
    by_seed: Mapping[int, float]
    patients: Interval
    seed_sd: float
    records: float
    positives: int | None
    without: Mapping[int, str]

    @property
    def over_seeds(self) -> tuple[float, float]:
        """The 95 % t-interval of the mean over seeds; NaN if there is only one seed."""
        # SciPy's statistics are imported here because they take a second to load and nothing else needs them.
        from scipy import stats

        number = len(self.by_seed)
        if number < 2:
            return math.nan, math.nan
        half = float(stats.t.ppf(0.975, number - 1)) * self.seed_sd / math.sqrt(number)
        return self.patients.estimate - half, self.patients.estimate + half


def summarise(
    results: Sequence[CellResult],
    *,
    kind: Kind,
    targets: np.ndarray,
    patients: np.ndarray,
    classes: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Summary]:
    """Summarises the cells of every fraction, mode and model, and the pretrained encoder's differences from the others.

    Args:
        results: Results of the cells, in any order.
        kind: Kind of the task, `"binary"`, `"multilabel"` or `"quantity"`.
        targets: Labels of the test records, `[n]` or `[n, classes]`.
        patients: Patient (group) code of each test record, `int[n]`.
        classes: Names of the label columns of a multi-label task.
        resamples: Number of bootstrap resamples of the patients.
        seed: Seed of the resampling.

    Returns:
        Summaries by fraction, then by mode. Each mode has those of its models and, where both have cells of the same
        seeds, the pretrained encoder's paired differences from the random encoder of the same mode and from plain
        models.

    Raises:
        DataError: The test records do not define the metric.
    """
    if reason := selection.undefined(kind, targets):
        raise DataError(f"nothing can be compared on the test records: {reason}; give them more folds")
    name = selection.PRIMARY[kind]
    metrics = {
        result.cell.name: selection.metrics(kind, targets, result.scores, classes=classes)[name]
        for result in results
        if result.scores is not None
    }
    found = bootstrap_metrics(metrics, patients=patients, resamples=resamples, seed=seed, needs=f"a {name}")
    groups: dict[tuple[float, Mode], dict[Initialisation | Plain, dict[int, CellResult]]] = {}
    for result in sorted(results, key=lambda r: (r.cell.fraction, r.cell.mode, r.cell.model, r.cell.seed)):
        cell = result.cell
        groups.setdefault((cell.fraction, cell.mode), {}).setdefault(cell.model, {})[cell.seed] = result
    out = []
    for (fraction, _), group in groups.items():
        out += [_summary({seed: [(1, r)] for seed, r in cells.items()}, found) for cells in group.values()]
        own = group.get("pretrained", {})
        others: dict[Initialisation | Plain, dict[int, CellResult]] = {"random": group.get("random", {})}
        others |= groups.get((fraction, "plain"), {}) if own else {}
        for against, cells in others.items():
            if pairs := {s: [(1, result), (-1, cells[s])] for s, result in own.items() if s in cells}:
                out.append(_summary(pairs, found, against=against))
    return out


def _summary(
    terms: Mapping[int, Sequence[tuple[int, CellResult]]],
    found: Bootstrap,
    *,
    against: Initialisation | Plain | Literal[""] = "",
) -> Summary:
    """Summarises over seeds a signed sum of each seed's cells."""
    without = {s: r.reason for s, parts in terms.items() for _, r in parts if r.scores is None}
    trained = {s: parts for s, parts in terms.items() if s not in without}
    named = {s: [(sign, r.cell.name) for sign, r in parts] for s, parts in trained.items()}
    by_seed = {s: sum(sign * found.estimates[name] for sign, name in parts) for s, parts in named.items()}
    every = [r for parts in terms.values() for _, r in parts]
    cell = every[0].cell
    if trained:
        mean = found.mean_of(list(named.values()))
    else:
        nan, reason = math.nan, next(iter(without.values()))
        mean = Interval(estimate=nan, low=nan, high=nan, confidence=0.95, resamples=0, reason=reason)
    positives = [r.positives for r in every if r.positives is not None]
    return Summary(
        fraction=cell.fraction,
        mode=cell.mode,
        model=cell.model,
        against=against,
        by_seed=by_seed,
        patients=mean,
        seed_sd=float(np.std(list(by_seed.values()), ddof=1)) if len(by_seed) > 1 else math.nan,
        records=float(np.mean([r.records for r in every])),
        positives=min(positives) if positives else None,
        without=without,
    )


def models_table(summaries: Sequence[Summary], *, metric: str) -> Table:
    """Returns the table of models.

    Args:
        summaries: Summaries from `summarise`.
        metric: Name of the primary metric.
    """
    header = (
        "fraction of labels", "training records", "fewest positives", "model",
        f"{metric} [95 % interval over patients]", "SD over seeds", "seeds",
    )  # fmt: skip
    rows = [
        (
            f"{summary.fraction:.3g}",
            f"{summary.records:,.0f}",
            _positives(summary),
            TITLES[summary.model, summary.mode],
            str(summary.patients),
            _number(summary.seed_sd),
            _seeds(summary),
        )
        for summary in summaries
        if not summary.against
    ]
    return _without_empty(header, rows, "fewest positives")


def differences_table(summaries: Sequence[Summary], *, metric: str) -> Table:
    """Returns the table of paired differences.

    Args:
        summaries: Summaries from `summarise`.
        metric: Name of the primary metric.
    """
    header = (
        "fraction of labels", "fewest positives", "mode", "pretrained minus",
        f"difference in {metric} [95 % interval over patients]", "95 % interval over seeds", "seeds",
    )  # fmt: skip
    rows = []
    for summary in summaries:
        if summary.against:
            low, high = summary.over_seeds
            over_seeds = "n/a" if math.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
            rows.append(
                (
                    f"{summary.fraction:.3g}",
                    _positives(summary),
                    _MODES[summary.mode],
                    _against(summary),
                    summary.patients.signed(),
                    over_seeds,
                    _seeds(summary),
                )
            )
    return _without_empty(header, rows, "fewest positives")


def figure(summaries: Sequence[Summary], *, metric: str, title: str) -> Figure:
    """Draws the metric (left) and paired differences from the random encoder (right) over the fraction of labels.

    Bars are intervals over patients, and the dots beside them are single seeds.

    Args:
        summaries: Summaries from `summarise`.
        metric: Name of the primary metric.
        title: Title above both panels.
    """
    drawn = Figure(figsize=(11, 4.6), layout="constrained")
    drawn.suptitle(title, fontsize=11, parse_math=False)
    left, right = drawn.subplots(1, 2)
    lines: dict[tuple[str, Initialisation | Plain, Mode], list[Summary]] = {}
    for summary in summaries:
        if summary.against in ("", "random"):
            lines.setdefault((summary.against, summary.model, summary.mode), []).append(summary)
    for number, ((against, model, mode), points) in enumerate(lines.items()):
        axes = right if against else left
        color = "#1f6fb4" if against else _COLORS[model]
        label = _MODES[mode] if against else TITLES[model, mode]
        # Lines are shifted a little, so that their intervals do not hide each other.
        x = np.array([point.fraction for point in points]) * 1.04 ** (number - len(lines) / 2)
        mean, low, high = (
            np.array([getattr(point.patients, name) for point in points]) for name in ("estimate", "low", "high")
        )
        # Markers of frozen models are hollow because dashes are too short to recognise in the legend.
        fill = "white" if mode == "frozen" else color
        axes.errorbar(x, mean, [mean - low, high - mean], color=color, linestyle=_LINES[mode], marker="o",
                      markersize=5, markerfacecolor=fill, capsize=3, linewidth=1.5, label=label)  # fmt: skip
        for at, point in zip(x, points, strict=True):
            axes.plot([1.03 * at] * len(point.by_seed), list(point.by_seed.values()), ".", color=color, alpha=0.7, ms=5)
    right.axhline(0, color="#888888", linewidth=0.8)
    left.set_ylabel(metric)
    right.set_ylabel(f"{metric}: pretrained minus random, paired")
    fractions = sorted({summary.fraction for summary in summaries})
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(fractions, [f"{100 * fraction:g} %" for fraction in fractions])
        axes.minorticks_off()
        axes.set_xlabel("labelled training patients")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    return drawn


def _without_empty(header: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> Table:
    """Leaves out a column that is empty in every row, such as the positives of a quantity."""
    column = list(header).index(name)
    if rows and not any(row[column] for row in rows):
        header, *rows = ((*row[:column], *row[column + 1 :]) for row in (header, *rows))
    return Table(header=header, rows=rows)


def _against(summary: Summary) -> str:
    if not summary.against:
        raise ValueError("the cells of a model are no difference")
    return TITLES[summary.against, summary.mode if summary.against == "random" else "plain"]


def _positives(summary: Summary) -> str:
    if summary.positives is None:
        return ""
    return f"{summary.positives:,}" + (" (too few)" if summary.positives < MIN_POSITIVES else "")


def _seeds(summary: Summary) -> str:
    lost = f", {len(summary.without)} missing" if summary.without else ""
    return f"{len(summary.by_seed)}{lost}"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"
