"""WFDB in, stored signal out; and what a user is told about every kind of bad recording."""

import os
import re

import numpy as np
import pytest
import wfdb

from data_pipelines.errors import RecordError
from data_pipelines.lead_names import lead_columns, standard_lead
from data_pipelines.readers.wfdb_files import read_wfdb
from data_pipelines.recording import Recording
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.signals.conversion import resample, stored_signal
from data_pipelines.signals.quality import clipped_samples
from data_pipelines.signals.recipe import SignalRecipe
from tests.support.fixtures import twelve_lead_mv, write_wfdb

RECIPE = SignalRecipe(name="test", version=1, sampling_rate_hz=500)
STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]


def store(record, **changes):
    return stored_signal(read_wfdb(record), recipe=RECIPE.changed(**changes))


def refused(record, reason, message, **kwargs):
    """Asserts that a record is refused for `reason` with a message that names it and matches `message`."""
    with pytest.raises(RecordError, match=message) as caught:
        store(record, **kwargs)
    assert caught.value.reason == reason
    assert record.name in str(caught.value)


def test_stored_signal_is_the_recording_in_microvolts(tmp_path):
    signal = twelve_lead_mv()
    record = write_wfdb(tmp_path, "a", signal, comments=("Age: 47", "Patient ID: p9", "free text"))
    recording = read_wfdb(record)
    assert recording.sampling_rate_hz == 500
    assert recording.units == ("mV",) * 12
    assert dict(recording.fields) == {"Age": "47", "Patient ID": "p9"}
    assert recording.field("patient id") == "p9"
    assert recording.field("Sex") is None
    stored = store(record)
    np.testing.assert_array_equal(stored.signal, np.rint(signal[:, STORED_COLUMNS] * 1000))
    assert stored.signal.dtype == np.int16
    assert (stored.valid_start, stored.valid_samples) == (0, 5000)


def test_lead_names_in_any_order_and_spelling_give_the_same_signal(tmp_path):
    signal = twelve_lead_mv()
    expected = store(write_wfdb(tmp_path, "plain", signal)).signal
    order = np.random.default_rng(1).permutation(12)
    spellings = ["lead i", "II", "DIII", "AVR", "avl", "MDC_ECG_LEAD_AVF", "v1", "ECG V2", "Lead_V3", "V4", "v5", "V6"]
    shuffled = write_wfdb(tmp_path, "other", signal[:, order], leads=tuple(spellings[i] for i in order))
    np.testing.assert_array_equal(store(shuffled).signal, expected)


@pytest.mark.parametrize("name", ["MLII", "-aVR", "V7", "V10", "IV", "1", "", "II mod", "Resp", "DV1", "IIII"])
def test_names_that_are_no_standard_lead(name):
    assert standard_lead(name) is None


@pytest.mark.parametrize(("unit", "scale"), [("mV", 1), ("mv", 1), ("uV", 1e3), ("µV", 1e3), ("V", 1e-3)])
def test_voltage_units_are_converted(unit, scale):
    signal = twelve_lead_mv()
    recording = Recording(
        source="x", signal=signal * scale, sampling_rate_hz=500.0, channels=STANDARD_LEADS, units=(unit,) * 12
    )
    stored = stored_signal(recording, recipe=RECIPE)
    np.testing.assert_array_equal(stored.signal, np.rint(signal[:, STORED_COLUMNS] * 1000))


def test_other_channels_are_passed_over():
    signal = np.concatenate([np.full((5000, 1), np.nan), twelve_lead_mv()], axis=1)
    recording = Recording(
        source="x",
        signal=signal,
        sampling_rate_hz=500.0,
        channels=("CVP", *STANDARD_LEADS),
        units=("mmHg",) + ("mV",) * 12,
    )
    stored = stored_signal(recording, recipe=RECIPE)
    np.testing.assert_array_equal(stored.signal, np.rint(signal[:, 1:][:, STORED_COLUMNS] * 1000))


def test_missing_lead(tmp_path):
    keep = [i for i, lead in enumerate(STANDARD_LEADS) if lead != "V3"]
    leads = tuple(STANDARD_LEADS[i] for i in keep)
    record = write_wfdb(tmp_path, "eleven", twelve_lead_mv()[:, keep], leads=leads)
    refused(record, "missing_lead", r"lead V3 not found among its channels \(I, II, III, aVR.* needed are I II V1")


def test_modified_lead_is_not_taken_for_the_lead(tmp_path):
    leads = tuple("MLII" if lead == "II" else lead for lead in STANDARD_LEADS)
    record = write_wfdb(tmp_path, "holter", twelve_lead_mv(), leads=leads)
    refused(record, "missing_lead", "lead II not found")


