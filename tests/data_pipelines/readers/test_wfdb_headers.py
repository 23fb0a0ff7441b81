"""WFDB headers as published: names with an extension, lengths left out, dates of any kind, comments that contradict."""

import numpy as np
import pytest

from data_pipelines.errors import RecordError
from data_pipelines.readers.wfdb_files import read_wfdb
from tests.support.fixtures import twelve_lead_mv, write_wfdb

SIGNAL = twelve_lead_mv(seconds=1)


def written(folder, first_line, comments=()):
    record = write_wfdb(folder, "a", SIGNAL, comments=comments)
    header = record.with_suffix(".hea")
    text = header.read_text()
    assert text.startswith("a 12 500 500\n")
    header.write_text(text.replace("a 12 500 500", first_line, 1))
    return record


def refused(record, reason, message):
    with pytest.raises(RecordError, match=message) as caught:
        read_wfdb(record)
    assert caught.value.reason == reason
    assert str(record) in str(caught.value)


@pytest.mark.parametrize(
    "first_line",
    [
        "a 12 500",
        "a 12 500/500(0)",
        "a 12 500 12:30:00 01/02/2003",
        "a 12 500 500 25:61:00",
        "a 12 500 500 12:00:00 31/02/2003",
        "a 12 500 500 0:0:0 00/00/0000",
        "a 12 500 500 28-Mar-2021 12:15:27",
        "a 12 500 500 99-Mar-2021",
        "a 12 500 500 2003-02-01T12:00:00",
        "a 12 500 500 unknown",
        "a 12 500 500 12:00:00.123456789 01/02/2003",
        "a.mat 12 500 500",
        "a.dat 12 500",
        "a.hea 12 500 500 05-May-2020 14:50:55",
        "a.mat 12 500 12:30:00 01/02/2003",
    ],
)
def test_what_no_one_needs_does_not_cost_the_recording(tmp_path, first_line):
    record = written(tmp_path, first_line)
    recording = read_wfdb(record)
    np.testing.assert_allclose(recording.signal, SIGNAL, rtol=0, atol=1e-9)
    assert (recording.sampling_rate_hz, recording.source) == (500.0, str(record))


def test_a_length_that_is_left_out_must_fit_the_file(tmp_path):
    record = written(tmp_path, "a 12 500")
    signal_file = record.with_suffix(".dat")
    signal_file.write_bytes(signal_file.read_bytes()[:-2])
    refused(record, "header_disagrees", r"bytes where a\.hea says 12 signals of 499 samples")
    signal_file.unlink()
    refused(record, "missing_file", r"a\.dat: no such file")
    signal_file.write_bytes(b"")
    refused(record, "unreadable_header", "12 signals of 0 samples")


def test_lengths_of_packed_formats_follow_from_the_file(tmp_path):
    import wfdb

    digital = np.rint(SIGNAL[:, :12] * 200).astype(int)
    wfdb.wrsamp("p", fs=500, units=["mV"] * 12, sig_name=list("abcdefghijkl"), d_signal=digital, fmt=["212"] * 12,
                adc_gain=[200.0] * 12, baseline=[0] * 12, write_dir=str(tmp_path))  # fmt: skip
    header = tmp_path / "p.hea"
    header.write_text(header.read_text().replace("p 12 500 500", "p 12 500", 1))
    np.testing.assert_allclose(read_wfdb(tmp_path / "p").signal, digital / 200, rtol=0, atol=1e-12)


def test_a_rate_that_is_left_out_is_not_guessed(tmp_path):
    refused(written(tmp_path, "a 12"), "missing_metadata", "states no rate; WFDB then takes 250 Hz, which is a guess")


@pytest.mark.parametrize(
    "first_line", ["a 12 500 50x00", "a 12 500 5e2", "a 12 fast 500", "a.txt 12 500 500", "a.mat.dat 12 500"]
)
def test_damaged_record_lines(tmp_path, first_line):
    refused(written(tmp_path, first_line), "unreadable_header", "not a WFDB header .first line")


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("fs: 250", "first line states the rate 500 Hz, but its comment 'fs' 250"),
        ("Sampling rate: 0.25 kHz", "rate 500 Hz, but its comment 'Sampling rate' 0.25 kHz"),
        ("Units: uV", "signals are in mV, but its comment 'Units' says uV"),
    ],
)
def test_comments_that_contradict_the_header(tmp_path, comment, message):
    refused(written(tmp_path, "a 12 500 500", comments=(comment,)), "header_disagrees", message)


def test_comments_about_other_things(tmp_path):
    comments = ("Sampling frequency: 500 Hz", "Rate: 75 bpm", "Original sampling rate: 1000", "Unit: ICU", "QRS: 90 ms")
    recording = read_wfdb(written(tmp_path, "a 12 500 500", comments=comments))
    assert recording.field("Rate") == "75 bpm"
