"""The picture of few labels: a score against the share of labelled patients, a panel for each question.

It draws the tables of results of several label-efficiency studies side by side (`ecgjax.label_efficiency`), for a
handful of models, so that a reader sees at once where pretraining pays and where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ecgjax.data.tasks import parse_task
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.results import Key, Results
from ecgjax.pages.digits import percent
from ecgjax.pages.page import Table
from ecgjax.studies.model_names import ModelName, title_of
from ecgjax.studies.report.forest import plain_axes, share_axis
from ecgjax.studies.report.study_page import encoder_rivals, study_verdicts
from ecgjax.studies.report.verdict import Verdict

#: Models that are drawn, in the order of the legend: colour, and style of the line.
DRAWN: Mapping[ModelName, tuple[str, str]] = {
    "pretrained": ("#b3202c", "-"),
    "supervised": ("#5f5f5f", "-"),
    "intervals": ("#2f7d4f", "-."),
    "boosted": ("#2f7d4f", "--"),
    "median_beat": ("#6a3d9a", "--"),
    "random": ("#9a9a9a", ":"),
}


def scores(results: Results, model: str) -> list[Key]:
    """Returns the keys of a model's means over seeds, of the metric that has intervals, from few labels to many.

    Args:
        results: Rows of a study's table of results.
        model: Key of the model.
    """
    means = [key for key in results if key.seed is None and not key.minus and not key.part]
    first = next(iter(means), None)
    return sorted(
        (key for key in means if first is not None and key.model == model and key.metric == first.metric),
        key=lambda key: key.fraction,
    )


def few_labels_figure(studies: Mapping[str, Results], *, title: str) -> Figure:
    """Draws the score of every model against the share of labelled patients, with intervals over test patients.

    Args:
        studies: Rows of the table of results of each study, by the line of its question.
        title: Title above all panels; it says where data are simulated.

    Raises:
        ValueError: There is no study.
    """
    if not studies:
        raise ValueError("the picture of few labels needs a study")
    drawn = Figure(figsize=(4.6 * len(studies), 4.6), layout="constrained")
    drawn.suptitle(title, fontsize=11, parse_math=False)
    panels = drawn.subplots(1, len(studies), squeeze=False, sharey=True)[0]
    for axes, (question, results) in zip(panels, studies.items(), strict=True):
        for place, (model, (color, line)) in enumerate(DRAWN.items()):
            keys = scores(results, model)
            if not keys:
                continue
            # Lines are shifted a little, so that their intervals do not hide each other.
            x = np.array([key.fraction for key in keys]) * 1.05 ** (place - len(DRAWN) / 2)
            mean, low, high = (
                np.array([getattr(results[key], of) for key in keys]) for of in ("estimate", "low", "high")
            )
            width = 2.2 if model == "pretrained" else 1.4
            name = title_of(model, parse_task(question))
            axes.errorbar(x, mean, [mean - low, high - mean], color=color, linestyle=line, marker="o", label=name,
                          markersize=4, capsize=2, linewidth=width, elinewidth=0.8)  # fmt: skip
        share_axis(axes, sorted({key.fraction for key in results if key.seed is None}))
        axes.set_title(question, fontsize=10, parse_math=False)
        axes.set_xlabel("share of the training patients whose label is used")
        plain_axes(axes)
    metric = next((key.metric for results in studies.values() for key in results if key.seed is None), "")
    panels[0].set_ylabel(f"{metric} on test patients")
    legend = {name: handle for axes in panels for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    drawn.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return drawn


def few_labels_table(results: Results, *, question: str, caption: str) -> Table:
    """Returns the scores of the drawn models, a column for each share of the labels.

    Args:
        results: Rows of a study's table of results.
        question: Line of the study's question.
        caption: Description of the table.
    """
    by_model = {model: {key.fraction: results[key] for key in scores(results, model)} for model in DRAWN}
    fractions = sorted({fraction for each in by_model.values() for fraction in each})
    rows = [
        [title_of(model, parse_task(question)), *(_cell(found, fraction) for fraction in fractions)]
        for model, found in by_model.items()
        if found
    ]
    return Table(header=["model", *(percent(fraction) for fraction in fractions)], rows=rows, caption=caption)


def few_labels_verdicts(studies: Mapping[str, Results]) -> list[Verdict]:
    """Returns the verdict on every question at every share of the labels.

    Args:
        studies: Rows of the table of results of each study, by the line of its question.
    """
    return [
        verdict
        for question, results in studies.items()
        for verdict in study_verdicts(
            results, encoder_rivals(parse_task(question)), questions={question: question}, every=True
        )
    ]


def _cell(found: Mapping[float, Interval], fraction: float) -> str:
    return f"{found[fraction].estimate:.3f}" if fraction in found else ""
