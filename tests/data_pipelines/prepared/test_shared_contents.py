"""One recording under many patients: a test pattern joins nobody, is never used twice, and is told loudly."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.build import summary
from data_pipelines.builders.base import SourceCard
from data_pipelines.card.figures import dataset_card
from data_pipelines.card.rows import count_facts
from data_pipelines.duplicates.search import link
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.prepared.index import duplicates, groups
from data_pipelines.prepared.joint import join
from data_pipelines.prepared.shared_contents import MOST_PATIENTS_OF_A_CONTENT, shared_by_many
from data_pipelines.records import EcgRecord, LabelSchema
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from tests.support.fixtures import as_given

RECIPE = RECIPES["plain"].changed(sampling_rate_hz=100)


class ListSource:
    """A source of ready-made records."""

    card = SourceCard(name="listed", description="Made up for a test.", simulated=True)
    recipe = RECIPE
    signal_format = RECIPE.signal_format
    label_schema = LabelSchema()

    def __init__(self, records):
        self.items = records

    def reader(self):
        """Gives them as they are."""
        return as_given


def signals(seed, count):
    config = CohortConfig(seed=seed, num_patients=count, visits_per_patient=(1, 1), sampling_rate_hz=100, seconds=10.0)
    return Cohort(config).simulate(0, count).signal


def square_pulses():
    """What a recorder draws while its calibration button is held: 1 mV for .2 s, in all leads."""
    return np.repeat(np.where(np.arange(1000) % 100 < 20, 1000, 0).astype(np.int16)[:, None], 8, axis=1)


def records_with(pattern, num_patients, *, seed=5, prefix=""):
    """A recording of their own of so many patients, then the pattern under each."""
    own = signals(seed, num_patients)
    every = [(f"{prefix}own{i}", i, signal) for i, signal in enumerate(own)]
    every += [(f"{prefix}pattern{i}", i, pattern) for i in range(num_patients)]
    return [
        EcgRecord(record_id=name, patient_id=f"p{i}", signal=signal, valid_start=0, valid_samples=1000, fold=1 + i % 3)
        for name, i, signal in every
    ]


def build(records, out):
    return build_dataset(lambda: ListSource(records), out, request={}), open_dataset(out)


def as_hashes(codes):
    hashes = np.zeros((len(codes), 16), np.uint8)
    hashes[:, 3] = codes
    return hashes


@pytest.mark.parametrize(("num_patients", "joined"), [(2, True), (4, True), (5, False), (50, False)])
def test_a_content_of_many_patients_joins_none_of_them(num_patients, joined):
    # Two records of each patient, the second of content 0.
    patient = np.repeat(np.arange(num_patients, dtype=np.int32), 2)
    content = np.where(np.arange(2 * num_patients) % 2, 0, 1 + np.arange(2 * num_patients))
    group = groups(patient, as_hashes(content))
    assert len(np.unique(group)) == (1 if joined else num_patients)
    # A patient's own records stay together all the same, and the duplicates are duplicates.
    np.testing.assert_array_equal(group[::2], group[1::2])
    assert np.count_nonzero(duplicates(as_hashes(content)) >= 0) == num_patients - 1


def test_many_records_of_few_patients_are_no_test_pattern():
    content, patient = np.zeros(40, np.int64), np.arange(40) % MOST_PATIENTS_OF_A_CONTENT
    assert not shared_by_many(content, patient).any()


def test_many_patients_by_brute_force():
    generator = np.random.default_rng(3)
    content, patient = generator.integers(0, 40, 400), generator.integers(0, 12, 400)
    expected = [len(set(patient[content == code])) > MOST_PATIENTS_OF_A_CONTENT for code in content]
    assert 0 < sum(expected) < 400
    np.testing.assert_array_equal(shared_by_many(content, patient), expected)


def test_a_test_pattern_is_told_with_its_ids_and_splits_no_patient_away(tmp_path):
    card, dataset = build(records_with(square_pulses(), 6), tmp_path / "a")
    (entry,) = card["summary"]["shared_contents"]
    assert entry == {"patients": 6, "records": 6, "record_ids": [f"pattern{i}" for i in range(6)]}
    text = summary(card, tmp_path)
    assert "WARNING: one recording stands under 6 patients, in 6 records (pattern0, pattern1," in text
    assert "many patients" in dict(count_facts(dataset_card(dataset, amplitudes={})))
    assert len(np.unique(dataset.index.group)) == 6
    split = dataset.index.split(train_folds=[1], val_folds=[2], test_folds=[3])
    # All six own recordings are used; of the pattern one.
    assert sum(len(getattr(split, side)) for side in ("train", "val", "test")) == 7
    few, _ = build(records_with(square_pulses(), 3), tmp_path / "b")
    assert few["summary"]["shared_contents"] == []


def test_a_test_pattern_joins_nobody_across_data_sets_either(tmp_path):
    pattern = square_pulses()
    _, one = build(records_with(pattern, 6), tmp_path / "one")
    _, two = build(records_with(pattern, 2, seed=6, prefix="b"), tmp_path / "two")
    joint = join([one, two])
    assert len(np.unique(joint.index.group)) == 6 + 2 - 1  # In the second set two patients share it, and are one.
    links = link([one, two])
    own, other = links.of(one), links.of(two)
    assert len(np.unique(own.group)) == 6
    assert not set(own.group.tolist()) & set(other.group.tolist())
    assert len(np.unique(own.copy[6:])) == 1
    with_twice = [
        *records_with(pattern, 6),
        dataclasses.replace(records_with(pattern, 6)[0], record_id="c", patient_id="q"),
    ]
    _, three = build(with_twice, tmp_path / "three")
    # A true copy under another name joins its two patients as before.
    assert len(np.unique(three.index.group)) == 6
    assert len(np.unique(link([three]).of(three).group)) == 6
