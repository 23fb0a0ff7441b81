"""The table of results: read as it was written, and every number against a bootstrap by hand."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from data_pipelines.errors import DataError
from ecgjax.evaluation import results as module
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.ranking import RankedScores
from ecgjax.evaluation.metrics.weighting import mean
from ecgjax.evaluation.results import (
    RESULTS_FILE,
    Key,
    Rows,
    lost_seeds,
    measured,
    minus,
    of_seeds,
    over_seeds,
    read_results,
    seed_sd,
    seeds_interval,
    write_results,
)
from tests.support.resampled import auroc_of_pairs, bounds

NAN = math.nan
DRAWS = {"resamples": 200, "seed": 3}
RNG = np.random.default_rng(0)
PATIENTS = np.repeat(np.arange(80), RNG.integers(1, 4, 80)) + 100
NUM = len(PATIENTS)
LABELS = {task: (RNG.random(80) < 0.4).astype(int)[PATIENTS - 100] for task in ("lvef<40", "af", "stemi")}


def _same(one, other):
    """Whether intervals are equal, NaN too."""
    numbers = [(one.estimate, other.estimate), (one.low, other.low), (one.high, other.high)]
    np.testing.assert_array_equal(*zip(*numbers, strict=True))
    assert (one.confidence, one.resamples, one.reason) == (other.confidence, other.resamples, other.reason)


def _interval(estimate, low, high, *, resamples=200, reason=""):
    return Interval(estimate=estimate, low=low, high=high, confidence=0.95, resamples=resamples, reason=reason)


ROWS = {
    Key("pretrained", "AUROC", "lvef<40", 0.1, 3): _interval(1 / 3, 0.1, 0.5),
    Key("pretrained", "AUROC", "lvef<40", 0.1): _interval(-0.25, -1e-17, 1e300),
    Key("random", "R²", "wedge_pressure"): _interval(-3.5, NAN, NAN, reason="only 20 of 200 resamples have “both”"),
    Key("random", "AUROC", "af", seed=0): Interval.missing("none of 7 records is positive"),
    Key("random", "slope", "af"): _interval(NAN, NAN, NAN, resamples=12, reason="it needs both classes"),
    Key("pretrained", "MAE", "age", minus="all other records", part="sex: female"): _interval(0, -1, 1),
}


# Files.


def test_rows_are_read_as_they_were_written_and_in_order(tmp_path):
    write_results(tmp_path, ROWS, study="label efficiency")
    again = read_results(tmp_path)
    assert list(again) == list(ROWS)
    for key, value in ROWS.items():
        _same(again[key], value)
    assert [type(key.seed) for key in again] == [type(key.seed) for key in ROWS]


def test_the_file_is_strict_json_that_pandas_takes(tmp_path):
    write_results(tmp_path, ROWS, config={"steps": 7, "rate": NAN}, seeds=(0, 1), best=np.float32(0.5))

    def refused(text):
        raise AssertionError(f"{text} is no JSON")

    text = (tmp_path / RESULTS_FILE).read_text(encoding="utf-8")
    stored = json.loads(text, parse_constant=refused)
    assert text.endswith("}\n")
    assert "R²" in text
    assert {name: stored[name] for name in ("config", "seeds", "best")} == {
        "config": {"steps": 7, "rate": None}, "seeds": [0, 1], "best": 0.5
    }  # fmt: skip
    assert stored["results"][3] == {
        "model": "random", "metric": "AUROC", "task": "af", "fraction": 1.0, "seed": 0, "minus": "", "part": "",
        "estimate": None, "low": None, "high": None, "resamples": 0, "reason": "none of 7 records is positive",
    }  # fmt: skip
    table = pd.DataFrame(stored["results"])
    assert table.shape == (len(ROWS), len(Key._fields) + 5)
    assert table.set_index(["model", "metric", "task"]).loc[("pretrained", "MAE", "age"), "high"].item() == 1


def test_no_rows_are_read_as_none(tmp_path):
    write_results(tmp_path, {})
    assert read_results(tmp_path) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"results": [',
        "[]",
        "null",
        '{"study": "of before there was a table"}',
        '{"results": null}',
        '{"results": {"auroc": 0.7}}',
        '{"results": [{"model": "random"}]}',
        '{"results": [["random", 0.7]]}',
        '{"results": ["random"]}',
    ],
)
def test_a_file_without_a_table_is_named_with_its_remedy(tmp_path, text):
    (tmp_path / RESULTS_FILE).write_text(text, encoding="utf-8")
    message = r"results\.json has no table of results .* given once more, writes it"
    with pytest.raises(DataError, match=message) as caught:
        read_results(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / RESULTS_FILE))


@pytest.mark.parametrize("lost", [*Key._fields, "estimate", "low", "high", "resamples", "reason"])
def test_a_row_that_lacks_a_column_is_damage(tmp_path, lost):
    write_results(tmp_path, ROWS)
    path = tmp_path / RESULTS_FILE
    stored = json.loads(path.read_text(encoding="utf-8"))
    del stored["results"][-1][lost]
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(DataError, match=rf"has no table of results \('{lost}'\)"):
        read_results(tmp_path)


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path):
    with pytest.raises(DataError, match=r"results\.json has no table of results"):
        read_results(tmp_path)
    write_results(tmp_path, ROWS)
    path = tmp_path / RESULTS_FILE
    path.write_bytes(path.read_bytes().replace("R²".encode(), b"R\xb2"))
    with pytest.raises(DataError, match=r"results\.json has no table of results"):
        read_results(tmp_path)


def test_an_interrupted_writer_leaves_the_file_before(tmp_path, monkeypatch):
    write_results(tmp_path, ROWS)
    before = (tmp_path / RESULTS_FILE).read_bytes()

    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_results(tmp_path, {})
    assert (tmp_path / RESULTS_FILE).read_bytes() == before


# Numbers.


def _scores(signal, seed, task="lvef<40"):
    """Scores with ties."""
    return np.round(signal * LABELS[task] + np.random.default_rng(seed).normal(size=NUM), 1)


def _auroc(scores, task="lvef<40"):
    return lambda rows: auroc_of_pairs(LABELS[task][rows], scores[rows])


def _is(interval, by_hand):
    """Whether an interval is that of a function of rows on resamples that are drawn by hand."""
    assert interval.estimate == pytest.approx(by_hand(np.arange(NUM)), abs=1e-12)
    np.testing.assert_allclose((interval.low, interval.high), bounds(PATIENTS, by_hand, **DRAWS), atol=1e-12)
    assert (interval.resamples, interval.reason, interval.confidence) == (200, "", 0.95)


def test_metrics_and_paired_differences_are_of_the_same_resamples():
    a, b = _scores(1.0, 1), _scores(0.5, 2)
    keys = {name: Key(name, "AUROC", "lvef<40") for name in ("a", "b")}
    other = Key("a", "mean score", "lvef<40", part="all")
    metrics = {
        keys["a"]: RankedScores(LABELS["lvef<40"], a).auroc,
        keys["b"]: RankedScores(LABELS["lvef<40"], b).auroc,
        other: mean(a),
    }
    differences = {Key("any", "name"): (keys["b"], keys["a"]), **minus(metrics, "a", ["a", "b", "c"])}
    found = measured(metrics, patients=PATIENTS, **DRAWS, needs="both classes", differences=differences)
    assert list(found) == [*metrics, Key("any", "name"), Key("a", "AUROC", "lvef<40", minus="b")]
    _is(found[keys["a"]], _auroc(a))
    _is(found[keys["b"]], _auroc(b))
    _is(found[other], lambda rows: a[rows].mean())
    difference = found[Key("a", "AUROC", "lvef<40", minus="b")]
    _is(difference, lambda rows: _auroc(a)(rows) - _auroc(b)(rows))
    assert found[Key("any", "name")].estimate == -difference.estimate
    turned = found[Key("any", "name")]
    np.testing.assert_allclose((turned.low, turned.high), (-difference.high, -difference.low), rtol=1e-12)
    assert list(measured(metrics, patients=PATIENTS, **DRAWS, needs="")) == list(metrics)


def test_differences_are_of_what_both_models_have():
    metrics = [
        Key("a", "AUROC", "x"), Key("b", "AUROC", "x"), Key("a", "AUPRC", "x"), Key("b", "AUROC", "y"),
        Key("a", "AUROC", "x", part="men"), Key("c", "AUROC", "x", part="men"),
    ]  # fmt: skip
    assert minus(metrics, "a", ("a", "b", "c", "d")) == {
        Key("a", "AUROC", "x", minus="b"): (Key("a", "AUROC", "x"), Key("b", "AUROC", "x")),
        Key("a", "AUROC", "x", minus="c", part="men"): (
            Key("a", "AUROC", "x", part="men"), Key("c", "AUROC", "x", part="men"),
        ),
    }  # fmt: skip
    assert minus(metrics, "d", ("a",)) == minus([], "a", ("b",)) == {}


def test_what_is_not_defined_has_its_reason_in_the_table(tmp_path):
    nobody = RankedScores(np.zeros(NUM, int), np.arange(NUM)).auroc
    one = (PATIENTS[0] == PATIENTS).astype(int)
    keys = Key("a", "AUROC", "never"), Key("a", "AUROC", "seldom")
    found = measured(
        {keys[0]: nobody, keys[1]: RankedScores(one, np.arange(NUM)).auroc}, patients=PATIENTS, **DRAWS,
        needs="a positive record", differences={keys[0]._replace(minus="b"): keys},
    )  # fmt: skip
    assert found[keys[0]].reason == "it needs a positive record"
    seldom = found[keys[1]]
    assert math.isfinite(seldom.estimate)
    assert math.isnan(seldom.low)
    assert seldom.reason == f"only {seldom.resamples} of 200 resamples have a positive record"
    assert math.isnan(found[keys[0]._replace(minus="b")].estimate)
    write_results(tmp_path, found)
    for key, value in read_results(tmp_path).items():
        _same(value, found[key])


def _over_seeds(scores, missing=None, *, pairs=(("a", "b"),), **given):
    metrics = {key: RankedScores(LABELS[key.task], each).auroc for key, each in scores.items()}
    return over_seeds(metrics, missing or {}, pairs=pairs, patients=PATIENTS, **DRAWS, needs="both classes", **given)


def _key(model, seed=None, *, task="lvef<40", fraction=1.0, minus=""):
    return Key(model, "AUROC", task, fraction, seed, minus)


def test_means_over_seeds_are_of_every_resample():
    scores = {
        _key(model, seed): _scores(signal, 10 * seed + 1) for model, signal in (("a", 1), ("b", 0.3)) for seed in (0, 4)
    }
    found = _over_seeds(scores)
    assert set(found) == {
        _key(model, seed, minus=other) for model, other in (("a", ""), ("b", ""), ("a", "b")) for seed in (None, 0, 4)
    }
    of = {key: _auroc(each) for key, each in scores.items()}
    for model in "ab":
        for seed in (0, 4):
            _is(found[_key(model, seed)], of[_key(model, seed)])
        _is(found[_key(model)], lambda rows: np.mean([of[_key(model, seed)](rows) for seed in (0, 4)]))  # noqa: B023
    for seed in (0, 4):
        _is(found[_key("a", seed, minus="b")], lambda rows: of[_key("a", seed)](rows) - of[_key("b", seed)](rows))  # noqa: B023
    _is(
        found[_key("a", minus="b")],
        lambda rows: np.mean([of[_key("a", seed)](rows) - of[_key("b", seed)](rows) for seed in (0, 4)]),
    )
    assert of_seeds(found, _key("a")) == {seed: found[_key("a", seed)].estimate for seed in (0, 4)}
    assert lost_seeds(found, _key("a")) == 0


def test_a_seed_without_a_model_is_left_out_and_told(tmp_path):
    scores = {_key("a", seed): _scores(1.0, seed) for seed in (0, 1, 2)} | {_key("b", 1): _scores(0.3, 9)}
    missing = {_key("b", 0): "none of 5 records is positive", _key("c", 0): "no label", _key("c", 1): "none too"}
    found = _over_seeds(scores, missing, pairs=[("a", "b"), ("a", "c"), ("c", "d")])
    of = {key: _auroc(each) for key, each in scores.items()}
    # The mean over the seeds that there are.
    _is(found[_key("a")], lambda rows: np.mean([of[_key("a", seed)](rows) for seed in (0, 1, 2)]))
    _is(found[_key("b")], of[_key("b", 1)])
    _same(found[_key("b", 0)], Interval.missing("none of 5 records is positive"))
    # A difference is over the seeds that both have; a seed that was not asked of both has no row.
    _is(found[_key("a", minus="b")], lambda rows: of[_key("a", 1)](rows) - of[_key("b", 1)](rows))
    _same(found[_key("a", 0, minus="b")], Interval.missing("none of 5 records is positive"))
    assert _key("a", 2, minus="b") not in found
    # A model that no seed allowed has nothing but the reason.
    for key in (_key("c"), _key("a", minus="c")):
        _same(found[key], Interval.missing("no label"))
    assert not [key for key in found if key.minus == "d" or key.model == "d"]
    assert (of_seeds(found, _key("b")), of_seeds(found, _key("c"))) == ({1: found[_key("b", 1)].estimate}, {})
    assert [lost_seeds(found, _key(model)) for model in "abc"] == [0, 1, 2]
    assert lost_seeds(found, _key("a", minus="b")) == 1
    write_results(tmp_path, found)
    again = read_results(tmp_path)
    assert lost_seeds(again, _key("c")) == 2
    assert of_seeds(again, _key("a")) == of_seeds(found, _key("a"))


def test_fractions_and_metrics_are_apart():
    scores = {_key("a", 0, fraction=fraction): _scores(fraction, 1) for fraction in (0.1, 1.0)}
    scores |= {_key("b", 0, fraction=0.1): _scores(0.2, 2)}
    found = _over_seeds(scores)
    for fraction in (0.1, 1.0):
        _is(found[_key("a", fraction=fraction)], _auroc(scores[_key("a", 0, fraction=fraction)]))
    assert {key.fraction for key in found if key.minus} == {0.1}
    metrics = {
        Key("a", name, "af", seed=seed): getattr(RankedScores(LABELS["af"], _scores(1.0, seed, "af")), name.lower())
        for name, seed in itertools.product(("AUROC", "AUPRC"), (0, 1))
    }
    found = over_seeds(metrics, {}, pairs=[], patients=PATIENTS, **DRAWS, needs="")
    assert {(key.metric, key.seed) for key in found} == set(itertools.product(("AUROC", "AUPRC"), (None, 0, 1)))
    assert found[Key("a", "AUPRC", "af")].estimate == pytest.approx(
        np.mean([found[Key("a", "AUPRC", "af", seed=seed)].estimate for seed in (0, 1)])
    )


def test_a_question_may_be_the_mean_of_several_tasks():
    tasks = ("lvef<40", "af", "stemi")
    scores = {
        _key(model, seed, task=task): _scores(signal, 100 * seed + number, task)
        for model, signal in (("a", 1.0), ("b", 0.3))
        for seed in (0, 1)
        for number, task in enumerate(tasks)
    }
    del scores[_key("b", 1, task="af")]
    missing = {_key("b", 1, task="af"): "too few"}
    questions = {"lvef<40": ["lvef<40"], "mean of all": tasks}
    found = _over_seeds(scores, missing, questions=questions)
    of = {key: _auroc(each, key.task) for key, each in scores.items()}
    assert {key.task for key in found} == set(questions)

    def of_all(model, seed):
        return lambda rows: np.mean([of[_key(model, seed, task=task)](rows) for task in tasks])

    _is(found[_key("a", 1, task="mean of all")], of_all("a", 1))
    _is(found[_key("a", task="mean of all")], lambda rows: (of_all("a", 0)(rows) + of_all("a", 1)(rows)) / 2)
    # One task is missing, and so is the mean over tasks of that seed.
    _same(found[_key("b", 1, task="mean of all")], Interval.missing("too few"))
    _is(found[_key("b", task="mean of all")], of_all("b", 0))
    _is(
        found[_key("a", task="mean of all", minus="b")],
        lambda rows: of_all("a", 0)(rows) - of_all("b", 0)(rows),
    )
    _is(found[_key("b", 1)], of[_key("b", 1)])


def test_an_equal_model_differs_by_nothing_with_no_width():
    scores = {_key(model, seed): _scores(1.0, seed) for model in "ab" for seed in (0, 1)}
    difference = _over_seeds(scores)[_key("a", minus="b")]
    assert (difference.low, difference.estimate, difference.high) == (0, 0, 0)


def test_one_seed_without_a_number_is_its_own_mean():
    scores = {_key("a"): _scores(1.0, 1), _key("b"): _scores(0.3, 2)}
    found = _over_seeds(scores)
    assert list(found) == [_key("a"), _key("b"), _key("a", minus="b")]
    _is(found[_key("a", minus="b")], lambda rows: _auroc(scores[_key("a")])(rows) - _auroc(scores[_key("b")])(rows))
    assert of_seeds(found, _key("a")) == {}


def test_nothing_gives_no_rows():
    assert over_seeds({}, {}, pairs=[("a", "b")], patients=PATIENTS, **DRAWS, needs="") == {}


def test_seeds_vary_by_what_numpy_and_scipy_say():
    values = {0: 0.7, 3: 0.75, 9: 0.62}
    numbers = list(values.values())
    assert seed_sd(values) == pytest.approx(np.std(numbers, ddof=1))
    expected = stats.t.interval(0.95, 2, np.mean(numbers), stats.sem(numbers))
    assert seeds_interval(values) == pytest.approx(expected)
    for few in ({}, {0: 0.7}):
        assert math.isnan(seed_sd(few))
        assert all(map(math.isnan, seeds_interval(few)))


def test_a_seed_without_an_interval_counts_by_its_value():
    rows = {
        _key("a", 0): Interval.alone(0.7),
        _key("a", 1): Interval.alone(NAN),
        _key("a", 2): _interval(NAN, NAN, NAN, resamples=5, reason="it needs both classes"),
        _key("b", 0): Interval.alone(0.2),
    }
    found = of_seeds(rows, _key("a"))
    assert found[0] == 0.7
    assert lost_seeds(rows, _key("a")) == 1
    assert module.RESULTS_FILE == "results.json"


def _made_up_rows():
    """Returns rows in any order, of which some have no value and some are left out, and the keys of all means."""
    rng, rows = np.random.default_rng(1), {}
    keys = [
        Key(model, "AUROC", task, fraction, seed, minus, part)
        for model, task, fraction, seed, minus, part in itertools.product(
            "ab", ("x", "y"), (0.1, 1.0), (None, 0, 1, 7), ("", "b"), ("", "men")
        )
    ]
    for key in rng.permutation(np.array(keys, object)):
        kind, value = rng.integers(6), Interval.alone(float(rng.normal()))
        if kind < 3:
            rows[Key(*key)] = value
        elif kind < 5:
            undefined = _interval(NAN, NAN, NAN, resamples=5, reason="it needs both classes")
            rows[Key(*key)] = Interval.missing("no label") if kind == 3 else undefined
    return rows, [Key(*key) for key in keys if key.seed is None]


@pytest.mark.parametrize("kind", [Rows, dict])
def test_the_seeds_of_a_mean_are_those_that_a_search_through_all_rows_finds(kind):
    rows, means = _made_up_rows()
    found, lost = 0, 0
    for key in [*means, Key("nobody", "AUROC")]:
        of_mean = {each.seed: rows[each] for each in rows if each.seed is not None and each._replace(seed=None) == key}
        without = [seed for seed, value in of_mean.items() if math.isnan(value.estimate) and not value.resamples]
        np.testing.assert_equal(
            of_seeds(kind(rows), key),
            {seed: value.estimate for seed, value in of_mean.items() if seed not in without},
        )
        assert lost_seeds(kind(rows), key) == len(without)
        found, lost = found + len(of_mean), lost + len(without)
    assert found == sum(key.seed is not None for key in rows)
    assert found > 3 * lost > 0


def test_rows_are_searched_once_for_all_means():
    searches = []

    class Counted(Rows):
        def items(self):
            searches.append(1)
            return super().items()

    rows, means = _made_up_rows()
    rows = Counted(rows)
    for key in means:
        of_seeds(rows, key)
        lost_seeds(rows, key)
    assert rows.seeds is rows.seeds
    assert len(searches) == 1
