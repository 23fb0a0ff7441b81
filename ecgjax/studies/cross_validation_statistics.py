"""Statistics of cross-validated models: means over seeds, paired differences and intervals over patients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ecgjax.evaluation.metrics.bootstrap import Bootstrap, bootstrap_metrics
from ecgjax.evaluation.metrics.weighting import Metric
from ecgjax.evaluation.models.out_of_fold import OutOfFold, fold_mean_auroc
from ecgjax.pages.page import Table
from ecgjax.studies.ablation_statistics import Answer
from ecgjax.studies.questions import Problem, Question

#: Condition under which a resample defines a fold-averaged AUROC, for messages.
_NEEDS = "both labels in every fold"

_COLORS = ("#b3202c", "#1f6fb4", "#3a8f4c", "#8a5fb0", "#c77f1a")


class Fitted(NamedTuple):
    """Key of a fitted model: which model answered which problem, with which labels.

    Attributes:
        model: Title of the model.
        problem: Name of the problem.
        fraction: Fraction of the labelled training patients that was used.
        seed: Seed of the folds, the draw of labels and the random initialisation.
    """

    model: str
    problem: str
    fraction: float
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A model's AUROC on a question at one fraction of the labels, or its difference from another model's.

    Attributes:
        question: Title of the question.
        fraction: Fraction of the labelled training patients that was used.
        model: Title of the model.
        other: Title of the model that it is compared with; empty for the model's own AUROC.
        answer: Mean over the seeds that have a value; None if no seed has one.
        without: Reason why a seed has no value, by seed.
    """

    question: str
    fraction: float
    model: str
    other: str
    answer: Answer | None
    without: Mapping[int, str]

    @property
    def title(self) -> str:
        """Title of its row in a table."""
        return f"{self.model} − {self.other}" if self.other else self.model

    @property
    def text(self) -> str:
        """Mean over seeds, interval over patients, standard deviation over seeds, and the number of missing seeds."""
        if self.answer is None:
            return f"n/a ({next(iter(self.without.values()))})"
        mean = self.answer.mean.signed() if self.other else str(self.answer.mean)
        scatter = f" ± {self.answer.seed_sd:.3f}" if len(self.answer.by_seed) > 1 else ""
        lost = f" ({len(self.without)} seeds missing)" if self.without else ""
        return f"{mean}{scatter}{lost}"


class Findings:
    """Statistics of all models' scores, from the same resamples of the patients.

    Args:
        results: Out-of-fold scores of every model, problem, fraction and seed.
        problems: Problems by name.
        patients: Patient (group) code of every record in the cross-validation, `int[n]`.
        resamples: Number of bootstrap resamples of the patients.
        seed: Seed of the resampling.
    """

    def __init__(
        self,
        results: Mapping[Fitted, OutOfFold],
        *,
        problems: Mapping[str, Problem],
        patients: np.ndarray,
        resamples: int = 2000,
        seed: int = 0,
    ):
        self.results = results
        metrics = {
            _key(fitted): _on_rows(
                fold_mean_auroc(problems[fitted.problem].labels, result.scores, result.folds),
                problems[fitted.problem].rows,
            )
            for fitted, result in results.items()
            if result.scores is not None
        }
        self._found: Bootstrap = bootstrap_metrics(
            metrics, patients=patients, resamples=resamples, seed=seed, needs=_NEEDS
        )
        self._seeds = sorted({fitted.seed for fitted in results})

    def find(self, question: Question, *, fraction: float, model: str, other: str = "") -> Finding:
        """Averages a model's AUROC, or its paired difference from another's, over the question's problems and seeds."""
        signs = [(1, model), *([(-1, other)] if other else [])]
        by_seed, sums, without = {}, [], {}
        for seed in self._seeds:
            of_seed = [
                [(sign, Fitted(name, problem, fraction, seed)) for sign, name in signs] for problem in question.problems
            ]
            if reason := self._missing([fitted for parts in of_seed for _, fitted in parts]):
                without[seed] = reason
                continue
            keyed = [[(sign, _key(fitted)) for sign, fitted in parts] for parts in of_seed]
            sums += keyed
            values = [sum(sign * self._found.estimates[key] for sign, key in parts) for parts in keyed]
            by_seed[seed] = float(np.mean(values))
        return Finding(
            question=question.title,
            fraction=fraction,
            model=model,
            other=other,
            answer=Answer(mean=self._found.mean_of(sums), by_seed=by_seed) if by_seed else None,
            without=without,
        )

    def _missing(self, wanted: Sequence[Fitted]) -> str:
        for fitted in wanted:
            result = self.results.get(fitted)
            if result is None:
                return "not made yet"
            if result.scores is None:
                return f"{fitted.problem}: {result.reason}"
        return ""


def _key(fitted: Fitted) -> str:
    return "\n".join(map(str, fitted))


def _on_rows(metric: Metric, rows: np.ndarray) -> Metric:
    return lambda weights: metric(np.atleast_2d(weights)[:, rows])


def findings_table(findings: Sequence[Finding], *, caption: str = "") -> Table:
    """Returns the table of models, or of pairs of models, by fractions of the labels."""
    fractions = sorted({each.fraction for each in findings})
    rows: dict[str, dict[float, str]] = {}
    for each in findings:
        rows.setdefault(each.title, {})[each.fraction] = each.text
    return Table(
        header=("model", *(f"{100 * fraction:g} % of labels" for fraction in fractions)),
        rows=[(title, *(texts.get(fraction, "") for fraction in fractions)) for title, texts in rows.items()],
        caption=caption,
    )


def figure(findings: Sequence[Finding], *, xlabel: str) -> Figure:
    """Draws paired differences, with one panel per question.

    Bars are intervals over patients, and small dots are single seeds.
    """
    questions = list(dict.fromkeys(each.question for each in findings))
    titles = list(dict.fromkeys(each.title for each in findings))
    fractions = sorted({each.fraction for each in findings})
    drawn = Figure(figsize=(3.4 + 2.5 * len(questions), 1.4 + 0.3 * len(titles) * len(fractions)), layout="constrained")
    panels = np.atleast_1d(drawn.subplots(1, len(questions), sharey=True))
    for axes, question in zip(panels, questions, strict=True):
        for each in findings:
            if each.question != question or each.answer is None:
                continue
            number = fractions.index(each.fraction)
            row = titles.index(each.title) + 0.8 * (number + 0.5) / len(fractions) - 0.4
            color, mean = _COLORS[number % len(_COLORS)], each.answer.mean
            axes.plot([mean.low, mean.high], [row, row], color=color, linewidth=1.5)
            axes.plot(list(each.answer.by_seed.values()), [row] * len(each.answer.by_seed), ".", color="#888888", ms=4)
            label = f"{100 * each.fraction:g} % of labels" if each.title == titles[0] else None
            axes.plot(mean.estimate, row, "o", color=color, ms=5, label=label)
        axes.axvline(0, color="#555555", linewidth=0.8)
        axes.set_title(question, fontsize=10, parse_math=False)
        axes.set_xlabel(xlabel, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(titles)), titles, fontsize=8)
    panels[0].invert_yaxis()
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(frameon=False, fontsize=7)
    return drawn
