"""A data set in a bucket is read from a local copy, which is made once, checked, and never half there."""

import fcntl
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.buckets.addresses import below
from data_pipelines.buckets.timed_task import Task
from data_pipelines.errors import DataError
from data_pipelines.packing import bucket_copy
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.packing.local_copy import stage_dataset
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset
from data_pipelines.storage.packed_format import PACKED_DIR
from data_pipelines.storage.store import open_store
from ecgjax.data.bucket_data import bring_data
from ecgjax.data.recordings import open_recordings
from ecgjax.data.settings import DataSettings
from tests.support import object_stores


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / "cache"))
    bucket_copy._copied.cache_clear()
    yield tmp_path / "cache"
    bucket_copy._copied.cache_clear()


@pytest.fixture(scope="module")
def shards(stored_dataset, tmp_path_factory):
    """The data set as a build makes it, without its packed copy."""
    dataset, signals = stored_dataset
    out = tmp_path_factory.mktemp("built") / "ecgs"
    shutil.copytree(dataset.directory, out, ignore=shutil.ignore_patterns(PACKED_DIR))
    return out, signals


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_recordings_of_a_bucket_are_those_of_the_folder(scheme, shards, cache, capfd):
    folder, signals = shards
    with object_stores.store(scheme) as bucket:
        object_stores.put(folder, f"{bucket}/ecgs")
        data = DataSettings(dir=f"{bucket}/ecgs")
        bring_data(data, limit_s=1)
        recordings = open_recordings(data)
    assert recordings.fingerprints == (open_dataset(folder).fingerprint,)
    assert np.array_equal(recordings.store.read(np.arange(len(signals))), signals)
    assert recordings.store.kind == "packed"
    assert capfd.readouterr().err.count("read from its copy") == 1
    # The copy serves the next process too, which asks the bucket for the card alone.
    made = (cache / "data").rglob("*.npy")
    assert len({path.stat().st_ino for path in made}) > 1


def test_a_copy_that_is_whole_is_not_made_again_and_another_data_set_is_not_taken_for_it(shards, cache):
    folder, _ = shards
    with object_stores.store("gs") as bucket:
        object_stores.put(folder, f"{bucket}/ecgs")
        copy = Path(dataset_folder(f"{bucket}/ecgs"))
        inode = (copy / PACKED_DIR / "00000.npy").stat().st_ino
        bucket_copy._copied.cache_clear()
        assert Path(dataset_folder(f"{bucket}/ecgs/")) == copy
        assert (copy / PACKED_DIR / "00000.npy").stat().st_ino == inode
        bucket_copy._copied.cache_clear()
        changed = cache / CARD_FILE
        changed.write_text((folder / CARD_FILE).read_text().replace('"fingerprint": "', '"fingerprint": "f'))
        object_stores.put(changed.parent, f"{bucket}/ecgs")
        with pytest.raises(DataError, match="holds another data set than"):
            dataset_folder(f"{bucket}/ecgs")


def test_a_copy_that_was_staged_beforehand_with_shuffled_patients_is_taken(shards, cache):
    folder, signals = shards
    with object_stores.store("gs") as bucket:
        object_stores.put(folder, f"{bucket}/ecgs")
        stage_dataset(f"{bucket}/ecgs", below(cache / "data", f"{bucket}/ecgs"), seed=4)
        store = open_store(dataset_folder(f"{bucket}/ecgs"))
    assert not np.array_equal(store.in_stored_order(np.arange(len(signals))), np.arange(len(signals)))
    assert np.array_equal(store.read(np.arange(len(signals))), signals)


def test_a_copy_that_another_process_is_making_is_waited_for(shards, cache, capfd):
    folder, signals = shards
    with object_stores.store("gs") as bucket:
        object_stores.put(folder, f"{bucket}/ecgs")
        place = below(cache / "data", f"{bucket}/ecgs")
        lock = place.with_name(f".{place.name}.lock")
        lock.parent.mkdir(parents=True)
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # Another process is at it.
            with pytest.raises(TimeoutError):
                (waiting := Task(lambda: dataset_folder(f"{bucket}/ecgs"))).result(1.0)
            assert "another process is making this copy; it is waited for" in capfd.readouterr().err
        copy = waiting.result(30.0)
    assert np.array_equal(open_store(copy).read(np.arange(len(signals))), signals)


SCHEMES = pytest.mark.parametrize("scheme", ["s3", "gs"])


@SCHEMES
def test_a_store_that_does_not_answer_is_given_up_in_one_line(scheme):
    object_stores.skip_without(scheme)
    with object_stores.silent() as port, object_stores.environment(**object_stores.at(scheme, port)):
        start = time.monotonic()
        with pytest.raises(DataError, match=r"://ecgs/x: no answer within 0.5 s; .* data_pipelines.stage --dataset="):
            dataset_folder(f"{scheme}://ecgs/x", timeout_s=0.5)
        assert time.monotonic() - start < 10


@SCHEMES
def test_a_store_that_refuses_and_a_bucket_that_is_missing_are_told_without_secrets(scheme):
    object_stores.skip_without(scheme)
    with object_stores.refusing() as port, object_stores.environment(**object_stores.at(scheme, port)):
        with pytest.raises(DataError, match=r"://ecgs/x/.*: cannot be read \(the store refuses access") as caught:
            dataset_folder(f"{scheme}://ecgs/x")
        assert object_stores.SECRET not in str(caught.value)
    with object_stores.store(scheme), pytest.raises(DataError, match="there is no bucket nosuch; make it"):
        dataset_folder(f"{scheme}://nosuch/x")


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert dataset_folder(tmp_path) == str(tmp_path)
