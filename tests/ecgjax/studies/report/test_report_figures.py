"""Figures of a report show what they say."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.regression import bland_altman
from ecgjax.studies.report.forest import Row, forest
from ecgjax.studies.report.model_figures import (
    Curve,
    bland_altman_figure,
    panels_figure,
    precision_recall_figure,
    roc_figure,
    scatter_figure,
)

RNG = np.random.default_rng(0)


def _interval(low, estimate, high):
    return Interval(estimate=estimate, low=low, high=high, confidence=0.95, resamples=100)


def _drawn(axes):
    """Estimates, bars and small dots of a panel as `(x, height)`, without the vertical line."""
    found = {"estimates": [], "bars": [], "seeds": []}
    for line in axes.lines[1:]:
        x, y = line.get_xydata().T if len(line.get_xydata()) else ((), ())
        which = "bars" if line.get_linestyle() == "-" else "seeds" if line.get_marker() == "." else "estimates"
        if len(x):
            found[which].append((list(x), float(y[0])))
    return found


def test_a_forest_has_a_row_for_every_title_in_panels_that_share_them():
    first = [Row("a", _interval(-1, 1, 2), [0.5, 1.5]), Row("b", _interval(2, 3, 4))]
    figure = forest({"one": first, "two": [Row("b", _interval(5, 6, 7))]}, xlabel=["x of one", "x of two"])
    one, two = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["x of one", "x of two"]
    assert [text.get_text() for text in one.get_yticklabels()] == ["a", "b"]
    assert one.get_ylim()[0] > one.get_ylim()[1], "the first row is above"
    assert _drawn(one) == {
        "estimates": [([1], 0.0), ([3], 1.0)], "bars": [([-1, 2], 0.0), ([2, 4], 1.0)], "seeds": [([0.5, 1.5], 0.0)],
    }  # fmt: skip
    assert _drawn(two) == {"estimates": [([6], 1.0)], "bars": [([5, 7], 1.0)], "seeds": []}
    assert not figure.legends


def test_groups_of_a_row_stand_beside_each_other_in_colours_that_the_legend_names():
    rows = [Row(title, _interval(0, 1, 2), group=group) for title in "ab" for group in ("1 %", "10 %")]
    figure = forest({"": rows}, xlabel="x", line=0.5)
    (axes,) = figure.axes
    assert axes.lines[0].get_xdata()[0] == 0.5
    heights = [height for _, height in _drawn(axes)["estimates"]]
    assert heights == pytest.approx([-0.2, 0.2, 0.8, 1.2])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["1 %", "10 %"]
    colors = [line.get_color() for line in axes.lines[1:] if line.get_marker() in "os" and len(line.get_xdata())]
    assert colors[0] == colors[2] != colors[1] == colors[3]
    assert [handle.get_color() for handle in legend.legend_handles] == colors[:2]


def test_a_forest_without_an_estimate_or_an_interval():
    nan = np.nan
    rows = [Row("$a", Interval.missing("why")), Row("b", _interval(nan, 1, nan))]
    (axes,) = forest({"$": rows}, xlabel="$").axes
    assert [text.get_text() for text in axes.texts] == ["n/a"]
    assert _drawn(axes) == {"estimates": [([1], 1.0)], "bars": [], "seeds": []}


def test_curves_are_those_of_scikit_learn():
    labels, scores = RNG.integers(0, 2, 80), np.round(RNG.normal(size=80), 1)
    curves = [Curve("pretrained", "p", scores, 0.5), Curve("random", "r", scores, np.nan)]
    figure = roc_figure(curves, labels=labels)
    drawn = figure.axes[0].lines[0].get_xydata()
    alarms, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(drawn, np.c_[alarms, hits], atol=1e-12)
    for each in (figure, precision_recall_figure(curves, labels=labels)):
        assert [text.get_text() for text in each.legends[0].get_texts()] == ["p (0.500)"]


def test_figures_of_a_quantity_show_what_they_say():
    truth = RNG.normal(14, 5, 60)
    predicted = truth + RNG.normal(0, 2, 60)
    (axes,) = scatter_figure(truth, predicted, name="p (mmHg)", title="x").axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.c_[truth, predicted])
    assert axes.get_xlim() == axes.get_ylim()
    agreement = bland_altman(truth, predicted)
    (axes,) = bland_altman_figure(
        truth, predicted, agreement=agreement, name="p (mmHg)", unit="mmHg", title="x"
    ).axes  # fmt: skip
    assert [line.get_ydata()[0] for line in axes.lines] == [agreement.bias, agreement.upper, agreement.lower]
    assert axes.get_ylabel() == "predicted minus true (mmHg)"
    models = {"pretrained, linear probe": predicted, "mean of the training labels": np.full(60, 14.0)}
    panels = panels_figure(truth, models, name="p (mmHg)")
    shown = [panel.get_title().replace(",\n", ", ") for panel in panels.axes if panel.get_visible()]
    assert shown == list(models)
