"""Staging leaves a whole packed copy or something to go on with, from a local data set, another disk or a bucket."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
from absl import flags

from data_pipelines import stage
from data_pipelines.errors import DataError
from data_pipelines.packing.local_copy import stage_dataset
from data_pipelines.packing.packed_copy import pack, packed_staging
from data_pipelines.packing.patient_order import shuffled_patients
from data_pipelines.physiology.definitions import BEATS
from data_pipelines.physiology.store import measure_dataset, open_physiology
from data_pipelines.prepared.dataset import CARD_FILE, QUARANTINE_FILE, REMARKS_FILE, open_dataset, staging_directory
from data_pipelines.storage.packed_format import PACKED_DIR
from data_pipelines.storage.store import open_store
from data_pipelines.system.digests import DIGESTS_FILE, files_of, write_digests
from data_pipelines.verify import verify_dataset
from tests.support.fixtures import RECORDS_A_PACKED_SHARD, flip_bit, make_simulated_dataset
from tests.support.user_errors import told

REPOSITORY = Path(__file__).parents[2]

SHARD_BYTES = RECORDS_A_PACKED_SHARD * 16_000


@pytest.fixture(scope="module")
def original(stored_dataset, tmp_path_factory):
    """A data set in several ArrayRecord shards, measured, with the signals as TFDS reads them."""
    dataset, signals = stored_dataset
    out = tmp_path_factory.mktemp("stage") / "simulated"
    shutil.copytree(dataset.directory, out, ignore=shutil.ignore_patterns(PACKED_DIR))
    measure_dataset(out, num_workers=1)
    return open_dataset(out), signals


@pytest.fixture
def copy(original, tmp_path):
    """A copy of the data set that a test may change."""
    dataset, _ = original
    return Path(shutil.copytree(dataset.directory, tmp_path / "copy"))


@pytest.fixture
def bucket(original):
    """URL of a bucket in memory that holds the data set, and the file system that it is in."""
    dataset, _ = original
    system = fsspec.filesystem("memory")
    root = f"/bucket-{uuid.uuid4().hex}"
    system.put(str(dataset.directory), root + "/ecgs", recursive=True)
    yield f"memory:/{root}/ecgs", system
    system.rm(root, recursive=True)


def assert_read(directory, signals):
    store = open_store(directory)
    assert store.kind == "packed"
    assert np.array_equal(store.read(np.arange(len(signals))), signals)


# Interruptions

_STALLING = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from data_pipelines.prepared.dataset import open_dataset
    from data_pipelines.packing.local_copy import stage_dataset
    from data_pipelines.packing.packed_copy import pack

    done = 0

    def stall(num_records):
        global done
        done += num_records
        if done > 80:  # in the third shard
            print("there", flush=True)
            time.sleep(60)

    if len(sys.argv) == 2:
        pack(open_dataset(sys.argv[1]), seed=SEED, shard_bytes=512_000, progress=stall)
    else:
        stage_dataset(sys.argv[1], Path(sys.argv[2]), shard_bytes=512_000, progress=stall)
""")


@pytest.fixture
def interrupt(monkeypatch):
    """Runs packing or staging in a process that is killed in the third shard; meanwhile a second one is refused."""

    def run(*arguments, second, seed=None):
        command = [sys.executable, "-c", _STALLING.replace("SEED", str(seed)), *map(str, arguments)]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE)
        try:
            assert process.stdout.readline() == b"there\n"
            with pytest.raises(DataError, match="another"):
                second()
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    return run


@pytest.mark.slow
def test_packing_that_is_killed_goes_on_behind_its_finished_shards(copy, original, interrupt):
    _, signals = original
    interrupt(copy, second=lambda: pack(open_dataset(copy)))
    making = packed_staging(copy) / PACKED_DIR
    assert not (copy / PACKED_DIR).exists()
    assert open_store(copy).kind == "array_record"
    kept = {path.name: path.stat().st_ino for path in making.glob("*.npy")}
    flip_bit(making / "00001.npy", 100_000)  # finished, but damaged since
    counts = []
    assert pack(open_dataset(copy), shard_bytes=SHARD_BYTES, progress=counts.append) is True
    assert sum(counts) == len(signals)
    inodes = {name: (copy / PACKED_DIR / name).stat().st_ino for name in kept}
    assert inodes["00000.npy"] == kept["00000.npy"]
    assert_read(copy, signals)
    assert not packed_staging(copy).exists()


