"""Mutants of what files mean are read as they say or refused in words that name the field.

Few of them in `make test`, more in `make test-slow`; `python -m tests.fuzzing.fuzz_meanings` counts thousands.
"""

import dataclasses
import re

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.files.samples import converted
from data_pipelines.lead_names import standard_lead
from data_pipelines.readers import formats
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import Kind, stated_name
from data_pipelines.statements.time_axis import even_times
from tests.fuzzing.fuzz_meanings import FORMATS, fuzz, outcome
from tests.fuzzing.meaning_arrays import SIGNAL_MV

SEED = 0
FEW, MANY = 12, 250


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mutants", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_mutants_of_meanings(name, mutants):
    counts, findings = fuzz(name, mutants=mutants, seed=SEED)
    assert not findings, findings[:3]
    assert counts["read"] > 0
    assert counts.total() == mutants
    # Both happen, or the mutations are too mild or too coarse to tell anything.
    assert mutants == FEW or counts["read"] < mutants


def test_a_mutant_depends_on_its_number_alone(tmp_path):
    first, again, other = (outcome("npz", number, seed=SEED, folder=tmp_path / "a") for number in (5, 5, 6))
    assert first == again != other


# The harness itself finds what it is there to find: readers that hold on to what they think instead of what is said.


def _findings(monkeypatch, change, *, name="npz", mutants=40):
    original = formats.read_recording

    def changed(found, declared):
        return change(original, found, declared)

    monkeypatch.setattr("data_pipelines.readers.formats.read_recording", changed)
    return " ".join(finding.what for finding in fuzz(name, mutants=mutants, seed=SEED)[1])


def test_a_declaration_that_is_ignored_is_found(monkeypatch):
    def change(original, found, declared):
        return original(found, dataclasses.replace(declared, sampling_rate_hz=None))

    assert re.search("silent acceptance of several meanings of rate", _findings(monkeypatch, change))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda recording: dataclasses.replace(recording, sampling_rate_hz=400.0), "read at 400 Hz"),
        (
            lambda recording: dataclasses.replace(
                recording,
                signal=converted(recording.signal.shape, lambda start, stop: recording.signal[start:stop] * 1.01),
            ),
            "µV from what is said",
        ),
        (
            # Chest leads, of which no identity of Einthoven tells.
            lambda recording: dataclasses.replace(
                recording,
                channels=tuple({"V5": "V6", "V6": "V5"}.get(standard_lead(name), name) for name in recording.channels),
            ),
            "µV from what is said",
        ),
    ],
)
def test_a_reader_that_misreads_is_found(monkeypatch, change, found):
    assert found in _findings(monkeypatch, lambda original, *arguments: change(original(*arguments)))


def test_a_patient_of_another_name_is_found(monkeypatch):
    def change(original, found, declared):
        recording = original(found, declared)
        return dataclasses.replace(recording, fields={**recording.fields, "Patient ID": "Q"})

    assert "patient 'Q'" in _findings(monkeypatch, change, name="wfdb", mutants=8)


def test_an_error_that_no_reader_foresaw_is_found(monkeypatch):
    def change(original, found, declared):
        raise KeyError("shape")

    assert "KeyError: 'shape'" in _findings(monkeypatch, change, mutants=8)


# What the fuzz found in the readers.


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tickrate", Kind.RATE),  # LabChart
        ("nominal_srate", Kind.RATE),  # Lab streaming layer
        ("adc_rate", Kind.RATE),
        ("AcqFreq", Kind.RATE),
        ("num_samples_per_second", Kind.RATE),
        ("isi", Kind.INTERVAL),  # AcqKnowledge
        ("wf_increment", Kind.INTERVAL),  # LabVIEW
        ("XIncrement", Kind.INTERVAL),
        ("temps", Kind.TIMES),
        ("unittext", Kind.UNIT),  # LabChart
        ("unit_string", Kind.UNIT),  # LabVIEW
        ("chanunits", Kind.UNIT),
        ("adc_per_mV", Kind.GAIN),
        ("counts/mV", Kind.GAIN),
        ("uV/LSB", Kind.STEP),
        ("step_uV", Kind.STEP),
        ("adu_to_mV", Kind.STEP),
        ("titles", Kind.LEADS),  # LabChart
    ],
)
def test_names_of_programs_exports(name, kind):
    assert stated_name(name).kinds == (kind,)


def test_a_scale_factor_called_sf_is_no_rate(tmp_path):
    np.savez(tmp_path / "a.npz", signal=SIGNAL_MV, sf=0.00488)
    declared = Declared(
        sampling_rate_hz=500.0,
        unit="mV",
        leads=tuple(["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]),
    )
    found = formats.FoundRecording(record_id="a", path=tmp_path / "a.npz", format="numpy")
    assert formats.read_recording(found, declared).sampling_rate_hz == 500.0
    np.savez(tmp_path / "a.npz", signal=SIGNAL_MV, sf=250)
    with pytest.raises(DataError, match=r"'sf' states the rate 250.0, but --declared_rate_hz says 500"):
        formats.read_recording(found, declared)


@pytest.mark.parametrize("rate", [128, 240, 256, 360, 480, 500])
@pytest.mark.parametrize("digits", [6, 7, 9])
def test_times_of_so_many_digits_state_the_whole_rate(rate, digits):
    times = np.array([float(f"{sample / rate:.{digits}g}") for sample in range(3 * rate)])
    assert even_times(times, name="t", source="a.csv").rates_hz(1.0) == (float(rate),)
