"""The index: what of tables is in it, what is refused, and what is left after an interruption or damage."""

import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.errors import DataError
from ecgjax.search_index import embedding_tables
from ecgjax.search_index.embedding_tables import open_tables
from ecgjax.search_index.index_build import build_index
from ecgjax.search_index.index_folder import LISTED_FILES, json_digest, open_index
from tests.ecgjax.search_index.made_up_tables import DIGEST, OTHER_DIGEST, directions, write_embeddings
from tests.golden.commands import ROOT


def build(folder, *tables, out="index", names=(), **how):
    build_index(open_tables([str(table) for table in tables], names=names), folder / out, **how)
    return open_index(folder / out)


def rows_of(index):
    return pd.read_parquet(index.path / "rows.parquet")


def test_an_index_has_unit_embeddings_ids_and_columns_of_all_tables(tmp_path):
    one, two = directions(30) * 5, directions(7, seed=1)
    first = write_embeddings(tmp_path / "one.parquet", one, sex=["male"] * 30, age=np.arange(30, dtype=np.float32))
    second = write_embeddings(tmp_path / "two.parquet", two, name="other", simulated=True, age=np.arange(7))
    index = build(tmp_path, first, second)
    both = np.concatenate([one, two]).astype(np.float64)
    expected = (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(np.float16)
    np.testing.assert_array_equal(index.embeddings, expected)
    rows = rows_of(index)
    assert list(rows["data_set"]) == ["mine"] * 30 + ["other"] * 7
    assert list(rows["record"]) == [f"r{row}" for row in (*range(30), *range(7))]
    assert rows["sex"].isna().sum() == 7
    assert list(rows["age"]) == [*range(30), *range(7)]
    stated = index.stated
    assert stated["model"] == {
        "architecture": "resnet18",
        "weights_digest": DIGEST,
        "layer": "features",
        "dimension": 12,
    }
    assert stated["data_sets"] == {"mine": 30, "other": 7}
    assert stated["simulated"]
    assert stated["tables"][1]["input"]["simulated"]
    assert stated["columns"] == ["sex", "age"]
    assert stated["digest"] == json_digest(stated)
    assert sorted(path.name for path in index.path.iterdir()) == sorted(["index.json", *LISTED_FILES])


def test_the_size_of_parts_changes_nothing(tmp_path, monkeypatch):
    table = write_embeddings(tmp_path / "one.parquet", directions(40))
    whole = build(tmp_path, table)
    monkeypatch.setattr(embedding_tables, "_AT_ONCE", 7)
    parts = build(tmp_path, table, out="parts")
    np.testing.assert_array_equal(parts.embeddings, whole.embeddings)
    pd.testing.assert_frame_equal(rows_of(parts), rows_of(whole))


def test_rows_that_cannot_be_searched_are_quarantined_with_their_reasons(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_tables, "_AT_ONCE", 4)
    values = directions(9)
    values[1, 3], values[2], values[5, 0], values[6], values[7] = np.nan, 0, np.inf, 1e-38, 3e38
    rows = [None if row == 3 else list(values[row]) for row in range(9)]
    records = [f"r{row}" for row in range(8)] + ["r0"]
    table = write_embeddings(tmp_path / "one.parquet", rows, record=[None if r == "r4" else r for r in records])
    again = write_embeddings(tmp_path / "two.parquet", values[:1], name="other")
    index = build(tmp_path, table, table, again)
    assert index.stated["quarantined"] == {
        "duplicate_id": 5,
        "not_finite": 4,
        "zero": 2,
        "missing_embedding": 2,
        "missing_id": 2,
    }
    assert list(rows_of(index)["record"]) == ["r0", "r6", "r7", "r0"]
    np.testing.assert_allclose(np.linalg.norm(index.embeddings.astype(float), axis=1), 1, atol=1e-3)
    listed = pd.read_csv(index.path / "quarantine.csv")
    assert len(listed) == 15
    assert listed.iloc[0].to_list() == ["one.parquet", 1, "r1", "not_finite", "1 of 12 numbers are not finite"]
    assert listed.iloc[5]["message"] == "the id came before in mine"


def test_ids_are_compared_within_a_data_set(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", directions(6))
    assert build(tmp_path, table, table, names=["one", "two"], out="apart").num_rows == 12
    assert build(tmp_path, table, table, names=["one", "one"], out="same").num_rows == 6
    with pytest.raises(DataError, match=r"--names=one: gives 1 names to 2 tables"):
        open_tables([str(table)] * 2, names=["one"])


def test_where_no_row_is_left_nothing_is_written(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", np.zeros((3, 12), np.float32))
    with pytest.raises(DataError, match=r"none of the rows can be searched \(zero 3\)"):
        build(tmp_path, table)
    assert [path.name for path in tmp_path.iterdir()] == ["one.parquet"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"digest": OTHER_DIGEST}, f"weights {OTHER_DIGEST}, and those of .* weights {DIGEST}"),
        ({"layer": "embedding"}, "layer embedding, and those of .* layer features"),
        ({"preprocessing": {"recipe": {"name": "plain", "version": 2, "seconds": 10.0}}}, r"recipe.version 2 and 1"),
    ],
)
def test_tables_of_another_encoder_layer_or_preprocessing_are_not_mixed(tmp_path, how, message):
    one = write_embeddings(tmp_path / "one.parquet", directions(3))
    two = write_embeddings(tmp_path / "two.parquet", directions(3), **how)
    with pytest.raises(DataError, match=rf"two\.parquet: .*{message}"):
        build(tmp_path, one, two)
    assert not (tmp_path / "index").exists()


