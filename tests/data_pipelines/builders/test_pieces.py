"""Long recordings cut into records, what is told of them, and what of them is held in memory."""

import dataclasses
import json
import pickle
import tracemalloc

import h5py
import numpy as np
import pytest

from data_pipelines.build import summary
from data_pipelines.builders import prepared
from data_pipelines.builders.base import Quarantined, RecordingReader, SourceCard, ecg_record
from data_pipelines.builders.code15_wfdb import Code15WfdbSource
from data_pipelines.builders.folder import FolderSource
from data_pipelines.builders.pieces import PiecedSource
from data_pipelines.builders.prepared import PreparedSource
from data_pipelines.card.figures import dataset_card
from data_pipelines.card.rows import count_facts
from data_pipelines.files import samples
from data_pipelines.files.samples import VALUES_AT_ONCE
from data_pipelines.inspect import record_lines
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.readers.lengths import Length, wfdb_length
from data_pipelines.readers.wfdb_files import read_wfdb
from data_pipelines.recording import Recording
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS, LabelSchema
from data_pipelines.shards import dataset_build
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.statements.declared import Declared
from data_pipelines.storage.store import open_store
from tests.support.fixtures import results_of, twelve_lead_mv, write_wfdb

STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]
RECIPE = SignalRecipe(name="test", version=1, sampling_rate_hz=500)


def folder_source(folder, recipe=RECIPE, **changes):
    return FolderSource(folder, **({"labels": None, "patient_field": None, "name": "mine", "recipe": recipe} | changes))


def build(source, out):
    card = dataset_build.build_dataset(lambda: source, out, request={})
    return card, open_dataset(out)


def write_long(folder):
    """One recording of each kind: 24 s, 27 s, 10 s, 3 s."""
    signals = {name: twelve_lead_mv(seconds=seconds, seed=seconds) for name, seconds in
               {"a": 24, "b": 27, "c": 10, "d": 3}.items()}  # fmt: skip
    for name, signal in signals.items():
        write_wfdb(folder, name, signal)
    return signals


def test_a_long_recording_becomes_pieces_of_one_patient_and_one_recording(tmp_path):
    signals = write_long(tmp_path / "in")
    table = tmp_path / "labels.csv"
    table.write_text("record,patient_id,lvef\na,p1,50\nb,p2,30\nc,p1,40\nd,p3,1\n")
    pieced = PiecedSource(folder_source(tmp_path / "in", labels=table), num_workers=1)
    card, dataset = build(pieced, tmp_path / "out")
    index = dataset.index
    assert index.record_id.tolist() == ["a.piece1", "a.piece2", "b.piece1", "b.piece2", "b.piece3", "c"]
    assert index.patient_id.tolist() == ["p1", "p1", "p2", "p2", "p2", "p1"]
    assert index.recording.tolist() == [0, 0, 1, 1, 1, 2]
    assert index.recording_seconds.tolist() == [24, 24, 27, 27, 27, 10]
    assert index.start_seconds.tolist() == [0, 10, 0, 10, 20, 0]
    assert index.valid_samples.tolist() == [5000, 5000, 5000, 5000, 3500, 5000]
    assert index.scalars["lvef"].tolist() == [50, 50, 30, 30, 30, 40]
    stored = open_store(dataset.directory).read(np.arange(6))
    for number, (name, start) in enumerate([("a", 0), ("a", 5000), ("b", 0), ("b", 5000), ("b", 10000), ("c", 0)]):
        own = np.rint(signals[name][start : start + 5000, STORED_COLUMNS] * 1000)
        np.testing.assert_array_equal(stored[number, : len(own)], own)
        assert not stored[number, len(own) :].any()
    assert card["summary"]["quarantined"] == {"too_short": 1}
    # 24 s are 20 and a rest of 4, below the shortest of 5 s.
    assert card["summary"]["seconds"] == {
        "recordings": 3, "recorded": 61, "kept": 57, "dropped": 4, "cut": 1, "longest": 27, "unknown": 0
    }  # fmt: skip
    text = summary(card, tmp_path / "out")
    assert "57 s kept of 61 s recorded in 3 recordings; 4 s dropped; 1 recording not stored whole" in text
    assert "note: cut into pieces of 10 s: 2 of 4 recordings, into 5 records" in text
    assert "1 recording ends with a rest shorter than --min_seconds=5, which is not stored: 4 s together" in text
    assert "10 s of a recording of 27 s, from 10 s on" in record_lines(dataset, 3)
    assert not any("of a recording" in line for line in record_lines(dataset, 5))


