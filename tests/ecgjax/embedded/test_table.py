"""The table of embeddings: its rows, columns and files, and what is left behind after an error."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import ecgjax
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import CARD_FILE
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.version import __version__
from ecgjax.embedded import table as table_module
from ecgjax.embedded.inputs import open_input
from ecgjax.embedded.table import AnswerColumn, Columns, EmbeddingTable, answer_columns, checked_out
from tests.ecgjax.model.written import write_model
from tests.support.answering_heads import QUESTIONS, trained_head
from tests.support.cinc_files import georgia_uv, write_cinc
from tests.support.fixtures import make_simulated_dataset, twelve_lead_mv, write_wfdb


def embed(model, given, out, *, num_workers=1, tokens=None, intervals=False, answers=None, **how):
    recordings = open_input(str(given), recipe=model.recipe, **how)
    answered = answer_columns(model, asked=answers)
    columns = Columns(labels=recordings.labels, tokens=tokens, intervals=intervals, answers=answered)
    columns.check()
    with EmbeddingTable(out, model, columns=columns, facts=recordings.facts) as table:
        for results in recordings.rows(num_workers=num_workers, measure=intervals):
            table.add(results)
    return table.counts()


def embeddings(path):
    return np.stack(pd.read_parquet(path)["embedding"].to_list())


def test_a_folder_becomes_a_row_a_recording_and_a_list_of_the_others(model, ecgs, tmp_path):
    counts = embed(model, ecgs, tmp_path / "e.parquet")
    assert counts.embedded == 39
    assert sum(counts.quarantined.values()) == 2
    assert counts.quarantined["flat_lead"] == 1
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert table["record"].is_monotonic_increasing
    assert set(table["source"]) == {f"{record}.hea" for record in table["record"]}
    assert set(table["model_digest"]) == {model.weights_digest}
    assert set(table["recipe"]) == {"plain 1"}
    assert set(table["ecgjax_version"]) == {__version__}
    assert set(table["recorded_seconds"]) == {10.0}
    listed = pd.read_csv(tmp_path / "e.quarantine.csv")
    assert list(listed["record_id"]) == ["p0/broken", "p2/r08"]
    # What a call in memory answers to the same samples; a WFDB file stores whole µV, and these are.
    x = np.stack([twelve_lead_mv(seed=int(record[-2:]), rate=250) for record in table["record"]])
    expected = model.embed(x, rate_hz=250, unit="mV", leads=STANDARD_LEADS)
    np.testing.assert_allclose(embeddings(tmp_path / "e.parquet"), expected, atol=1e-6 * np.abs(expected).max())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.json", "e.parquet", "e.quarantine.csv"]


@pytest.mark.slow
def test_several_processes_write_the_same(model, ecgs, tmp_path):
    embed(model, ecgs, tmp_path / "one.parquet")
    embed(model, ecgs, tmp_path / "two.parquet", num_workers=2)
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "two")))


def test_a_single_file_is_embedded_as_in_its_folder(model, ecgs, tmp_path):
    embed(model, ecgs, tmp_path / "all.parquet")
    expected = pd.read_parquet(tmp_path / "all.parquet").set_index("record").loc["p1/r10"]["embedding"]
    for given in ("r10.hea", "r10.dat", "r10"):
        counts = embed(model, ecgs / "p1" / given, tmp_path / f"{given}.parquet")
        assert counts.embedded == 1
        np.testing.assert_allclose(embeddings(tmp_path / f"{given}.parquet")[0], expected, rtol=1e-4, atol=1e-6)


def test_a_path_that_is_neither_file_folder_nor_wfdb_record_is_refused(model, ecgs):
    with pytest.raises(DataError, match=r"--input=.*r99: no such file or folder, and no WFDB .*r99\.hea is not there"):
        open_input(str(ecgs / "p1" / "r99"), recipe=model.recipe)


def test_headers_that_name_their_record_with_an_extension_are_embedded_and_counted(model, tmp_path):
    write_cinc(tmp_path / "in", "E00001", georgia_uv(seed=1), record_name="E00001.mat")
    write_cinc(tmp_path / "in", "E00002", georgia_uv(seed=1), record_name="E00002.mat", gain="4880/mV")
    counts = embed(model, tmp_path / "in", tmp_path / "e.parquet")
    assert (counts.embedded, dict(counts.quarantined)) == (2, {})
    # The gain of the second is put right, so both are the same recording.
    one, other = embeddings(tmp_path / "e.parquet")
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    notes = open_input(str(tmp_path / "in"), recipe=model.recipe).notes
    assert notes[0] == "2 headers name their record with an extension: read without it"
    assert notes[1].startswith("1 header states 4880 units/mV: read as 1000 where the samples prove that")
    alone = open_input(str(tmp_path / "in" / "E00001.hea"), recipe=model.recipe)
    assert alone.notes == ("1 header names its record with an extension: read without it",)


def test_a_recording_has_one_hash_of_its_signal_under_any_name(model, ecgs, tmp_path):
    embed(model, ecgs, tmp_path / "all.parquet")
    embed(model, ecgs / "p1" / "r10.hea", tmp_path / "one.parquet")
    whole, alone = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("all", "one"))
    assert (list(alone["record"]), "p1/r10" in set(whole["record"])) == (["r10"], True)
    known = whole.set_index("record")["signal_hash"]
    assert known["p1/r10"] == alone["signal_hash"][0]
    assert known.is_unique
    assert set(known.str.len()) == {32}


def test_tokens_and_intervals_are_columns_and_say_what_they_are(model, ecgs, tmp_path):
    embed(model, ecgs / "p0", tmp_path / "e.parquet", tokens="f16", intervals=True)
    about = json.loads((tmp_path / "e.json").read_text())
    assert json.loads(pq.read_schema(tmp_path / "e.parquet").metadata[b"ecgjax"]) == about
    table = pd.read_parquet(tmp_path / "e.parquet")
    tokens = np.stack(table["tokens"].to_list()).reshape(len(table), *about["tokens"]["shape"])
    assert tokens.dtype == np.float16
    # Of this encoder the pool is the mean, and the embedding the features.
    expected = embeddings(tmp_path / "e.parquet")
    np.testing.assert_allclose(tokens.astype(np.float32).mean(axis=1), expected, atol=2e-3 * np.abs(expected).max())
    assert len(about["tokens"]["token_times"]) == tokens.shape[1]
    assert np.stack(table["token_mask"].to_list()).all()
    assert about["preprocessing"]["recipe"] == RECIPES["plain"].to_json()
    assert {"rr_ms", "qt_ms", "qrs_axis_degree", "by_lead"} <= set(table.columns)
    assert set(json.loads(table["by_lead"][0])) == set(STORED_LEADS)


@pytest.fixture(scope="session", params=["multilabel", "quantity"])
def answering(request, tmp_path_factory):
    """A model that answers a question; one of its three classes has no threshold."""
    folder = tmp_path_factory.mktemp("models") / "answering"
    about = QUESTIONS[request.param]
    outputs = (dataclasses.replace(about.outputs[0], threshold=None), *about.outputs[1:])

    def head(dim):
        trained = trained_head(request.param, "linear", dim=dim)
        return dataclasses.replace(trained, about=dataclasses.replace(about, outputs=outputs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        return ecgjax.load(write_model(folder, head=head))


def test_a_model_that_answers_adds_its_answers_and_decisions(answering, ecgs, tmp_path):
    embed(answering, ecgs / "p0", tmp_path / "e.parquet")
    table, about = pd.read_parquet(tmp_path / "e.parquet"), json.loads((tmp_path / "e.json").read_text())["answers"]
    x = np.stack([twelve_lead_mv(seed=int(record[-2:]), rate=250) for record in table["record"]])
    expected = answering.predict(x, rate_hz=250, unit="mV", leads=STANDARD_LEADS).reshape(len(table), -1)
    columns = about["columns"]
    np.testing.assert_allclose(table[[each["column"] for each in columns]], expected, rtol=1e-5)
    assert about["question"] == answering.question
    assert about["labels_simulated"]
    if answering.classes:
        assert [each["column"] for each in columns] == ["answer_NORM", "answer_MI", "answer_STTC"]
        assert [each["decision"] for each in columns] == [None, "decision_MI", "decision_STTC"]
        np.testing.assert_array_equal(table["decision_MI"], table["answer_MI"] >= 0.2)
    else:
        assert (columns[0]["column"], columns[0]["decision"], about["unit"]) == ("answer", None, "years")
    # The embeddings stay what they are, and answers can be left out.
    embed(answering, ecgs / "p0", tmp_path / "without.parquet", answers=False)
    np.testing.assert_allclose(embeddings(tmp_path / "without.parquet"), embeddings(tmp_path / "e.parquet"), atol=1e-6)
    names = pd.read_parquet(tmp_path / "without.parquet").columns
    assert not [name for name in names if name.startswith(("answer", "decision"))]
    assert "answers" not in json.loads((tmp_path / "without.json").read_text())


def test_answers_are_not_asked_of_a_model_without_any(model):
    assert answer_columns(model) == ()
    with pytest.raises(DataError, match=r"--answers.*no head"):
        answer_columns(model, asked=True)
    clash = AnswerColumn("lvef<40", "answer", "decision", 0.5)
    with pytest.raises(DataError, match="'decision'"):
        Columns(labels={"decision": float}, answers=(clash,)).check()


def test_labels_are_columns_and_recordings_without_a_row_are_quarantined(model, ecgs, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("record,patient_id,age,lvef\nr00,a,60,55.5\nr03,b,,\n")
    counts = embed(model, ecgs / "p0", tmp_path / "e.parquet", labels=labels)
    assert counts.embedded == 2
    assert counts.quarantined["missing_patient"] > 5
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert list(table["patient_id"]) == ["a", "b"]
    assert table["lvef"][0] == 55.5
    assert table["lvef"].isna().to_list() == [False, True]
    labels.write_text("record,patient_id,embedding\nr00,a,1\n")
    with pytest.raises(DataError, match="'embedding'"):
        embed(model, ecgs / "p0", tmp_path / "other.parquet", labels=labels)


def test_records_of_a_data_set_are_embedded_as_they_are_stored(model, tmp_path):
    dataset = make_simulated_dataset(tmp_path, num_patients=20, rate=250)
    counts = embed(model, dataset.directory, tmp_path / "e.parquet", intervals=True)
    assert counts == (dataset.index.num_records, {})
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert list(table["record"]) == list(dataset.index.record_id)
    assert list(table["patient_id"]) == list(dataset.index.patient_id)
    np.testing.assert_array_equal(table["label_age_years"], dataset.index.label("age_years"))
    assert {f"label_{name}" for name in dataset.index.labels} < set(table.columns)
    assert table["rr_ms"].notna().mean() > 0.9
    assert json.loads((tmp_path / "e.json").read_text())["input"]["fingerprint"] == dataset.fingerprint
    card = embed(model, dataset.directory / CARD_FILE, tmp_path / "card.parquet")
    assert card.embedded == counts.embedded


def test_data_sets_of_another_recipe_say_how_they_are_converted(model, tmp_path):
    dataset = make_simulated_dataset(tmp_path, num_patients=2, rate=100)
    with pytest.raises(DataError, match=r"sampling_rate_hz=100 .*--builder=prepared"):
        embed(model, dataset.directory, tmp_path / "e.parquet")
    assert not list(tmp_path.glob("e.*"))


def test_records_prepared_in_other_steps_are_refused(model, tmp_path):
    dataset = make_simulated_dataset(tmp_path, num_patients=2, rate=250)
    recipe = dataclasses.replace(model.recipe, name="plain after monitor")
    with pytest.raises(DataError, match=r"simulated.* by plain after monitor"):
        open_input(str(dataset.directory), recipe=recipe)
    open_input(str(dataset.directory), recipe=dataclasses.replace(recipe, name="plain after plain"))


def test_a_list_without_a_table_does_not_stand_in_the_way(tmp_path):

    out = tmp_path / "e.parquet"
    (tmp_path / "e.quarantine.csv").write_text("left by a command that embedded nothing")
    assert checked_out(str(out), overwrite=False) == out
    out.touch()
    with pytest.raises(DataError, match="exists; name another"):
        checked_out(str(out), overwrite=False)


def test_an_error_leaves_no_file_and_what_was_there_as_it_was(model, ecgs, tmp_path, monkeypatch):
    out = tmp_path / "e.parquet"
    embed(model, ecgs / "p0", out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(table_module, "_GROUP_BYTES", 1)
    recordings = open_input(str(ecgs), recipe=model.recipe)

    def interrupted():
        with EmbeddingTable(out, model, columns=Columns(), facts={}) as table:
            for results in recordings.rows(num_workers=1, measure=False):
                table.add(results)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_where_nothing_could_be_embedded_the_most_frequent_reason_has_the_example(model, tmp_path):
    for number in range(3):
        write_wfdb(tmp_path / "in", f"r{number}", twelve_lead_mv(rate=250) * (number == 0), rate=250)
    (tmp_path / "in" / "r0.dat").unlink()
    with pytest.raises(
        DataError, match=r"none of 3 .*\(flat_lead 2, missing_file 1\); the first of flat_lead: .*r1.*All"
    ):
        embed(model, tmp_path / "in", tmp_path / "e.parquet")


def test_where_nothing_could_be_embedded_the_list_tells_why(model, ecgs, tmp_path):
    with pytest.raises(DataError, match=r"none of 1 .*flat_lead"):
        embed(model, ecgs / "p2" / "r08.hea", tmp_path / "e.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["e.quarantine.csv"]


def test_tokens_too_large_for_their_type_are_refused(model, ecgs, tmp_path, monkeypatch):
    found = model.tokens_of_prepared
    monkeypatch.setattr(
        type(model),
        "tokens_of_prepared",
        lambda self, prepared: type(tokens := found(prepared))(
            tokens.values + 1e6, tokens.times, tokens.mask, tokens.leads
        ),
    )
    with pytest.raises(DataError, match="f32"):
        embed(model, ecgs / "p0", tmp_path / "e.parquet", tokens="f16")
