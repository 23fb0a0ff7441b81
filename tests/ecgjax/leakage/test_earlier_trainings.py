"""Records that an encoder has seen in trainings before its last one: listed with those of that one, kept, and found."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest

from ecgjax.data.recordings import open_recordings
from ecgjax.defaults import settings_of
from ecgjax.errors import ConfigError
from ecgjax.leakage.guard import earlier_trainings, guard
from ecgjax.leakage.overlaps import find_overlaps
from ecgjax.leakage.trained_on import RECORDS_FILE, pretraining_records, read_pretraining_records, seen_by
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny

COLUMNS = ("content", "patient", "number", "order_free_signature", "envelope")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    datasets = [
        make_simulated_dataset(folder, num_patients=40, rate=50, seconds=4, seed=seed, name=f"cohort{seed}")
        for seed in range(3)
    ]
    return [open_recordings(settings_of(tiny(dataset.directory)).data) for dataset in datasets]


def listed(recordings, records=None):
    return pretraining_records(recordings, recordings.split.train if records is None else records, run="f00d")


def keys(records):
    return {row.tobytes() for row in records.content}


def test_an_encoder_has_seen_what_all_its_trainings_saw(opened):
    x, y, z = map(listed, opened)
    chain = z.after(seen_by(y.after(seen_by(x, name="X")), name="Y"))
    assert keys(chain) == keys(x) | keys(y) | keys(z)
    assert len(chain) == len(x) + len(y) + len(z)
    assert [each.fingerprint for each in chain.sources] == [
        r.fingerprints[0] for r in (opened[2], opened[1], opened[0])
    ]
    assert chain.num_earlier == 2
    assert chain.starts[-1] == len(chain)
    for column in COLUMNS:
        expected = np.concatenate([getattr(each, column) for each in (z, y, x)])
        np.testing.assert_array_equal(getattr(chain, column), expected)
    assert chain.digest not in (x.digest, y.digest, z.digest)


def test_what_two_trainings_saw_of_one_data_set_is_listed_once(opened):
    train = opened[0].split.train
    first, second = listed(opened[0], train[: 2 * len(train) // 3]), listed(opened[0], train[len(train) // 3 :])
    both = second.after(first)
    assert keys(both) == keys(first) | keys(second)
    assert len(both) == len(train)
    assert [each.num_records for each in both.sources] == [len(second), len(train) // 3]
    assert len(second.after(second)) == len(second)
    assert second.after(second).num_earlier == 0


def test_a_resumed_run_makes_the_same_list_of_what_its_file_keeps(opened, tmp_path):
    x, y, _ = map(listed, opened)
    whole = y.after(seen_by(dataclasses.replace(x, unlisted=("W",)), name="X", labels=("lvef<40",)))
    whole.write(tmp_path)
    kept = read_pretraining_records(tmp_path / RECORDS_FILE, remedy="none")
    assert kept.digest == whole.digest
    assert keys(kept.earlier) == keys(x)
    assert (kept.earlier.unlisted, kept.earlier.labels) == (("W",), ("lvef<40",))
    assert y.after(kept.earlier).digest == whole.digest
    assert len(y.earlier) == 0


def test_the_file_of_a_run_that_began_at_random_is_as_it_was(opened, tmp_path):
    listed(opened[0]).write(tmp_path)
    with zipfile.ZipFile(tmp_path / RECORDS_FILE) as archive, archive.open("header.npy") as file:
        header = json.loads(np.load(file).tobytes())
    assert set(header) == {"version", "order_free_version", "run", "sources"}


def test_a_record_that_only_an_earlier_training_saw_is_found(opened):
    x, y, _ = opened
    earlier = np.concatenate([x.split.train, x.split.test])
    chain = listed(y).after(seen_by(listed(x, np.sort(earlier)), name="X"))
    assert not find_overlaps(x, listed(y), x.split.test).found
    found = find_overlaps(x, chain, x.split.test)
    np.testing.assert_array_equal(found.records, np.sort(x.split.test))
    assert found.counts == {"recording": len(x.split.test)}
    with pytest.raises(ConfigError, match="overlap with what the encoder was pretrained on"):
        guard(x, chain, x.split.test, overlaps="refuse")


def test_an_earlier_training_without_a_list_is_told_by_every_evaluation(opened):
    x, y, z = opened
    chain = listed(y).after(seen_by(None, name="X"))
    further = listed(z).after(seen_by(chain, name="Y"))
    for each in (chain, further):
        assert each.unlisted == ("X",)
        _, cautions = guard(x, each, x.split.test, overlaps="refuse")
        (caution,) = [line for line in cautions if "cannot be checked" in line]
        assert caution.startswith("Training of the encoder began with the weights of 'X', which had no list")
    assert chain.digest != listed(y).digest
    assert not earlier_trainings(listed(y))


def test_labels_of_an_earlier_training_are_told(opened):
    chain = listed(opened[1]).after(seen_by(listed(opened[0]), name="X", labels=("lvef<40",)))
    (caution,) = earlier_trainings(chain, name="runs/y")
    assert caution.startswith("What runs/y began with was pretrained with labels (lvef<40)")