def test_duplicate_lead():
    with pytest.raises(
        RecordError, match=r"lead aVR comes twice, as 'aVR' \(channel 0\) and 'AVR' \(channel 1\)"
    ) as caught:
        lead_columns(["aVR", "AVR", *STANDARD_LEADS], source="x")
    assert caught.value.reason == "duplicate_lead"


def test_chest_leads_have_the_names_of_iec_beside_augmented_leads():
    """aVR ends in a V and a letter, and is no sign that C3 is a position on the skull, as a V3 is."""
    iec = [lead.replace("V", "C") if lead.startswith("V") else lead for lead in STANDARD_LEADS]
    assert lead_columns(iec, source="x") == {lead: column for column, lead in enumerate(STANDARD_LEADS)}
    assert lead_columns([*STANDARD_LEADS, "C3", "C4"], source="x")["V3"] == STANDARD_LEADS.index("V3")


def test_nan(tmp_path):
    signal = twelve_lead_mv()
    signal[100:103, 7] = np.nan
    refused(write_wfdb(tmp_path, "gap", signal), "nan", "lead V2 has 3 of 5000 samples that are NaN or infinite")


def test_flat_lead(tmp_path):
    signal = twelve_lead_mv()
    signal[:, 9] = 0.2
    refused(
        write_wfdb(tmp_path, "off", signal), "flat_lead", r"lead V4 is flat \(moves less than 25 µV\): not connected"
    )


def test_truncated_file(tmp_path):
    record = write_wfdb(tmp_path, "cut", twelve_lead_mv())
    os.truncate(record.with_suffix(".dat"), 100_000)
    refused(
        record,
        "truncated_file",
        "cut.dat: truncated, 100000 bytes where cut.hea says 12 signals of 5000 samples, 120000",
    )


def test_wrong_unit(tmp_path):
    record = write_wfdb(tmp_path, "pressure", twelve_lead_mv(), units="mmHg")
    refused(record, "wrong_unit", "lead I is in 'mmHg', which is no voltage; known units are mV")


def test_millivolts_declared_as_microvolts(tmp_path):
    record = write_wfdb(tmp_path, "small", twelve_lead_mv(), units="uV")
    refused(record, "wrong_unit", "spans .* µV, too little for an ECG; its unit or gain must be wrong")


def test_microvolts_declared_as_millivolts(tmp_path):
    record = write_wfdb(tmp_path, "large", twelve_lead_mv() * 1000, gain=1.0)
    refused(record, "out_of_range", r"\d+.\d% of lead .* lie beyond ±32.767 mV, up to .* mV; a wrong unit or gain")


def test_a_few_samples_beyond_the_limit_are_clipped_and_counted(tmp_path):
    signal = twelve_lead_mv()
    signal[200:210, STANDARD_LEADS.index("V2")] = -40.0
    stored = store(write_wfdb(tmp_path, "artefact", signal, gain=500.0))
    assert clipped_samples(stored.signal) == 10
    assert (stored.signal[200:210, STORED_LEADS.index("V2")] == -32767).all()


def test_header_with_another_number_of_samples(tmp_path):
    record = write_wfdb(tmp_path, "longer", twelve_lead_mv())
    edit_header(record, "12 500 5000", "12 500 4000")
    refused(
        record, "header_disagrees", "longer.dat: 120000 bytes where longer.hea says 12 signals of 4000 samples, 96000"
    )


def test_header_with_another_format(tmp_path):
    record = write_wfdb(tmp_path, "format", twelve_lead_mv())
    edit_header(record, ".dat 16 ", ".dat 212 ")
    refused(record, "header_disagrees", "120000 bytes where format.hea says 12 signals of 5000 samples, 90000 bytes")


def test_header_with_another_checksum(tmp_path):
    record = write_wfdb(tmp_path, "sum", twelve_lead_mv())
    samples = bytearray(record.with_suffix(".dat").read_bytes())
    samples[5000] ^= 1
    record.with_suffix(".dat").write_bytes(samples)
    refused(record, "header_disagrees", r"sum.hea: signal \d+ \(\w+\) has checksum \d+, the header says \d+")


def test_header_that_is_none(tmp_path):
    (tmp_path / "text.hea").write_text("not a header\n")
    refused(tmp_path / "text", "unreadable_header", r"text.hea: not a WFDB header")


def test_header_without_samples(tmp_path):
    (tmp_path / "empty.hea").write_text("empty 0 500 0\n")
    refused(tmp_path / "empty", "unreadable_header", "names 0 signals of .* all three must be above zero")


def test_missing_files(tmp_path):
    refused(tmp_path / "nowhere", "missing_file", "nowhere.hea: no such header")
    record = write_wfdb(tmp_path, "half", twelve_lead_mv())
    record.with_suffix(".dat").unlink()
    refused(record, "missing_file", "half.dat: no such file, but half.hea names it")


