"""Shared by all tests: eight CPU devices, strict promotion, where the real recordings lie, a data set in shards."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

from tests.support import compile_options

# Two test processes share two cores: threads of OpenMP and BLAS would spend their time waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The tests' models are tiny and compile often, and with these flags in a quarter of the time. Set before JAX is
# imported, and inherited by the processes that tests start.
os.environ.setdefault("XLA_FLAGS", compile_options.XLA_FLAGS)
# What a reader did not foresee is a fault of ours: here it ends the test, where a build would quarantine the recording.
os.environ.setdefault("ECGJAX_RAISE_READER_FAULTS", "1")

import jax
import numpy as np
import pytest

from data_pipelines.packing.packed_copy import pack
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.shards import plan
from data_pipelines.storage.packed_format import PACKED_DIR
from tests.support.fixtures import RECORDS_A_PACKED_SHARD, make_simulated_dataset, stored_examples

NUM_DEVICES = 8

#: Folders of tests that start processes and take a minute each.
_LONG = ("launch", "one_epoch", "project")

# Many tests compile the same small programs. A folder of this process's own: JAX's cache is not safe to be shared.
_COMPILED = tempfile.TemporaryDirectory(prefix="ecgjax-tests-compiled-")
jax.config.update("jax_compilation_cache_dir", _COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
# Processes that tests start have another, which the next of them finds filled. Each worker of pytest-xdist has its own.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(_COMPILED.name, "of_processes")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

jax.config.update("jax_num_cpu_devices", NUM_DEVICES)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_sessionstart(session):
    """Fails the whole run, rather than skipping, when the simulated devices are missing."""
    if jax.device_count() != NUM_DEVICES:
        pytest.exit(f"the tests need {NUM_DEVICES} simulated CPU devices, found {jax.device_count()}", returncode=3)
    # What the tests import stays to the end: a collection of garbage meanwhile finds nothing, and goes through it all.
    gc.disable()


def pytest_collection_modifyitems(items):
    """Puts long tests first: where a run ends with one, it is waited for by one worker while the other has no work."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0] not in _LONG)


def pytest_collection_finish():
    """Keeps what was imported out of the collections of garbage to come, which would go through it each time."""
    gc.collect()
    gc.freeze()
    # Tracing makes many objects and little garbage; the default is a collection for every 700 of them.
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real recordings; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("ECGJAX_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "ptbxl" / "ptbxl_database.csv").exists():
        pytest.skip(f"real recordings not found in {folder} (set ECGJAX_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def stored_dataset(tmp_path_factory) -> tuple[Dataset, np.ndarray]:
    """A data set in three ArrayRecord shards and a packed copy in four, with the signals as TFDS reads them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "MAX_SHARD_BYTES", 2**19)
        dataset = make_simulated_dataset(tmp_path_factory.mktemp("store"), num_patients=45)
    assert len(dataset.shards) >= 3
    pack(dataset, shard_bytes=RECORDS_A_PACKED_SHARD * 16_000)
    assert len(list((dataset.directory / PACKED_DIR).glob("*.npy"))) == 4
    return dataset, np.stack([stored["signal"] for stored in stored_examples(dataset.directory)])


@pytest.fixture
def stored_copy(stored_dataset, tmp_path) -> Path:
    """A copy of the data set that a test may damage."""
    dataset, _ = stored_dataset
    return Path(shutil.copytree(dataset.directory, tmp_path / "copy"))