@pytest.mark.slow
def test_shuffling_that_is_killed_goes_on_behind_what_it_has_noted(copy, original, interrupt):
    _, signals = original
    interrupt(copy, second=lambda: pack(open_dataset(copy), seed=3), seed=3)
    assert open_store(copy).kind == "array_record"
    counts = []
    assert pack(open_dataset(copy), seed=3, shard_bytes=SHARD_BYTES, progress=counts.append) is True
    assert counts[0] == 64
    assert sum(counts) == len(signals)
    assert_read(copy, signals)
    assert not packed_staging(copy).exists()


@pytest.mark.slow
def test_staging_that_is_killed_goes_on_and_brings_only_what_is_missing(bucket, original, tmp_path, interrupt):
    dataset, signals = original
    url, out = bucket[0], tmp_path / "local"
    # Buckets in memory are not shared between processes: the one that is killed stages from the disk.
    interrupt(dataset.directory, out, second=lambda: stage_dataset(url, out))
    staging = staging_directory(out)
    with pytest.raises(DataError, match=r"not finished .* run the same command again"):
        open_dataset(out)
    kept = (staging / "dataset" / PACKED_DIR / "00000.npy").stat().st_ino
    counts, num_bytes = [], []
    assert stage_dataset(url, out, shard_bytes=SHARD_BYTES, progress=counts.append, downloaded=num_bytes.append)
    assert sum(counts) == len(signals)
    lengths = np.cumsum(dataset.card["shard_lengths"])
    needed = [shard.stat().st_size for shard, stop in zip(dataset.shards, lengths, strict=True) if stop > 64]
    assert sum(num_bytes) == sum(needed) < sum(shard.stat().st_size for shard in dataset.shards)
    assert (out / PACKED_DIR / "00000.npy").stat().st_ino == kept
    assert_read(out, signals)
    assert not staging.exists()


def test_what_was_left_of_another_data_set_is_refused(bucket, original, tmp_path, interrupt):
    dataset, _ = original
    url, out = bucket[0], tmp_path / "local"
    interrupt(dataset.directory, out, second=lambda: stage_dataset(url, out))
    other = make_simulated_dataset(tmp_path, num_patients=5, seed=1, name="other")
    with pytest.raises(DataError, match=r"local.building: .*part of a copy of another data set .*remove .*building"):
        stage_dataset(str(other.directory), out)
    before = staging_directory(out) / "dataset" / PACKED_DIR
    into = packed_staging(other.directory) / PACKED_DIR
    shutil.copytree(before, into)
    with pytest.raises(DataError, match=r"packed.building: .*part of a copy of another data set .*remove .*building"):
        pack(other)


def rebuild_with_other_folds(directory):
    """Leaves signals and patients, and so the fingerprint, as they were."""
    card = json.loads((directory / CARD_FILE).read_text())
    (directory / CARD_FILE).write_text(json.dumps(card | {"build_id": "another"}))
    fold = np.load(directory / "index" / "fold.npy")
    np.save(directory / "index" / "fold.npy", fold[::-1].copy())
    write_digests(directory, files_of(directory, apart=(PACKED_DIR, BEATS.folder)))
    return fold[::-1]


def test_a_data_set_built_again_with_other_labels_is_not_mixed_with_what_was_left(copy, original, tmp_path, interrupt):
    out = tmp_path / "local"
    interrupt(original[0].directory, out, second=lambda: stage_dataset(str(copy), out))
    kept = (staging_directory(out) / "dataset" / PACKED_DIR / "00000.npy").stat().st_ino
    fold = rebuild_with_other_folds(copy)
    assert stage_dataset(str(copy), out, shard_bytes=SHARD_BYTES) is True
    assert np.array_equal(open_dataset(out).index.fold, fold)
    assert (out / PACKED_DIR / "00000.npy").stat().st_ino == kept
    assert_read(out, original[1])