def test_swapped_limb_leads(tmp_path):
    leads = list(STANDARD_LEADS)
    leads[0], leads[1] = leads[1], leads[0]
    record = write_wfdb(tmp_path, "swapped", twelve_lead_mv(), leads=tuple(leads))
    refused(record, "einthoven", r"lead III is not II - I: 5 % of samples are off by more than \d+ µV \(25 allowed\)")


@pytest.mark.parametrize("lead", ["II", "III", "aVR", "aVL", "aVF"])
def test_a_broken_gain_is_told_from_swapped_leads(tmp_path, lead):
    signal = twelve_lead_mv()
    signal[:, STANDARD_LEADS.index(lead)] *= 0.4
    record = write_wfdb(tmp_path, "gain", signal)
    factor = "lead II is multiplied by 2.5 and" if lead == "II" else rf"{lead} by 2.5, relative to lead I"
    refused(record, "broken_gain", f"{factor}.*the header's gains are wrong; correct them")


def test_leads_scaled_to_one_millivolt_each_are_found(tmp_path):
    signal = twelve_lead_mv()
    refused(write_wfdb(tmp_path, "scaled", signal / np.ptp(signal, axis=0)), "broken_gain", "gains are wrong")


def test_einthoven_tolerates_coarse_rounding_and_single_glitches(tmp_path):
    signal = np.rint(twelve_lead_mv() / 0.00488) * 0.00488
    signal[1000:1010, 2] += 3.0
    assert store(write_wfdb(tmp_path, "coarse", signal)).valid_samples == 5000


def test_too_short_and_too_slow(tmp_path):
    refused(write_wfdb(tmp_path, "brief", twelve_lead_mv(seconds=4)), "too_short", "4 s long, at least 5 s")
    refused(write_wfdb(tmp_path, "slow", twelve_lead_mv(rate=50), rate=50), "wrong_rate", "sampled at 50 Hz")


def test_short_recordings_are_padded_and_long_ones_cut(tmp_path):
    short, long = twelve_lead_mv(seconds=7), twelve_lead_mv(seconds=12)
    stored = store(write_wfdb(tmp_path, "short", short))
    assert (stored.valid_start, stored.valid_samples) == (0, 3500)
    np.testing.assert_array_equal(stored.signal[:3500], np.rint(short[:, STORED_COLUMNS] * 1000))
    assert not stored.signal[3500:].any()
    stored = store(write_wfdb(tmp_path, "long", long))
    assert stored.valid_samples == 5000
    np.testing.assert_array_equal(stored.signal, np.rint(long[:5000, STORED_COLUMNS] * 1000))


@pytest.mark.parametrize(("source", "target"), [(500, 250), (400, 250), (257, 250), (500, 100), (100, 250)])
def test_resampling_keeps_what_lies_below_the_nyquist_frequency(source, target):
    def wave(rate):
        time = np.arange(round(10 * rate)) / rate
        return (np.sin(2 * np.pi * 7.3 * time + 0.4) + 0.5 * np.cos(2 * np.pi * 21 * time) + 2.0)[:, None]

    out = resample(wave(source), source_rate_hz=source, target_rate_hz=target, source="x")
    expected = wave(target)
    assert out.shape == expected.shape
    inner = slice(target // 2, -target // 2)
    np.testing.assert_allclose(out[inner], expected[inner], atol=0.01)


def test_resampling_does_not_ring_at_the_ends():
    ramp = np.linspace(2.0, 3.0, 4096)[:, None]
    out = resample(ramp, source_rate_hz=400, target_rate_hz=250, source="x")
    np.testing.assert_allclose(out[:, 0], 2.0 + np.arange(2560) * 1.6 / 4095, atol=1e-3)


def test_resampling_removes_what_would_alias():
    time = np.arange(5000) / 500
    out = resample(np.sin(2 * np.pi * 180 * time)[:, None], source_rate_hz=500, target_rate_hz=250, source="x")
    assert np.abs(out[100:-100]).max() < 0.01


def test_rates_that_do_not_fit():
    with pytest.raises(RecordError, match=re.escape("x: 499.98765 Hz does not resample to 250 Hz")) as caught:
        resample(np.zeros((5000, 8)), source_rate_hz=499.98765, target_rate_hz=250, source="x")
    assert caught.value.reason == "wrong_rate"


def test_real_records_equal_wfdb(real_data):
    for number in (1, 162, 500):
        record = real_data / "ptbxl" / "records500" / "00000" / f"{number:05d}_hr"
        expected = wfdb.rdrecord(str(record)).p_signal[:, STORED_COLUMNS]
        np.testing.assert_allclose(store(record).signal / 1000, expected, atol=1e-3, rtol=0)


def edit_header(record, old, new):
    header = record.with_suffix(".hea")
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new))
