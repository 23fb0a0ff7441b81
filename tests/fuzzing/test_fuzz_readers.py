"""Mutants of every format's file are refused in plain words or read as an independent decoding says.

Few of them in `make test`, more in `make test-slow`. `ECGJAX_FUZZ_MUTANTS=2000` makes the latter thorough; so does
`python -m tests.fuzzing.fuzz_readers`, which counts as well.
"""

import dataclasses
import os
import time

import numpy as np
import pytest

from data_pipelines.errors import RecordError
from tests.fuzzing import fuzz_readers
from tests.fuzzing.fuzz_readers import MEMORY_BYTES, fuzz, mutant, outcome, peak_bytes
from tests.fuzzing.fuzz_specimens import specimens

SEED = 0
FEW, MANY = 25, int(os.environ.get("ECGJAX_FUZZ_MUTANTS", "300"))
SPECIMENS = {specimen.name: specimen for specimen in specimens()}


@pytest.mark.parametrize("name", SPECIMENS)
@pytest.mark.parametrize("mutants", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_mutants(name, mutants):
    before = peak_bytes()
    counts, findings = fuzz(SPECIMENS[name], mutants=mutants, seed=SEED)
    assert not findings, findings[:3]
    assert peak_bytes() - before < MEMORY_BYTES
    refused = sum(count for result, count in counts.items() if result.startswith("refused"))
    # Both happen, or the mutations are too mild or too coarse to tell anything; what NumPy zips can be read rarely.
    assert 0 < refused <= counts.total() == mutants
    assert mutants == FEW or refused < mutants


def test_mutants_depend_on_their_number_alone():
    specimen = SPECIMENS["wfdb"]
    first, again, other = (mutant(specimen, np.random.default_rng([SEED, number])) for number in (5, 5, 6))
    assert first == again != other


@pytest.mark.parametrize("name", [name for name in SPECIMENS if name != "philips"])
def test_the_decoders_are_independent_and_agree_on_whole_files(name, tmp_path):
    specimen = SPECIMENS[name]
    assert outcome(specimen, specimen.files, tmp_path) == "equals the decoding"


# The harness itself finds what it is there to find.


def planted(tmp_path, read):
    specimen = dataclasses.replace(SPECIMENS["npy"], read=read)
    return outcome(specimen, specimen.files, tmp_path)


def test_another_exception_is_found(tmp_path):
    def read(folder):
        raise KeyError("shape")

    assert planted(tmp_path, read) == "WRONG: KeyError: 'shape'"


def test_a_refusal_is_counted(tmp_path):
    def read(folder):
        raise RecordError("a.npy: no", reason="unreadable_header")

    assert planted(tmp_path, read) == "refused (unreadable_header)"


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling_rate_hz": 501.0},
        {"units": ("uV",) * 12},
        {"channels": tuple(reversed(SPECIMENS["npy"].original.channels))},
        {"signal": SPECIMENS["npy"].original.signal + 1e-6},
        {"signal": SPECIMENS["npy"].original.signal[1:]},
    ],
)
def test_a_wrong_reading_is_found(tmp_path, changes):
    recording = dataclasses.replace(SPECIMENS["npy"].original, **changes)
    assert planted(tmp_path, lambda folder: recording).startswith("WRONG")


def test_a_hang_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_readers, "HANG_SECONDS", 1)

    def read(folder):
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    assert planted(tmp_path, read) == "WRONG: takes more than 1 s"
