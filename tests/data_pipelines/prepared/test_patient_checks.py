"""Ids of patients that their records speak against, labels by fold, and folds that are stratified by labels."""

import dataclasses
import json

import numpy as np
import pytest

from data_pipelines.build import summary
from data_pipelines.builders.folder import FolderSource
from data_pipelines.builders.prepared import PreparedSource
from data_pipelines.card.figures import dataset_card
from data_pipelines.card.text import card_text
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset
from data_pipelines.prepared.fold_labels import fold_table, labels_by_fold, lacking_folds
from data_pipelines.prepared.patient_checks import patient_doubts
from data_pipelines.prepared.stratified_folds import label_indicators, stratified_folds
from data_pipelines.records import NO_FOLD
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import SignalRecipe
from tests.data_pipelines.shards.test_dataset_build import ListSource, made_up
from tests.support.fixtures import stored_examples, twelve_lead_mv, write_wfdb


def doubts_of(tmp_path, records):
    return build_dataset(lambda: ListSource(records), tmp_path / "out", request={})["summary"]["doubts"]


def person(number, patient, **changes):
    fields = {"age_years": 50.0, "sex": 0, "fold": 1, "tasks": {"rhythm": np.array([-1, -1, -1], np.int8)}}
    return made_up(number, patient=patient, **(fields | changes))


def test_an_id_whose_recordings_contradict_each_other_is_told(tmp_path):
    records = [person(0, "0", age_years=3.0), person(1, "0", sex=1, age_years=80.0), person(2, "0"), person(3, "7")]
    (doubt,) = doubts_of(tmp_path, records)
    assert doubt.startswith(
        "1 patient id has recordings that contradict each other: 'p0' (3 recordings, 2 of a man, 1 of a woman, ages "
        "3 to 80); if such an id stands for a missing one, name it with --missing_ids"
    )


def test_one_person_of_many_years_is_not_told(tmp_path):
    records = [person(0, "0", age_years=40.0), person(1, "0", age_years=70.0, sex=-1), person(2, "0", age_years=np.nan)]
    assert doubts_of(tmp_path, [*records, person(3, "1", sex=1)]) == []


def test_an_id_of_very_many_recordings_is_told(tmp_path):
    records = [person(number, "9999" if number < 40 else number) for number in range(60)]
    (doubt,) = doubts_of(tmp_path, records)
    assert doubt.startswith("1 patient id has many more recordings than others (99 of 100 have at most 1): 'p9999' 40")


def test_many_pieces_of_one_recording_are_one(tmp_path):
    records = [person(number, 0, recording_id="long") for number in range(40)]
    assert doubts_of(tmp_path, records + [person(number, number) for number in range(40, 60)]) == []


@pytest.mark.parametrize(
    ("one", "other"), [("00123", "123"), ("A-7", "a 7"), ("123.0", "123"), ("ＰＡＴ１", "pat1"), ("P_1", "p-1")]
)
def test_two_spellings_of_an_id_stay_apart_and_are_told(tmp_path, one, other):
    records = [person(0, "x", patient_id=one), person(1, "x", patient_id=other), person(2, "x", patient_id="12")]
    (doubt,) = doubts_of(tmp_path, records)
    assert doubt.startswith(f"1 patient may have two spellings: '{one}' and '{other}'; ids are one patient only where")
    assert open_dataset(tmp_path / "out").index.num_patients == 3


def test_patients_in_several_folds_and_records_without_one_are_told(tmp_path):
    records = [person(0, "0", fold=1), person(1, "0", fold=2), person(2, "1", fold=NO_FOLD)]
    first, second = doubts_of(tmp_path, records)
    assert first.startswith("1 patient has recordings in several folds, such as 'p0'; a split leaves those out")
    assert second == "1 record has no fold, and is in no split"


def test_ages_of_zero_among_adults_are_told(tmp_path):
    records = [person(0, "0", age_years=0.0), person(1, "1", age_years=0.0), person(2, "2"), person(3, "3")]
    assert doubts_of(tmp_path, records) == [
        "age is 0 in 2 records, and at least 50 in all others; does 0 stand for unknown?"
    ]


# Labels by fold


def labelled(number, fold, lvef, rhythm):
    return person(number, number, fold=fold, scalars={"lvef": lvef}, tasks={"rhythm": np.array(rhythm, np.int8)})


