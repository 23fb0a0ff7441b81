"""Shared by all tests: eight CPU devices, strict promotion, and where the real recordings lie."""

import os
from pathlib import Path

# The tests' models are tiny and compile often: without LLVM's optimisation they compile in half the time. Set before
# JAX is imported, and inherited by the processes that tests start.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest

NUM_DEVICES = 8

jax.config.update("jax_num_cpu_devices", NUM_DEVICES)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_sessionstart(session):
    """Fails the whole run, rather than skipping, when the simulated devices are missing."""
    if jax.device_count() != NUM_DEVICES:
        pytest.exit(f"the tests need {NUM_DEVICES} simulated CPU devices, found {jax.device_count()}", returncode=3)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real recordings; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("ECGJAX_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "ptbxl" / "ptbxl_database.csv").exists():
        pytest.skip(f"real recordings not found in {folder} (set ECGJAX_REAL_DATA)")
    return folder
