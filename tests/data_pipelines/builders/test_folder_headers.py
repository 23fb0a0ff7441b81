"""Headers of the CinC challenges in a folder of any origin: names with an extension, and a gain that may be wrong."""

import numpy as np
import pytest

from data_pipelines.builders.folder import FolderSource
from data_pipelines.builders.physionet2021 import Physionet2021Source
from data_pipelines.builders.pieces import PiecedSource
from data_pipelines.signals.recipe import RECIPES
from tests.support.cinc_files import STORED_COLUMNS, ecg_uv, georgia_uv, write_cinc
from tests.support.fixtures import results_of

RECIPE = RECIPES["plain"].changed(sampling_rate_hz=500)


def source(folder):
    return FolderSource(folder, labels=None, patient_field=None, name="mine", recipe=RECIPE)


def notes_on_headers(folder_source):
    return [note for note in folder_source.card.notes if "header" in note]


def test_names_with_an_extension_are_read_without_it_and_counted(tmp_path):
    write_cinc(tmp_path / "x", "E00001", georgia_uv(seed=1), record_name="E00001.mat")
    write_cinc(tmp_path, "b", ecg_uv(seed=2))
    one = source(tmp_path)
    assert notes_on_headers(one) == ["1 header names its record with an extension: read without it"]
    plain, named = results_of(one)
    assert (plain.record_id, named.record_id) == ("b", "x/E00001")
    np.testing.assert_array_equal(named.signal, georgia_uv(seed=1)[:, STORED_COLUMNS])
    write_cinc(tmp_path, "c", ecg_uv(seed=3, seconds=21), record_name="c.hea")
    assert notes_on_headers(source(tmp_path)) == ["2 headers name their record with an extension: read without it"]
    assert [result.record_id for result in results_of(PiecedSource(source(tmp_path), num_workers=1))][1:3] == [
        "c.piece1",
        "c.piece2",
    ]


def test_a_folder_without_faulty_headers_has_no_note_on_them(tmp_path):
    write_cinc(tmp_path, "b", ecg_uv(seed=2))
    assert notes_on_headers(source(tmp_path)) == []


@pytest.mark.parametrize("record_name", ["E00001.mat", "E00001"])
def test_a_gain_that_the_samples_prove_wrong_is_corrected(tmp_path, record_name):
    write_cinc(tmp_path, "E00001", georgia_uv(seed=4), gain="4880/mV", record_name=record_name)
    one = source(tmp_path)
    (result,) = results_of(one)
    np.testing.assert_array_equal(result.signal, georgia_uv(seed=4)[:, STORED_COLUMNS])
    assert notes_on_headers(one)[-1].startswith("1 header states 4880 units/mV: read as 1000 where the samples prove")


def test_a_gain_that_is_not_proven_wrong_is_believed_unless_the_header_is_like_georgias(tmp_path):
    counts = np.rint(ecg_uv(seed=1) * 4.88)
    write_cinc(tmp_path, "a", counts, gain="4880/mV")
    write_cinc(tmp_path, "b", counts, gain="4880/mV", record_name="b.mat")
    both = source(tmp_path)
    believed, refused = results_of(both)
    np.testing.assert_allclose(believed.signal, ecg_uv(seed=1)[:, STORED_COLUMNS], atol=1)
    assert refused.reason == "broken_gain"
    assert "find out the gain and write it into the header" in refused.message
    assert notes_on_headers(both)[-1].startswith("2 headers state 4880 units/mV")


def test_real_records_of_georgia_are_read_as_by_the_builder_of_the_challenge(real_data):
    folder = real_data / "physionet2021"
    challenge = Physionet2021Source(folder, sets=("georgia",), recipe=RECIPE, num_workers=1)
    expected = {result.record_id: result.signal for result in results_of(challenge)}
    assert len(expected) == 11
    mine = source(folder)
    assert "11 headers name their record with an extension: read without it" in mine.card.notes
    items = [item for item in mine.items if item.record_id in expected]
    for result in mine.reader()(items):
        np.testing.assert_array_equal(result.signal, expected[result.record_id])
