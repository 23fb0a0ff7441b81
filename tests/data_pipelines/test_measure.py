"""Physiology measured and stored per record: whole or not at all, resumable, refused when stale."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.builders.simulated import SimulatedSource
from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from data_pipelines.physiology.definitions import BEATS, DEFINITIONS, MEDIAN_BEAT
from data_pipelines.physiology.store import (
    PHYSIOLOGY_FILE,
    measure_dataset,
    open_physiology,
    physiology_staging,
)
from data_pipelines.physiology.vector import NAMES, PHYSIOLOGY_VERSION, UNITS, UNUSABLE, Missing, measure_record
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import SignalFormat
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.storage.store import open_store
from data_pipelines.verify import verify_dataset
from tests.support.fixtures import make_simulated_dataset

REPOSITORY = Path(__file__).parents[2]
RATE = 100


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A measured data set of some twenty records."""
    dataset = make_simulated_dataset(tmp_path_factory.mktemp("measured"), num_patients=9, rate=RATE)
    assert measure_dataset(dataset.directory, num_workers=1, records_per_chunk=8) is True
    assert dataset.index.num_records > 16
    return dataset


@pytest.fixture
def copy(original, tmp_path):
    """The same data set, not measured yet."""
    directory = tmp_path / "copy"
    shutil.copytree(original.directory, directory, ignore=shutil.ignore_patterns(BEATS.folder))
    return directory


def _bytes(directory):
    return {path.name: path.read_bytes() for path in (directory / BEATS.folder).iterdir()}


def test_every_record_has_its_own_measurements(original):
    physiology = open_physiology(original)
    signals = open_store(original.directory).read(np.arange(original.index.num_records))
    for record, stored in enumerate(signals):
        values, reasons = measure_record(stored, sampling_rate_hz=RATE)
        np.testing.assert_array_equal(physiology.values[record], values)
        assert physiology.reasons[record] == reasons
    assert physiology.names == NAMES
    assert physiology.units == tuple(UNITS.values())
    assert physiology.values.dtype == np.float32
    assert isinstance(physiology.values, np.memmap)
    assert not np.any(physiology.reasons & int(UNUSABLE))
    assert len(np.unique(physiology.values[:, 0])) > 10


def test_the_card_counts_what_is_missing(original):
    physiology = open_physiology(original)
    card = json.loads((original.directory / BEATS.folder / PHYSIOLOGY_FILE).read_text())
    assert card["version"] == PHYSIOLOGY_VERSION
    assert card["fingerprint"] == original.fingerprint
    assert card["num_records"] == original.index.num_records
    assert card["missing"] == dict(zip(NAMES, np.isnan(physiology.values).sum(axis=0).tolist(), strict=True))
    assert card["missing"]["rr_10"] > 0
    assert card["reasons"]["fewer_than_ten"] == np.count_nonzero(physiology.reasons & Missing.FEWER_THAN_TEN) > 0
    assert card["num_unusable"] == 0
    assert "neurokit2" in card["written_with"]


class _OddSource(SimulatedSource):
    """Records padded at both ends, and one that is flat."""

    def reader(self):
        return functools.partial(_odd_records, super().reader())


def _odd_records(reader, items):
    for number, record in zip(items, reader(items), strict=True):
        stored = record.signal.copy()
        stored[:150], stored[-250:] = 0, 0
        if number == 1:
            stored[150:-250] = 7
        yield dataclasses.replace(record, signal=stored, valid_start=150, valid_samples=len(stored) - 400)