def test_without_pieces_what_is_dropped_is_told_everywhere(tmp_path):
    write_long(tmp_path / "in")
    card, dataset = build(folder_source(tmp_path / "in", RECIPE.changed(cut="center")), tmp_path / "out")
    index = dataset.index
    assert index.record_id.tolist() == ["a", "b", "c"]
    assert index.recording.tolist() == [0, 1, 2]
    assert index.start_seconds.tolist() == [7, 8.5, 0]
    assert card["summary"]["seconds"]["dropped"] == 31
    assert "30 s kept of 61 s recorded in 3 recordings; 31 s dropped" in summary(card, tmp_path / "out")
    facts = dict(count_facts(dataset_card(dataset, amplitudes={})))
    assert facts["seconds"].startswith("30 s kept of 61 s recorded in 3 recordings; 31 s dropped; 2 recordings not")
    assert "10 s of a recording of 24 s, from 7 s on" in record_lines(dataset, 0)


def test_a_bad_piece_is_quarantined_alone(tmp_path):
    signal = twelve_lead_mv(seconds=30)
    signal[7000:7100, 6] = np.nan
    write_wfdb(tmp_path, "a", signal)
    results = results_of(PiecedSource(folder_source(tmp_path), num_workers=1))
    assert [result.record_id for result in results] == ["a.piece1", "a.piece2", "a.piece3"]
    assert [isinstance(result, Quarantined) for result in results] == [False, True, False]
    assert results[1].reason == "nan"
    assert "lead V1 has 100 of 5000 samples" in results[1].message
    assert "piece 2" in results[1].message


def test_what_is_wrong_with_a_whole_recording_is_said_of_each_piece_after_one_look(tmp_path):
    write_wfdb(tmp_path, "a", twelve_lead_mv(seconds=30))
    data = bytearray((tmp_path / "a.dat").read_bytes())
    data[1000] ^= 1
    (tmp_path / "a.dat").write_bytes(data)
    results = results_of(PiecedSource(folder_source(tmp_path), num_workers=1))
    assert {result.reason for result in results} == {"header_disagrees"}
    assert [result.record_id for result in results] == ["a.piece1", "a.piece2", "a.piece3"]


def test_a_header_that_claims_more_than_its_file_holds_is_one_refusal_not_millions(tmp_path):
    write_wfdb(tmp_path, "a", twelve_lead_mv())
    header = (tmp_path / "a.hea").read_text()
    (tmp_path / "a.hea").write_text(header.replace("5000", "4294967295", 1))
    (result,) = results_of(PiecedSource(folder_source(tmp_path), num_workers=1))
    assert (result.record_id, result.reason) == ("a", "truncated_file")


def test_a_recording_that_changed_since_it_was_counted_is_refused(tmp_path):
    write_wfdb(tmp_path, "a", twelve_lead_mv(seconds=30))
    pieced = PiecedSource(folder_source(tmp_path), num_workers=1)
    write_wfdb(tmp_path, "a", twelve_lead_mv(seconds=40))
    results = results_of(pieced)
    assert {result.reason for result in results} == {"header_disagrees"}
    assert "not the 3 pieces that were counted" in results[0].message


def test_every_format_is_cut(tmp_path):
    signal = twelve_lead_mv(seconds=20)
    np.save(tmp_path / "n.npy", np.rint(signal * 1000).astype(np.int16).T)
    with h5py.File(tmp_path / "h.h5", "w") as file:
        file["signal"] = signal * 1000
    lines = [",".join(STANDARD_LEADS), *(",".join(map(repr, row)) for row in (signal * 1000).tolist())]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    declared = Declared(sampling_rate_hz=500.0, unit="uV", leads=STANDARD_LEADS)
    results = results_of(PiecedSource(folder_source(tmp_path, declared=declared), num_workers=1))
    assert [result.record_id for result in results] == [f"{name}.piece{n}" for name in "hnt" for n in (1, 2)]
    expected = np.rint(signal[:, STORED_COLUMNS] * 1000).reshape(2, 5000, 8)
    for position, result in enumerate(results):
        np.testing.assert_array_equal(result.signal, expected[position % 2])


