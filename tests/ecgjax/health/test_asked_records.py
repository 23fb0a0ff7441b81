"""Which records the health metric asks, what it refuses before training, and the vote against brute force."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from data_pipelines.errors import DataError
from ecgjax import defaults
from ecgjax.data.recordings import open_recordings
from ecgjax.data.tasks import parse_task
from ecgjax.errors import ConfigError
from ecgjax.health.asked_records import AskedRecords, Labelled, asked_records
from ecgjax.health.neighbour_vote import vote
from ecgjax.settings.health import HealthSettings
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    parts = [make_simulated_dataset(folder, num_patients=40, rate=50, seconds=4, seed=s, name=f"d{s}") for s in (0, 1)]
    config = tiny(",".join(str(part.directory) for part in parts), data__val_folds=(8, 9), data__train_folds=(1, 2, 3))
    return open_recordings(defaults.settings_of(config).data)


def asked(recordings, task, **settings):
    return asked_records(HealthSettings(task=task, **({"neighbours": 3} | settings)), recordings)


def test_nothing_is_asked_by_default(recordings):
    assert asked_records(HealthSettings(), recordings) is None


def test_training_records_vote_on_validation_records_of_other_patients_in_all_data_sets(recordings):
    found = asked(recordings, "age_years>55")
    split, answers = recordings.split, parse_task("age_years>55").targets(recordings.index)
    for side, records in ((found.bank, split.train), (found.queries, split.val)):
        np.testing.assert_array_equal(side.records, np.sort(records[~np.isnan(answers[records])]))
        np.testing.assert_array_equal(side.labels, answers[side.records])
    assert not np.isin(found.records, split.test).any()
    assert not np.isin(found.bank.patients, found.queries.patients).any()
    assert set(recordings.dataset_of(found.bank.records)) == {0, 1}


def test_no_more_records_are_drawn_than_allowed_and_always_the_same(recordings):
    first, again = (asked(recordings, "age_years", records=15) for _ in range(2))
    assert (len(first.bank.records), len(first.queries.records)) == (15, 15)
    assert first.digest == again.digest
    assert np.isin(first.bank.records, recordings.split.train).all()
    assert f"15 of {len(asked(recordings, 'age_years').bank.records)} labelled training" in first.describe()


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("no_such_label", {}, "config.health.task='no_such_label': no label 'no_such_label'"),
        ("lvef<<40", {}, "config.health.task='lvef<<40' is no question"),
        ("age_years>1000", {}, "none of the .* records of config.data.train_folds are positive: ask another question"),
        ("age_years>1", {}, "all of the .* records of config.data.train_folds are positive"),
        ("age_years>1000", {"records": 9}, "raise config.health.records=9"),
        ("age_years", {"neighbours": 500}, "config.health.neighbours=500 are more than the .* or fewer"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_remedy(recordings, task, settings, words):
    with pytest.raises((ConfigError, DataError), match=words):
        asked(recordings, task, **settings)


@pytest.mark.parametrize("side", ["train", "val"])
def test_a_side_of_one_patient_or_none_is_refused(recordings, side):
    records = getattr(recordings.split, side)
    group = recordings.index.group
    for kept in (records[:0], records[group[records] == group[records[0]]]):
        fewer = dataclasses.replace(recordings, split=dataclasses.replace(recordings.split, **{side: kept}))
        with pytest.raises(DataError, match=rf"config\.data\.{side}_folds.*two patients are needed"):
            asked(fewer, "age_years", neighbours=1)


def test_a_patient_on_two_sides_is_a_fault(recordings):
    split = dataclasses.replace(recordings.split, val=recordings.split.train)
    with pytest.raises(ValueError, match="two sides"):
        asked(dataclasses.replace(recordings, split=split), "age_years")


def test_classes_without_both_answers_are_left_out_and_told(recordings):
    index = recordings.index

    class WithTask:
        labels, group = ("kind:common", "kind:none"), index.group

        def label(self, name):
            column = np.zeros(len(index.group), np.float32)
            column[::2] = name == "kind:common"
            return column

    found = asked(dataclasses.replace(recordings, index=WithTask()), "kind:*")
    assert (found.left_out, found.bank.labels.shape[1]) == (("none",), 1)
    assert "not asked, for lack of both answers: none" in found.describe()


def made(task, votes, truth, *, k):
    def labelled(labels, start):
        numbers = np.arange(start, start + len(labels))
        return Labelled(records=numbers, labels=labels, patients=numbers, available=len(labels))

    votes, truth = (np.asarray(labels, np.float64) for labels in (votes, truth))
    bank, queries = labelled(votes, 0), labelled(truth, 1000)
    return AskedRecords(task=parse_task(task), bank=bank, queries=queries, neighbours=k)


def brute_force(bank, votes, queries, k):
    """The mean over the k nearest, and over all orders of those that are equally near."""
    out = []
    for query in queries:
        cosine = [float(query @ row / np.linalg.norm(query) / np.linalg.norm(row)) for row in bank]
        order = np.round(cosine, 8)
        means = [
            votes[list(nearest)].mean(axis=0)
            for nearest in itertools.combinations(range(len(bank)), k)
            if order[list(nearest)].min() >= np.delete(order, nearest).max(initial=-2)
        ]
        out.append(np.mean(means, axis=0))
    return np.array(out)


@pytest.mark.parametrize("task", ["age_years>5", "kind:*", "age_years"])
def test_the_vote_is_that_of_brute_force_with_ties(task):
    rng, k = np.random.default_rng(3), 3
    # Small whole numbers have many equal directions.
    embeddings = rng.integers(-1, 2, (30, 3)).astype(np.float32)
    embeddings[(embeddings == 0).all(axis=1)] = 1
    shape = (30, 2) if task == "kind:*" else (30,)
    labels = rng.normal(size=shape) if task == "age_years" else (rng.random(shape) < 0.5).astype(np.float64)
    given = made(task, labels[:12], labels[12:], k=k)
    scores = brute_force(embeddings[:12].astype(np.float64), labels[:12], embeddings[12:].astype(np.float64), k)
    metric = r2_score if task == "age_years" else roc_auc_score
    found = vote(given, embeddings, np.ones(30, bool))
    # Scores that are equal over all orders of ties must not differ in their last digit before they are ranked.
    assert found == pytest.approx(metric(labels[12:], np.round(scores, 9)), abs=1e-8)


def test_what_cannot_be_read_takes_no_part():
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(20, 4)).astype(np.float32), np.tile([0.0, 1.0], 10)
    readable = np.ones(20, bool)
    readable[[0, 3, 15]] = False
    given = made("age_years>5", labels[:10], labels[10:], k=2)
    fewer = made("age_years>5", labels[:10][readable[:10]], labels[10:][readable[10:]], k=2)
    assert vote(given, embeddings, readable) == vote(fewer, embeddings[readable], np.ones(17, bool))
    assert math.isnan(vote(given, embeddings, np.arange(20) > 8))  # one voter is left, and two are asked for


@pytest.mark.parametrize("spoilt", [0.0, np.nan, np.inf])
def test_an_embedding_without_a_direction_gives_no_number(spoilt):
    embeddings = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    embeddings[7] = spoilt
    given = made("age_years>5", np.tile([0.0, 1.0], 5), np.tile([0.0, 1.0], 5), k=2)
    assert math.isnan(vote(given, embeddings, np.ones(20, bool)))
