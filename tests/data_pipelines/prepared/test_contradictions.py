"""Copies whose labels contradict each other: which are told, which are not, across data sets and within one."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.build import summary
from data_pipelines.builders.base import SourceCard
from data_pipelines.duplicates.search import link
from data_pipelines.prepared.contradictions import FIELDS, contradictions_of, contradictions_within, counts_by_kind
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import FEMALE, MALE, SEX_UNKNOWN, EcgRecord, LabelSchema
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from tests.support.fixtures import as_given
from tests.support.planted import resampled, stored

REPOSITORY = Path(__file__).parents[3]
RATE = 100
NAN = float("nan")


class ListSource:
    """A source of ready-made records."""

    def __init__(self, records, *, name, schema):
        self.card = SourceCard(name=name, description="Made up for a test.", simulated=True)
        self.recipe = RECIPES["plain"].changed(sampling_rate_hz=RATE)
        self.signal_format = self.recipe.signal_format
        self.label_schema = schema
        self.items = records

    def reader(self):
        """Gives them as they are."""
        return as_given


def build(folder, name, records, *, schema):
    build_dataset(lambda: ListSource(records, name=name, schema=schema), folder / name, request={})
    return open_dataset(folder / name)


def record(signal, record_id, **labels):
    return EcgRecord(
        record_id=record_id,
        patient_id=labels.pop("patient", f"patient of {record_id}"),
        signal=signal,
        valid_start=0,
        valid_samples=len(signal),
        **labels,
    )


@pytest.fixture(scope="module")
def signals():
    """Eight people's recordings."""
    cohort = Cohort(CohortConfig(seed=5, num_patients=8, visits_per_patient=(1, 1), sampling_rate_hz=RATE))
    return cohort.simulate(0, 8).signal


@pytest.fixture(scope="module")
def datasets(signals, tmp_path_factory):
    """Two data sets; some labels have one name in both, one a name of its own in each."""
    folder = tmp_path_factory.mktemp("contradicting")
    first = LabelSchema(scalars=("lvef", "only_here"), tasks={"rhythm": ("AF", "SR")}, units={"lvef": "%"})
    other = LabelSchema(scalars=("lvef", "only_there"), tasks={"rhythm": ("SR", "PACE")}, units={"lvef": "%"})
    sr, af, pace, none = np.array([0, 1]), np.array([1, 0]), np.array([0, 1]), np.array([-1, -1])

    def labelled(values, lvef, rhythm, **known):
        return {
            "scalars": dict(zip(values, (lvef, 1.0), strict=True)),
            "tasks": {"rhythm": rhythm.astype(np.int8)},
        } | known

    here, there = ("lvef", "only_here"), ("lvef", "only_there")
    records = [
        record(signals[0], "a0", **labelled(here, 50, sr, age_years=60, sex=MALE)),
        record(signals[1], "a1", **labelled(here, 50, sr, age_years=60, sex=MALE)),
        record(signals[2], "a2", **labelled(here, NAN, none, age_years=NAN, sex=SEX_UNKNOWN)),
        record(signals[3], "a3", **labelled(here, 50, af, age_years=90, sex=FEMALE)),
        record(signals[4], "a4", **labelled(here, 50, sr, age_years=20, sex=FEMALE)),
    ]
    copies = [
        # Equal but for what rounding does.
        record(signals[0], "b0", **labelled(there, 50.2, np.array([1, 0]), age_years=61, sex=MALE)),
        record(stored(signals[1] * 1.5), "b1", **labelled(there, 35, pace, age_years=62, sex=FEMALE)),
        record(signals[2], "b2", **labelled(there, 30, pace, age_years=80, sex=MALE)),
        record(signals[3], "b3", **labelled(there, 50, np.array([0, 0]), age_years=95, sex=FEMALE)),
        record(signals[5], "b5", **labelled(there, 50, np.array([1, 0]), age_years=70, sex=MALE)),
    ]
    return [build(folder, "one", records, schema=first), build(folder, "two", copies, schema=other)]


@pytest.fixture(scope="module")
def found(datasets):
    return contradictions_of(link(datasets), datasets)


def told(found):
    return {
        (each.label, each.first_record, each.second_record): (each.first_value, each.second_value) for each in found
    }


def test_exactly_what_contradicts_is_told(found):
    assert told(found) == {
        ("age_years", "a1", "b1"): ("60", "62"),
        ("sex", "a1", "b1"): ("male", "female"),
        ("lvef [%]", "a1", "b1"): ("50", "35"),
        ("rhythm:SR", "a1", "b1"): ("1", "0"),
    }
    assert counts_by_kind(found) == {"label": 2, "age": 1, "sex": 1}
    assert str(found[0]) == "age_years: 60 of one a1, 62 of two b1"


def test_patients_contradict_where_they_are_numbered_alike(datasets):
    links = link(datasets, patient_namespaces=["hospital", "hospital"])
    patients = [each for each in contradictions_of(links, datasets) if each.kind == "patient"]
    assert told(patients) == {("patient", f"a{i}", f"b{i}"): (f"patient of a{i}", f"patient of b{i}") for i in range(4)}