def test_tables_that_were_joined_from_several_encoders_are_refused(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", directions(3), digests=[DIGEST, DIGEST, OTHER_DIGEST])
    with pytest.raises(DataError, match=OTHER_DIGEST):
        build(tmp_path, table)
    assert [path.name for path in tmp_path.iterdir()] == ["one.parquet"]


def test_embeddings_of_each_lead_are_refused_by_name(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", directions(3, dim=96), dimension=12)
    with pytest.raises(DataError, match="an embedding for each of 8 leads"):
        build(tmp_path, table)
    lists = write_embeddings(tmp_path / "two.parquet", [list(range(12)), list(range(1, 14))], dimension=12)
    with pytest.raises(DataError, match="embeddings of 13 numbers, and its encoder gives 12"):
        build(tmp_path, lists)


def test_what_is_no_table_of_embeddings_is_refused(tmp_path):
    text = tmp_path / "text.parquet"
    text.write_text("not a table")
    pq_only = write_embeddings(tmp_path / "bare.parquet", directions(3), stated=False)
    taken = write_embeddings(tmp_path / "taken.parquet", directions(3), data_set=["x"] * 3)
    no_lists = write_embeddings(tmp_path / "numbers.parquet", directions(3), embedding=[1.0, 2.0, 3.0])
    half = write_embeddings(tmp_path / "half.parquet", directions(3))
    half.write_bytes(half.read_bytes()[:-100])
    for path, message in (
        (tmp_path / "nowhere.parquet", "no such file"),
        (tmp_path, "no such file"),
        (text, "no Parquet file"),
        (half, "no Parquet file, or is damaged"),
        (pq_only, "does not say which encoder"),
        (taken, "'data_set'"),
        (no_lists, "lists of floats"),
    ):
        with pytest.raises(DataError, match=message):
            open_tables([str(path)])


def test_pages_that_are_damaged_are_refused(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", directions(5000))
    content = bytearray(table.read_bytes())
    column = pq.read_metadata(table).row_group(0).column(2)
    begin = column.data_page_offset
    content[begin : begin + 40] = bytes([255]) * 40
    table.write_bytes(content)
    with pytest.raises(DataError, match=r"one\.parquet: .*damaged"):
        build(tmp_path, table)
    assert [path.name for path in tmp_path.iterdir()] == ["one.parquet"]


def test_a_statement_beside_the_table_serves_where_the_table_lost_its_own(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", directions(3))
    about = json.loads(pq.read_schema(table).metadata[b"ecgjax"])
    (tmp_path / "one.json").write_text(json.dumps(about))
    write_embeddings(table, directions(3), stated=False)
    assert build(tmp_path, table).stated["data_sets"] == {"mine": 3}


def test_columns_of_any_single_values_are_kept_and_others_are_left_out(tmp_path):
    columns = {
        "flag": [True, None, False],
        "large": pa.array([2**63, 1, None], pa.uint64()),
        "small": pa.array([1, 2, 3], pa.int8()),
        "half": pa.array(np.array([0.5, 1, 2], np.float16)),
        "word": pa.array(["a", None, "b"]).dictionary_encode(),
        "list": [[1], [2], [3]],
        "by_lead": ["{}"] * 3,
        "patient_id": [1, 2, None],
    }
    index = build(tmp_path, write_embeddings(tmp_path / "one.parquet", directions(3), **columns))
    assert index.stated["columns"] == ["flag", "large", "small", "half", "word"]
    rows = rows_of(index)
    assert list(rows["patient_id"][:2]) == ["1", "2"]
    assert rows["large"][0] == 2.0**63
    assert list(rows["flag"][[0, 2]]) == [1, 0]


def test_columns_of_text_and_of_numbers_are_not_mixed(tmp_path):
    one = write_embeddings(tmp_path / "one.parquet", directions(3), grade=["a", "b", "c"])
    two = write_embeddings(tmp_path / "two.parquet", directions(3), name="other", grade=[1, 2, 3])
    with pytest.raises(DataError, match=r"'grade' is string in .*one\.parquet and int64 in .*two\.parquet"):
        build(tmp_path, one, two)


def test_an_interrupted_build_leaves_the_old_index_and_nothing_else(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", directions(30))
    before = {path.name: path.read_bytes() for path in build(tmp_path, table).path.iterdir()}
    other = write_embeddings(tmp_path / "one.parquet", directions(50, seed=2))

    def interrupt(num_rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, other, overwrite=True, tell=interrupt)
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == before
    with pytest.raises(DataError, match="--overwrite"):
        build(tmp_path, other)
    assert build(tmp_path, other, overwrite=True).num_rows == 50


def test_what_a_killed_build_left_is_cleared_by_the_next(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", directions(30))
    left = tmp_path / ".index.building" / "whole"
    left.mkdir(parents=True)
    (left / "embeddings.npy").write_bytes(b"half of it")
    assert build(tmp_path, table).num_rows == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "one.parquet"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from ecgjax.search_index.embedding_tables import open_tables
from ecgjax.search_index.index_build import build_index
build_index(open_tables([sys.argv[1]]), Path(sys.argv[2]), overwrite=True,
            tell=lambda num_rows: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.slow
def test_a_killed_build_leaves_the_old_index(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", directions(30))
    before = {path.name: path.read_bytes() for path in build(tmp_path, table).path.iterdir()}
    other = write_embeddings(tmp_path / "two.parquet", directions(50, seed=1))
    done = subprocess.run([sys.executable, "-c", _KILLED, str(other), str(tmp_path / "index")], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == before
    assert build(tmp_path, other, overwrite=True).num_rows == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "one.parquet", "two.parquet"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    table = write_embeddings(tmp_path / "one.parquet", directions(3))
    index = build(tmp_path, table)
    (index.path / "notes.txt").write_text("mine")
    for out in ("index", "."):
        with pytest.raises(DataError, match="something else than an index"):
            build(tmp_path, table, out=out, overwrite=True)


@pytest.mark.parametrize("name", ["index.json", *LISTED_FILES])
def test_damaged_truncated_and_missing_files_are_refused_by_name(tmp_path, name):
    index = build(tmp_path, write_embeddings(tmp_path / "one.parquet", directions(30)))
    path = index.path / name
    content = path.read_bytes()
    turned = bytearray(content)
    turned[len(content) * 2 // 3] ^= 1
    for damaged in (content[: len(content) // 2], b"", bytes(turned)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{name}: "):
            open_index(index.path)
    path.unlink()
    with pytest.raises(DataError, match=name):
        open_index(index.path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)
    with pytest.raises(DataError, match=f"{name}: is a link"):
        open_index(index.path)


def test_what_is_said_of_an_index_must_fit_its_files(tmp_path):
    index = build(tmp_path, write_embeddings(tmp_path / "one.parquet", directions(30)))
    for changes, message in (({"format_version": 2}, "format_version 2"), ({"rows": 29}, r"float16\[30, 12\]")):
        changed = {**index.stated, **changes}
        (index.path / "index.json").write_text(json.dumps({**changed, "digest": json_digest(changed)}))
        with pytest.raises(DataError, match=message):
            open_index(index.path)
    for folder in (tmp_path, tmp_path / "nowhere", "gs://bucket/index"):
        with pytest.raises(DataError, match="search build"):
            open_index(folder)
