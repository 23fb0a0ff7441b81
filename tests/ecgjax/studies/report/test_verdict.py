"""The first line of a report: the best model, and whether pretraining beat what one would do without it."""

import pytest

from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.results import Key
from ecgjax.studies.report.study_page import study_verdicts
from ecgjax.studies.report.verdict import Asked, Rivals, outcome_of, verdict_of, verdict_table, verdict_text

ASKED = Asked("lvef<40", "AUROC", 1.0, "lvef < 40 %, all training labels")
RIVALS = Rivals(
    pretrained=["pretrained"],
    instead={name: {"pretrained": name} for name in ("labels only", "boosted trees")},
    random={"pretrained": "random"},
)


def _interval(estimate, low, high):
    return Interval(estimate=estimate, low=low, high=high, resamples=100)


def _rows(values, differences, *, task="lvef<40", fraction=1.0):
    """Returns rows of AUROCs by model, and of the pretrained model's differences by the other model."""
    rows = {Key(model, "AUROC", task, fraction): _interval(value, value - 0.04, value + 0.04)
            for model, value in values.items()}  # fmt: skip
    return rows | {Key("pretrained", "AUROC", task, fraction, minus=other): _interval(*difference)
                   for other, difference in differences.items()}  # fmt: skip


VALUES = {"pretrained": 0.744, "random": 0.65, "labels only": 0.801, "boosted trees": 0.74}
WORSE, OPEN, BETTER = (-0.057, -0.089, -0.023), (0.004, -0.03, 0.04), (0.094, 0.054, 0.132)


def _text(differences, values=VALUES, **more):
    verdict = verdict_of(_rows(values, differences), ASKED, RIVALS)
    return verdict_text([verdict], **({"simulated": False} | more))


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (-0.1, 0.1, "open"), (0.0, 0.1, "open"), (-0.1, 0.0, "open"),
     (float("nan"), float("nan"), "unknown")],
)  # fmt: skip
def test_a_difference_counts_where_its_interval_lies_on_one_side_of_zero(low, high, outcome):
    assert outcome_of(_interval(0.05, low, high)) == outcome


def test_beating_the_random_encoder_alone_is_not_called_a_gain():
    text = _text({"labels only": WORSE, "boosted trees": OPEN, "random": BETTER})
    assert text.startswith(
        "lvef < 40 %, all training labels: the best model is labels only (AUROC 0.801 [0.761, 0.841])."
    )
    assert (
        "Pretraining did not beat what one would do without it: pretrained (0.744 [0.704, 0.784]) is worse than" in text
    )
    assert "worse than labels only -0.057 [-0.089, -0.023]" in text
    assert "not shown to differ (the interval contains zero) from boosted trees +0.004 [-0.030, +0.040]" in text
    assert "It beat the same encoder at random initialisation: +0.094 [+0.054, +0.132]." in text


def test_an_interval_that_contains_zero_leaves_it_open():
    text = _text({"labels only": OPEN, "boosted trees": BETTER, "random": OPEN})
    assert "Whether pretraining beats what one would do without it stays open" in text
    assert "better than boosted trees +0.094 [+0.054, +0.132]" in text
    assert "From the same encoder at random initialisation no difference was shown (the interval contains zero)" in text


def test_a_gain_is_called_one_only_against_all_that_was_compared():
    values = VALUES | {"pretrained": 0.9}
    text = _text({"labels only": BETTER, "boosted trees": BETTER, "random": BETTER}, values)
    assert "the best model is pretrained (AUROC 0.900" in text
    assert "Pretraining beat all that was compared and needs none: pretrained is better than labels only" in text
    assert "Not compared: boosted trees." in _text({"labels only": BETTER, "random": BETTER}, values)


def test_of_too_few_patients_no_model_is_called_better_or_worse():
    rows = _rows(VALUES, {"labels only": WORSE, "boosted trees": WORSE, "random": WORSE})
    few = ASKED._replace(few="3 patients with a positive record")
    verdict = verdict_of(rows, few, RIVALS)
    text = verdict_text([verdict], simulated=False)
    assert (
        "labels only has the highest AUROC (0.801 [0.761, 0.841]). With only 3 patients with a positive record" in text
    )
    assert "nothing can be concluded" in text
    assert "worse" not in text
    assert "the best model" not in text
    enough = verdict_of(rows, ASKED, RIVALS)
    counted = verdict_text([verdict, enough, enough], simulated=False)
    assert "worse than one or more in 2" in counted
    assert "of 1 nothing can be concluded" in counted
    assert verdict_table([verdict, enough]).rows[0][3] == "nothing can be concluded (3 patients with a positive record)"