def test_padding_is_not_measured_and_odd_records_have_their_reason(tmp_path):
    form = SignalFormat(sampling_rate_hz=RATE, num_samples=1000)
    build_dataset(lambda: _OddSource(num_patients=2, seed=1, signal_format=form), tmp_path / "set", request={})
    measure_dataset(tmp_path / "set", num_workers=1)
    physiology = open_physiology(open_dataset(tmp_path / "set"))
    stored = open_store(tmp_path / "set").read(np.array([0]))[0]
    recorded, _ = measure_record(stored[150:-250], sampling_rate_hz=RATE)
    np.testing.assert_array_equal(physiology.values[0], recorded)
    assert not np.array_equal(measure_record(stored, sampling_rate_hz=RATE)[0], recorded, equal_nan=True)
    assert np.isnan(physiology.values[1]).all()
    assert physiology.reasons[1] == Missing.FLAT_LEAD
    assert (physiology.reasons[:2] & int(UNUSABLE) == 0).tolist() == [True, False]
    assert physiology.card["num_unusable"] == 1


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_ends_with_the_same_bytes(copy, original):
    script = textwrap.dedent("""
        import sys, time
        from data_pipelines.physiology.store import measure_dataset

        done = 0

        def stall(num_records):
            global done
            done += num_records
            if done > 8:  # The first chunk is kept, the second is being measured.
                print("measured", flush=True)
                time.sleep(60)

        measure_dataset(sys.argv[1], num_workers=1, progress=stall, records_per_chunk=8)
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(copy)], cwd=REPOSITORY, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"measured\n"
        with pytest.raises(DataError, match="another"):
            measure_dataset(copy, num_workers=1, records_per_chunk=8)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    dataset = open_dataset(copy)
    with pytest.raises(DataError, match=r"not finished; run python -m data_pipelines.measure"):
        open_physiology(dataset)
    kept = {path: path.stat().st_mtime_ns for path in physiology_staging(copy).glob("chunk-*.npz")}
    assert len(kept) == 1
    told = []
    unchanged = []

    def progress(num_records):
        told.append(num_records)
        unchanged.append(all(path.stat().st_mtime_ns == time for path, time in kept.items()))

    assert measure_dataset(copy, num_workers=2, progress=progress, records_per_chunk=8) is True
    assert all(unchanged)
    assert told[0] == 8
    assert sum(told) == dataset.index.num_records
    assert _bytes(copy) == _bytes(original.directory)
    assert not physiology_staging(copy).exists()
    assert measure_dataset(copy, num_workers=1) is False


def test_the_chunk_size_changes_nothing(copy, original):
    measure_dataset(copy, num_workers=1)
    assert _bytes(copy) == _bytes(original.directory)


def _interrupted(copy):
    """Stops measuring after the first chunk was kept."""

    class StopError(Exception):
        pass

    done = []

    def stop(num_records):
        done.append(num_records)
        if sum(done) > 8:
            raise StopError

    with pytest.raises(StopError):
        measure_dataset(copy, num_workers=1, progress=stop, records_per_chunk=8)
    (chunk,) = physiology_staging(copy).glob("chunk-*.npz")
    return chunk


def test_a_damaged_chunk_is_measured_again(copy, original):
    chunk = _interrupted(copy)
    chunk.write_bytes(chunk.read_bytes()[:-100])
    measure_dataset(copy, num_workers=1, records_per_chunk=8)
    assert _bytes(copy) == _bytes(original.directory)


@pytest.mark.parametrize("field", ["fingerprint", "version"])
def test_leftovers_of_another_request_are_not_used(copy, original, field):
    chunk = _interrupted(copy)
    with np.load(chunk) as kept:
        poisoned = {"values": kept["values"] + 1, "reasons": kept["reasons"]}
    np.savez(chunk, **poisoned)
    path = physiology_staging(copy) / "request.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: "another"}))
    measure_dataset(copy, num_workers=1, records_per_chunk=8)
    assert _bytes(copy) == _bytes(original.directory)


def test_not_measured_says_what_to_run(copy):
    with pytest.raises(DataError, match=r"was not measured; run python -m data_pipelines.measure --dataset="):
        open_physiology(open_dataset(copy))


def _change_card(directory, **changes):
    path = directory / BEATS.folder / PHYSIOLOGY_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_stale_and_damaged_measurements_are_refused_with_a_remedy(copy, original):
    shutil.copytree(original.directory / BEATS.folder, copy / BEATS.folder)
    dataset = open_dataset(copy)
    open_physiology(dataset)
    remedy = "remove it and measure again"
    _change_card(copy, fingerprint="0" * 64)
    with pytest.raises(DataError, match=f"stale.*{remedy}"):
        open_physiology(dataset)
    with pytest.raises(DataError, match=f"stale.*{remedy}"):
        measure_dataset(copy, num_workers=1)
    _change_card(copy, fingerprint=dataset.fingerprint)
    newer = dataclasses.replace(BEATS, version=PHYSIOLOGY_VERSION + 1)
    with pytest.raises(DataError, match=f"version {PHYSIOLOGY_VERSION} of the definition.*{remedy}"):
        open_physiology(dataset, newer)
    values = copy / BEATS.folder / "values.npy"
    whole = values.read_bytes()
    values.write_bytes(whole[:-1000])
    with pytest.raises(DataError, match=f"damaged.*{remedy}"):
        open_physiology(dataset)
    np.save(values, np.zeros((3, len(NAMES)), np.float32))
    with pytest.raises(DataError, match=f"values.npy: holds float32.*{remedy}"):
        open_physiology(dataset)
    values.write_bytes(whole)
    open_physiology(dataset)
    values.unlink()
    with pytest.raises(DataError, match=f"damaged.*{remedy}"):
        open_physiology(dataset)


def test_both_forms_lie_side_by_side(copy, original):
    with pytest.raises(DataError, match=r"its median beat was not measured; run .* --on=median_beat$"):
        open_physiology(open_dataset(copy), MEDIAN_BEAT)
    assert measure_dataset(copy, num_workers=1, definition=MEDIAN_BEAT)
    assert not measure_dataset(copy, num_workers=1, definition=MEDIAN_BEAT)
    dataset = open_dataset(copy)
    found = open_physiology(dataset, MEDIAN_BEAT)
    assert (found.names, found.values.shape) == (median_beat.NAMES, (dataset.index.num_records, 52))
    signals = open_store(copy).read(np.arange(dataset.index.num_records))
    expected = median_beat.measure(signals, sampling_rate_hz=RATE, processes=1, progress=False)
    np.testing.assert_array_equal(found.values, expected.values)
    counted = {name: count for name, count in found.card["reasons"].items() if count}
    assert counted == expected.failures
    with pytest.raises(DataError, match="its physiology was not measured"):
        open_physiology(dataset)
    shutil.copytree(original.directory / BEATS.folder, copy / BEATS.folder)
    assert open_physiology(dataset).names == NAMES
    verdict = verify_dataset(copy)
    assert not verdict.damaged + verdict.missing + verdict.extra


def test_a_flat_record_has_no_median_beat_and_its_reason():
    values, reasons = MEDIAN_BEAT.measure(np.full((1000, 8), 7, np.int16), sampling_rate_hz=RATE)
    assert np.isnan(values).all()
    assert reasons == MEDIAN_BEAT.reasons["flat_lead"]
    assert reasons & MEDIAN_BEAT.unusable


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=lambda each: each.name)
def test_reasons_are_bits_of_their_own(definition):
    bits = list(definition.reasons.values())
    assert sum(bits) == np.bitwise_or.reduce(bits) == 2 ** len(bits) - 1


@pytest.mark.slow
def test_the_command_says_what_it_did(copy, original):
    command = [sys.executable, "-m", "data_pipelines.measure", f"--dataset={copy}", "--num_workers=1"]
    first = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert f"{original.index.num_records} ECGs, measured\n" in first.stdout
    assert "without a vector    0 of" in first.stdout
    assert "fewer_than_ten" in first.stdout
    assert "Warning" not in first.stderr
    assert _bytes(copy) == _bytes(original.directory)
    missing = subprocess.run([*command[:-2], "--dataset=nowhere"], cwd=REPOSITORY, capture_output=True, text=True)
    assert missing.returncode == 2
    assert "error: nowhere: no such directory" in missing.stderr
    assert "Traceback" not in missing.stderr
