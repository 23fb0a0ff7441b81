"""What is told of recordings that are stored although something about them could not be read."""

import csv

import numpy as np

from data_pipelines.build import summary
from data_pipelines.prepared.dataset import REMARKS_FILE
from data_pipelines.prepared.remarks import list_remarks, packed_remarks, remark_lines, remarks_of, unpacked_remarks
from data_pipelines.records import Remark
from data_pipelines.shards.dataset_build import build_dataset
from tests.data_pipelines.shards.test_dataset_build import ListSource, made_up


def _age(value):
    return Remark(reason="unknown_age", value=value, message=f"age is '{value}', which is no age")


def test_remarks_are_counted_by_reason_and_value_and_listed(tmp_path):
    records = [made_up(number, remarks=(_age("999"),)) for number in range(3)]
    records.append(made_up(3, remarks=(_age("-1"), Remark(reason="odd_date", message="no such day"))))
    card = build_dataset(lambda: ListSource([*records, made_up(4)]), tmp_path / "out", request={})
    assert card["summary"]["remarks"] == {
        "unknown_age": {
            "records": 4,
            "values": {"999": 3, "-1": 1},
            "more_values": 0,
            "example": "age is '999', which is no age",
        },
        "odd_date": {"records": 1, "values": {"": 1}, "more_values": 0, "example": "no such day"},
    }
    with (tmp_path / "out" / REMARKS_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["record_id"], row["value"]) for row in rows] == [
        ("r0", "999"), ("r1", "999"), ("r2", "999"), ("r3", "'-1"), ("r3", "")
    ]  # fmt: skip
    said = summary(card, tmp_path / "out")
    assert "remarks             5, on records that are stored; listed in remarks.csv" in said
    assert "unknown_age             4  ('999' 3, '-1' 1)" in said


def test_a_card_without_remarks_is_summed_up_as_before(tmp_path):
    card = build_dataset(lambda: ListSource([made_up(0)]), tmp_path / "out", request={})
    for later in ("remarks", "sex", "sex_reading", "labels_by_fold", "doubts"):
        del card["summary"][later]
    said = summary(card, tmp_path / "out")
    assert not any(f"  {word}" in said for word in ("remarks ", "sex", "labels by fold", "doubt:"))


def test_many_values_of_a_reason_are_cut_short(tmp_path):
    remarks = [mark for number in range(30) for mark in remarks_of(f"r{number}", [_age(f"{number + 200}")])]
    packed = packed_remarks(remarks)
    assert packed.dtype == np.uint8
    assert unpacked_remarks(packed) == remarks
    counted = list_remarks([remarks[:10], remarks[10:]], tmp_path / "remarks.csv")
    assert (len(counted["unknown_age"]["values"]), counted["unknown_age"]["more_values"]) == (20, 10)
    assert "'200' 1, '201' 1, '202' 1, '203' 1, '204' 1, … and 25 more values" in remark_lines(counted)[0]
