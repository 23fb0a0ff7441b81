"""What no reader foresaw costs one recording and is told with its file, as is what a worker read that died."""

import dataclasses
import errno
import multiprocessing
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.builders.base import ItemReader, Quarantined, SourceCard
from data_pipelines.builders.reading_notes import last_noted, note, noting
from data_pipelines.builders.unforeseen import RAISE_VARIABLE
from data_pipelines.errors import DataError, RecordError
from data_pipelines.records import EcgRecord, LabelSchema
from data_pipelines.shards import plan
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.shards.making import LocalProcesses
from data_pipelines.signals.recipe import RECIPES

RECIPE = RECIPES["plain"].changed(sampling_rate_hz=100, seconds=1.0)


@dataclasses.dataclass(frozen=True)
class Item:
    record_id: str
    path: Path
    raises: Exception | str | None = None


def read(item):
    if isinstance(item.raises, Exception):
        raise item.raises
    if item.raises == "dies" and multiprocessing.parent_process():
        os.kill(os.getpid(), signal.SIGKILL)
    generator = np.random.default_rng(int(item.record_id))
    return EcgRecord(
        record_id=item.record_id,
        patient_id=item.record_id,
        signal=generator.integers(-900, 900, RECIPE.signal_format.shape).astype(np.int16),
        valid_start=0,
        valid_samples=RECIPE.signal_format.num_samples,
    )


def items(count, **raising):
    return [Item(str(n), Path(f"/d/{n}.csv"), raising.get(f"n{n}")) for n in range(count)]


class Source:
    card = SourceCard(name="made_up", description="Noise.", simulated=True)
    recipe = RECIPE
    signal_format = RECIPE.signal_format
    label_schema = LabelSchema()

    def __init__(self, items):
        self.items = items

    def reader(self):
        return ItemReader(read)


def build(items, out, **changes):
    return build_dataset(lambda: Source(items), out, request={"builder": "made_up"}, **changes)


@pytest.fixture
def as_users_have_it(monkeypatch):
    monkeypatch.delenv(RAISE_VARIABLE)


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (
            ZeroDivisionError("by\x1b[0m zero"),
            "reader_error",
            r"ZeroDivisionError: by\\x1b\[0m zero \(test_unfor.*report",
        ),
        (RecursionError("too deep"), "reader_error", r"RecursionError: too deep"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "reader_error", r"UnicodeDecodeError"),
        (AssertionError(), "reader_error", r"AssertionError"),
        (MemoryError(), "too_large", r"takes more memory than there is"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/d/1.csv"),
            "unreadable_file",
            r"Permission denied\).*permissi",
        ),
        (
            IsADirectoryError(errno.EISDIR, "Is a directory", "/d/1.dat"),
            "unreadable_file",
            r"Is a directory of /d/1.dat",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "/d/1.csv"), "unreadable_file", r"No such file"),
        (OSError(errno.EIO, "Input/output error"), "unreadable_file", r"Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), "unreadable_file", r"Stale file handle"),
        (RecordError("/d/1.csv: flat", reason="flat_lead"), "flat_lead", r"flat"),
    ],
)
@pytest.mark.usefixtures("as_users_have_it")
def test_an_error_of_one_recording_quarantines_it_with_its_file(error, reason, said):
    results = list(ItemReader(read)(items(3, n1=error)))
    assert [type(result) for result in results] == [EcgRecord, Quarantined, EcgRecord]
    assert (results[1].record_id, results[1].reason) == ("1", reason)
    assert results[1].message.startswith("/d/1.csv: ")
    assert re.search(said, results[1].message), results[1].message


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EDQUOT])
@pytest.mark.usefixtures("as_users_have_it")
def test_a_fault_of_the_machine_is_not_a_recordings(code):
    with pytest.raises(OSError, match="full"):
        list(ItemReader(read)(items(3, n1=OSError(code, "full"))))


@pytest.mark.usefixtures("as_users_have_it")
def test_an_error_of_the_data_set_ends_the_build():
    with pytest.raises(DataError, match="shard is damaged"):
        list(ItemReader(read)(items(3, n1=DataError("shard is damaged"))))


def test_in_tests_a_fault_of_ours_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(ItemReader(read)(items(3, n1=ZeroDivisionError())))


@pytest.mark.usefixtures("as_users_have_it")
def test_a_build_goes_on_and_lists_what_failed(tmp_path):
    card = build(items(4, n2=KeyError("=cmd()\nx")), tmp_path / "out")
    assert card["summary"]["quarantined"] == {"reader_error": 1}
    text = (tmp_path / "out" / "quarantine.csv").read_text()
    assert text.count("\n") == 2
    assert '2,reader_error,"/d/2.csv: the reader failed with KeyError: ' in text


def test_a_cell_of_the_quarantine_list_is_no_formula(tmp_path):
    odd = dataclasses.replace(items(2)[1], record_id="=1+2", raises=RecordError("@x\n\x1b[31m", reason="nan"))
    build([items(1)[0], odd], tmp_path / "out")
    lines = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()
    assert lines[1:] == [r"'=1+2,nan,'@x\n\x1b[31m"]


def test_a_worker_that_dies_names_the_file_that_it_was_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 2**18)
    dying = items(400, n250="dies")
    with pytest.raises(DataError, match=r"^/d/250\.csv: a worker process died \(killed, as the system does") as caught:
        build(dying, tmp_path / "out", make_shards=LocalProcesses(2))
    assert "move the file out of the folder and report it" in str(caught.value)


def test_notes_outlive_their_process_alone(tmp_path):
    with noting(tmp_path):
        note("first, with a long name")
        note("second")
        assert last_noted(tmp_path, [os.getpid()]) == ["second"]
        assert last_noted(tmp_path, [1]) == []
    assert list(tmp_path.iterdir()) == []
    note("outside of a build, nothing is kept")
