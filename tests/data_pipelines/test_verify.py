"""Every file of a prepared data set has a digest; what was changed, lost or added since is named."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.packing.local_copy import stage_dataset
from data_pipelines.packing.packed_copy import pack
from data_pipelines.physiology.definitions import BEATS
from data_pipelines.physiology.store import PHYSIOLOGY_FILE
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset
from data_pipelines.storage.stored_order import ORDER_FILE
from data_pipelines.system.digests import DIGESTS_FILE, read_digests, write_digests
from data_pipelines.verify import verify_dataset
from tests.support.fixtures import flip_bit

REPOSITORY = Path(__file__).parents[2]


def names_of(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_every_file_of_a_build_has_the_digest_that_sha256sum_gives(stored_dataset):
    directory = stored_dataset[0].directory
    files = [name for name in names_of(directory) if name != DIGESTS_FILE and not name.startswith("packed/")]
    expected = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in files}
    assert read_digests(directory) == expected
    assert {CARD_FILE, "index/fold.npy", "quarantine.csv"} <= set(expected)


def test_a_whole_data_set_is_whole(stored_copy):
    verdict = verify_dataset(stored_copy)
    assert (verdict.damaged, verdict.missing, verdict.extra, verdict.remarks) == ((), (), (), ())
    # All but the digests themselves, of the data set and of its packed copy.
    assert verdict.checked == len(names_of(stored_copy)) - 2


def test_what_was_changed_lost_or_added_is_named(stored_copy):
    shard = open_dataset(stored_copy).shards[1]
    for path in (shard, stored_copy / "index" / "sex.npy", stored_copy / "packed" / "00002.npy"):
        flip_bit(path, path.stat().st_size - 1)
    (stored_copy / "index" / "patient.npy").unlink()
    (stored_copy / "packed" / "00001.npy").unlink()
    (stored_copy / "notes.txt").write_text("mine")
    (stored_copy / "packed" / "00009.npy").write_bytes(b"")
    verdict = verify_dataset(stored_copy)
    assert set(verdict.damaged) == {shard.name, "index/sex.npy", "packed/00002.npy"}
    assert set(verdict.missing) == {"index/patient.npy", "packed/00001.npy"}
    assert set(verdict.extra) == {"notes.txt", "packed/00009.npy"}


def test_the_order_of_a_shuffled_copy_is_verified_too(stored_copy):
    shutil.rmtree(stored_copy / "packed")
    pack(open_dataset(stored_copy), seed=1)
    verdict = verify_dataset(stored_copy)
    assert (verdict.damaged, verdict.missing, verdict.extra, verdict.remarks) == ((), (), (), ())
    assert verdict.checked == len(names_of(stored_copy)) - 2
    flip_bit(stored_copy / "packed" / ORDER_FILE, 300)
    assert verify_dataset(stored_copy).damaged == (f"packed/{ORDER_FILE}",)
    (stored_copy / "packed" / DIGESTS_FILE).unlink()
    assert verify_dataset(stored_copy).missing == (f"packed/{DIGESTS_FILE}",)


def test_labels_that_were_changed_are_found_though_their_file_looks_whole(stored_copy):
    fold = np.load(stored_copy / "index" / "fold.npy")
    np.save(stored_copy / "index" / "fold.npy", fold[::-1].copy())
    assert verify_dataset(stored_copy).damaged == ("index/fold.npy",)


@pytest.mark.parametrize("name", [CARD_FILE, "index/index.json"])
def test_opening_tells_of_a_card_or_index_that_was_changed(stored_copy, name):
    contents = json.loads((stored_copy / name).read_text())
    (stored_copy / name).write_text(json.dumps(contents))
    with pytest.raises(DataError, match=rf"{name}: is not what was written .*python -m data_pipelines\.verify"):
        open_dataset(stored_copy)


def test_a_data_set_without_digests_opens_and_is_checked_by_its_contents(stored_copy):
    for folder in (stored_copy, stored_copy / "packed"):
        (folder / DIGESTS_FILE).unlink()
    open_dataset(stored_copy)
    verdict = verify_dataset(stored_copy)
    assert verdict.is_whole
    assert "built before data sets had digests" in verdict.remarks[0]
    assert "0 differ" in verdict.remarks[1]
    patients = np.load(stored_copy / "index" / "patient_id.npy")
    np.save(stored_copy / "index" / "patient_id.npy", patients[::-1].copy())
    assert verify_dataset(stored_copy).damaged == ("index",)


def test_a_staged_copy_has_digests_of_what_it_has(stored_copy, tmp_path):
    stage_dataset(str(stored_copy), tmp_path / "local")
    verdict = verify_dataset(tmp_path / "local")
    assert (verdict.damaged, verdict.missing, verdict.extra) == ((), (), ())
    assert verdict.checked == len(names_of(tmp_path / "local")) - 2


@pytest.mark.parametrize("name", ["index/fold.npy", "quarantine.csv", CARD_FILE])
def test_staging_does_not_copy_what_is_damaged(stored_copy, tmp_path, name):
    path = stored_copy / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(DataError, match=rf"{name}: is not what was written"):
        stage_dataset(str(stored_copy), tmp_path / "local")
    assert not (tmp_path / "local").exists()


def test_physiology_has_digests_of_its_own(stored_copy):
    folder = stored_copy / BEATS.folder
    folder.mkdir()
    for name in ("values.npy", "reasons.npy", PHYSIOLOGY_FILE):
        (folder / name).write_text(name)
    write_digests(folder, ["values.npy", "reasons.npy", PHYSIOLOGY_FILE])
    assert verify_dataset(stored_copy).is_whole
    (folder / "reasons.npy").write_text("other")
    assert verify_dataset(stored_copy).damaged == ("physiology/reasons.npy",)


@pytest.mark.parametrize("line", ["nonsense", "0" * 64 + "  ../x", "0" * 64 + "  /etc/passwd", "0" * 64 + "  a/b/c"])
def test_digests_that_name_other_folders_are_refused(stored_copy, line):
    (stored_copy / DIGESTS_FILE).write_text(f"{line}\n")
    with pytest.raises(DataError, match=DIGESTS_FILE):
        verify_dataset(stored_copy)


def test_the_command_tells_and_fails(stored_copy):
    command = [sys.executable, "-m", "data_pipelines.verify", f"--dataset={stored_copy}"]
    flip_bit(stored_copy / "index" / "group.npy", 200)
    (stored_copy / "\x1b[31mred").write_text("")
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "damaged         index/group.npy" in done.stdout
    assert "not part of it  \\x1b[31mred" in done.stdout
    assert "\x1b" not in done.stdout
