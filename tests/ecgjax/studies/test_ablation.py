"""Arms side by side: sums over seeds, tables, files."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_pipelines.errors import DataError
from ecgjax.studies.ablation_statistics import (
    ArmRun,
    TaskScores,
    arms_table,
    differences_table,
    facts_table,
    figure,
    sum_up,
)


def _run(arm, seed, scores, twin="random net", **facts):
    task = TaskScores(records=10, positives=3, val_metric=0.7, selected="C = 1 of 13", scores=scores)
    return ArmRun(arm=arm, seed=seed, twin=twin, config="digest", tasks={"lvef<40": task}, facts=facts)


def _cohort():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(150), 2)
    labels = (rng.random(300) < 0.4).astype(int)

    def scores(signal):
        return (signal * labels + rng.standard_normal(300)).astype(np.float32)

    runs = [_run("random net", seed, scores(0.5), twin="") for seed in (0, 1)]
    runs += [_run("a", seed, scores(1.5), loss=2.0 + seed) for seed in (0, 1)]
    runs += [_run("b", 1, scores(1.0), loss=5.0)]
    return runs, {"kind": "binary", "targets": labels, "patients": patients, "resamples": 300}


def test_means_and_differences_are_over_the_seeds_that_both_have():
    runs, cohort = _cohort()
    answers = sum_up(runs, "lvef<40", **cohort)
    auroc = {
        (run.arm, run.seed): roc_auc_score(cohort["targets"], run.tasks["lvef<40"].scores.astype(float)) for run in runs
    }
    a, random = (np.array([auroc[arm, seed] for seed in (0, 1)]) for arm in ("a", "random net"))
    np.testing.assert_allclose(answers.of_arm["a"].mean.estimate, a.mean(), rtol=1e-12)
    np.testing.assert_allclose(answers.of_arm["a"].seed_sd, a.std(ddof=1), rtol=1e-9)
    np.testing.assert_allclose(answers.above_random["a"].mean.estimate, (a - random).mean(), rtol=1e-12)
    np.testing.assert_allclose(answers.above_random["b"].mean.estimate, auroc["b", 1] - random[1], rtol=1e-12)
    np.testing.assert_allclose(answers.above_first["b"].mean.estimate, auroc["b", 1] - a[1], rtol=1e-12)
    assert set(answers.above_random) == {"a", "b"}
    assert set(answers.above_first) == {"b"}
    assert math.isnan(answers.of_arm["b"].seed_sd)
    interval = answers.above_random["a"].mean
    assert interval.low < interval.estimate < interval.high


def test_an_arm_s_difference_from_an_equal_one_is_nothing_with_no_width():
    runs, cohort = _cohort()
    twin = [_run("same", run.seed, run.tasks["lvef<40"].scores) for run in runs if run.arm == "random net"]
    mean = sum_up([*runs, *twin], "lvef<40", **cohort).above_random["same"].mean
    assert (mean.low, mean.estimate, mean.high) == (0, 0, 0)


def test_tables_and_figure_hold_every_arm():
    runs, cohort = _cohort()
    answers = [sum_up(runs, "lvef<40", **cohort)]
    table = arms_table(answers)
    assert [row[0] for row in table.rows] == ["random net", "a", "b"]
    assert table.header[1] == "lvef<40 (AUROC)"
    assert " ± " in table.rows[1][1]
    assert " ± " not in table.rows[2][1], "one seed has no deviation"
    assert differences_table(answers, "above_random").rows[0][1].startswith("+")
    facts = facts_table(runs).rows
    assert facts[0] == ("a", "2", "2.5")
    assert len(facts) == 2, "random encoders are not trained"
    labels = [text.get_text() for text in figure(answers).axes[0].get_yticklabels()]
    assert labels == ["a", "b"]


def test_a_result_is_read_as_it_was_written(tmp_path):
    run = _run("a", 1, np.arange(6, dtype=np.float32).reshape(3, 2) / 7, loss=math.nan, speed=3.0)
    run.save(tmp_path / "results" / "a.npz")
    again = ArmRun.load(tmp_path / "results" / "a.npz")
    np.testing.assert_array_equal(again.tasks["lvef<40"].scores, run.tasks["lvef<40"].scores)
    assert again.tasks["lvef<40"].selected == "C = 1 of 13"
    assert math.isnan(again.facts["loss"])
    assert (again.arm, again.seed, again.twin, again.config, again.facts["speed"]) == (
        "a",
        1,
        "random net",
        "digest",
        3,
    )


def test_a_damaged_result_is_named(tmp_path):
    path = tmp_path / "a.npz"
    _run("a", 1, np.zeros(3, np.float32)).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"a\.npz.*damaged.*remove it"):
        ArmRun.load(path)
