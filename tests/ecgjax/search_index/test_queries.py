"""Queries of an index: whose neighbours are found, what is left out, and what is written of it."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_pipelines.errors import DataError
from data_pipelines.system.terminal_lines import COLUMNS
from ecgjax.search_index import answers as answers_module
from ecgjax.search_index import conditions, index_queries
from ecgjax.search_index.answers import Answers
from ecgjax.search_index.embedding_tables import open_tables
from ecgjax.search_index.exact_search import nearest
from ecgjax.search_index.index_build import build_index
from ecgjax.search_index.index_folder import open_index
from tests.ecgjax.search_index import brute_force
from tests.ecgjax.search_index.made_up_tables import DIGEST, OTHER_DIGEST, directions, write_embeddings

OURS, OTHERS = directions(60), directions(40, seed=1)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queries")
    mine = write_embeddings(folder / "mine.parquet", OURS, simulated=True)
    other = write_embeddings(
        folder / "other.parquet", OTHERS, name="other", patient_id=[None if row < 5 else f"p{row}" for row in range(40)]
    )
    build_index(open_tables([str(mine), str(other)]), folder / "index")
    return open_index(folder / "index")


def answered(index, queries, *, k=5, same_patient="exclude", where=()):
    remaining = conditions.remaining(index, where)
    apart = index_queries.kept_apart(queries, index, same_patient=same_patient == "exclude")
    found = nearest(index.embeddings, queries.embeddings, k=k, rows=remaining.rows, apart=apart)
    return Answers(index=index, queries=queries, neighbours=found, remaining=remaining, k=k, same_patient=same_patient)


def of_table(index, path, values, **how):
    write_embeddings(path, values, **how)
    return index_queries.of_tables(open_tables([str(path)]), index)


def test_neighbours_of_a_table_are_those_of_brute_force_without_the_patient(index, tmp_path):
    values = directions(12, seed=2)
    queries = of_table(index, tmp_path / "q.parquet", values)
    rows = index.ids_of(np.arange(100)).to_pandas()
    own = np.array([f"p{row // 3}" for row in range(12)])
    never = (rows["data_set"] == "mine").to_numpy() & (own[:, None] == rows["patient_id"].to_numpy())
    assert never.sum() == 36, "of three records each"
    unit = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    expected = brute_force.neighbours(unit.astype(np.float16), index.embeddings, k=5, never=never)
    found = answered(index, queries).neighbours
    np.testing.assert_array_equal(found.rows, expected[0])
    np.testing.assert_array_equal(found.similarity, expected[1])


def test_a_record_is_never_its_own_neighbour_and_its_patient_is_kept_on_demand(index, tmp_path):
    records = ["r0", "r1", "r30"]
    kept = answered(index, index_queries.of_records(records, index, data_set="mine"), k=99, same_patient="keep")
    assert kept.counts().tolist() == [99] * 3
    assert [sorted(set(range(100)) - set(rows)) for rows in kept.neighbours.rows.tolist()] == [[0], [1], [30]]
    without = answered(index, index_queries.of_records(records, index, data_set="mine"), k=99)
    left_out = [sorted(set(range(100)) - set(rows)) for rows in without.neighbours.rows.tolist()]
    assert left_out == [[0, 1, 2], [0, 1, 2], [30, 31, 32]]
    assert without.fewer() == 3
    # The same recordings from a table, as the same data set and as another.
    queries = of_table(index, tmp_path / "q.parquet", OURS[:2])
    assert answered(index, queries, k=99).counts().tolist() == [97, 97]
    elsewhere = answered(index, of_table(index, tmp_path / "e.parquet", OURS[:2], name="elsewhere"), k=1)
    assert elsewhere.neighbours.rows.tolist() == [[0], [1]]
    assert elsewhere.neighbours.similarity.tolist() == [[1.0], [1.0]]


@pytest.fixture(scope="module")
def with_signals(tmp_path_factory):
    """An index whose rows have the hashes of their signals, but for the last of its two tables."""
    folder = tmp_path_factory.mktemp("signals")
    names = [f"site/r{row}" for row in range(60)]
    hashes = [f"{row % 50:032x}" for row in range(60)]
    new = write_embeddings(folder / "new.parquet", OURS, record=names, name="folder", signal_hash=hashes,
                           patient_id=[None] * 60)  # fmt: skip
    old = write_embeddings(folder / "old.parquet", OTHERS, name="old")
    build_index(open_tables([str(new), str(old)]), folder / "index")
    return open_index(folder / "index")


def test_a_query_is_known_by_its_signal_under_another_id_and_in_another_data_set(with_signals, tmp_path):
    # What a file is called that is embedded by itself; its embedding may differ in the last bit.
    hashes = [f"{row:032x}" for row in (0, 30, 99)]
    queries = of_table(with_signals, tmp_path / "q.parquet", OURS[[0, 30, 59]] * 1.001, name="r0.mat",
                       signal_hash=hashes)  # fmt: skip
    found = answered(with_signals, queries, k=100, same_patient="keep")
    left_out = [sorted(set(range(100)) - set(rows)) for rows in found.neighbours.rows.tolist()]
    assert left_out == [[0, 50], [30], []], "with every copy, and only where the signals are equal"
    apart = index_queries.kept_apart(queries, with_signals, same_patient=True)
    assert [(each.query, each.row) for each in index_queries.under_other_names(apart)] == [(0, 0), (1, 30)]
    assert found.stated()["queries"]["without_signal_hash"] == 0
    assert with_signals.rows_without_signal() == 40


def test_records_of_the_index_are_no_neighbours_of_their_copies_in_it(with_signals):
    queries = index_queries.of_records(["site/r3", "site/r53", "site/r20", "r7"], with_signals)
    found = answered(with_signals, queries, k=100, same_patient="keep").neighbours.rows.tolist()
    assert [sorted(set(range(100)) - set(rows)) for rows in found] == [[3, 53], [3, 53], [20], [67]]
    apart = index_queries.kept_apart(queries, with_signals, same_patient=True)
    assert [(each.query, each.row) for each in index_queries.under_other_names(apart)] == [(0, 53), (1, 3)]


def test_without_hashes_of_signals_a_query_is_known_by_its_id_alone(index, tmp_path):
    with_hash = of_table(index, tmp_path / "q.parquet", OURS[:2], name="elsewhere", signal_hash=["a", "b"])
    assert answered(index, with_hash, k=100).counts().tolist() == [100, 100]
    assert index.rows_without_signal() == 100
    assert with_hash.signals.null_count == 0
    assert of_table(index, tmp_path / "old.parquet", OURS[:2]).signals.null_count == 2


def test_queries_of_several_data_sets_are_each_kept_apart_from_their_own(index, tmp_path):
    mine = write_embeddings(tmp_path / "m.parquet", OURS[:4])
    other = write_embeddings(tmp_path / "o.parquet", OTHERS[5:9], name="other", record=["r5", "r6", "r7", "new"],
                             patient_id=["p5", "p6", None, "p20"])  # fmt: skip
    queries = index_queries.of_tables(open_tables([str(mine), str(other)]), index)
    found = answered(index, queries, k=100).neighbours.rows.tolist()
    left_out = [sorted(set(range(100)) - set(rows)) for rows in found]
    assert left_out == [[0, 1, 2]] * 3 + [[3, 4, 5], [65], [66], [67], [80]]


def test_missing_patients_are_equal_to_none(index):
    queries = index_queries.of_records(["r0", "r1"], index, data_set="other")
    assert queries.ids.column("patient_id").null_count == 2
    assert answered(index, queries, k=100).counts().tolist() == [99, 99]


def test_conditions_leave_rows_out_and_fewer_neighbours_are_counted(index, tmp_path):
    queries = index_queries.of_records(["r0", "r59"], index, data_set="mine")
    found = answered(index, queries, k=50, where=["data_set=other"])
    assert found.counts().tolist() == [40, 40]
    assert found.fewer() == 2
    assert (found.neighbours.rows[:, :40] >= 60).all()
    assert found.stated()["queries_with_fewer_neighbours"] == 2
    assert found.stated()["rows_searched"] == 40


def test_answers_are_a_table_with_their_provenance(index, tmp_path, monkeypatch):
    values = directions(7, seed=3)
    values[2] = 0
    answers = answered(index, of_table(index, tmp_path / "q.parquet", values, name="new"), k=3, where=["record!=r9"])
    answers.write(tmp_path / "a.parquet")
    assert sorted(path.name for path in tmp_path.glob("a.*")) == ["a.json", "a.parquet", "a.quarantine.csv"]
    about = json.loads((tmp_path / "a.json").read_text())
    assert json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"ecgjax"]) == about
    assert about["model"]["weights_digest"] == DIGEST
    assert about["index"]["digest"] == index.digest
    assert about["queries"]["refused"] == {"zero": 1}
    assert about["simulated"], "one of the tables of the index is"
    assert not about["queries"]["simulated"]
    assert about["where"] == ["record!=r9"]
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert list(table["query_record"]) == [f"r{row}" for row in (0, 1, 3, 4, 5, 6) for _ in range(3)]
    assert list(table["rank"]) == [1, 2, 3] * 6
    ids = index.ids_of(table["row"].to_numpy()).to_pandas()
    pd.testing.assert_frame_equal(table[["data_set", "record", "patient_id"]], ids)
    np.testing.assert_array_equal(table["similarity"], answers.neighbours.similarity.ravel())
    listed = pd.read_csv(tmp_path / "a.quarantine.csv")
    assert listed.iloc[0].to_list()[:4] == ["q.parquet", 2, "r2", "zero"]
    monkeypatch.setattr(answers_module, "_AT_ONCE", 4)
    answers.write(tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "b.parquet"), table)


def test_an_error_leaves_the_old_answers_and_nothing_else(index, tmp_path, monkeypatch):
    answers = answered(index, index_queries.of_records(["r0"], index, data_set="mine"))
    answers.write(tmp_path / "a.parquet")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(rows):
        raise OSError("the disk is gone")

    monkeypatch.setattr(type(index), "ids_of", lambda self, rows: fail(rows))
    with pytest.raises(OSError, match="gone"):
        answers.write(tmp_path / "a.parquet")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_printed_lines_are_few_and_say_how_many_more_there_are(index):
    lines = answered(index, index_queries.of_records([f"r{n}" for n in range(30)], index, data_set="mine")).lines()
    assert len(lines) == 22
    assert lines[0].split() == ["query", "rank", "similarity", "record", "patient", "data", "set"]
    assert lines[-1] == "… and 130 more"


def test_long_ids_and_hidden_characters_are_printed_in_short(index, tmp_path):
    queries = of_table(index, tmp_path / "q.parquet", directions(2), record=["\x1b[31m", "folder/" * 99 + "end"])
    shown = [line.split()[0] for line in answered(index, queries, k=1).lines()[1:]]
    assert shown[0] == "\\x1b[31m"
    assert 30 < len(shown[1]) <= 40
    assert shown[1].endswith("/folder/end")


def test_ids_are_shortened_as_far_as_a_terminal_asks_for(tmp_path):
    ids = [f"{'site/' * 9}{row}" for row in range(5)]
    made = write_embeddings(tmp_path / "e.parquet", directions(5), name="a_long_name_of_a_data_set", record=ids,
                            patient_id=[f"patient-{row:030}" for row in range(5)])  # fmt: skip
    build_index(open_tables([str(made)]), tmp_path / "index")
    long = open_index(tmp_path / "index")
    lines = answered(long, index_queries.of_records(ids[:2], long), k=2).lines()
    assert 70 < max(map(len, lines)) <= COLUMNS
    assert [line.split()[0][-2:] for line in lines[1:]] == ["/0", "/0", "/1", "/1"], "the end of an id tells it apart"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"digest": OTHER_DIGEST}, f"weights {OTHER_DIGEST}, and those of --index=.* weights {DIGEST}"),
        ({"layer": "embedding"}, "layer embedding, and those of .* layer features"),
        (
            {"preprocessing": {"recipe": {"name": "monitor", "version": 1, "seconds": 10.0}}},
            r"preprocessing [0-9a-f]{64}, and those of .* preprocessing [0-9a-f]{64} "
            r"\(recipe.name 'monitor' and 'plain'\)",
        ),
    ],
)
def test_queries_of_another_encoder_layer_or_preprocessing_are_refused_with_both(index, tmp_path, how, message):
    with pytest.raises(DataError, match=rf"q\.parquet: .*{message}"):
        of_table(index, tmp_path / "q.parquet", directions(2), **how)


def test_queries_of_another_dimension_are_refused(index, tmp_path):
    with pytest.raises(DataError, match=r"dimension 8, and those of .* dimension 12"):
        of_table(index, tmp_path / "q.parquet", directions(2, dim=8))


def test_records_that_are_not_there_or_in_several_data_sets_are_refused(index):
    with pytest.raises(DataError, match=r"--records=nobody: is no record of the index; .* mine, other"):
        index_queries.of_records(["r50", "nobody"], index, data_set=None)
    with pytest.raises(DataError, match=r"--records=r1: .*several data sets \(mine, other\)"):
        index_queries.of_records(["r1"], index)
    assert index_queries.of_records(["r50", "r50"], index).ids.num_rows == 1


def test_a_table_without_any_query_is_refused(index, tmp_path):
    with pytest.raises(DataError, match="none of the rows can be a query: the embedding is zero"):
        of_table(index, tmp_path / "q.parquet", np.zeros((2, 12), np.float32))
