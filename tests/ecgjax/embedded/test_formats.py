"""One recording of a patient in five formats, and real recordings as they lie: the same embedding, and none refused."""

import itertools

import h5py
import numpy as np
import pytest

from data_pipelines.readers.formats import find_recording, read_recording
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.statements.declared import Declared
from ecgjax.embedded.inputs import CHUNK, open_input
from ecgjax.embedded.rows import Row
from tests.data_pipelines.readers.vendor_files import write_dicom
from tests.support.fixtures import write_wfdb


@pytest.fixture
def patient(real_data):
    """Samples of a recording of PTB-XL, `f64[5000, 12]` in mV."""
    path = real_data / "ptbxl" / "records500" / "00000" / "00001_hr.hea"
    return np.asarray(read_recording(find_recording(path).recordings[0], Declared()).signal[:5000])


def rows(given, model, **declared):
    source = open_input(str(given), recipe=model.recipe, declared=Declared(**declared))
    return [each for results in source.rows(num_workers=1, measure=False) for each in results]


def test_every_format_has_the_same_samples_and_embedding(model, patient, tmp_path):
    write_wfdb(tmp_path, "wfdb", patient)
    write_dicom(tmp_path / "dicom.dcm", np.rint(patient * 1000).astype(np.int16), sensitivity=1.0)
    np.save(tmp_path / "numpy.npy", patient.astype(np.float32))
    header = ",".join(STANDARD_LEADS)
    np.savetxt(tmp_path / "csv.csv", patient, delimiter=",", header=header, comments="", fmt="%.3f")
    with h5py.File(tmp_path / "hdf5.h5", "w") as file:
        file["ecg"] = patient.T
    found = rows(tmp_path, model, sampling_rate_hz=500, unit="mV", leads=STANDARD_LEADS)
    assert [row.record for row in found] == ["csv", "dicom", "hdf5", "numpy", "wfdb"]
    prepared = model.prepare(patient[None], rate_hz=500, unit="mV", leads=STANDARD_LEADS).signals[0]
    for row in found:
        np.testing.assert_array_equal(row.signal, prepared, err_msg=row.record)
    embedded = model.embed_prepared(np.stack([row.signal for row in found]))
    assert len(np.unique(embedded, axis=0)) == 1


def test_half_the_rate_and_a_short_recording_are_near(model, patient):
    said = {"unit": "mV", "leads": STANDARD_LEADS}
    short = model.embed(patient[None, :4600], rate_hz=500, **said)
    half = model.embed(patient[None, :4600:2], rate_hz=250, **said)
    # What is left is what lies above 125 Hz, which half the rate folds down.
    assert np.abs(half - short).max() < 0.02 * np.abs(short).max()


def test_real_recordings_are_not_refused(model, real_data):
    source = open_input(str(real_data / "ptbxl" / "records100"), recipe=model.recipe)
    found = [each for results in itertools.islice(source.rows(num_workers=1, measure=False), 2) for each in results]
    assert len(found) == 2 * CHUNK
    assert not [row.message for row in found if not isinstance(row, Row)]