def test_copies_in_one_data_set_are_told_by_its_build(signals, tmp_path):
    records = [
        record(signals[0], "x", patient="p1", age_years=40.0, sex=MALE),
        record(signals[0], "y", patient="p2", age_years=70.0, sex=MALE),
        record(signals[0], "z", patient="p1", age_years=NAN, sex=FEMALE),
        record(signals[1], "w", patient="p1", age_years=41.0, sex=MALE),
    ]
    dataset = build(tmp_path, "set", records, schema=LabelSchema())
    within = contradictions_within(dataset.index, name="set")
    assert told(within) == {
        ("patient", "x", "y"): ("p1", "p2"),
        ("age_years", "x", "y"): ("40", "70"),
        ("sex", "x", "z"): ("male", "female"),
    }
    assert dataset.card["summary"]["contradictions"]["counts"] == {"patient": 1, "age": 1, "sex": 1}
    said = summary(dataset.card, tmp_path)
    what = "1 pair under different patient ids, 1 pair of different ages, 1 pair of different sex"
    assert f"CONTRADICTIONS      3 between records of equal content ({what}): one of each two is wrong" in said
    assert "    age_years: 40 of set x, 70 of set y" in said


def test_records_that_are_their_own_patients_say_nothing_of_patients(signals, tmp_path):
    records = [record(signals[0], name, patient=name) for name in ("x", "y")]
    dataset = build(tmp_path, "set", [*records, record(signals[1], "z")], schema=LabelSchema())
    assert contradictions_within(dataset.index, name="set") == []


def test_the_command_lists_them(datasets, tmp_path):
    command = [sys.executable, "-m", "data_pipelines.link", f"--out={tmp_path / 'links.npz'}"]
    command += [f"--dataset={dataset.directory}" for dataset in datasets]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    said = run.stdout
    what = "2 labels that differ, 1 pair of different ages, 1 pair of different sex"
    assert f"contradictions 4 between copies ({what}), listed in" in " ".join(said.split())
    assert "    sex: male of one a1, female of two b1" in said
    with (tmp_path / "links.contradictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == FIELDS
    assert [row["label"] for row in rows] == ["age_years", "sex", "lvef [%]", "rhythm:SR"]


#: What a copy went through, from `f64[time, 8]` at 100 Hz.
KINDS = {
    "exact": lambda x: x,
    "resampled": lambda x: resampled(resampled(x, source_rate=100, rate=500), source_rate=500, rate=100)[: len(x)],
    "at 80 Hz and back": lambda x: resampled(resampled(x, source_rate=100, rate=80), source_rate=80, rate=100)[
        : len(x)
    ],
    "cut": lambda x: np.concatenate([x[150:], np.zeros((150, 8))]),
    "five times": lambda x: 5 * x,
    "a fifth": lambda x: x / 5,
    "other order of leads": lambda x: x[:, [2, 3, 4, 5, 6, 7, 0, 1]],
}
NUM_PLANTED = 107


def test_107_planted_copies_and_their_contradicting_labels_are_found(tmp_path):
    cohort = Cohort(CohortConfig(seed=9, num_patients=120, visits_per_patient=(1, 1), sampling_rate_hz=RATE))
    signals = cohort.simulate(0, 120).signal
    records = [record(s, f"a{i}", age_years=30.0 + i % 50, sex=i % 2) for i, s in enumerate(signals)]
    copies, wrong = [], set()
    for number in range(NUM_PLANTED):
        kind = list(KINDS)[number % len(KINDS)]
        signal = stored(KINDS[kind](signals[number].astype(float)))
        is_wrong = number % 5 == 0
        wrong |= {f"b{number}"} if is_wrong else set()
        # Of the wrong ones every other has another age, the rest another sex; a year more is none.
        age = 31.0 + number % 50 + (20 if is_wrong and number % 2 else 0)
        sex = number % 2 if not is_wrong or number % 2 else 1 - number % 2
        planted = record(signal, f"b{number}", age_years=age, sex=sex)
        copies.append(planted if kind != "cut" else EcgRecord(**{**vars(planted), "valid_samples": 850}))
    datasets = [
        build(tmp_path, "one", records, schema=LabelSchema()),
        build(tmp_path, "two", copies, schema=LabelSchema()),
    ]
    links = link(datasets)
    pairs = {
        (
            str(datasets[0].index.record_id[pair["first_record"]]),
            str(datasets[1].index.record_id[pair["second_record"]]),
        )
        for pair in links.pairs
    }
    assert pairs == {(f"a{number}", f"b{number}") for number in range(NUM_PLANTED)}
    contradictions = contradictions_of(links, datasets)
    assert {each.second_record for each in contradictions} == wrong
    assert counts_by_kind(contradictions) == {"age": 11, "sex": 11}
