"""Questions, and means over folds, classes and seeds."""

import dataclasses
import types

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_pipelines.errors import DataError
from ecgjax.data.tasks import BinaryTask
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.results import Key, lost_seeds, of_seeds
from ecgjax.studies import cross_validation
from ecgjax.studies.compared_models import ComparedModel
from ecgjax.studies.cross_validation import Fitted, Study
from ecgjax.studies.questions import Problem, Question, ask
from ecgjax.studies.report.cross_validation_page import _words
from ecgjax.studies.report.seed_tables import entry as text_of
from tests.ecgjax.studies.cross_validation.small_study import method

RNG = np.random.default_rng(0)


@dataclasses.dataclass
class MadeUpIndex:
    """Labels of a hundred records of fifty patients."""

    answers: dict

    def __post_init__(self):
        self.group = np.arange(100) // 2
        self.patient_id = np.array([f"p{code}" for code in self.group])
        self.labels = tuple(self.answers)

    def label(self, name):
        return np.asarray(self.answers[name], np.float32)


def test_rare_classes_are_left_out_and_named():
    numbers = np.arange(100)
    index = MadeUpIndex(
        {
            "super:A": np.where(numbers < 3, np.nan, numbers % 3 == 0),
            "super:B": numbers < 12,
            "super:C": numbers < 8,
            "super:D": numbers < 5,
            "height": numbers,
        }
    )
    problems, questions = ask(index, numbers, ["super:A=1", "super:*"], min_positives=7, folds=5)
    assert list(problems) == ["super:A", "super:B"]
    assert questions[0] == Question(title="super:A=1", problems=("super:A",), left_out={})
    assert questions[1].left_out == {
        "super:C": "positive records of 4 patients alone",
        "super:D": "5 positive records",
    }
    assert [question.metric for question in questions] == ["AUROC", "macro AUROC"]
    np.testing.assert_array_equal(problems["super:A"].rows, numbers[3:])
    np.testing.assert_array_equal(problems["super:B"].labels, numbers < 12)
    with pytest.raises(DataError, match=r"--task='super:C=1' cannot be .* super:C: 8 positive records"):
        ask(index, numbers, ["super:C=1"], min_positives=10, folds=5)
    with pytest.raises(DataError, match="is a quantity and no yes or no; ask above or below a value"):
        ask(index, numbers, ["height"], min_positives=5, folds=5)


PATIENTS = np.repeat(np.arange(80), 2)
PROBLEMS = {
    name: Problem(
        task=BinaryTask(label=name, rule="present"),
        rows=np.arange(10 * number, 160),
        labels=(RNG.random(160 - 10 * number) < 0.4).astype(int),
    )
    for number, name in enumerate(("x:a", "x:b"))
}


def result_of(problem, *, signal, reason=""):
    labels = problem.labels
    scores = (signal * labels + RNG.normal(size=len(labels))).astype(np.float32)
    return Answers(
        outputs=None if reason else scores, folds=(PATIENTS[problem.rows] % 4), chosen=(0.1,) * 4, unchosen=0,
        records=90.0, positives=30, reason=reason,
    )  # fmt: skip


@pytest.fixture
def made_up_study():
    """A study of three encoders, of which one is never pretrained and another is equal to it."""
    study = object.__new__(Study)
    kinds = {"random net": "random", "strong": "pretrained", "same": "pretrained"}
    study.models = [
        ComparedModel(name=name, title=title, encoder="net", labels_only="labels only net", identity={}, models=None)
        for title, name in kinds.items()
    ]
    study.problems, study.patients = PROBLEMS, PATIENTS
    study.questions = [Question(title="x:*", problems=("x:a", "x:b"), left_out={})]
    study.method = method(resamples=400)
    return study


def test_results_are_means_over_folds_classes_and_seeds(made_up_study):
    assert [problem.name for problem in PROBLEMS.values()] == list(PROBLEMS)
    answers = {
        Fitted(model, name, 1.0, seed): result_of(problem, signal=signal)
        for model, signal in (("strong", 1.5), ("random net", 0.5))
        for name, problem in PROBLEMS.items()
        for seed in range(3)
    }
    answers |= {key._replace(model="same"): each for key, each in answers.items() if key.model == "random net"}

    def by_hand(model, seed, names=PROBLEMS):
        values = []
        for name in names:
            problem, each = PROBLEMS[name], answers[Fitted(model, name, 1.0, seed)]
            values += [
                roc_auc_score(problem.labels[each.folds == fold], each.outputs[each.folds == fold]) for fold in range(4)
            ]
        return np.mean(values)

    rows = made_up_study.measure(answers)
    mean = Key("strong", "macro AUROC", "x:*", minus="random net")
    expected = [by_hand("strong", seed) - by_hand("random net", seed) for seed in range(3)]
    assert of_seeds(rows, mean) == pytest.approx(dict(enumerate(expected)), abs=1e-12)
    assert rows[mean].estimate == pytest.approx(np.mean(expected), abs=1e-12)
    assert 0 < rows[mean].low < np.mean(expected) < rows[mean].high
    assert text_of(rows, mean).startswith(f"{np.mean(expected):+.3f} [")
    same = rows[mean._replace(model="same")]
    assert (same.low, same.estimate, same.high) == (0, 0, 0), "differences are paired"
    # Of a question with several classes each has results of its own.
    for name in PROBLEMS:
        own = rows[Key("strong", "AUROC", name)]
        assert own.estimate == pytest.approx(np.mean([by_hand("strong", seed, [name]) for seed in range(3)]), abs=1e-12)

    # A seed in which one of the two cannot be trained is missing in both, and said.
    reason = "fold 1: no records"
    answers[Fitted("random net", "x:b", 1.0, 1)] = result_of(PROBLEMS["x:b"], signal=1.0, reason=reason)
    rows = made_up_study.measure(answers)
    assert list(of_seeds(rows, mean)) == [0, 2]
    assert lost_seeds(rows, mean) == 1
    assert rows[mean._replace(seed=1)].reason == f"x:b: {reason}"
    assert rows[mean].estimate == pytest.approx(np.mean([expected[0], expected[2]]), abs=1e-12)
    assert "(1 seed missing)" in text_of(rows, mean)
    assert text_of(rows, mean._replace(fraction=0.1)) == "", "it is not made yet"


def test_records_with_a_label_of_some_task_are_those_that_are_tested():
    problems = {
        name: Problem(task=BinaryTask(label=name, rule="below", threshold=1.0), rows=np.array(rows), labels=np.zeros(2))
        for name, rows in (("a", [1, 4]), ("b", [4, 6]))
    }
    study = types.SimpleNamespace(problems=problems, patients=np.array([0, 0, 1, 1, 2, 3, 3, 4]))
    tested = Study.labelled.fget(study)
    np.testing.assert_array_equal(tested, [1, 4, 6])
    recordings = types.SimpleNamespace(name="mine")
    method = dataclasses.asdict(cross_validation.Method())
    words = _words(recordings, study.patients, tested, {}, method)
    assert "8 records of 5 patients of mine" in words
    assert "Each of the 3 that have a label (of 3 patients) is tested" in words