class Counted:
    """Three recordings in memory, and how often each was opened."""

    opened: list = []  # noqa: RUF012 shared by all copies of the reader in this process
    card = SourceCard(name="counted", description="Made up.", simulated=True)
    recipe = RECIPE
    signal_format = RECIPE.signal_format
    label_schema = LabelSchema()

    def __init__(self):
        self.items = [CountedItem(record_id=str(number)) for number in range(3)]

    def reader(self):
        return RecordingReader(open=_open, record=_record, recipe=RECIPE, length=lambda item: Length(20_000, 500.0))


@dataclasses.dataclass(frozen=True)
class CountedItem:
    record_id: str


def _open(item):
    Counted.opened.append(item.record_id)
    return Recording(
        source=item.record_id, signal=twelve_lead_mv(seconds=40, seed=int(item.record_id)), sampling_rate_hz=500.0,
        channels=STANDARD_LEADS, units=("mV",) * 12,
    )  # fmt: skip


def _record(item, recording, stored):
    return ecg_record(stored, record_id=item.record_id, patient_id="p")


def test_a_recording_is_opened_once_for_all_its_pieces():
    Counted.opened.clear()
    pieced = PiecedSource(Counted(), num_workers=1)
    assert len(pieced.items) == 12
    assert Counted.opened == []
    ids = [result.record_id for result in pieced.reader()(pieced.items[2:9])]
    assert ids == ["0.piece3", "0.piece4", *(f"1.piece{number}" for number in range(1, 5)), "2.piece1"]
    assert Counted.opened == ["0", "1", "2"]
    # One item for all pieces of it, so that a slice that travels to a worker is small.
    assert len(pickle.dumps(pieced.items[4:8])) < 2 * len(pickle.dumps(pieced.items[4:5]))
    assert pieced.items[-1] == pieced.items[11:12][0]


def test_pieces_of_the_same_number_of_samples_at_any_rate(tmp_path):
    write_wfdb(tmp_path, "a", twelve_lead_mv(seconds=25.5, rate=400), rate=400, comments=("Patient ID: p",))
    source = Code15WfdbSource(tmp_path, recipe=RECIPE.changed(seconds=5.0, min_seconds=1.0))
    # .5 s are shorter than the second below which nothing is judged.
    assert len(PiecedSource(source, num_workers=1).items) == 5


@pytest.mark.parametrize(
    ("first_line", "expected"),
    [
        ("a 12 500 5000", Length(5000, 500.0)),
        ("a 12 360/30(0) 5000 12:00:00", Length(5000, 360.0)),
        ("a 12 500", None),
        ("a 12 500 5000000000", None),
        ("a 12 five 5000", None),
    ],
)
def test_the_length_that_a_header_states(tmp_path, first_line, expected):
    write_wfdb(tmp_path, "a", twelve_lead_mv())
    lines = (tmp_path / "a.hea").read_text().splitlines()
    (tmp_path / "a.hea").write_text("\n".join(["# made up", first_line, *lines[1:]]))
    assert wfdb_length(tmp_path / "a") == expected
    assert wfdb_length(tmp_path / "gone") is None


def test_where_a_record_lies_is_kept_when_a_data_set_is_converted(tmp_path):
    write_long(tmp_path / "in")
    build(PiecedSource(folder_source(tmp_path / "in"), num_workers=1), tmp_path / "one")
    recipe = RECIPE.changed(sampling_rate_hz=250, seconds=4.0, min_seconds=1.0, cut="center")
    _, two = build(PreparedSource(tmp_path / "one", recipe=recipe), tmp_path / "two")
    assert two.index.recording.tolist() == [0, 0, 1, 1, 1, 2]
    assert two.index.start_seconds.tolist() == [3, 13, 3, 13, 21.5, 3]
    assert two.index.recording_seconds.tolist() == [24, 24, 27, 27, 27, 10]