def test_a_copy_of_an_earlier_build_does_not_pass_for_one_of_this(copy, tmp_path):
    out = tmp_path / "local"
    assert stage_dataset(str(copy), out) is True
    rebuild_with_other_folds(copy)
    with pytest.raises(DataError, match=r"local: .*copy was built again since this was copied; .* Remove .*local and"):
        stage_dataset(str(copy), out)
    assert not staging_directory(out).exists()


# From elsewhere


@pytest.mark.parametrize("where", ["memory", "file", "path"])
def test_staging_makes_a_whole_local_data_set_without_array_record_shards(bucket, original, tmp_path, where):
    dataset, signals = original
    url = {"memory": bucket[0], "file": f"file://{dataset.directory}", "path": str(dataset.directory)}[where]
    before = sorted(path.name for path in dataset.directory.rglob("*"))
    out, started, counts = tmp_path / "a" / "local", [], []
    assert stage_dataset(url, out, shard_bytes=SHARD_BYTES, started=started.append, progress=counts.append) is True
    assert [one.fingerprint for one in started] == [dataset.fingerprint]
    assert sum(counts) == len(signals)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [CARD_FILE, DIGESTS_FILE, QUARANTINE_FILE, REMARKS_FILE, "index", BEATS.folder, PACKED_DIR]
    )
    staged = open_dataset(out)
    assert (staged.card, staged.fingerprint) == (dataset.card, dataset.fingerprint)
    for folder in ("index", BEATS.folder):
        for path in (dataset.directory / folder).iterdir():
            assert (out / folder / path.name).read_bytes() == path.read_bytes()
    assert np.array_equal(open_physiology(staged).values, open_physiology(dataset).values, equal_nan=True)
    assert_read(out, signals)
    assert not staging_directory(out).exists()
    assert sorted(path.name for path in dataset.directory.rglob("*")) == before
    # Again: verified and left.
    assert stage_dataset(url, out) is False
    assert not staging_directory(out).exists()
    flip_bit(out / PACKED_DIR / "00001.npy", 5000)
    with pytest.raises(DataError, match=r"00001.npy: its contents have changed since it was made"):
        stage_dataset(url, out)


def test_a_data_set_without_physiology_is_staged_without(bucket, original, tmp_path):
    url, system = bucket
    system.rm(f"{url}/{BEATS.folder}", recursive=True)
    stage_dataset(url, tmp_path / "local")
    assert not (tmp_path / "local" / BEATS.folder).exists()
    assert_read(tmp_path / "local", original[1])


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_remote_shard_is_named(bucket, original, tmp_path, damage):
    dataset, signals = original
    url, system = bucket
    shard = f"{url}/{dataset.shards[1].name}"
    whole = system.cat_file(shard)
    if damage == "missing":
        system.rm(shard)
    else:
        at = len(whole) // 2
        flipped = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        system.pipe_file(shard, whole[:at] if damage == "truncated" else flipped)
    out = tmp_path / "local"
    with pytest.raises(DataError) as caught:
        stage_dataset(url, out, shard_bytes=SHARD_BYTES)
    assert str(caught.value).startswith(f"{shard}: ")
    assert not out.exists()
    assert not (staging_directory(out) / "downloading").exists()
    system.pipe_file(shard, whole)
    assert stage_dataset(url, out, shard_bytes=SHARD_BYTES) is True
    assert_read(out, signals)


def test_an_index_of_another_data_set_is_noticed(bucket, tmp_path):
    url, system = bucket
    name = f"{url}/index/content_hash.npy"
    content = system.cat_file(name)
    system.pipe_file(name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match="card and index do not belong together"):
        stage_dataset(url, tmp_path / "local")


def test_nothing_else_is_overwritten(bucket, original, tmp_path):
    url = bucket[0]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(DataError, match=r"full: exists and is not a prepared data set; choose another --out"):
        stage_dataset(url, tmp_path / "full")
    other = make_simulated_dataset(tmp_path, num_patients=3, seed=1, name="other")
    with pytest.raises(DataError, match=r"other: holds another data set than memory.*choose another --out, or remove"):
        stage_dataset(url, other.directory)
    assert open_dataset(other.directory).fingerprint == other.fingerprint
    assert not staging_directory(other.directory).exists()