def test_a_verdict_needs_the_intervals_of_both_sides():
    rows = _rows(VALUES, {"labels only": BETTER, "boosted trees": BETTER})
    key = Key("boosted trees", "AUROC", "lvef<40", 1.0)
    rows[key] = Interval(estimate=0.74, reason="patients with a negative record: 4, fewer than 5")
    text = verdict_text([verdict_of(rows, ASKED, RIVALS)], simulated=False)
    assert "With too few patients (patients with a negative record: 4, fewer than 5) nothing can be concluded" in text


def test_what_was_not_compared_is_said():
    text = _text({"random": BETTER})
    assert "(labels only, measured intervals or the median beat) was not measured" in text
    assert "beat all" not in text
    assert "Not compared: the same encoder at random initialisation." in _text(
        {"labels only": OPEN, "boosted trees": OPEN}
    )
    alone = {"labels only": 0.8}
    assert "No pretrained encoder was compared" in _text({}, alone)
    assert "nothing can be said about pretraining" in verdict_text([], simulated=False)
    assert verdict_of({}, ASKED, RIVALS) is None


def test_differences_without_intervals_leave_it_open_and_their_reason_is_said_once():
    rows = _rows(VALUES, {"labels only": OPEN, "boosted trees": BETTER})
    reason = "only 12 of 100 resamples have both labels"
    rows |= {key: Interval(estimate=row.estimate, reason=reason) for key, row in rows.items() if key.minus}
    text = verdict_text([verdict_of(rows, ASKED, RIVALS)], simulated=False)
    assert "Whether pretraining beats what one would do without it stays open: pretrained (" in text
    assert f"difference from labels only +0.004, boosted trees +0.094 ({reason})." in text
    assert text.count(reason) == 1
    assert "was not measured" not in text


def test_simulated_patients_come_first():
    assert _text({"labels only": OPEN}, simulated=True).startswith("SIMULATED patients. ")
    assert "SIMULATED" not in _text({"labels only": OPEN})


def test_of_several_pretrained_models_the_highest_is_judged_and_counted():
    rows = _rows(VALUES | {"fine-tuned": 0.79}, {})
    rows[Key("fine-tuned", "AUROC", "lvef<40", minus="labels only")] = _interval(*OPEN)
    rivals = Rivals(
        pretrained=["pretrained", "fine-tuned"], instead={"labels only": {"fine-tuned": "labels only"}}, random={}
    )
    text = verdict_text([verdict_of(rows, ASKED, rivals)], simulated=False)
    assert "fine-tuned (0.790 [0.750, 0.830]), the best of 2 pretrained models," in text


def test_many_questions_are_counted_and_stand_in_a_table():
    rows = {}
    for task, difference in (("a", BETTER), ("b", WORSE), ("c", OPEN)):
        rows |= _rows(VALUES, {"labels only": difference, "boosted trees": BETTER, "random": BETTER}, task=task)
        rows |= _rows(VALUES, {"labels only": WORSE, "random": OPEN}, task=task, fraction=0.1)
        rows |= _rows(VALUES, {}, task=task, fraction=0.5)
    verdicts = study_verdicts(rows, RIVALS, questions={name: name for name in "abc"})
    assert [each.asked.fraction for each in verdicts] == [0.1, 1.0] * 3
    text = verdict_text(verdicts, simulated=True)
    assert "6 comparisons (3 questions at 2 shares of the labels): the best model is labels only in 6." in text
    assert (
        "Pretraining was better than every model without it in 1, worse than one or more in 4, and not shown to be "
        "either in 1 (intervals contain zero)" in text
    )
    assert "It beat the same encoder at random in 3 of 6." in text
    assert "Where it did best, a, all training labels, pretrained minus the strongest of these is +0.094" in text
    table = verdict_table(verdicts)
    assert table.rows[0][0] == "a, 10 % of the training labels"
    assert table.rows[0][3] == "-0.057 [-0.089, -0.023] (labels only)"
