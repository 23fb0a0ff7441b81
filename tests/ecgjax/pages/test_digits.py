"""Quantities have the digits and units that a clinician writes."""

import pytest

from ecgjax.data.tasks import parse_task
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.pages.digits import asked_in_words, decimals_in, percent, share_in_words, with_unit
from ecgjax.studies.report.conclusions import ONE_SEED, conclusions, several_seeds


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (18.4321, "mmHg", "18.4 mmHg"),
        (4.1234567, "mmol/L", "4.12 mmol/L"),
        (411.7, "ms", "412 ms"),
        (38.25, "%", "38.2 %"),
        (71.3, "1/min", "71 1/min"),
        (1234.567, "U", "1235 U"),
        (0.012345, "U", "0.012 U"),
        (2.0, "", "2"),
    ],
)
def test_values_of_records(value, unit, text):
    assert with_unit(value, unit) == text


@pytest.mark.parametrize(("size", "decimals"), [(0.0123, 3), (1.5, 2), (15.0, 1), (150.0, 0), (1e6, 0), (0.0, 3)])
def test_an_unknown_unit_has_three_significant_digits(size, decimals):
    assert decimals_in("", size=size) == decimals


def test_intervals_have_as_many_decimals_as_they_are_asked_for():
    interval = Interval(estimate=4.12345, low=3.98765, high=-0.0001)
    assert interval.text(1) == "4.1 [4.0, 0.0]"
    assert interval.signed(2) == "+4.12 [+3.99, +0.00]"
    assert str(interval) == interval.text() == "4.123 [3.988, 0.000]"


@pytest.mark.parametrize(
    ("line", "unit", "words"),
    [
        ("lvef<40", "%", "lvef < 40 %"),
        ("potassium>5.5", "mmol/L", "potassium > 5.5 mmol/L"),
        ("wedge_pressure", "mmHg", "wedge_pressure (mmHg)"),
        ("superdiagnostic:*", "", "superdiagnostic:*"),
        ("af=1", "", "af=1"),
    ],
)
def test_questions_have_their_unit(line, unit, words):
    assert asked_in_words(parse_task(line), unit) == words


def test_shares_are_percentages():
    assert share_in_words(1.0) == "all training labels"
    assert share_in_words(0.01) == "1 % of the training labels"
    assert share_in_words(0.125) == "12.5 % of the training labels"


def test_a_simulated_cohort_is_always_called_one():
    text = conclusions(cohort="c", simulated=True, tested="9 patients", seeds=ONE_SEED, chosen="x").text
    assert text.startswith("What may be concluded. Tested were 9 patients of c, a SIMULATED cohort")
    assert "one pretraining run" in text
    assert "SIMULATED" not in conclusions(cohort="c", simulated=False, tested="", seeds="", chosen="").text
    assert "one seed of labels" in several_seeds(1, "labels")
    assert "3 seeds of labels" in several_seeds(3, "labels")


def test_a_share_is_a_percentage_without_rounding_noise():
    assert [percent(share) for share in (0.1, 0.07, 0.005, 1)] == ["10 %", "7 %", "0.5 %", "100 %"]
