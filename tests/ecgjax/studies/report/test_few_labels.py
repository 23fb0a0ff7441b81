"""The picture of few labels: every model's scores in the panel of their question, from few labels to many."""

import numpy as np
import pytest

from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.results import Key
from ecgjax.studies.report.few_labels import (
    few_labels_figure,
    few_labels_table,
    few_labels_verdicts,
    scores,
)


def interval(value):
    return Interval(estimate=value, low=value - 0.02, high=value + 0.03, resamples=100, reason="")


def study(**models):
    """Means of models at 1, 10 and 100 % of the labels, given out of order, with rows that are no means beside them."""
    rows = {}
    for model, values in models.items():
        for fraction, value in reversed(list(zip((0.01, 0.1, 1.0), values, strict=True))):
            rows[Key(model, "AUROC", "q", fraction)] = interval(value)
            rows[Key(model, "AUROC", "q", fraction, seed=0)] = interval(0.0)
            rows[Key(model, "AUROC", "q", fraction, minus="random")] = interval(0.0)
            rows[Key(model, "AUPRC", "q", fraction)] = interval(0.1)
    return rows


TITLES = {
    "pretrained": "pretrained, linear probe",
    "supervised": "labels only, end to end",
    "random": "random initialisation, linear probe",
    "boosted": "intervals and amplitudes, boosted trees",
}

PAYS = study(
    pretrained=(0.7, 0.8, 0.81), supervised=(0.6, 0.8, 0.85), random=(0.55, 0.7, 0.75), demographics=(0.5,) * 3
)
NOT = study(pretrained=(0.55, 0.6, 0.62), boosted=(0.6, 0.65, 0.7))


def test_scores_are_means_of_the_first_metric_from_few_labels_to_many():
    found = scores(PAYS, "pretrained")
    assert [(key.fraction, PAYS[key].estimate) for key in found] == [(0.01, 0.7), (0.1, 0.8), (1.0, 0.81)]
    assert scores(PAYS, "boosted") == [] == scores({}, "pretrained")


def test_every_panel_has_the_lines_of_its_own_question():
    figure = few_labels_figure({"potassium>5": PAYS, "wedge_pressure>18": NOT}, title="SIMULATED")
    first, second = figure.axes
    assert [panel.get_title() for panel in figure.axes] == ["potassium>5", "wedge_pressure>18"]
    drawn = {each.get_label(): each.lines[0].get_ydata() for each in first.containers}
    assert set(drawn) == {TITLES[model] for model in ("pretrained", "supervised", "random")}
    np.testing.assert_allclose(drawn[TITLES["supervised"]], [0.6, 0.8, 0.85])
    low, high = first.containers[0].lines[2][0].get_segments()[0][:, 1]
    np.testing.assert_allclose([low, high], [0.68, 0.73])
    assert len(second.containers) == 2
    assert [label.get_text() for label in first.get_xticklabels()] == ["1 %", "10 %", "100 %"]
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {TITLES[model] for model in ("boosted",)}


def test_the_table_has_the_drawn_models_that_were_trained():
    table = few_labels_table(NOT, question="wedge_pressure>18", caption="of wedge pressure")
    assert table.header == ["model", "1 %", "10 %", "100 %"]
    assert table.rows == [
        [TITLES["pretrained"], "0.550", "0.600", "0.620"],
        [TITLES["boosted"], "0.600", "0.650", "0.700"],
    ]
    assert max(len(" | ".join(row)) for row in [table.header, *table.rows]) <= 80


def test_no_study_is_no_picture():
    with pytest.raises(ValueError, match="needs a study"):
        few_labels_figure({}, title="")


def test_the_verdicts_are_of_every_share_of_the_labels():
    rows = {key._replace(task="potassium>5"): value for key, value in PAYS.items()}
    rows[Key("pretrained", "AUROC", "potassium>5", 0.01, minus="boosted")] = interval(0.1)
    first, second, last = few_labels_verdicts({"potassium>5": rows})
    assert second.asked.words == "potassium>5, 10 % of the training labels"
    assert first.asked.words == "potassium>5, 1 % of the training labels"
    assert first.instead == {"intervals and amplitudes, boosted trees": interval(0.1)}
    assert (first.outcome, last.outcome) == ("better", "unknown")
    assert last.best == "labels only, end to end"