def some_labels():
    return [
        labelled(0, 1, 40.0, [1, 0, 0]),
        labelled(1, 1, 60.0, [0, 1, 0]),
        labelled(2, 2, np.nan, [0, 1, 0]),
        labelled(3, 2, np.nan, [-1, -1, -1]),
        labelled(4, 3, 30.0, [1, 1, 0]),
        labelled(5, 3, 31.0, [1, 0, 0]),
    ]


def test_every_label_is_counted_by_fold(tmp_path):
    card = build_dataset(lambda: ListSource(some_labels()), tmp_path / "out", request={})
    counted = card["summary"]["labels_by_fold"]
    assert (counted["folds"], counted["records"]) == ([1, 2, 3], [2, 2, 2])
    assert counted["labels"] == {
        "lvef": {"known": [2, 0, 2], "mean": [50.0, None, 30.5]},
        "rhythm:AF": {"known": [2, 1, 2], "positive": [1, 0, 2]},
        "rhythm:SR": {"known": [2, 1, 2], "positive": [1, 1, 1]},
        "rhythm:SB": {"known": [2, 1, 2], "positive": [0, 0, 0]},
    }
    said = summary(card, tmp_path / "out")
    rows = [line.split() for line in said.splitlines()]
    assert ["label", "fold", "1", "fold", "2", "fold", "3"] in rows
    assert ["lvef", "50", "(2)", "-", "30.5", "(2)"] in rows
    assert ["rhythm:AF", "1/2", "0/1", "2/2"] in rows
    shown = card_text(dataset_card(open_dataset(tmp_path / "out"), amplitudes=AMPLITUDES), width=100)
    assert "Labels by fold, positive/known records, or mean (known)" in shown
    assert json.loads((tmp_path / "out" / CARD_FILE).read_text())["summary"]["labels_by_fold"] == counted


AMPLITUDES = {"records_read": 0, "seed": None, "peak_to_peak_mv": {}}


def test_a_fold_without_positives_is_told_with_its_remedy(tmp_path):
    card = build_dataset(lambda: ListSource(some_labels()), tmp_path / "out", request={})
    positive, negative = card["summary"]["doubts"]
    assert positive.startswith(
        "folds without a positive record: rhythm:AF in 2. To have every label in every fold, build"
    )
    assert "--folds=stratified" in positive
    assert negative.startswith("labels rarer than there are folds: rhythm:AF (2 negative), rhythm:SR (2 negative)")


def test_many_labels_are_cut_short_in_the_summary_and_whole_on_the_card():
    counted = {
        "folds": [1, 2],
        "records": [5, 5],
        "labels": {f"all:{number}": {"known": [5, 5], "positive": [1, 0]} for number in range(40)}
        | {"few:a": {"known": [5, 5], "positive": [1, 2]}},
    }
    assert [row[0] for row in fold_table(counted, most=3)] == ["label", "records", "few:a", "all:0", "all:1"]
    assert len(fold_table(counted, most=None)) == 43
    assert "all:7 (1 positive) … and 32 more labels" in lacking_folds(counted)[0]


def test_a_fold_that_nobody_has_is_named_with_those_that_there_are(tmp_path):
    records = [*some_labels(), labelled(6, NO_FOLD, 1.0, [0, 0, 1])]
    build_dataset(lambda: ListSource(records), tmp_path / "out", request={})
    message = (
        r"no record is in folds 9, 10; this data set has 1 \(2 records\), 2 \(2 records\), 3 \(2 records\), 1 record "
        r"without a fold\. Name folds .*config\.data\.train_folds.*--builder=prepared --folds=stratified"
    )
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "out").index.split(train_folds=[1], val_folds=[9], test_folds=[10])


# Stratified folds


def cohort(*, num_patients=400, num_records=700, seed=0):
    generator = np.random.default_rng(seed)
    patient = np.concatenate([np.arange(num_patients), generator.integers(0, num_patients, num_records - num_patients)])
    prevalence = np.geomspace(0.02, 0.4, 6)
    labels = (generator.random((num_records, 6)) < prevalence).astype(np.int8)
    ids = [f"p{number}" for number in range(num_patients)]
    return patient, ids, labels


def test_stratified_folds_have_every_label_in_equal_shares():
    patient, ids, labels = cohort()
    folds = stratified_folds(patient, ids, label_indicators({}, {"t": labels}))
    assert set(folds.tolist()) == set(range(1, 11))
    has = np.zeros((len(ids), labels.shape[1]), bool)
    np.logical_or.at(has, patient, labels == 1)
    by_fold = np.stack([has[folds == fold].sum(axis=0) for fold in range(1, 11)])
    # Rare ones to one patient, others to a few: the patients of several labels cannot suit all.
    assert (np.ptp(by_fold, axis=0) <= [1, 2, 3, 4, 5, 6]).all()
    records = np.bincount(folds[patient])[1:]
    assert np.ptp(records) <= 0.12 * records.mean()


