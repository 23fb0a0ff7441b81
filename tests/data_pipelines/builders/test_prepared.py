"""A prepared data set taken through another recipe: the signals change as the recipe says, and nothing else."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipelines.builders.base import SourceCard
from data_pipelines.builders.prepared import PreparedSource
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset
from data_pipelines.prepared.joint import join
from data_pipelines.recording import Recording
from data_pipelines.records import STORED_LEADS, EcgRecord, LabelSchema
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.conversion import stored_signal
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.storage.store import open_store
from tests.support.fixtures import flip_bit, make_simulated_dataset, stored_examples, twelve_lead_mv

ROOT = Path(__file__).parents[3]
PADDED = RECIPES["plain"].changed(sampling_rate_hz=500, seconds=8.0, pad="both", min_seconds=2.0)


@dataclasses.dataclass(frozen=True)
class MadeUpReader:
    """Records of 2 to 8 s, padded at both ends, with everything that a record can have."""

    def __call__(self, items: Sequence[int]) -> Iterator[EcgRecord]:
        for number in items:
            signal_mv = twelve_lead_mv(seconds=2 + number % 7, seed=number)
            recording = Recording(
                source="made up", signal=signal_mv, sampling_rate_hz=500.0, units=("mV",) * 12,
                channels=("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"),
            )  # fmt: skip
            stored = stored_signal(recording, recipe=PADDED)
            yield EcgRecord(
                record_id=f"r{number:02d}", patient_id=f"p{number // 2}", signal=stored.signal,
                valid_start=stored.valid_start, valid_samples=stored.valid_samples, age_years=40.5 + number,
                sex=number % 3 - 1, fold=number % 4 - 1, report=f"EKG Nr. {number}: Sinusrhythmus, gehörig",
                scalars={"lvef": float("nan") if number % 5 == 0 else 50.0 + number},
                tasks={"rhythm": np.array([number % 2, -(number % 3 == 0)], np.int8)},
            )  # fmt: skip


class MadeUpSource:
    """What `MadeUpReader` makes, as a source."""

    recipe, signal_format = PADDED, PADDED.signal_format
    label_schema = LabelSchema(scalars=("lvef",), tasks={"rhythm": ("SR", "AF")}, units={"lvef": "%"})
    items = range(21)
    card = SourceCard(
        name="made_up", description="Made up.", simulated=True, citation="Nobody, 2024", license="CC0",
        notes=("nobody was recorded",),
    )  # fmt: skip

    def reader(self):
        return MadeUpReader()


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "made_up"
    build_dataset(MadeUpSource, out, request={"builder": "made_up"})
    return open_dataset(out)


def convert(origin, out, recipe):
    build_dataset(lambda: PreparedSource(origin.directory, recipe=recipe), out, request={"builder": "prepared"})
    return open_dataset(out)


def test_signals_change_as_the_recipe_says_and_nothing_else(origin, tmp_path):
    recipe = RECIPES["monitor"].changed(sampling_rate_hz=250, seconds=6.0, min_seconds=3.0)
    converted = convert(origin, tmp_path / "converted", recipe)
    # Records 0, 7 and 14 have 2 s.
    kept = np.setdiff1d(np.arange(21), [0, 7, 14])
    assert (tmp_path / "converted" / "quarantine.csv").read_text().count("too_short") == 3
    before, after = origin.index, converted.index
    for name in ("record_id", "patient_id", "fold", "sex", "age_years"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[kept])
    np.testing.assert_array_equal(after.label("lvef"), before.label("lvef")[kept])
    assert after.tasks["rhythm"].classes == ("SR", "AF")
    np.testing.assert_array_equal(after.tasks["rhythm"].values, before.tasks["rhythm"].values[kept])
    reports = [[stored["report"].decode() for stored in stored_examples(of.directory)] for of in (origin, converted)]
    assert reports[1] == [reports[0][number] for number in kept]
    assert reports[1][0] == "EKG Nr. 1: Sinusrhythmus, gehörig"
    stored = open_store(origin.directory).read(kept)
    signals = open_store(converted.directory).read(np.arange(len(kept)))
    for number, signal, found in zip(kept, stored, signals, strict=True):
        start, count = before.valid_start[number], before.valid_samples[number]
        assert count == 500 * (2 + number % 7)
        recording = Recording(
            source="", signal=signal[start : start + count] / 1000, sampling_rate_hz=500.0, channels=STORED_LEADS,
            units=("mV",) * 8,
        )  # fmt: skip
        expected = stored_signal(recording, recipe=recipe)
        assert np.abs(found.astype(int) - expected.signal).max() <= 1, "a µV is a thousandth of a mV but for rounding"
        position = np.flatnonzero(kept == number)[0]
        assert (after.valid_start[position], after.valid_samples[position]) == (
            expected.valid_start,
            expected.valid_samples,
        )


def test_the_card_names_both_recipes_and_the_origin(origin, tmp_path):
    converted = convert(origin, tmp_path / "converted", RECIPES["plain"].changed(min_seconds=2.0))
    card = converted.card
    assert (card["name"], card["simulated"], card["citation"], card["license"]) == (
        "made_up", True, "Nobody, 2024", "CC0",
    )  # fmt: skip
    assert card["scalars"] == {"lvef": {"unit": "%"}}
    assert card["recipe"]["name"] == f"plain(min_seconds=2.0) after {PADDED.name}"
    assert card["signal_format"] == {"sampling_rate_hz": 250, "num_samples": 2500}
    first, note = card["summary"]["notes"]
    assert first == "nobody was recorded"
    assert origin.fingerprint in note
    assert "4000 samples at 500 Hz" in note
    assert note in card["description"]


def test_a_recipe_that_changes_nothing_gives_the_same_contents(origin, tmp_path):
    converted = convert(origin, tmp_path / "converted", PADDED)
    assert converted.fingerprint == origin.fingerprint


def test_a_converted_data_set_can_be_joined(tmp_path):
    one, other = (
        make_simulated_dataset(tmp_path, num_patients=4, rate=rate, seconds=5, seed=rate, name=f"at{rate}")
        for rate in (50, 100)
    )
    with pytest.raises(DataError, match=r"--source=.*at100 --target_rate_hz=50 --seconds=5 --out=DIR"):
        join([one, other])
    out = tmp_path / "converted"
    command = [
        sys.executable, "-m", "data_pipelines.build", "--builder=prepared", f"--source={other.directory}",
        "--target_rate_hz=50", "--seconds=5", f"--out={out}", "--num_workers=1",
    ]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert "SIMULATED" in run.stdout
    converted = open_dataset(out)
    assert converted.index.num_records == other.index.num_records
    assert join([one, converted]).format == one.format
    assert json.loads((out / CARD_FILE).read_text())["request"]["source_fingerprint"] == other.fingerprint


def test_what_cannot_be_converted_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such directory"):
        PreparedSource(tmp_path / "nowhere", recipe=RECIPES["plain"])
    dataset = make_simulated_dataset(tmp_path, num_patients=3, rate=50, seconds=5)
    (shard,) = dataset.shards
    flip_bit(shard, 3000)
    source = PreparedSource(dataset.directory, recipe=RECIPES["plain"])
    with pytest.raises(DataError, match=f"{shard.name}: .*damaged"):
        list(source.reader()(source.items))
    shard.unlink()
    with pytest.raises(DataError, match=f"{shard.name}: this shard is missing"):
        PreparedSource(dataset.directory, recipe=RECIPES["plain"])


def test_a_record_that_is_none_is_told_with_its_shard(tmp_path):
    dataset = make_simulated_dataset(tmp_path, num_patients=3, rate=50, seconds=5)
    (shard,) = dataset.shards
    source = PreparedSource(dataset.directory, recipe=RECIPES["plain"])
    shard.unlink()
    writer = ArrayRecordWriter(str(shard), "group_size:1,uncompressed")
    for _ in range(dataset.index.num_records):
        writer.write(b"no record")
    writer.close()
    with pytest.raises(DataError, match=f"{shard.name}: record 0 is no record of this data set"):
        list(source.reader()(source.items))


def test_records_come_in_any_order_asked_for(origin):
    reader = PreparedSource(origin.directory, recipe=PADDED).reader()
    numbers = [3, 4, 5, 2, 20, 3]
    assert [record.record_id for record in reader(numbers)] == [f"r{number:02d}" for number in numbers]