def test_a_data_set_that_does_not_say_where_its_records_lie_is_converted_all_the_same(tmp_path, monkeypatch):
    write_wfdb(tmp_path / "in", "a", twelve_lead_mv(seconds=20))
    _, before = build(folder_source(tmp_path / "in"), tmp_path / "one")
    later = ("recording_id", "recording_microseconds", "start_microseconds")
    parse = prepared.parse
    monkeypatch.setattr(
        prepared, "parse", lambda example: {k: v for k, v in dict(parse(example)).items() if k not in later}
    )
    card, after = build(PreparedSource(tmp_path / "one", recipe=RECIPE), tmp_path / "two")
    np.testing.assert_array_equal(after.index.content_hash, before.index.content_hash)
    assert np.isnan(after.index.recording_seconds).all()
    assert after.index.recording.tolist() == [0]
    assert "records from recordings of unknown length: 1" in summary(card, tmp_path)


def test_an_index_written_before_there_were_recordings_opens(tmp_path):
    write_wfdb(tmp_path / "in", "a", twelve_lead_mv(seconds=20))
    build(folder_source(tmp_path / "in"), tmp_path / "out")
    path = tmp_path / "out" / "index" / "index.json"
    contents = json.loads(path.read_text())
    for name in ("recording", "recording_seconds", "start_seconds"):
        contents["columns"].remove(name)
        path.with_name(f"{name}.npy").unlink()
    path.write_text(json.dumps(contents))
    (tmp_path / "out" / "SHA256SUMS").unlink()  # Nor were there digests.
    dataset = open_dataset(tmp_path / "out")
    assert dataset.index.recording is None
    assert dict(count_facts(dataset_card(dataset, amplitudes={})))["seconds"].startswith("not known")
    assert record_lines(dataset, 0)[0].endswith("record a")


def long_wfdb(folder, *, minutes, fmt="16"):
    """Writes a recording that is held in its file, and returns its samples, `f64[time, 12]`."""
    signal = np.tile(twelve_lead_mv(seconds=60), (minutes, 1)) + np.repeat(np.arange(minutes), 30_000)[:, None] * 0.002
    signal[:, 2:6] = np.stack(
        [signal[:, 1] - signal[:, 0], -(signal[:, 0] + signal[:, 1]) / 2, signal[:, 0] - signal[:, 1] / 2,
         signal[:, 1] - signal[:, 0] / 2], axis=1)  # fmt: skip
    write_wfdb(folder, "a", signal)
    return signal


def test_a_long_wfdb_record_is_read_by_its_rows(tmp_path):
    signal = long_wfdb(tmp_path, minutes=3)
    assert signal.size > VALUES_AT_ONCE
    recording = read_wfdb(tmp_path / "a")
    assert not isinstance(recording.signal, np.ndarray)
    np.testing.assert_allclose(recording.signal, signal, atol=6e-4)
    np.testing.assert_array_equal(recording.signal[5:9, 1], np.asarray(recording.signal)[5:9, 1])
    np.testing.assert_array_equal((recording.signal * 3)[80_000:], 3 * recording.signal[80_000:])
    assert recording.signal[7:7].shape == (0, 12)
    # The last sample's bit is found by the header's checksum, though nobody looks at that part.
    data = bytearray((tmp_path / "a.dat").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.dat").write_bytes(data)
    (result,) = results_of(folder_source(tmp_path))
    assert result.reason == "header_disagrees"
    (tmp_path / "a.dat").write_bytes(data[:-1])
    (result,) = results_of(folder_source(tmp_path))
    assert result.reason == "truncated_file"


@pytest.mark.parametrize("is_cut", [False, True])
def test_memory_follows_what_is_kept_and_not_how_long_a_recording_is(tmp_path, monkeypatch, is_cut):
    signal = long_wfdb(tmp_path, minutes=2)
    monkeypatch.setattr(samples, "VALUES_AT_ONCE", 2**17)
    source = folder_source(tmp_path, RECIPE.changed(sampling_rate_hz=250))
    if is_cut:
        source = PiecedSource(source, num_workers=1)
    tracemalloc.start()
    stored = [len(result.signal) for result in source.reader()(source.items[:])]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(stored) == (12 if is_cut else 1)
    # As float64 it was held several times over.
    assert peak < signal.nbytes