def test_stratified_folds_do_not_depend_on_the_order_of_the_records():
    patient, ids, labels = cohort(num_patients=60, num_records=100)
    folds = dict(zip(ids, stratified_folds(patient, ids, label_indicators({}, {"t": labels})), strict=True))
    renamed = np.random.default_rng(1).permutation(60)
    order = np.random.default_rng(2).permutation(100)
    place = np.argsort(renamed)
    again = stratified_folds(
        place[patient][order], [ids[old] for old in renamed], label_indicators({}, {"t": labels[order]})
    )
    assert dict(zip([ids[old] for old in renamed], again, strict=True)) == folds


def test_quantities_are_stratified_by_quarters():
    values = np.array([1, 2, 3, 4, 5, 6, 7, 8, np.nan], np.float32)
    found = label_indicators({"lvef": values, "sick": np.array([0, 1] * 4 + [np.nan])}, {}).toarray()
    np.testing.assert_array_equal(found[:, :4].argmax(axis=1)[:8], [0, 0, 1, 1, 2, 2, 3, 3])
    assert found[8].sum() == 0
    np.testing.assert_array_equal(found[:8, 4:], [[1, 0], [0, 1]] * 4)


RECIPE = SignalRecipe(name="test", version=1, sampling_rate_hz=100, seconds=2.0, min_seconds=1.0)


def folder(tmp_path, text, **changes):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    arguments = {"labels": path, "patient_field": None, "name": "ours", "recipe": RECIPE, "folds": "stratified"}
    return FolderSource(tmp_path / "in", **(arguments | changes))


def test_a_folder_with_stratified_folds(tmp_path):
    for number in range(12):
        write_wfdb(tmp_path / "in", f"r{number}", twelve_lead_mv(seconds=2, seed=number))
    rows = [f"r{number},p{number},{int(number < 10)}" for number in range(12)]
    source = folder(tmp_path, "\n".join(["record,patient_id,sick", *rows, "gone,p3,1"]))
    card = build_dataset(lambda: source, tmp_path / "out", request={})
    counted = card["summary"]["labels_by_fold"]
    assert counted["labels"]["sick"]["positive"] == [1] * 10
    assert "patients were dealt to folds 1 to 10, stratified by sick" in card["summary"]["notes"]
    assert not any("hash" in note for note in card["summary"]["notes"])


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("record,patient_id,fold,x\nr,p,1,2\n", {}, "has a column 'fold'; take it out"),
        ("record,patient_id\nr,p\n", {}, "--folds=stratified needs labels to stratify by"),
        ("", {"labels": None}, "--folds=stratified needs labels to stratify by"),
    ],
)
def test_folds_that_cannot_be_stratified(tmp_path, text, changes, message):
    write_wfdb(tmp_path / "in", "r", twelve_lead_mv(seconds=2))
    with pytest.raises(DataError, match=message):
        folder(tmp_path, text, **changes)


def test_a_prepared_data_set_is_dealt_anew(tmp_path):
    # Records 0 and 1 are one patient; 2 has the content of 3, and so is of one group with it.
    records = [labelled(number, 1, 50.0, [number < 4, 1, 0]) for number in range(30)]
    records = [dataclasses.replace(record, valid_start=0, valid_samples=200) for record in records]
    records[1] = dataclasses.replace(records[1], patient_id="p0")
    records[2] = dataclasses.replace(records[2], signal=records[3].signal)
    build_dataset(lambda: ListSource(records), tmp_path / "one", request={})
    recipe = ListSource.recipe
    build_dataset(
        lambda: PreparedSource(tmp_path / "one", recipe=recipe, folds="stratified"), tmp_path / "two", request={}
    )
    before, after = (open_dataset(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_array_equal(after.index.content_hash, before.index.content_hash)
    fold = after.index.fold
    assert set(fold.tolist()) == set(range(1, 11))
    assert fold[0] == fold[1]
    assert fold[2] == fold[3]
    assert fold[0] != fold[2]
    assert [stored["fold"] for stored in stored_examples(after.directory)] == fold.tolist()
    assert after.card["summary"]["notes"][-1].startswith(
        "patients were dealt to folds 1 to 10, stratified by lvef, rhythm:AF"
    )
    assert labels_by_fold(after.index)["labels"]["rhythm:AF"]["positive"].count(0) <= 8
    assert patient_doubts(after.index) == []