def test_no_copy_is_made_inside_the_data_set(copy):
    with pytest.raises(DataError, match=r"copy/packed: lies in the data set .*elsewhere with --out, or leave it out"):
        stage_dataset(str(copy), copy / PACKED_DIR)
    assert not (copy / PACKED_DIR).exists()
    assert not packed_staging(copy).exists()


def test_a_staged_data_set_is_not_staged_on(copy, tmp_path):
    stage_dataset(str(copy), tmp_path / "local")
    with pytest.raises(DataError, match=r"local: is itself a copy without ArrayRecord shards.*; copy the whole dir"):
        stage_dataset(str(tmp_path / "local"), tmp_path / "further")


def test_a_disk_without_room_is_noticed_before_signals_are_brought(bucket, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    num_bytes = []
    with pytest.raises(DataError, match=r"GB more and 0.00 GB are free; make room"):
        stage_dataset(bucket[0], tmp_path / "local", downloaded=num_bytes.append)
    assert not num_bytes


# The command


def test_the_command_says_what_it_did(copy, tmp_path):
    command = [sys.executable, "-m", "data_pipelines.stage", f"--dataset={copy}", f"--out={tmp_path / 'local'}"]
    staged = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert staged.returncode == 0, staged.stderr
    assert staged.stdout.startswith(f"{tmp_path / 'local'}: ")
    assert staged.stdout.strip().endswith("GB, staged")


@pytest.fixture
def run(monkeypatch):
    """Runs the command in this process, with flags of its own."""

    def run(*arguments):
        own = flags.FlagValues()
        with monkeypatch.context() as patch:
            for name in ("DEFINE_string", "DEFINE_float", "DEFINE_boolean", "DEFINE_integer"):
                patch.setattr(flags, name, functools.partial(getattr(flags, name), flag_values=own))
            patch.setattr(flags, "FLAGS", own)
            stage.define_flags()
            own(["stage", *arguments])
            stage.main(["stage"])

    return run


def test_the_command_makes_the_packed_copy_of_a_local_data_set(copy, capsys, run):
    for state in ("staged", "staged already and whole, nothing to do"):
        run(f"--dataset={copy}")
        printed = capsys.readouterr().out
        assert printed.startswith(f"{copy / PACKED_DIR}: {open_dataset(copy).index.num_records} ECGs, ")
        assert printed.strip().endswith(f"GB, {state}")


def test_the_command_shuffles_the_patients_of_a_copy_and_says_so(copy, bucket, original, tmp_path, capsys, run):
    dataset, signals = original
    out = tmp_path / "local"
    order = shuffled_patients(dataset.index.patient, seed=3)
    for arguments, directory in (((f"--dataset={copy}",), copy), ((f"--dataset={bucket[0]}", f"--out={out}"), out)):
        for state in ("staged", "staged already and whole, nothing to do"):
            run(*arguments, "--shuffle_patients", "--seed=3")
            assert capsys.readouterr().out.strip().endswith(f"GB, patients shuffled by seed 3, {state}")
        assert_read(directory, signals)
        np.testing.assert_array_equal(open_store(directory).in_stored_order(np.arange(len(signals))), order)
        verdict = verify_dataset(directory)
        assert (verdict.damaged, verdict.missing, verdict.extra, verdict.remarks) == ((), (), (), ())
    with told(
        capsys, "local/packed: is a copy with patients shuffled by seed 3, and one in the order of record numbers"
    ):
        run(f"--dataset={bucket[0]}", f"--out={out}")
    assert stage_dataset(bucket[0], out, any_order=True) is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=nowhere", "--seed=1"], "error: --seed=1 is the seed of --shuffle_patients; give both, or neither"),
        (["--dataset=nowhere"], "error: nowhere: no such directory"),
        (
            ["--dataset=gs://bucket/x"],
            "error: --dataset=gs://bucket/x: name a local directory for its copy with --out=DIR",
        ),
        (["--dataset=nowhere", "--out=gs://bucket/x"], "error: --out=gs://bucket/x: a copy is made in a directory"),
    ],
)
def test_errors_of_the_command_are_one_line(arguments, message, run, capsys):
    with told(capsys, message):
        run(*arguments)
